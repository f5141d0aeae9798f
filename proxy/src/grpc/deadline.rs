//! The client's patience: `grpc-timeout` is read, passed on in the request, and enforced on answer and stream alike.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tower::Service;

use super::body::{Body, trailers};
use super::chunk::Chunk;
use super::listener::reset_after;

/// Longest patience that is honoured. Longer ones are cut to it, so that no sum of times overflows.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// When the client stops waiting. In the extensions of a request that said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadline(pub Instant);

/// Ends calls whose deadline has passed.
#[derive(Debug, Clone)]
pub(super) struct Deadlined<S>(pub S);

impl<S, B> Service<Request<B>> for Deadlined<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<DeadlinedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<DeadlinedBody>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let timeout = match timeout_in(request.headers()) {
            Ok(timeout) => timeout,
            Err(status) => {
                let response = Body::refusal(&status).map(|body| DeadlinedBody { body, timer: None });
                return Box::pin(std::future::ready(Ok(response)));
            }
        };
        let Some(timeout) = timeout else {
            let answer = self.0.call(request);
            return Box::pin(async {
                let response = answer.await?;
                Ok(response.map(|body| DeadlinedBody { body, timer: None }))
            });
        };
        let deadline = Instant::now() + timeout;
        request.extensions_mut().insert(Deadline(deadline));
        let answer = self.0.call(request);
        Box::pin(async move {
            reset_after(deadline);
            let mut timer = Box::pin(sleep_until(deadline));
            // An answer that is there wins over a deadline that has just passed.
            let response = tokio::select! {
                biased;
                response = answer => response?,
                () = &mut timer => Body::refusal(&passed()),
            };
            Ok(response.map(|body| DeadlinedBody {
                body,
                timer: Some(timer),
            }))
        })
    }
}

/// A body that ends with DEADLINE_EXCEEDED when it is not through in time.
pub(super) struct DeadlinedBody {
    body: Body,
    timer: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for DeadlinedBody {
    type Data = Chunk;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Status>>> {
        // The timer first: a stream that always has more to send must not outrun it.
        let over = match &mut self.timer {
            Some(timer) => timer.as_mut().poll(cx).is_ready(),
            None => false,
        };
        if over && !self.body.is_end_stream() {
            self.timer = None;
            self.body = Body::Done;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&passed())))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn passed() -> Status {
    Status::deadline_exceeded("the deadline of the call passed")
}

/// Reads `grpc-timeout`: at most eight digits and a unit.
fn timeout_in(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout") else {
        return Ok(None);
    };
    let malformed = || Status::invalid_argument("grpc-timeout is not one to eight digits and a unit");
    let text = value.to_str().map_err(|_| malformed())?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let count: u64 = digits.parse().map_err(|_| malformed())?;
    let timeout = match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return Err(malformed()),
    };
    Ok(Some(timeout.min(TIMEOUT_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<Option<Duration>, tonic::Code> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", value.parse().unwrap());
        timeout_in(&headers).map_err(|status| status.code())
    }

    #[test]
    fn timeouts_are_read_in_every_unit() {
        let cases = [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("60S", Duration::from_secs(60)),
            ("59997m", Duration::from_millis(59_997)),
            ("5u", Duration::from_micros(5)),
            ("0n", Duration::ZERO),
            ("99999999H", TIMEOUT_MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(Some(expected)), "{text}");
        }
        assert_eq!(timeout_in(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_malformed_timeout_is_the_clients_fault() {
        for text in ["", "S", "5", "5s", "-5S", "123456789S", "5 S", "é", "1.5S"] {
            assert_eq!(parse(text), Err(tonic::Code::InvalidArgument), "{text:?}"); // GEN-10
        }
    }
}
