//! A Tier 2 that is a server: any that speaks REAPI.

mod batch;
mod capabilities;
mod connect;
mod connection;
mod failure;
mod names;
mod pool;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Uri;
use http::uri::Scheme;
use proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use proto::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetActionResultRequest,
    batch_update_blobs_request,
};
use proto::wire;
use proto::wire::action_cache_client::ActionCacheClient;
use tokio::time::Instant;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue};
use tonic::{Code, Response, Status};

use self::batch::{from_wire, to_wire, wire_function};
use self::capabilities::Capabilities;
pub use self::connect::{BoxIo, Connect, ConnectorError, Endpoint, Io, NetConnector};
use self::connection::{Patience, Silence};
use self::failure::{absent, refused, tier2_error};
pub use self::names::InstanceMap;
use self::pool::{Class, Lane, Pool};
use super::health::{Outlook, Service};
use super::split::collect;
use super::{Ack, BlobStream, Losses, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, Piece, PieceStream, Verified};
use crate::call::{Call, Cause, InstanceName, Via};
use crate::digest::{ActionDigest, Digest, Function};
use crate::metrics::Tier2Metrics;
use crate::task::TaskGroup;

/// Bytes of a message that Tier 2 may send. Batches and reads stay far below; action results may be large.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Digests in one FindMissingBlobs call: under a megabyte, a quarter of what servers take (PXY-16).
const DIGESTS_MAX: usize = 10_000;

/// Parts of one large question in the air at once.
const PARTS_IN_FLIGHT: usize = 4;

/// Connections that a call is tried on while they turn it away unseen. A server that goes down in order does so on all that
/// stand, two of a class by default; behind them is the server that takes its place.
const CONNECTIONS_TRIED_MAX: usize = 3;

/// How to talk to a remote Tier 2.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// `tier2.url`: where it is; becomes the `:authority` of requests.
    pub endpoint: Endpoint,
    /// `tier2.instance` and `tier2.instances`, as a rule.
    pub instances: InstanceMap,
    /// `tier2.connections`: for each of uploads, reads and small calls. At least 1.
    pub connections: usize,
    /// `tier2.connect_timeout`, TLS included.
    pub connect_timeout: Duration,
    /// `tier2.first_byte_timeout`: from a request to the first byte of its answer.
    pub first_byte_timeout: Duration,
    /// `tier2.stall_timeout`: without a byte from, or taken by, Tier 2.
    pub stall_timeout: Duration,
    /// `tier2.commit_timeout`: from the last byte of an upload to the answer, beside what its size adds.
    pub commit_timeout: Duration,
    /// Names this process to others, and to itself (see [`Via`]). Letters and digits.
    pub node_id: String,
}

/// Talks to a REAPI server over a few HTTP/2 connections. Clones share them.
///
/// Retries only what a connection turned away unseen; everything else is the caller's to repeat. Batches are sent as they
/// are: put [`super::split::Split`] around it.
#[derive(Clone)]
pub struct RemoteTier2 {
    remote: Arc<Remote>,
}

/// Why options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The endpoint makes no URI.
    #[error("{endpoint} is no address")]
    Endpoint {
        /// The endpoint, as text.
        endpoint: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// The node's id makes no header.
    #[error("the id of this node cannot be sent")]
    NodeId,
}

impl RemoteTier2 {
    /// Prepares to talk over connections that `connector` makes; the first is made when it is needed. Connections, and
    /// the refreshing of capabilities, are tasks of `tasks`. Calls to a service that is down in `outlook` wait for no
    /// connection.
    ///
    /// # Errors
    /// [`RemoteError`]. Whether there is a server is found out later.
    pub fn new(
        options: RemoteOptions,
        connector: Box<dyn Connect>,
        outlook: Outlook,
        tasks: &TaskGroup,
        metrics: &Tier2Metrics,
    ) -> Result<RemoteTier2, RemoteError> {
        let authority = options.endpoint.to_string();
        let scheme = if options.endpoint.tls {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        };
        let origin = Uri::builder()
            .scheme(scheme)
            .authority(authority.as_str())
            .path_and_query("/")
            .build()
            .map_err(|source| RemoteError::Endpoint {
                endpoint: authority,
                source,
            })?;
        let node_id = options.node_id;
        if !node_id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(RemoteError::NodeId);
        }
        let pool = Pool::new(
            connector,
            options.connections,
            options.connect_timeout,
            outlook,
            tasks.clone(),
            metrics.clone(),
        );
        let remote = Arc::new(Remote {
            pool,
            origin,
            instances: options.instances,
            times: Times {
                first_byte: options.first_byte_timeout,
                stall: options.stall_timeout,
                commit: options.commit_timeout,
            },
            node_id,
            tasks: tasks.clone(),
            capabilities: Capabilities::default(),
            lacks_batch_read: AtomicBool::new(false),
            lacks_batch_write: AtomicBool::new(false),
        });
        let stop = tasks.stopping();
        let fresh = capabilities::keep_fresh(remote.clone());
        drop(tasks.spawn(async move { stop.run_until_cancelled(fresh).await }));
        Ok(RemoteTier2 { remote })
    }

    /// Counts how often the last connection was lost.
    pub fn losses(&self) -> Losses {
        self.remote.pool.losses()
    }
}

