//! One call between connection and handler: its entry in the log, and the bodies that watch how it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::digest::Digest;
use crate::log::Outcome;
use crate::mock::Shared;
use crate::rules::Script;

/// What a connection's calls want to know about it.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// The peer is gone. Known before any of its streams hears of it.
    pub(crate) lost: AtomicBool,
    /// We are closing it.
    pub(crate) stop: CancellationToken,
}

impl ConnectionState {
    /// How calls ended that did not come to their end.
    fn cut(&self) -> Outcome {
        if self.stop.is_cancelled() {
            Outcome::Suspended
        } else if self.lost.load(Ordering::SeqCst) {
            Outcome::ConnectionLost
        } else {
            Outcome::Reset
        }
    }
}

/// A handler's hold on its entry in the log. Travels in the request's extensions.
#[derive(Clone)]
pub(crate) struct CallHandle {
    shared: Arc<Shared>,
    connection: Arc<ConnectionState>,
    pub(crate) index: u64,
}

impl CallHandle {
    pub(crate) fn open(
        shared: Arc<Shared>,
        connection: Arc<ConnectionState>,
        number: u64,
        path: &str,
    ) -> CallHandle {
        let index = shared.log.open(method_name(path), number);
        CallHandle {
            shared,
            connection,
            index,
        }
    }

    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Result<CallHandle, Status> {
        let handle = request.extensions().get::<CallHandle>().cloned();
        handle.ok_or_else(|| Status::internal("the call did not come through a connection of the mock"))
    }

    pub(crate) fn resource(&self, name: &str, offset: i64, limit: i64) {
        self.shared.log.change(self.index, |call| {
            name.clone_into(&mut call.resource_name);
            call.offset = offset;
            call.limit = limit;
        });
    }

    /// Says what the call is about, and learns what is to happen to it.
    pub(crate) fn identify(&self, instance: &str, digests: Vec<Digest>) -> Script {
        let mut script = None;
        self.shared.log.change(self.index, |call| {
            instance.clone_into(&mut call.instance);
            call.digests = digests;
            script = Some(self.shared.rules.script(call));
        });
        // Only an entry dropped from a full log has none.
        script.unwrap_or_default()
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.shared
            .log
            .change(self.index, |call| call.bytes_received += bytes as u64);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.shared
            .log
            .change(self.index, |call| call.bytes_sent += bytes as u64);
    }

    /// Notes how it ended; the first word counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.shared.log.change(self.index, |call| {
            if call.outcome == Outcome::Open {
                call.outcome = outcome;
            }
        });
    }

    fn answered(&self, status: &http::HeaderValue) {
        let code = Code::from_bytes(status.as_bytes());
        self.end(if code == Code::Ok {
            Outcome::Ok
        } else {
            Outcome::Failed(code)
        });
    }
}

/// `/google.bytestream.ByteStream/Read` is `ByteStream.Read`.
fn method_name(path: &str) -> String {
    let mut parts = path.rsplit('/');
    let method = parts.next().unwrap_or_default();
    let service = parts.next().unwrap_or_default();
    let service = service.rsplit('.').next().unwrap_or_default();
    format!("{service}.{method}")
}

/// Owns the call's end: whoever drops it before an answer was complete has cut the call.
pub(crate) struct Ticket(pub(crate) CallHandle);

impl Ticket {
    pub(crate) fn answer<B>(self, response: http::Response<B>) -> http::Response<AnswerBody<B>> {
        // An error without a body has its status among the headers.
        if let Some(status) = response.headers().get("grpc-status") {
            self.0.answered(status);
        }
        response.map(|body| AnswerBody { body, ticket: self })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.end(self.0.connection.cut());
    }
}

/// A request's body that notes how it ends.
///
/// tonic takes a request that was reset with CANCEL for one that ended, and hyper one reset with NO_ERROR: behind either
/// a reset looks like a half-close. Here all of them are errors, and none has a code that tonic would swallow.
pub(crate) struct RequestBody {
    body: Incoming,
    call: CallHandle,
}

impl RequestBody {
    pub(crate) fn new(body: Incoming, call: CallHandle) -> RequestBody {
        RequestBody { body, call }
    }

    fn broken(&self, outcome: Outcome) -> Status {
        self.call.end(outcome);
        Status::aborted("the client's request broke off")
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(error)) => Some(Err(self.broken(cause(&error, &self.call.connection)))),
            None if self.body.is_end_stream() => None,
            None => Some(Err(self.broken(Outcome::Reset))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn cause(error: &hyper::Error, connection: &ConnectionState) -> Outcome {
    let source = std::error::Error::source(error);
    let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
    if h2.is_some_and(|error| error.is_reset() && error.is_remote()) {
        Outcome::Reset
    } else if connection.stop.is_cancelled() {
        Outcome::Suspended
    } else {
        Outcome::ConnectionLost
    }
}

/// A response's body that notes the status in its trailers.
pub(crate) struct AnswerBody<B> {
    body: B,
    ticket: Ticket,
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(status) = frame
                .trailers_ref()
                .and_then(|trailers| trailers.get("grpc-status"))
        {
            self.ticket.0.answered(status);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
