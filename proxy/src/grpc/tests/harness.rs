//! A node without sockets, and its clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{ReadRequest, WriteRequest, WriteResponse};
use proto::reapi;
use proto::reapi::capabilities_client::CapabilitiesClient;
use proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::wire::action_cache_client::ActionCacheClient;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::call::{BlobKey, InstanceName, Scope, ShareGroups};
use crate::digest::{Digest, Function};
use crate::grpc::body::code_in;
use crate::grpc::listener::{ListenerOptions, Server};
use crate::grpc::{Edge, EdgeOptions, Health};
use crate::metrics::Metrics;
use crate::task::TaskGroup;
use crate::tier1::disk::memory::MemoryDisk;
use crate::tier1::{Tier1, Tier1Options};
use crate::tier2::Tier2;
use crate::tier2::health::outlook;
use crate::tier2::memory::MemoryTier2;
use crate::tiered::{
    ActionOptions, Actions, BadBlobs, OutageOptions, Pending, Presence, PresenceOptions, Publish, Reads,
    Signs, Tiered, Touches, WhenDown, WriteOptions, Writes,
};

/// Bytes of blobs in a batch, small so that tests can pass it.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 20;

/// Length of the largest blob.
pub(super) const BLOB_BYTES_MAX: u64 = 64 << 20;

/// Bytes that a pipe holds, about what a socket does.
const PIPE_BYTES: usize = 128 * 1024;

/// A whole edge. Instances `a` and `b` share.
pub(super) struct Node {
    pub tier2: Arc<MemoryTier2>,
    pub server: Server<Edge>,
    pub health: Health,
    pub metrics: Metrics,
    pub tasks: TaskGroup,
}

impl Node {
    pub(super) async fn new() -> Node {
        Node::with(ListenerOptions::default()).await
    }

    pub(super) async fn with(listener: ListenerOptions) -> Node {
        let tier2 = Arc::new(MemoryTier2::default());
        let metrics = Metrics::new();
        let tasks = TaskGroup::new();
        let shared = ["a", "b"].map(|name| (InstanceName::parse(name).unwrap(), Scope::new("group")));
        let options = EdgeOptions {
            batch_bytes_max: BATCH_BYTES_MAX,
            blob_bytes_max: Some(BLOB_BYTES_MAX),
            groups: ShareGroups::new(BTreeMap::from(shared)),
            node_id: "node".to_owned(),
        };
        let tiered = tiered(&tier2, &metrics, &tasks).await;
        let (edge, health) = Edge::new(options, tiered, metrics.calls.clone()).await.unwrap();
        Node {
            tier2,
            server: Server::new(edge, listener),
            health,
            metrics,
            tasks,
        }
    }

    /// The client's end of a new connection.
    pub(super) fn connect(&self) -> DuplexStream {
        let (client, server) = tokio::io::duplex(PIPE_BYTES);
        self.server.attach(server);
        client
    }

    /// A client as tonic makes it.
    pub(super) async fn channel(&self) -> Channel {
        let mut io = Some(self.connect());
        let connector = tower::service_fn(move |_: http::Uri| {
            let io = io.take().map(TokioIo::new);
            std::future::ready(io.ok_or_else(|| std::io::Error::other("only one connection")))
        });
        Endpoint::from_static("http://node")
            .connect_with_connector(connector)
            .await
            .unwrap()
    }

    pub(super) async fn byte_stream(&self) -> ByteStreamClient<Channel> {
        ByteStreamClient::new(self.channel().await)
    }

    pub(super) async fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel().await)
    }

    pub(super) async fn action_cache(&self) -> ActionCacheClient<Channel> {
        ActionCacheClient::new(self.channel().await)
    }

    pub(super) async fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel().await)
    }

    /// A client that sends what it likes.
    pub(super) async fn raw(&self) -> Raw {
        let io = TokioIo::new(self.connect());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        drop(self.tasks.spawn(async {
            // Ends with the test, or with the connection that it tests.
            let _end = connection.await;
        }));
        Raw(sender)
    }

    /// Puts a blob into Tier 2.
    pub(super) fn plant(&self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Function::Sha256, bytes);
        self.tier2.plant(key(&digest), Bytes::copy_from_slice(bytes));
        digest
    }

    /// Whether Tier 2 has a blob.
    pub(super) fn stored(&self, digest: &Digest) -> bool {
        self.tier2.blob(&key(digest)).is_some()
    }
}

