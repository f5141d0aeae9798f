//! A client with no opinion of its own.

use bytes::Bytes;
use futures::SinkExt as _;
use futures::channel::mpsc;
use mock_upstream::Digest;
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{QueryWriteStatusRequest, ReadRequest, ReadResponse, WriteRequest};
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_request};
use proto::wire;
use proto::wire::action_cache_client::ActionCacheClient;
use proto::wire::content_addressable_storage_client::ContentAddressableStorageClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

/// Bytes per message of an upload.
pub(crate) const PART_BYTES: usize = 128 * 1024;

#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    instance: String,
}

impl Client {
    pub(crate) fn new(channel: Channel, instance: &str) -> Client {
        Client {
            channel,
            instance: instance.to_owned(),
        }
    }

    fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel.clone())
    }

    fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
    }

    fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel.clone())
    }

    pub(crate) async fn capabilities(&self) -> Result<reapi::CacheCapabilities, Status> {
        let request = reapi::GetCapabilitiesRequest {
            instance_name: self.instance.clone(),
        };
        let answer = CapabilitiesClient::new(self.channel.clone())
            .get_capabilities(request)
            .await?;
        Ok(answer.into_inner().cache_capabilities.unwrap())
    }

    // Reads.

    /// Begins a read.
    pub(crate) async fn open(&self, digest: &Digest) -> Result<Streaming<ReadResponse>, Status> {
        self.open_range(digest, 0, 0).await
    }

    async fn open_range(
        &self,
        digest: &Digest,
        offset: i64,
        limit: i64,
    ) -> Result<Streaming<ReadResponse>, Status> {
        let request = ReadRequest {
            resource_name: digest.read_name(&self.instance),
            read_offset: offset,
            read_limit: limit,
        };
        Ok(self.byte_stream().read(request).await?.into_inner())
    }

    pub(crate) async fn read(&self, digest: &Digest) -> Result<Bytes, Status> {
        self.read_range(digest, 0, 0).await
    }

    pub(crate) async fn read_range(&self, digest: &Digest, offset: i64, limit: i64) -> Result<Bytes, Status> {
        let mut stream = self.open_range(digest, offset, limit).await?;
        let mut bytes = Vec::new();
        rest(&mut stream, &mut bytes).await?;
        Ok(bytes.into())
    }

    pub(crate) async fn batch_read(
        &self,
        digests: &[Digest],
    ) -> Result<Vec<batch_read_blobs_response::Response>, Status> {
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.instance.clone(),
            digests: digests.iter().map(Digest::to_wire).collect(),
            ..Default::default()
        };
        Ok(self.cas().batch_read_blobs(request).await?.into_inner().responses)
    }

    /// The directories of a tree, in the order in which they came.
    pub(crate) async fn tree(&self, root: &Digest) -> Result<Vec<Bytes>, Status> {
        let request = reapi::GetTreeRequest {
            instance_name: self.instance.clone(),
            root_digest: Some(root.to_wire()),
            ..Default::default()
        };
        let mut stream = self.cas().get_tree(request).await?.into_inner();
        let mut directories = Vec::new();
        while let Some(page) = stream.message().await? {
            directories.extend(page.directories);
        }
        Ok(directories)
    }

    // Writes.

    /// Uploads a blob under a fresh name; what comes back is `committed_size`.
    pub(crate) async fn write(&self, blob: &Bytes) -> Result<u64, Status> {
        self.write_as(&Digest::of(blob), blob).await
    }

    /// The same with a digest that need not fit.
    pub(crate) async fn write_as(&self, digest: &Digest, blob: &Bytes) -> Result<u64, Status> {
        let name = self.upload_name(digest);
        self.write_parts(parts(&name, 0, blob)).await
    }

    pub(crate) async fn write_parts(&self, parts: Vec<WriteRequest>) -> Result<u64, Status> {
        let answer = self.byte_stream().write(futures::stream::iter(parts)).await?;
        Ok(u64::try_from(answer.into_inner().committed_size).unwrap())
    }

    /// A fresh name to write to.
    pub(crate) fn upload_name(&self, digest: &Digest) -> String {
        digest.write_name(&self.instance, &uuid::Uuid::new_v4().to_string())
    }

    /// Begins an upload whose parts are sent one by one.
    pub(crate) fn upload(&self, name: &str) -> Uploading {
        // Each part is taken before the next is made.
        let (sender, parts) = mpsc::channel(0);
        let mut client = self.byte_stream();
        let mut call = JoinSet::new();
        call.spawn(async move {
            let answer = client.write(parts).await?;
            Ok(u64::try_from(answer.into_inner().committed_size).unwrap())
        });
        Uploading {
            name: name.to_owned(),
            sender,
            call,
        }
    }

    /// `committed_size` and `complete`.
    pub(crate) async fn write_status(&self, name: &str) -> Result<(u64, bool), Status> {
        let request = QueryWriteStatusRequest {
            resource_name: name.to_owned(),
        };
        let answer = self.byte_stream().query_write_status(request).await?.into_inner();
        Ok((u64::try_from(answer.committed_size).unwrap(), answer.complete))
    }

    /// The code for each blob, in order.
    pub(crate) async fn batch_write(&self, blobs: &[Bytes]) -> Result<Vec<Code>, Status> {
        let entry = |blob: &Bytes| batch_update_blobs_request::Request {
            digest: Some(Digest::of(blob).to_wire()),
            data: blob.clone(),
            ..Default::default()
        };
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.instance.clone(),
            requests: blobs.iter().map(entry).collect(),
            ..Default::default()
        };
        let answer = self.cas().batch_update_blobs(request).await?.into_inner();
        let code = |status: Option<proto::rpc::Status>| Code::from(status.unwrap_or_default().code);
        Ok(answer
            .responses
            .into_iter()
            .map(|entry| code(entry.status))
            .collect())
    }

    /// The digests that are missing, in the order of the answer.
    pub(crate) async fn missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Status> {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.instance.clone(),
            blob_digests: digests.iter().map(Digest::to_wire).collect(),
            ..Default::default()
        };
        let answer = self.cas().find_missing_blobs(request).await?.into_inner();
        let missing = answer.missing_blob_digests.iter();
        Ok(missing
            .map(|digest| Digest::from_wire(Some(digest)).unwrap())
            .collect())
    }

    // Action results, as encoded.

    pub(crate) async fn action(&self, action: &Digest) -> Result<Bytes, Status> {
        self.action_inlined(action, false).await
    }

    pub(crate) async fn action_inlined(&self, action: &Digest, inline_stdout: bool) -> Result<Bytes, Status> {
        let request = reapi::GetActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.to_wire()),
            inline_stdout,
            ..Default::default()
        };
        Ok(self
            .action_cache()
            .get_action_result(request)
            .await?
            .into_inner()
            .0)
    }

    pub(crate) async fn put_action(&self, action: &Digest, result: &Bytes) -> Result<Bytes, Status> {
        let request = wire::UpdateActionResultRequest {
            instance_name: self.instance.clone(),
            action_digest: Some(action.to_wire()),
            action_result: Some(result.clone()),
            ..Default::default()
        };
        let answer = self.action_cache().update_action_result(request).await?;
        Ok(answer.into_inner().0)
    }
}

