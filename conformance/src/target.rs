//! The server under judgement and the calls that checks make of it.

use bytes::Bytes;
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest};
use proto::reapi;
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::wire::action_cache_client::ActionCacheClient;
use proto::wire::content_addressable_storage_client::ContentAddressableStorageClient;
use rand::RngCore as _;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::check::{Finding, Stop};
use crate::connect::{self, Dial, Options, Stream};
use crate::function::Function;
use crate::trace::{self, Trace};

/// Bytes of a message that this client accepts: what gRPC clients accept by default, so that a larger one is noticed.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A server at an address, as one check sees it.
#[derive(Clone, Debug)]
pub struct Target {
    channel: Channel,
    instance: String,
    /// Of the digests in requests and names.
    function: Function,
    /// Sent with every call.
    headers: MetadataMap,
    /// For a channel of its own; without them this one has to do.
    options: Option<Options>,
    /// For a connection without a channel.
    dial: Option<Dial>,
    trace: Trace,
}

/// Content that no other run has, with its digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// Their hash, SHA-256 where nothing else was asked for, and length.
    pub digest: reapi::Digest,
}

impl Blob {
    /// `len` random bytes, with their SHA-256.
    pub fn random(len: usize) -> Blob {
        Blob::random_under(Function::Sha256, len)
    }

    /// Given bytes, with their SHA-256.
    pub fn of(bytes: impl Into<Bytes>) -> Blob {
        Blob::under(Function::Sha256, bytes)
    }

    /// `len` random bytes, with their hash by this function.
    pub fn random_under(function: Function, len: usize) -> Blob {
        let mut bytes = vec![0; len];
        rand::rng().fill_bytes(&mut bytes);
        Blob::under(function, bytes)
    }

    /// Given bytes, with their hash by this function.
    pub fn under(function: Function, bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        let size_bytes = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        Blob {
            digest: reapi::Digest {
                hash: function.hash(&bytes),
                size_bytes,
            },
            bytes,
        }
    }
}

impl Target {
    /// Connects to `grpc://host:port` or `http://host:port`; `grpcs://` and `https://` with TLS.
    ///
    /// # Errors
    /// If the address is none, or nobody answers there.
    pub async fn connect(endpoint: &str, instance: &str) -> anyhow::Result<Target> {
        Target::connect_with(Options::new(endpoint), instance).await
    }

    /// Likewise, with all there is to say about the connection.
    ///
    /// # Errors
    /// As [`Target::connect`]; also if a certificate cannot be used.
    pub async fn connect_with(options: Options, instance: &str) -> anyhow::Result<Target> {
        let dial = Dial::to(&options)?;
        let channel = connect::channel(&options, &dial).await?;
        let mut target = Target::over(channel, instance);
        target.dial = Some(dial);
        target.headers = options.headers.clone();
        target.options = Some(options);
        Ok(target)
    }

    /// A server behind a channel that stands.
    pub fn over(channel: Channel, instance: &str) -> Target {
        Target {
            channel,
            instance: instance.to_owned(),
            function: Function::default(),
            headers: MetadataMap::new(),
            options: None,
            dial: None,
            trace: Trace::default(),
        }
    }

    /// The same server, which is also reached by connections that `open` makes.
    #[must_use]
    pub fn dialled_by<F, S>(self, open: impl Fn() -> F + Send + Sync + 'static) -> Target
    where
        F: Future<Output = std::io::Result<S>> + Send + 'static,
        S: Stream + 'static,
    {
        Target {
            dial: Some(Dial::by(open)),
            ..self
        }
    }

    /// The same server with a record of calls of its own.
    #[must_use]
    pub fn fresh(&self) -> Target {
        Target {
            trace: Trace::default(),
            ..self.clone()
        }
    }

    /// The same server under another instance name.
    #[must_use]
    pub fn at(&self, instance: &str) -> Target {
        Target {
            instance: instance.to_owned(),
            ..self.clone()
        }
    }

    /// The same server, asked by digests of another function.
    #[must_use]
    pub fn under(&self, function: Function) -> Target {
        Target {
            function,
            ..self.clone()
        }
    }

    /// The function of the digests in requests and names.
    pub fn function(&self) -> Function {
        self.function
    }

    /// `len` random bytes, with a digest of the function in use.
    pub fn random(&self, len: usize) -> Blob {
        Blob::random_under(self.function, len)
    }

    /// Given bytes, with a digest of the function in use.
    pub fn blob(&self, bytes: impl Into<Bytes>) -> Blob {
        Blob::under(self.function, bytes)
    }

    /// The same server, with more headers in every call.
    #[must_use]
    pub fn with_headers(&self, change: impl FnOnce(&mut MetadataMap)) -> Target {
        let mut target = self.clone();
        change(&mut target.headers);
        target
    }

    /// The same server through another connection, where it is known how to make one.
    ///
    /// # Errors
    /// [`Stop::Broken`] if nobody answers.
    pub async fn elsewhere(&self) -> Result<Target, Stop> {
        let mut target = self.clone();
        if let (Some(options), Some(dial)) = (&self.options, &self.dial) {
            let channel = connect::channel(options, dial).await;
            target.channel =
                channel.map_err(|error| Stop::Broken(format!("a second connection: {error:#}")))?;
        }
        Ok(target)
    }

    /// A connection without a channel, where it is known how to make one.
    pub(crate) fn dial(&self) -> Option<&Dial> {
        self.dial.as_ref()
    }

    /// The connection.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The calls that were made so far.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// A message with the headers that go with every call.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        *request.metadata_mut() = self.headers.clone();
        request
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
        let answer = self.capabilities().get_capabilities(self.request(request)).await;
        let answer = answer.map(tonic::Response::into_inner);
        self.trace
            .note(format!("GetCapabilities of {:?}", self.instance), &answer, |_| {
                String::new()
            });
        answer
    }

