//! A proxy that keeps most promises by simple means, and breaks one on request.
//!
//! It has no Tier 1: everything is asked of Tier 2, whole blobs are verified before a byte leaves, readers of a blob share
//! one read, and what is not Tier 2's own word is UNAVAILABLE.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use conformance::faults::Ground;
use conformance::site::{NotOffered, Site, WhenDown, fresh_name, upload};
use conformance::{Target, Upstream};
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use mock_upstream::Digest;
use proto::bytestream::byte_stream_server::{ByteStream, ByteStreamServer};
use proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use proto::reapi::capabilities_server::{Capabilities, CapabilitiesServer};
use proto::wire::action_cache_server::{ActionCache, ActionCacheServer};
use proto::wire::content_addressable_storage_server::{
    ContentAddressableStorage, ContentAddressableStorageServer,
};
use proto::wire::{ActionResult, GetTreeResponse, UpdateActionResultRequest};
use proto::{reapi, rpc};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status, Streaming};

/// Bytes that a pipe holds.
const PIPE_BYTES: usize = 128 * 1024;

/// Bytes in one message of a read.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long Tier 2 may take for a call.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it may do that it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Acknowledges a write, then sends it on.
    AcksEarly,
    /// Passes on what Tier 2 sends, whatever it is.
    ServesCorrupt,
    /// Takes a failure for a miss.
    MissingForError,
    /// Has two reads of Tier 2 for one herd.
    TwoReads,
    /// Answers with the first action result that it has ever seen for a key.
    StaleAction,
}

/// Starts such proxies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxies(pub(crate) Option<Lie>);

#[async_trait]
impl Ground for Proxies {
    async fn start(&self, upstream: Upstream, _when_down: WhenDown) -> Box<dyn Site> {
        let proxy = Proxy::over(upstream.mock().unwrap().channel(), self.0);
        Box::new(ProxySite { proxy, upstream })
    }
}

/// Serves one at an address of its own, for as long as what is returned lives.
pub(crate) async fn listening(tier2: Channel, lie: Option<Lie>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("grpc://{}", listener.local_addr().unwrap());
    let serve = Proxy::over(tier2, lie)
        .router()
        .serve_with_incoming(TcpIncoming::from(listener));
    let mut serving = JoinSet::new();
    serving.spawn(async move { drop(serve.await) });
    (address, serving)
}

struct ProxySite {
    proxy: Proxy,
    upstream: Upstream,
}

