//! Counts calls by method and code, and times them to the last byte of the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame};
use tokio::time::Instant;
use tonic::Code;
use tower::Service;

use super::body::code_in;
use super::method::Method;
use crate::metrics::CallMetrics;

/// Counts the calls of the service inside it.
#[derive(Debug, Clone)]
pub(super) struct Metered<S> {
    pub service: S,
    pub calls: CallMetrics,
}

impl<S, B, R> Service<Request<B>> for Metered<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<MeteredBody<R>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<MeteredBody<R>>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut meter = Meter::start(self.calls.clone(), Method::label(request.uri().path()));
        let answer = self.service.call(request);
        Box::pin(async {
            let response = answer.await?;
            meter.saw(code_in(response.headers()));
            Ok(response.map(|body| MeteredBody { body, meter }))
        })
    }
}

/// One call that is being answered. Counted when dropped, so that calls of clients that hung up count too.
#[derive(Debug)]
struct Meter {
    calls: CallMetrics,
    method: &'static str,
    started_at: Instant,
    code: Option<Code>,
}

impl Meter {
    fn start(calls: CallMetrics, method: &'static str) -> Meter {
        calls.in_flight.with_label_values(&[method]).inc();
        Meter {
            calls,
            method,
            started_at: Instant::now(),
            code: None,
        }
    }

    fn saw(&mut self, code: Option<Code>) {
        self.code = self.code.or(code);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        // Without a code the answer did not come to its end: the client went away, or the connection was cut.
        let code = name(self.code.unwrap_or(Code::Cancelled));
        self.calls.in_flight.with_label_values(&[self.method]).dec();
        self.calls.total.with_label_values(&[self.method, code]).inc();
        let seconds = self.started_at.elapsed().as_secs_f64();
        self.calls
            .seconds
            .with_label_values(&[self.method])
            .observe(seconds);
    }
}

/// The body of a call that is being counted.
#[derive(Debug)]
pub(super) struct MeteredBody<R> {
    body: R,
    meter: Meter,
}

impl<R: Body + Unpin> Body for MeteredBody<R> {
    type Data = R::Data;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, R::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.meter.saw(code_in(trailers));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// gRPC's name of a code.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
