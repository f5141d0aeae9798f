//! The service that the listener serves: finds the method, reads the request, answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body::Frame;
use hyper::body::Incoming;
use prost::Message;
use tonic::Status;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

use super::body::{Body, MessageStream, hide_internal};
use super::caller::Caller;
use super::capabilities::{Limits, capabilities};
use super::chunk::{Chunk, MESSAGE_BYTES_MAX};
use super::deadline::{Deadlined, DeadlinedBody};
use super::health::{self, Health};
use super::messages::Messages;
use super::metering::{Metered, MeteredBody};
use super::method::Method;
use super::panics::Caught;
use super::room::{MESSAGE_ROOM_BYTES, Room};
use super::services::Services;
use super::{action_cache, bytestream, cas, tree};
use crate::call::ShareGroups;
use crate::metrics::CallMetrics;
use crate::tiered::Tiered;

/// Room in a request for what stands around the blobs of a full batch: about 100 bytes for each of 4000.
const BATCH_FRAMING_BYTES: usize = 512 * 1024;

/// What an operator chooses.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Bytes of blobs in one batch call, as announced.
    pub batch_bytes_max: u64,
    /// Length of the largest blob that is taken; `None` for no limit.
    pub blob_bytes_max: Option<u64>,
    /// Which instances share.
    pub groups: ShareGroups,
    /// Names this process, so that it recognises calls of its own.
    pub node_id: String,
}

/// gRPC as clients speak it. Clones are the same service.
///
/// Around the methods, from the outside: calls are counted, deadlines enforced, panics caught.
#[derive(Clone)]
pub struct Edge(Metered<Deadlined<Caught<Dispatch>>>);

impl Edge {
    /// The service over the tiers, and its health, which is not serving yet.
    ///
    /// # Errors
    /// If reflection cannot read the descriptors that are compiled in: a fault of the build.
    pub async fn new(
        options: EdgeOptions,
        tiered: Tiered,
        calls: CallMetrics,
    ) -> Result<(Edge, Health), crate::tier2::BoxError> {
        let (routes, health) = health::routes().await?;
        let limits = Limits {
            batch_bytes_max: options.batch_bytes_max,
            blob_bytes_max: options.blob_bytes_max,
        };
        let batch_bytes = usize::try_from(options.batch_bytes_max).unwrap_or(usize::MAX);
        let dispatch = Dispatch {
            services: Arc::new(Services {
                tiered,
                limits,
                calls: calls.clone(),
            }),
            groups: options.groups,
            node_id: options.node_id.into(),
            message_bytes_max: batch_bytes
                .saturating_add(BATCH_FRAMING_BYTES)
                .max(MESSAGE_BYTES_MAX),
            room: Room::new(MESSAGE_ROOM_BYTES),
            routes,
        };
        let edge = Edge(Metered {
            service: Deadlined(Caught(dispatch)),
            calls,
        });
        Ok((edge, health))
    }
}

impl Service<Request<Incoming>> for Edge {
    type Response = Response<EdgeBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<EdgeBody>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let answer = self.0.call(request);
        Box::pin(async { Ok(answer.await?.map(EdgeBody)) })
    }
}

/// The body of an answer of [`Edge`].
pub struct EdgeBody(MeteredBody<DeadlinedBody>);

impl http_body::Body for EdgeBody {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

/// Finds the method of a request and has it answered.
#[derive(Clone)]
struct Dispatch {
    services: Arc<Services>,
    groups: ShareGroups,
    node_id: Arc<str>,
    message_bytes_max: usize,
    room: Room,
    routes: Routes,
}

impl Service<Request<Incoming>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        if !is_grpc(&request) {
            let mut response = Response::new(Body::Done);
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Box::pin(std::future::ready(Ok(response)));
        }
        match Method::of(request.uri().path()) {
            Some(method) => {
                let this = self.clone();
                Box::pin(async move { Ok(this.answer(method, request).await) })
            }
            None => {
                let routes = self.routes.clone();
                Box::pin(async move {
                    let mut response = routes.oneshot(request).await?.map(Body::Tonic);
                    hide_internal(response.headers_mut());
                    Ok(response)
                })
            }
        }
    }
}

impl Dispatch {
    async fn answer(&self, method: Method, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let messages = Messages::new(body, self.message_bytes_max, &self.room);
        let answer = async {
            let caller = Caller::new(parts, self.groups.clone(), &self.node_id, &self.services.calls)?;
            self.dispatch(method, &caller, messages).await
        };
        answer.await.unwrap_or_else(|status| Body::refusal(&status))
    }

    async fn dispatch(
        &self,
        method: Method,
        caller: &Caller,
        mut messages: Messages<Incoming>,
    ) -> Result<Response<Body>, Status> {
        let services = &*self.services;
        match method {
            Method::Read => bytestream::read(services, caller, messages.only().await?).await,
            Method::Write => message(bytestream::write(services, caller, messages).await?),
            Method::QueryWriteStatus => {
                message(bytestream::query_write_status(services, caller, messages.only().await?).await?)
            }
            Method::GetCapabilities => {
                let request: proto::reapi::GetCapabilitiesRequest = messages.only().await?;
                let call = caller.call(&request.instance_name)?;
                let offers = services.tiered.offers(&call.instance);
                message(capabilities(&services.limits, &offers))
            }
            Method::FindMissingBlobs => {
                message(cas::find_missing(services, caller, messages.only().await?).await?)
            }
            Method::BatchUpdateBlobs => {
                message(cas::batch_update(services, caller, messages.only().await?).await?)
            }
            Method::BatchReadBlobs => {
                message(cas::batch_read(services, caller, messages.only().await?).await?)
            }
            Method::GetTree => {
                let pages: MessageStream = tree::get(services, caller, messages.only().await?).await?;
                Ok(Body::Stream(pages).into_response())
            }
            Method::GetActionResult => {
                message(action_cache::get(services, caller, messages.only().await?).await?)
            }
            Method::UpdateActionResult => {
                message(action_cache::update(services, caller, messages.only().await?).await?)
            }
        }
    }
}

/// An answer of one message.
fn message(message: impl Message) -> Result<Response<Body>, Status> {
    Ok(Body::Message(Some(Chunk::message(&message)?)).into_response())
}

/// Whether a request speaks gRPC at all.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