#[async_trait]
impl Site for ProxySite {
    fn channel(&self) -> Channel {
        let proxy = self.proxy.clone();
        Endpoint::from_static("http://proxy").connect_with_connector_lazy(tower::service_fn(move |_uri| {
            let proxy = proxy.clone();
            async move {
                let (near, far) = tokio::io::duplex(PIPE_BYTES);
                let accepted = stream::iter([Ok::<_, io::Error>(far)]).chain(stream::pending());
                let serve = proxy.router().serve_with_incoming(accepted);
                proxy
                    .0
                    .behind
                    .lock()
                    .await
                    .spawn(async move { drop(serve.await) });
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        }))
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    async fn settled(&self) -> Result<(), NotOffered> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

type Flight = Shared<BoxFuture<'static, Result<Bytes, Status>>>;

#[derive(Clone)]
struct Proxy(Arc<Inner>);

struct Inner {
    lie: Option<Lie>,
    tier2: Target,
    flights: Mutex<HashMap<(Digest, usize), Flight>>,
    begun: Mutex<usize>,
    actions: Mutex<HashMap<Digest, Bytes>>,
    behind: Mutex<JoinSet<()>>,
}

/// Tier 2's own word where it is one, UNAVAILABLE else.
fn translated(status: &Status) -> Status {
    match status.code() {
        Code::NotFound
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Unimplemented
        | Code::InvalidArgument => Status::new(status.code(), "tier 2 said so"),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss
        | Code::Unauthenticated => Status::unavailable(format!("tier 2: {:?}", status.code())),
    }
}

async fn patiently<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let answer = answer.map_err(|_elapsed| Status::unavailable("tier 2 is slow"))?;
    answer.map_err(|status| translated(&status))
}

fn parse(name: &str) -> Result<Digest, Status> {
    let mut parts = name.rsplit('/');
    let (size, hash) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let size = size.parse().map_err(|_| Status::invalid_argument("size"))?;
    Ok(Digest::parse(hash, size)?)
}

impl Proxy {
    fn over(tier2: Channel, lie: Option<Lie>) -> Proxy {
        Proxy(Arc::new(Inner {
            lie,
            tier2: Target::over(tier2, ""),
            flights: Mutex::default(),
            begun: Mutex::default(),
            actions: Mutex::default(),
            behind: Mutex::default(),
        }))
    }

    fn router(&self) -> Router {
        Server::builder()
            .add_service(ByteStreamServer::new(self.clone()))
            .add_service(ContentAddressableStorageServer::new(self.clone()))
            .add_service(ActionCacheServer::new(self.clone()))
            .add_service(CapabilitiesServer::new(self.clone()))
    }

    fn lies(&self, lie: Lie) -> bool {
        self.0.lie == Some(lie)
    }

    /// A failure, or what a liar takes it for.
    fn failed(&self, status: Status) -> Status {
        if self.lies(Lie::MissingForError) {
            Status::not_found("it must be missing")
        } else {
            status
        }
    }

    async fn whole(&self, digest: Digest) -> Result<Bytes, Status> {
        let lane = if self.lies(Lie::TwoReads) {
            let mut begun = self.0.begun.lock().await;
            *begun += 1;
            *begun % 2
        } else {
            0
        };
        let flight = {
            let mut flights = self.0.flights.lock().await;
            let begin = || {
                let proxy = self.clone();
                async move {
                    let fetched = proxy.fetch(digest).await;
                    proxy.0.flights.lock().await.remove(&(digest, lane));
                    fetched
                }
                .boxed()
                .shared()
            };
            flights.entry((digest, lane)).or_insert_with(begin).clone()
        };
        flight.await
    }

    async fn fetch(&self, digest: Digest) -> Result<Bytes, Status> {
        let name = digest.read_name("");
        let bytes = patiently(self.0.tier2.read(&name, 0, 0)).await;
        let bytes = Bytes::from(bytes.map_err(|status| self.failed(status))?);
        if digest.fits(&bytes) || self.lies(Lie::ServesCorrupt) {
            Ok(bytes)
        } else {
            Err(Status::data_loss("tier 2 sent something else"))
        }
    }

    async fn store(&self, digest: Digest, blob: Bytes) -> Result<(), Status> {
        let name = fresh_name(&digest);
        let requests = upload(&name, &blob, 0);
        let committed = patiently(self.0.tier2.write_requests(requests)).await?;
        if committed == digest.to_wire().size_bytes {
            Ok(())
        } else {
            Err(Status::unavailable("tier 2 did not take all"))
        }
    }
}

#[async_trait]
impl ByteStream for Proxy {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let digest = parse(&request.resource_name)?;
        let bytes = if (request.read_offset, request.read_limit) == (0, 0) {
            self.whole(digest).await?
        } else {
            let name = &request.resource_name;
            let part = self.0.tier2.read(name, request.read_offset, request.read_limit);
            let part = patiently(part).await.map_err(|status| self.failed(status))?;
            let left = digest.to_wire().size_bytes - request.read_offset;
            let due = if request.read_limit == 0 {
                left
            } else {
                left.min(request.read_limit)
            };
            if i64::try_from(part.len()) != Ok(due) {
                return Err(Status::data_loss("a part of another length"));
            }
            Bytes::from(part)
        };
        let chunks: Vec<_> = bytes
            .chunks(CHUNK_BYTES)
            .map(|chunk| bytes.slice_ref(chunk))
            .collect();
        let messages = chunks.into_iter().map(|data| Ok(ReadResponse { data }));
        Ok(Response::new(stream::iter(messages).boxed()))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let (mut name, mut blob, mut finished) = (String::new(), BytesMut::new(), false);
        while let Some(message) = messages.message().await? {
            if name.is_empty() {
                name = message.resource_name;
            }
            blob.extend_from_slice(&message.data);
            finished = message.finish_write;
        }
        let (digest, blob) = (parse(&name)?, blob.freeze());
        if !finished || !digest.fits(&blob) {
            return Err(Status::invalid_argument("not the whole blob"));
        }
        if self.lies(Lie::AcksEarly) {
            let proxy = self.clone();
            let later = async move { drop(proxy.store(digest, blob).await) };
            self.0.behind.lock().await.spawn(later);
        } else {
            self.store(digest, blob).await?;
        }
        Ok(Response::new(WriteResponse {
            committed_size: digest.to_wire().size_bytes,
        }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let digest = parse(&request.into_inner().resource_name)?;
        let missing = patiently(self.0.tier2.missing(vec![digest.to_wire()])).await?;
        let complete = missing.is_empty();
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: if complete { digest.to_wire().size_bytes } else { 0 },
            complete,
        }))
    }
}