impl std::fmt::Debug for RemoteTier2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RemoteTier2").field(&self.remote.origin).finish()
    }
}

struct Remote {
    pool: Pool,
    origin: Uri,
    instances: InstanceMap,
    times: Times,
    node_id: String,
    tasks: TaskGroup,
    capabilities: Capabilities,
    /// BatchReadBlobs was answered with UNIMPLEMENTED since the capabilities were last heard.
    lacks_batch_read: AtomicBool,
    /// The same for BatchUpdateBlobs.
    lacks_batch_write: AtomicBool,
}

struct Times {
    first_byte: Duration,
    stall: Duration,
    commit: Duration,
}

impl Times {
    /// For the questions that are asked of a service, and for reads.
    fn answer(&self, service: Service) -> Patience {
        Patience {
            first_byte: Some(self.first_byte),
            stall: Some(self.stall),
            only_while_up: Some(service),
        }
    }

    /// For what a service is to store.
    fn commit(&self, service: Service) -> Patience {
        Patience {
            first_byte: Some(self.commit),
            ..self.answer(service)
        }
    }
}

impl Remote {
    fn cas(&self) -> ContentAddressableStorageClient<Lane> {
        ContentAddressableStorageClient::with_origin(self.pool.lane(Class::Small), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn action_cache(&self) -> ActionCacheClient<Lane> {
        ActionCacheClient::with_origin(self.pool.lane(Class::Small), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Adds what goes with every message: whose work it is, how long they wait, and who asks.
    fn request<M>(&self, call: &Call, patience: Patience, message: M) -> tonic::Request<M> {
        let mut request = tonic::Request::new(message);
        if let Some(deadline) = call.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        let metadata = request.metadata_mut();
        if let Ok(via) = call.via.and(&self.node_id).parse() {
            metadata.insert(Via::HEADER, via);
        }
        metadata.insert("user-agent", AsciiMetadataValue::from_static("gorego"));
        match &call.cause {
            Cause::Client(Some(bytes)) => {
                let value = BinaryMetadataValue::from_bytes(bytes);
                metadata.insert_bin(proto::REQUEST_METADATA_HEADER, value);
            }
            Cause::Client(None) | Cause::Node => {}
        }
        request.extensions_mut().insert(patience);
        request
    }

    fn upstream(&self, call: &Call) -> String {
        self.instances.upstream(&call.instance).as_str().to_owned()
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let patience = self.times.answer(Service::Cas);
        self.find_missing_within(call, digests, patience).await
    }

    async fn find_missing_within(
        &self,
        call: &Call,
        digests: &[Digest],
        patience: Patience,
    ) -> Result<Vec<Digest>, Tier2Error> {
        let mut asked: HashSet<Digest> = digests.iter().copied().collect();
        let all: Vec<Digest> = asked.iter().copied().collect();
        let parts: Vec<_> = all
            .chunks(DIGESTS_MAX)
            .map(|part| self.find_missing_part(call, part, patience))
            .collect();
        let parts: Vec<Vec<Digest>> = futures::stream::iter(parts)
            .buffer_unordered(PARTS_IN_FLIGHT)
            .try_collect()
            .await?;
        // What was not asked for is not ours to tell, nor anything twice (PXY-66).
        let mut missing = parts.concat();
        missing.retain(|digest| asked.remove(digest));
        Ok(missing)
    }

    async fn find_missing_part(
        &self,
        call: &Call,
        digests: &[Digest],
        patience: Patience,
    ) -> Result<Vec<Digest>, Tier2Error> {
        let function = function_of(digests.first());
        let message = FindMissingBlobsRequest {
            instance_name: self.upstream(call),
            blob_digests: digests.iter().map(to_wire).collect(),
            digest_function: wire_function(function),
        };
        let answer = ask(call, || async {
            let request = self.request(call, patience, message.clone());
            self.cas().find_missing_blobs(request).await
        })
        .await?;
        let missing = answer.missing_blob_digests.iter();
        Ok(missing
            .filter_map(|digest| from_wire(Some(digest), function))
            .collect())
    }

    async fn action_within(
        &self,
        call: &Call,
        key: &ActionDigest,
        patience: Patience,
    ) -> Result<RawActionResult, Tier2Error> {
        let message = GetActionResultRequest {
            instance_name: self.upstream(call),
            action_digest: Some(to_wire(&key.0)),
            digest_function: wire_function(key.0.function()),
            ..GetActionResultRequest::default()
        };
        let wire::ActionResult(bytes) = ask(call, || async {
            let request = self.request(call, patience, message.clone());
            self.action_cache().get_action_result(request).await
        })
        .await?;
        Ok(RawActionResult(bytes))
    }

    /// Capabilities were heard again: Tier 2 may have been replaced by one that can more.
    fn lacks_nothing(&self) {
        self.lacks_batch_read.store(false, Ordering::Relaxed);
        self.lacks_batch_write.store(false, Ordering::Relaxed);
    }

    async fn read_one_by_one(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let reads: Vec<_> = digests
            .iter()
            .map(|digest| async move {
                let stream = read::open(self, call, digest, ByteRange::whole(digest)).await?;
                collect(*digest, stream).await
            })
            .collect();
        futures::stream::iter(reads)
            .buffered(PARTS_IN_FLIGHT)
            .collect()
            .await
    }

    async fn write_one_by_one(
        &self,
        call: &Call,
        blobs: Vec<(Verified, Bytes)>,
    ) -> Vec<Result<Ack, Tier2Error>> {
        let writes: Vec<_> = blobs
            .into_iter()
            .map(|(proof, bytes)| async move {
                let digest = *proof.digest();
                let body: PieceStream = futures::stream::iter([Ok(Piece::Last(bytes, proof))]).boxed();
                write::write(self, call, &digest, body).await
            })
            .collect();
        futures::stream::iter(writes)
            .buffered(PARTS_IN_FLIGHT)
            .collect()
            .await
    }
}

/// All digests of a call have one function: that of the call.
fn function_of(digest: Option<&Digest>) -> Function {
    digest.map_or(Function::Sha256, Digest::function)
}

/// Asks, elsewhere if a connection turned the question away unseen.
async fn ask<T, F>(call: &Call, attempt: impl Fn() -> F) -> Result<T, Tier2Error>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    match within(call.deadline, until_looked_at(attempt)).await? {
        Ok(answer) => Ok(answer.into_inner()),
        Err(status) => Err(tier2_error(status, call)),
    }
}

/// Repeats an attempt while connections turn it away unseen (R13).
async fn until_looked_at<T, F>(attempt: impl Fn() -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    for _ in 1..CONNECTIONS_TRIED_MAX {
        match attempt().await {
            Err(status) if refused(&status) => {}
            looked_at => return looked_at,
        }
    }
    attempt().await
}

/// Bounds work by the caller's patience.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Tier2Error> {
    match deadline {
        None => Ok(work.await),
        Some(deadline) => tokio::time::timeout_at(deadline, work)
            .await
            .map_err(|_elapsed| Tier2Error::DeadlineExceeded),
    }
}

fn is_unimplemented(error: &Tier2Error) -> bool {
    matches!(error, Tier2Error::Answered(status) if status.code == Code::Unimplemented)
}

#[async_trait]
impl Tier2 for RemoteTier2 {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        read::open(&self.remote, call, digest, range).await
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        write::write(&self.remote, call, digest, body).await
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.remote.find_missing(call, digests).await
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let remote = &self.remote;
        if digests.is_empty() {
            return Vec::new();
        }
        if remote.lacks_batch_read.load(Ordering::Relaxed) {
            return remote.read_one_by_one(call, digests).await;
        }
        let distinct: HashSet<&Digest> = digests.iter().collect();
        let message = BatchReadBlobsRequest {
            instance_name: remote.upstream(call),
            digests: distinct.into_iter().map(to_wire).collect(),
            acceptable_compressors: Vec::new(),
            digest_function: wire_function(function_of(digests.first())),
        };
        let answer = ask(call, || async {
            let request = remote.request(call, remote.times.answer(Service::Cas), message.clone());
            remote.cas().batch_read_blobs(request).await
        });
        match answer.await {
            Ok(answer) => batch::blobs_read(answer.responses, digests, call),
            Err(error) if is_unimplemented(&error) => {
                remote.lacks_batch_read.store(true, Ordering::Relaxed);
                remote.read_one_by_one(call, digests).await
            }
            Err(error) => vec![Err(error); digests.len()],
        }
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let remote = &self.remote;
        if blobs.is_empty() {
            return Vec::new();
        }
        if remote.lacks_batch_write.load(Ordering::Relaxed) {
            return remote.write_one_by_one(call, blobs).await;
        }
        let digests: Vec<Digest> = blobs.iter().map(|(proof, _)| *proof.digest()).collect();
        let mut sent = HashSet::new();
        let distinct = blobs.iter().filter(|(proof, _)| sent.insert(*proof.digest()));
        let message = BatchUpdateBlobsRequest {
            instance_name: remote.upstream(call),
            requests: distinct
                .map(|(proof, bytes)| batch_update_blobs_request::Request {
                    digest: Some(to_wire(proof.digest())),
                    data: bytes.clone(),
                    compressor: 0,
                })
                .collect(),
            digest_function: wire_function(function_of(digests.first())),
        };
        let sent_at = Instant::now();
        let answer = ask(call, || async {
            let request = remote.request(call, remote.times.commit(Service::Cas), message.clone());
            remote.cas().batch_update_blobs(request).await
        });
        match answer.await {
            Ok(answer) => batch::blobs_written(&answer.responses, &digests, call)
                .into_iter()
                .map(|written| written.map(|()| Ack { sent_at }))
                .collect(),
            Err(error) if is_unimplemented(&error) => {
                remote.lacks_batch_write.store(true, Ordering::Relaxed);
                remote.write_one_by_one(call, blobs).await
            }
            Err(error) => vec![Err(error); digests.len()],
        }
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        let patience = self.remote.times.answer(Service::ActionCache);
        self.remote
            .action_within(call, key, patience)
            .await
            .map_err(absent)
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        let remote = &self.remote;
        let message = wire::UpdateActionResultRequest {
            instance_name: remote.upstream(call),
            action_digest: Some(to_wire(&key.0)),
            action_result: Some(result.0),
            results_cache_policy: None,
            digest_function: wire_function(key.0.function()),
        };
        let sent_at = Instant::now();
        ask(call, || async {
            let request = remote.request(call, remote.times.answer(Service::ActionCache), message.clone());
            remote.action_cache().update_action_result(request).await
        })
        .await?;
        Ok(Ack { sent_at })
    }

    async fn probe(&self, service: Service, deadline: Instant) -> Result<(), Tier2Error> {
        let nobodys = Digest::of(
            Function::Sha256,
            b"nobody stores this: it is asked for to see an answer",
        );
        let call = Call::of_node(InstanceName::default());
        let left = deadline.saturating_duration_since(Instant::now());
        // The time to the first byte, so that a connection that is silent is given up with the probe.
        let patience = Patience {
            first_byte: Some(left),
            stall: Some(left),
            only_while_up: None,
        };
        let heard = self.remote.pool.listen();
        let asked = async {
            match service {
                Service::Cas => {
                    let nobodys = [nobodys];
                    let missing = self.remote.find_missing_within(&call, &nobodys, patience);
                    missing.await.map(drop)
                }
                Service::ActionCache => {
                    let nobodys = ActionDigest(nobodys);
                    let found = self.remote.action_within(&call, &nobodys, patience);
                    found.await.map(drop)
                }
            }
        };
        match within(Some(deadline), asked).await.flatten() {
            Ok(()) => Ok(()),
            Err(error @ (Tier2Error::Stalled | Tier2Error::DeadlineExceeded)) => {
                if service == Service::Cas {
                    // No sign of life: what is silent may be dead, and the first call after the outage is not to find out.
                    heard.iter().for_each(Silence::retire);
                }
                Err(error)
            }
            Err(Tier2Error::Answered(status)) if status.code != Code::Unavailable => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        let upstream = self.remote.instances.upstream(instance);
        self.remote.capabilities.offers(&upstream)
    }
}
