//! One call between connection and handler: its entry in the log, and the bodies that watch how it ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::Mutex;
use prost::Message;
use proto::REQUEST_METADATA_HEADER;
use proto::reapi::RequestMetadata;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use crate::connection::ConnectionState;
use crate::digest::Digest;
use crate::log::{Call, Firing, Outcome, Told};
use crate::mock::Shared;
use crate::rules::Fault;
use crate::script::Script;

/// Why an answer breaks off. HTTP/2 looks for the reason of its reset among the sources.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("a rule resets this stream")]
    Reset(#[source] h2::Error),
    #[error("the answer broke off")]
    Body(#[source] Status),
}

/// A handler's hold on its entry in the log. Travels in the request's extensions.
#[derive(Clone)]
pub(crate) struct CallHandle {
    shared: Arc<Shared>,
    connection: Arc<ConnectionState>,
    fate: Arc<Fate>,
    pub(crate) index: u64,
}

/// What a script wants of the answer's frames.
#[derive(Debug, Default)]
struct Fate {
    /// RST_STREAM instead of whatever comes next.
    abort: AtomicBool,
    /// GOAWAY once the status is out.
    farewell: Mutex<Option<Fault>>,
}

impl CallHandle {
    pub(crate) fn open<B>(
        shared: Arc<Shared>,
        connection: Arc<ConnectionState>,
        request: &http::Request<B>,
    ) -> CallHandle {
        let index = shared.log.open(
            method_name(request.uri().path()),
            connection.number,
            connection.peer,
            invocation(request.headers()),
            kept(request.headers(), &shared.settings.lock().log_headers),
        );
        CallHandle {
            shared,
            connection,
            fate: Arc::default(),
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
            let planned = self.shared.rules.plan(call);
            script = Some(Script::new(self.clone(), call, planned));
        });
        // Only an entry dropped from a full log has none.
        let blank = || Call::blank(self.index, String::new(), self.connection.number);
        script.unwrap_or_else(|| Script::new(self.clone(), &blank(), Vec::new()))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn connection(&self) -> &ConnectionState {
        &self.connection
    }

    /// Notes that a fault took effect.
    pub(crate) fn fired(&self, fault: &Fault, moved: u64) {
        self.shared.log.fired(Firing {
            rule: fault.rule,
            name: fault.name.clone(),
            act: fault.act.name(),
            call: Some(self.index),
            connection: Some(self.connection.number),
            moved,
            at: Duration::ZERO,
        });
    }

    /// Likewise, for what a call may do many times.
    pub(crate) fn fired_once(&self, fault: &Fault, moved: u64) {
        let mut before = false;
        self.shared.log.change(self.index, |call| {
            before = call.fired.iter().any(|firing| firing.rule == fault.rule);
        });
        if !before {
            self.fired(fault, moved);
        }
    }

    /// Resets the stream; what is returned is for whoever waits for an answer, and is not sent.
    pub(crate) fn abort(&self) -> Status {
        self.end(Outcome::Broken);
        self.fate.abort.store(true, Ordering::SeqCst);
        Status::aborted("the mock resets this stream")
    }

    pub(crate) fn say_farewell_when_answered(&self, fault: Fault) {
        *self.fate.farewell.lock() = Some(fault);
    }

    /// What to break off with, if the stream is to be reset.
    fn aborted(&self) -> Option<AnswerError> {
        let aborted = self.fate.abort.load(Ordering::SeqCst);
        aborted.then(|| AnswerError::Reset(h2::Reason::INTERNAL_ERROR.into()))
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

    /// Notes what is answered about a blob or an action.
    pub(crate) fn tell(&self, digest: &Digest, told: Told) {
        self.shared
            .log
            .change(self.index, |call| call.told.push((*digest, told)));
    }

    /// Notes the action result that is given or acknowledged.
    pub(crate) fn tell_result(&self, action: &Digest, raw: &Bytes) {
        self.shared.log.change(self.index, |call| {
            call.told.push((*action, Told::Present));
            call.result = Some(raw.clone());
        });
    }

    /// Notes how it ended; the first word counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        let (ended_at, next) = (self.shared.log.now(), self.shared.log.next_index());
        self.shared.log.change(self.index, |call| {
            if call.outcome == Outcome::Open {
                call.outcome = outcome;
                call.ended_at = Some(ended_at);
                call.ended_before = Some(next);
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
        if let Some(fault) = self.fate.farewell.lock().take() {
            self.fired(&fault, 0);
            self.connection.drain.cancel();
        }
    }
}

/// `tool_invocation_id`, if the client says so.
fn invocation(headers: &http::HeaderMap) -> String {
    let headers = MetadataMap::from_headers(headers.clone());
    let metadata = headers.get_bin(REQUEST_METADATA_HEADER).and_then(|value| {
        let bytes = value.to_bytes().ok()?;
        RequestMetadata::decode(bytes).ok()
    });
    metadata.unwrap_or_default().tool_invocation_id
}

/// The headers of these names.
fn kept(headers: &http::HeaderMap, names: &[String]) -> Vec<(String, String)> {
    let of = |name: &String| {
        let name = name.clone();
        let values = headers.get_all(&name).into_iter();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let values = values.map(text).collect::<Vec<_>>();
        values.into_iter().map(move |value| (name.clone(), value))
    };
    names.iter().flat_map(of).collect()
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
    /// # Errors
    /// If there is to be no answer.
    pub(crate) fn answer<B>(
        self,
        response: http::Response<B>,
    ) -> Result<http::Response<AnswerBody<B>>, AnswerError> {
        if let Some(error) = self.0.aborted() {
            return Err(error);
        }
        // An error without a body has its status among the headers.
        if let Some(status) = response.headers().get("grpc-status") {
            self.0.answered(status);
        }
        Ok(response.map(|body| AnswerBody { body, ticket: self }))
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
    } else {
        let cut = connection.cut();
        if cut == Outcome::Reset {
            Outcome::ConnectionLost
        } else {
            cut
        }
    }
}

/// A response's body that notes the status in its trailers.
pub(crate) struct AnswerBody<B> {
    body: B,
    ticket: Ticket,
}

impl<B> Body for AnswerBody<B>
where
    B: Body<Error = Status> + Unpin,
{
    type Data = B::Data;
    type Error = AnswerError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, AnswerError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(error) = self.ticket.0.aborted() {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(Ok(frame)) = &frame
            && let Some(status) = frame
                .trailers_ref()
                .and_then(|trailers| trailers.get("grpc-status"))
        {
            self.ticket.0.answered(status);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(AnswerError::Body)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn headers_that_are_asked_for_are_kept_as_often_as_they_came() {
        let mut headers = http::HeaderMap::new();
        headers.append("x-one", "1".parse().unwrap());
        headers.append("x-one", "2".parse().unwrap());
        headers.append("x-two", "3".parse().unwrap());
        let names = ["x-one".to_owned(), "x-none".to_owned(), "no name".to_owned()];
        let kept = kept(&headers, &names);
        assert_eq!(
            kept,
            ["1", "2"].map(|value| ("x-one".to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn the_invocation_is_read_from_the_metadata_and_empty_without() {
        let metadata = RequestMetadata {
            tool_invocation_id: "an invocation".to_owned(),
            ..RequestMetadata::default()
        };
        let mut headers = MetadataMap::new();
        headers.insert_bin(
            REQUEST_METADATA_HEADER,
            MetadataValue::from_bytes(&metadata.encode_to_vec()),
        );
        assert_eq!(invocation(&headers.into_headers()), "an invocation");
        assert_eq!(invocation(&http::HeaderMap::new()), "");
    }
}