#[async_trait]
impl ContentAddressableStorage for Proxy {
    type GetTreeStream = BoxStream<'static, Result<GetTreeResponse, Status>>;

    async fn find_missing_blobs(
        &self,
        request: Request<reapi::FindMissingBlobsRequest>,
    ) -> Result<Response<reapi::FindMissingBlobsResponse>, Status> {
        let digests = request.into_inner().blob_digests;
        let missing_blob_digests = match patiently(self.0.tier2.missing(digests.clone())).await {
            Err(_failure) if self.lies(Lie::MissingForError) => digests,
            answer => answer?,
        };
        Ok(Response::new(reapi::FindMissingBlobsResponse {
            missing_blob_digests,
        }))
    }

    async fn batch_update_blobs(
        &self,
        request: Request<reapi::BatchUpdateBlobsRequest>,
    ) -> Result<Response<reapi::BatchUpdateBlobsResponse>, Status> {
        let request = request.into_inner();
        let mut cas = self.0.tier2.cas();
        let answer = patiently(cas.batch_update_blobs(request)).await?;
        Ok(Response::new(answer.into_inner()))
    }

    async fn batch_read_blobs(
        &self,
        request: Request<reapi::BatchReadBlobsRequest>,
    ) -> Result<Response<reapi::BatchReadBlobsResponse>, Status> {
        let mut cas = self.0.tier2.cas();
        let answer = patiently(cas.batch_read_blobs(request.into_inner())).await?;
        let mut answer = answer.into_inner();
        for entry in &mut answer.responses {
            let ok = entry.status.as_ref().is_none_or(|status| status.code == 0);
            let fits = Digest::from_wire(entry.digest.as_ref()).is_ok_and(|digest| digest.fits(&entry.data));
            if ok && !fits && !self.lies(Lie::ServesCorrupt) {
                entry.data.clear();
                entry.status = Some(rpc::Status {
                    code: Code::DataLoss.into(),
                    ..rpc::Status::default()
                });
            }
        }
        Ok(Response::new(answer))
    }

    async fn get_tree(
        &self,
        _request: Request<reapi::GetTreeRequest>,
    ) -> Result<Response<Self::GetTreeStream>, Status> {
        Err(Status::unimplemented("GetTree is not offered"))
    }

    async fn split_blob(
        &self,
        _request: Request<reapi::SplitBlobRequest>,
    ) -> Result<Response<reapi::SplitBlobResponse>, Status> {
        Err(Status::unimplemented("SplitBlob is not offered"))
    }

    async fn splice_blob(
        &self,
        _request: Request<reapi::SpliceBlobRequest>,
    ) -> Result<Response<reapi::SpliceBlobResponse>, Status> {
        Err(Status::unimplemented("SpliceBlob is not offered"))
    }
}

#[async_trait]
impl ActionCache for Proxy {
    async fn get_action_result(
        &self,
        request: Request<reapi::GetActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let request = request.into_inner();
        let key = Digest::from_wire(request.action_digest.as_ref())?;
        if self.lies(Lie::StaleAction)
            && let Some(raw) = self.0.actions.lock().await.get(&key)
        {
            return Ok(Response::new(ActionResult(raw.clone())));
        }
        let mut cache = self.0.tier2.action_cache();
        let answer = patiently(cache.get_action_result(request)).await;
        let result = answer.map_err(|status| self.failed(status))?.into_inner();
        self.0.actions.lock().await.insert(key, result.0.clone());
        Ok(Response::new(result))
    }

    async fn update_action_result(
        &self,
        request: Request<UpdateActionResultRequest>,
    ) -> Result<Response<ActionResult>, Status> {
        let mut cache = self.0.tier2.action_cache();
        let answer = patiently(cache.update_action_result(request.into_inner())).await?;
        Ok(Response::new(answer.into_inner()))
    }
}

#[async_trait]
impl Capabilities for Proxy {
    async fn get_capabilities(
        &self,
        _request: Request<reapi::GetCapabilitiesRequest>,
    ) -> Result<Response<reapi::ServerCapabilities>, Status> {
        let cache = reapi::CacheCapabilities {
            digest_functions: vec![reapi::digest_function::Value::Sha256.into()],
            ..reapi::CacheCapabilities::default()
        };
        Ok(Response::new(reapi::ServerCapabilities {
            cache_capabilities: Some(cache),
            ..reapi::ServerCapabilities::default()
        }))
    }
}
