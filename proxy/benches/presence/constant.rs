//! A server that does as little as the protocol allows: it decodes each question and gives the same answer to all. Beside a
//! node it is the ceiling of what can be measured here, and behind one the quickest Tier 2 there is.

use std::net::SocketAddr;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use proto::reapi::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use proto::reapi::{
    self, BatchReadBlobsRequest, BatchReadBlobsResponse, BatchUpdateBlobsRequest, BatchUpdateBlobsResponse,
    FindMissingBlobsRequest, FindMissingBlobsResponse, GetActionResultRequest, GetCapabilitiesRequest,
    GetTreeRequest, GetTreeResponse, ServerCapabilities, SpliceBlobRequest, SpliceBlobResponse,
    SplitBlobRequest, SplitBlobResponse,
};
use proto::wire::action_cache_server::{ActionCache, ActionCacheServer};
use proto::wire::{ActionResult, UpdateActionResultRequest};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Nothing is missing, and every action has this result.
#[derive(Clone)]
struct Constant {
    result: Bytes,
}

/// Serves on a port of its own for as long as `tasks` live.
pub(crate) async fn serve(result: Bytes, tasks: &mut JoinSet<()>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let constant = Constant { result };
    let server = Server::builder()
        .add_service(CapabilitiesServer::new(constant.clone()))
        .add_service(ContentAddressableStorageServer::new(constant.clone()))
        .add_service(ActionCacheServer::new(constant));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tasks.spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            eprintln!("the constant server: {error}");
        }
    });
    Ok(address)
}

#[tonic::async_trait]
impl Capabilities for Constant {
    async fn get_capabilities(
        &self,
        _request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        let cache = reapi::CacheCapabilities {
            digest_functions: vec![reapi::digest_function::Value::Sha256.into()],
            ..Default::default()
        };
        Ok(Response::new(ServerCapabilities {
            cache_capabilities: Some(cache),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl ActionCache for Constant {
    async fn get_action_result(
        &self,
        _request: Request<GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        Ok(Response::new(ActionResult(self.result.clone())))
    }

    async fn update_action_result(
        &self,
        _request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        Err(never_asked())
    }
}

#[tonic::async_trait]
impl ContentAddressableStorage for Constant {
    type GetTreeStream = Pin<Box<dyn Stream<Item = Result<GetTreeResponse, Status>> + Send>>;

    async fn find_missing_blobs(
        &self,
        _request: Request<FindMissingBlobsRequest>,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        Ok(Response::new(FindMissingBlobsResponse::default()))
    }

    async fn batch_update_blobs(
        &self,
        _request: Request<BatchUpdateBlobsRequest>,
    ) -> Result<Response<BatchUpdateBlobsResponse>, Status> {
        Err(never_asked())
    }

    async fn batch_read_blobs(
        &self,
        _request: Request<BatchReadBlobsRequest>,
    ) -> Result<Response<BatchReadBlobsResponse>, Status> {
        Err(never_asked())
    }

    async fn get_tree(
        &self,
        _request: Request<GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(never_asked())
    }

    async fn split_blob(
        &self,
        _request: Request<SplitBlobRequest>,
    ) -> Result<Response<SplitBlobResponse>, Status> {
        Err(never_asked())
    }

    async fn splice_blob(
        &self,
        _request: Request<SpliceBlobRequest>,
    ) -> Result<Response<SpliceBlobResponse>, Status> {
        Err(never_asked())
    }
}

fn never_asked() -> Status {
    Status::unimplemented("the constant server has one answer")
}