    /// The name under which `digest` is read.
    pub fn read_name(&self, digest: &reapi::Digest) -> String {
        self.named(&format!("blobs/{}", self.tail(digest)))
    }

    /// A fresh name under which `digest` can be written.
    pub fn write_name(&self, digest: &reapi::Digest) -> String {
        let uuid = uuid::Uuid::new_v4();
        self.named(&format!("uploads/{uuid}/blobs/{}", self.tail(digest)))
    }

    /// What names a digest in a resource name: the function, where it has to be said, hash and size.
    pub fn tail(&self, digest: &reapi::Digest) -> String {
        format!("{}{}/{}", self.function.segment(), digest.hash, digest.size_bytes)
    }

    /// A resource name of this instance.
    pub fn named(&self, tail: &str) -> String {
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
        let what = format!("Read {} from {offset} limit {limit}", trace::short(name));
        let answer = self.read_request(request).await;
        self.trace.note(what, &answer, |messages| {
            let bytes: usize = messages.iter().map(Bytes::len).sum();
            format!("{bytes} bytes in {} messages", messages.len())
        });
        answer
    }

    async fn read_request(&self, request: ReadRequest) -> Result<Vec<Bytes>, Status> {
        let mut stream = self.byte_stream().read(self.request(request)).await?.into_inner();
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
        let bytes: usize = requests.iter().map(|request| request.data.len()).sum();
        let name = requests.first().map_or("", |first| first.resource_name.as_str());
        let what = format!(
            "Write {} of {bytes} bytes in {} messages",
            trace::short(name),
            requests.len()
        );
        let requests = self.request(futures::stream::iter(requests));
        let answer = self.byte_stream().write(requests).await;
        let answer = answer.map(|answer| answer.into_inner().committed_size);
        self.trace
            .note(what, &answer, |size| format!("committed_size {size}"));
        answer
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
            digest_function: self.function.said(),
        };
        self.find_missing(request).await
    }

    /// The status of an upload.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn query(&self, name: &str) -> Result<QueryWriteStatusResponse, Status> {
        let request = QueryWriteStatusRequest {
            resource_name: name.into(),
        };
        let answer = self.byte_stream().query_write_status(self.request(request)).await;
        let answer = answer.map(tonic::Response::into_inner);
        self.trace.note(
            format!("QueryWriteStatus {}", trace::short(name)),
            &answer,
            |status| {
                format!(
                    "committed_size {}, complete {}",
                    status.committed_size, status.complete
                )
            },
        );
        answer
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
    move |status| refusal(step, "OK", &status)
}

fn refusal(sent: &str, expected: &str, status: &Status) -> Stop {
    Stop::Failed(Finding {
        sent: sent.to_owned(),
        expected: expected.to_owned(),
        came: trace::status(status),
        calls: Vec::new(),
    })
}

/// Demands that a call was refused with one of `codes`.
///
/// # Errors
/// [`Stop::Failed`] if it passed, or was refused otherwise.
pub fn refused_with<T>(step: &str, answer: Result<T, Status>, codes: &[Code]) -> Result<(), Stop> {
    let expected = match codes {
        [code] => trace::code(*code).to_owned(),
        [..] => {
            let codes: Vec<_> = codes.iter().map(|code| trace::code(*code)).collect();
            format!("one of {}", codes.join(", "))
        }
    };
    match answer {
        Err(status) if codes.contains(&status.code()) => Ok(()),
        Err(status) => Err(refusal(step, &expected, &status)),
        Ok(_) => Err(Stop::Failed(Finding {
            sent: step.to_owned(),
            expected,
            came: "OK".to_owned(),
            calls: Vec::new(),
        })),
    }
}

/// What a check demands of an answer, in a word.
pub trait Due<T> {
    /// It has to be OK.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it is not.
    fn due(self, step: &'static str) -> Result<T, Stop>;

    /// It has to be refused with one of these codes.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it is OK, or was refused otherwise.
    fn denied(self, step: &str, codes: &[Code]) -> Result<(), Stop>;
}

impl<T> Due<T> for Result<T, Status> {
    fn due(self, step: &'static str) -> Result<T, Stop> {
        self.map_err(refused(step))
    }

    fn denied(self, step: &str, codes: &[Code]) -> Result<(), Stop> {
        refused_with(step, self, codes)
    }
}