/// An upload whose parts are sent one by one. Dropped, the call is cancelled.
pub(crate) struct Uploading {
    name: String,
    sender: mpsc::Sender<WriteRequest>,
    call: JoinSet<Result<u64, Status>>,
}

impl Uploading {
    /// Sends the blob's bytes from `from` to `to`, with `finish_write` if that is all.
    pub(crate) async fn send(&mut self, blob: &Bytes, from: usize, to: usize) {
        let part = WriteRequest {
            resource_name: self.name.clone(),
            write_offset: i64::try_from(from).unwrap(),
            finish_write: to == blob.len(),
            data: blob.slice(from..to),
        };
        self.sender.send(part).await.unwrap();
    }

    /// Half-closes and waits for the answer.
    pub(crate) async fn answer(mut self) -> Result<u64, Status> {
        drop(self.sender);
        self.call.join_next().await.unwrap().unwrap()
    }

    /// Resets the stream.
    pub(crate) async fn hang_up(mut self) {
        self.call.shutdown().await;
    }
}

/// The messages of an upload of `blob` from `offset` on.
pub(crate) fn parts(name: &str, offset: usize, blob: &Bytes) -> Vec<WriteRequest> {
    let part = |from: usize| {
        let to = (from + PART_BYTES).min(blob.len());
        WriteRequest {
            resource_name: name.to_owned(),
            write_offset: i64::try_from(from).unwrap(),
            finish_write: to == blob.len(),
            data: blob.slice(from..to),
        }
    };
    (offset..blob.len().max(offset + 1))
        .step_by(PART_BYTES)
        .map(part)
        .collect()
}

/// Reads a stream to its end.
pub(crate) async fn rest(stream: &mut Streaming<ReadResponse>, bytes: &mut Vec<u8>) -> Result<(), Status> {
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(())
}

/// The code with which a call ended.
pub(crate) fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}
