//! The server under judgement and the calls that checks make of it.

use bytes::Bytes;
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest};
use proto::reapi;
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::wire::action_cache_client::ActionCacheClient;
use proto::wire::content_addressable_storage_client::ContentAddressableStorageClient;
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::check::Stop;

/// Bytes of a message that this client accepts: what gRPC clients accept by default, so that a larger one is noticed.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A server at an address.
#[derive(Clone, Debug)]
pub struct Target {
    channel: Channel,
    instance: String,
}

/// Content that no other run has, with its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// Their SHA-256 and length.
    pub digest: reapi::Digest,
}

impl Blob {
    /// `len` random bytes.
    pub fn random(len: usize) -> Blob {
        let mut bytes = vec![0; len];
        rand::rng().fill_bytes(&mut bytes);
        Blob::of(bytes)
    }

    /// Given bytes.
    pub fn of(bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        let hash = hex::encode(Sha256::digest(&bytes));
        let size_bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Blob {
            digest: reapi::Digest { hash, size_bytes },
            bytes,
        }
    }
}

impl Target {
    /// Connects to `grpc://host:port` or `http://host:port`.
    ///
    /// # Errors
    /// If the address is none, or nobody answers there.
    pub async fn connect(endpoint: &str, instance: &str) -> anyhow::Result<Target> {
        let url = endpoint.replacen("grpc://", "http://", 1);
        let channel = Endpoint::from_shared(url)?.connect().await?;
        Ok(Target::over(channel, instance))
    }

    /// A server behind a channel that stands.
    pub fn over(channel: Channel, instance: &str) -> Target {
        Target {
            channel,
            instance: instance.to_owned(),
        }
    }

    /// The instance name that checks use.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The Capabilities service.
    pub fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    /// The CAS service.
    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The ActionCache service.
    pub fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The ByteStream service.
    pub fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What the server says it can do.
    ///
    /// # Errors
    /// If it does not say.
    pub async fn server_capabilities(&self) -> Result<reapi::ServerCapabilities, Status> {
        let request = reapi::GetCapabilitiesRequest {
            instance_name: self.instance.clone(),
        };
        Ok(self.capabilities().get_capabilities(request).await?.into_inner())
    }

    /// The name under which `digest` is read.
    pub fn read_name(&self, digest: &reapi::Digest) -> String {
        self.named(&format!("blobs/{}/{}", digest.hash, digest.size_bytes))
    }

    /// A fresh name under which `digest` can be written.
    pub fn write_name(&self, digest: &reapi::Digest) -> String {
        let uuid = uuid::Uuid::new_v4();
        self.named(&format!(
            "uploads/{uuid}/blobs/{}/{}",
            digest.hash, digest.size_bytes
        ))
    }

    fn named(&self, tail: &str) -> String {
        if self.instance.is_empty() {
            tail.to_owned()
        } else {
            format!("{}/{tail}", self.instance)
        }
    }

    /// Reads to the end of the stream, in the sizes in which messages came.
    ///
    /// # Errors
    /// The status with which the stream ended.
    pub async fn read_messages(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<Bytes>, Status> {
        let request = ReadRequest {
            resource_name: name.into(),
            read_offset: offset,
            read_limit: limit,
        };
        let mut stream = self.byte_stream().read(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message.data);
        }
        Ok(messages)
    }

    /// Reads to the end of the stream.
    ///
    /// # Errors
    /// The status with which the stream ended.
    pub async fn read(&self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        Ok(self.read_messages(name, offset, limit).await?.concat())
    }

    /// Sends these requests, half-closes, and returns `committed_size`.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn write_requests(&self, requests: Vec<WriteRequest>) -> Result<i64, Status> {
        let answer = self.byte_stream().write(futures::stream::iter(requests)).await?;
        Ok(answer.into_inner().committed_size)
    }

    /// Uploads a blob in messages of `message_bytes`, the name in the first only.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn write(&self, name: &str, bytes: &Bytes, message_bytes: usize) -> Result<i64, Status> {
        self.write_requests(write_requests(name, bytes, message_bytes))
            .await
    }

    /// Uploads a blob that a check needs.
    ///
    /// # Errors
    /// [`Stop::Broken`] if the server does not take it.
    pub async fn put(&self, blob: &Blob) -> Result<(), Stop> {
        let name = self.write_name(&blob.digest);
        self.write(&name, &blob.bytes, 1024 * 1024)
            .await
            .map(|_| ())
            .map_err(broken("upload"))
    }

    /// Those of `digests` that the server calls missing.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn missing(&self, digests: Vec<reapi::Digest>) -> Result<Vec<reapi::Digest>, Status> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests,
            ..Default::default()
        };
        Ok(self
            .cas()
            .find_missing_blobs(request)
            .await?
            .into_inner()
            .missing_blob_digests)
    }

    /// The status of an upload.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn query(&self, name: &str) -> Result<QueryWriteStatusResponse, Status> {
        let request = QueryWriteStatusRequest {
            resource_name: name.into(),
        };
        Ok(self.byte_stream().query_write_status(request).await?.into_inner())
    }
}

/// The messages of an upload: name in the first, offsets counted on, `finish_write` with the last data.
pub fn write_requests(name: &str, bytes: &Bytes, message_bytes: usize) -> Vec<WriteRequest> {
    let mut requests = Vec::new();
    let mut from = 0;
    loop {
        let to = (from + message_bytes).min(bytes.len());
        requests.push(WriteRequest {
            resource_name: if from == 0 { name.to_owned() } else { String::new() },
            write_offset: i64::try_from(from).unwrap_or(i64::MAX),
            finish_write: to == bytes.len(),
            data: bytes.slice(from..to),
        });
        if to == bytes.len() {
            return requests;
        }
        from = to;
    }
}

/// Turns an unexpected refusal into [`Stop::Broken`].
pub fn broken(step: &'static str) -> impl Fn(Status) -> Stop {
    move |status| Stop::Broken(format!("{step}: {:?}: {}", status.code(), status.message()))
}

/// Turns a refusal that the requirement forbids into [`Stop::Failed`].
pub fn refused(step: &'static str) -> impl Fn(Status) -> Stop {
    move |status| {
        Stop::Failed(format!(
            "{step}: expected OK, came {:?}: {}",
            status.code(),
            status.message()
        ))
    }
}

/// Demands that a call was refused with one of `codes`.
///
/// # Errors
/// [`Stop::Failed`] if it passed, or was refused otherwise.
pub fn refused_with<T>(step: &str, answer: Result<T, Status>, codes: &[Code]) -> Result<(), Stop> {
    match answer {
        Err(status) if codes.contains(&status.code()) => Ok(()),
        Err(status) => Err(Stop::Failed(format!(
            "{step}: expected one of {codes:?}, came {:?}: {}",
            status.code(),
            status.message()
        ))),
        Ok(_) => Err(Stop::Failed(format!(
            "{step}: expected one of {codes:?}, came OK"
        ))),
    }
}
