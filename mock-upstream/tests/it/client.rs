//! A client with no opinion of its own.

use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest, WriteResponse,
};
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::wire::action_cache_client::ActionCacheClient;
use proto::wire::content_addressable_storage_client::ContentAddressableStorageClient;
use tonic::transport::Channel;
use tonic::{Code, Status};

#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) bytestream: ByteStreamClient<Channel>,
    pub(crate) cas: ContentAddressableStorageClient<Channel>,
    pub(crate) actions: ActionCacheClient<Channel>,
    pub(crate) capabilities: CapabilitiesClient<Channel>,
}

impl Client {
    pub(crate) fn new(channel: Channel) -> Client {
        Client {
            bytestream: ByteStreamClient::new(channel.clone()),
            cas: ContentAddressableStorageClient::new(channel.clone()),
            actions: ActionCacheClient::new(channel.clone()),
            capabilities: CapabilitiesClient::new(channel),
        }
    }

    pub(crate) fn of(mock: &Mock) -> Client {
        Client::new(mock.channel())
    }

    pub(crate) async fn read(&mut self, name: &str, offset: i64, limit: i64) -> Result<Vec<u8>, Status> {
        let request = ReadRequest {
            resource_name: name.into(),
            read_offset: offset,
            read_limit: limit,
        };
        let mut messages = self.bytestream.read(request).await?.into_inner();
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            bytes.extend_from_slice(&message.data);
        }
        Ok(bytes)
    }

    pub(crate) async fn read_blob(&mut self, digest: &Digest) -> Result<Vec<u8>, Status> {
        self.read(&digest.read_name(""), 0, 0).await
    }

    pub(crate) async fn write(&mut self, messages: Vec<WriteRequest>) -> Result<i64, Status> {
        let answer = self.bytestream.write(futures::stream::iter(messages)).await?;
        let WriteResponse { committed_size } = answer.into_inner();
        Ok(committed_size)
    }

    pub(crate) async fn write_status(&mut self, name: &str) -> Result<(i64, bool), Status> {
        let request = QueryWriteStatusRequest {
            resource_name: name.into(),
        };
        let answer = self.bytestream.query_write_status(request).await?.into_inner();
        let QueryWriteStatusResponse {
            committed_size,
            complete,
        } = answer;
        Ok((committed_size, complete))
    }
}

/// One message of a Write.
pub(crate) fn part(name: &str, offset: i64, data: &'static [u8], finish: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.into(),
        write_offset: offset,
        finish_write: finish,
        data: Bytes::from_static(data),
    }
}

pub(crate) fn code<T: std::fmt::Debug>(answer: Result<T, Status>) -> Code {
    match answer {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}
