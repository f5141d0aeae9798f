//! Bodies of answers: messages, then the status in trailers.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use http_body::Frame;
use tonic::{Code, Status};

use super::chunk::Chunk;
use super::listener::{handed_on, taken};
use super::panics::caught;
use super::read_body::ReadBody;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Messages that are few, so that a box for each does not matter.
pub(super) type MessageStream = Pin<Box<dyn Stream<Item = Result<Chunk, Status>> + Send>>;

/// The body of any answer of this node.
pub(super) enum Body {
    /// Nothing more: the status has been sent, if only in the headers.
    Done,
    /// One message, then OK.
    Message(Option<Chunk>),
    /// A blob.
    Read(Box<ReadBody>),
    /// Any other messages.
    Stream(MessageStream),
    /// Made by a service that tonic generated.
    Tonic(tonic::body::Body),
}

impl Body {
    /// An answer of messages.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(self);
        response.headers_mut().insert(header::CONTENT_TYPE, GRPC);
        response
    }

    /// An answer that is only a status, in the headers.
    pub(super) fn refusal(status: &Status) -> Response<Body> {
        let mut response = Body::Done.into_response();
        response.headers_mut().extend(trailers(status));
        response
    }

    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, Status>>> {
        match self {
            Body::Message(message) => Poll::Ready(message.take().map(Ok)),
            Body::Read(read) => read.poll_message(cx),
            Body::Stream(stream) => stream.as_mut().poll_next(cx),
            Body::Done | Body::Tonic(_) => Poll::Ready(None),
        }
    }
}

impl http_body::Body for Body {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        match &mut *self {
            Body::Done => return Poll::Ready(None),
            Body::Tonic(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                return Poll::Ready(frame.map(|frame| {
                    let mut frame = frame?.map_data(Chunk::framed);
                    if let Some(trailers) = frame.trailers_mut() {
                        hide_internal(trailers);
                    }
                    Ok(frame)
                }));
            }
            Body::Message(_) | Body::Read(_) | Body::Stream(_) => {}
        }
        let message = match caught(|| self.poll_message(cx)) {
            Poll::Ready(message) => {
                handed_on();
                message
            }
            Poll::Pending => {
                taken();
                return Poll::Pending;
            }
        };
        let status = match message {
            Some(Ok(chunk)) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        *self = Body::Done;
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Done => true,
            Body::Tonic(body) => body.is_end_stream(),
            Body::Message(_) | Body::Read(_) | Body::Stream(_) => false,
        }
    }
}

/// A status as gRPC's headers.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(3);
    if status.add_header(&mut headers).is_err() {
        // A message that cannot be a header even when escaped. The code is what counts.
        headers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    headers
}

/// The code in headers or trailers, if they have one.
pub(super) fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get(GRPC_STATUS)
        .map(|value| Code::from_bytes(value.as_bytes()))
}

/// Health and reflection answer from memory and cannot fail: where tonic says INTERNAL for them, the request was no message.
pub(super) fn hide_internal(headers: &mut HeaderMap) {
    if code_in(headers) == Some(Code::Internal) {
        headers.insert(GRPC_STATUS, HeaderValue::from(Code::InvalidArgument as i32));
    }
}