/// The blob in the instance without a name.
pub(super) fn key(digest: &Digest) -> BlobKey {
    BlobKey {
        scope: Scope::new(""),
        digest: *digest,
    }
}

pub(super) fn digest(bytes: &[u8]) -> reapi::Digest {
    crate::grpc::digests::message(&Digest::of(Function::Sha256, bytes))
}

pub(super) fn read_name(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

pub(super) fn write_name(digest: &Digest) -> String {
    format!("uploads/7f1ab0a5-51ac-4a71-8a47-0d0a8a5e5f5c/blobs/{digest}")
}

/// Reads to the end.
pub(super) async fn read(
    client: &mut ByteStreamClient<Channel>,
    request: ReadRequest,
) -> Result<Vec<u8>, Status> {
    let mut stream = client.read(request).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

/// Writes these requests and half-closes.
pub(super) async fn write(
    client: &mut ByteStreamClient<Channel>,
    requests: Vec<WriteRequest>,
) -> Result<WriteResponse, Status> {
    let response = client.write(futures::stream::iter(requests)).await?;
    Ok(response.into_inner())
}

#[track_caller]
pub(super) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("an error was due").code()
}

/// HTTP/2 without gRPC's manners.
pub(super) struct Raw(http2::SendRequest<Full<Bytes>>);

impl Raw {
    /// Sends a body to a path and returns the code of the answer.
    pub(super) async fn send(&mut self, path: &str, body: impl Into<Bytes>) -> Option<Code> {
        self.send_with(path, body, |request| request).await
    }

    /// Likewise, with changes to the request.
    pub(super) async fn send_with(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
        change: impl FnOnce(http::request::Builder) -> http::request::Builder,
    ) -> Option<Code> {
        let request = http::Request::post(format!("http://node{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        let request = change(request).body(Full::new(body.into())).unwrap();
        self.0.ready().await.unwrap();
        let response = self.0.send_request(request).await.unwrap();
        if let Some(code) = code_in(response.headers()) {
            return Some(code);
        }
        let body = response.into_body().collect().await.unwrap();
        body.trailers().and_then(code_in)
    }
}

/// A message as gRPC frames it.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let len = u32::try_from(message.len()).unwrap();
    [&[0], len.to_be_bytes().as_slice(), message].concat()
}

/// Both sides over one Tier 1 in memory.
async fn tiered(tier2: &Arc<MemoryTier2>, metrics: &Metrics, tasks: &TaskGroup) -> Tiered {
    let options = Tier1Options {
        dir: "/tier1".into(),
        watermarks: crate::watermarks::Watermarks::new(1 << 30, 950 << 20, 900 << 20).unwrap(),
        blob_bytes_max: 1 << 30,
    };
    let tier1 = Tier1::open(options, Arc::new(MemoryDisk::new()), tasks, metrics.tier1.clone());
    tier1.loaded().await;
    let tier2: Arc<dyn Tier2> = Arc::new(tier2.clone());
    let pending = Arc::new(Pending::new());
    let bad = Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone()));
    let lease = PresenceOptions {
        lease: Duration::ZERO,
        write_lease: Duration::ZERO,
    };
    let presence = Presence::new(
        tier2.clone(),
        bad,
        lease,
        Signs::none(),
        tasks,
        metrics.presence.clone(),
    );
    let reads = Reads::new(
        tier1.clone(),
        presence.clone(),
        pending.clone(),
        Touches::none(),
        tasks.clone(),
        metrics.reads.clone(),
    );
    let options = WriteOptions {
        publish: Publish::Sync,
        resume_window: Duration::from_secs(60),
        repair: false,
    };
    let uploads = metrics.uploads.clone();
    let writes = Writes::new(tier1, presence, pending, options, tasks.clone(), uploads);
    let options = ActionOptions {
        lease: Duration::ZERO,
        memory_bytes: 1 << 20,
    };
    // Without a breaker nothing is known to be down.
    let (_announcer, outlook) = outlook();
    let actions = Actions::new(
        reads.clone(),
        writes.clone(),
        &options,
        outlook.clone(),
        metrics.actions.clone(),
    );
    let outage = OutageOptions {
        when_down: WhenDown::Fail,
        max_outage: Duration::ZERO,
    };
    Tiered::new(reads, writes, actions, (outage, outlook), tier2)
}
