//! A panic in one call is that call's INTERNAL, with a line in the log. It takes no other call with it.

use std::any::Any;
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::Status;
use tower::Service;

use super::body::Body;

/// Catches the panics of the service inside it.
///
/// What the call had in its hands is dropped by the unwinding; what it shares with others is behind types that stay whole
/// (locks without poison, tasks of their own).
#[derive(Debug, Clone)]
pub(super) struct Caught<S>(pub S);

impl<S, B> Service<Request<B>> for Caught<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = AssertUnwindSafe(self.0.call(request)).catch_unwind();
        Box::pin(async move {
            match answer.await {
                Ok(response) => response,
                Err(panic) => Ok(Body::refusal(&report(&*panic))),
            }
        })
    }
}

/// Runs one step of an answer's body. A panic becomes the last thing that the body says.
pub(super) fn caught<T>(
    step: impl FnOnce() -> Poll<Option<Result<T, Status>>>,
) -> Poll<Option<Result<T, Status>>> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| Poll::Ready(Some(Err(report(&*panic)))))
}

fn report(panic: &(dyn Any + Send)) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = text, "a call panicked; please report this");
    Status::internal("this node has a fault")
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use http_body_util::BodyExt;
    use tonic::Code;
    use tower::{ServiceExt, service_fn};

    use super::super::body::code_in;
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_call_is_its_internal_and_the_next_call_is_answered() {
        let service = Caught(service_fn(|request: Request<()>| async move {
            assert!(request.uri().path() != "/panic", "on request");
            Ok::<_, Infallible>(Body::refusal(&Status::not_found("")))
        }));
        let code = async |path: &str| {
            let request = Request::builder().uri(path).body(()).unwrap();
            let response = service.clone().oneshot(request).await.unwrap();
            code_in(response.headers())
        };
        assert_eq!(code("/panic").await, Some(Code::Internal));
        assert_eq!(code("/other").await, Some(Code::NotFound));
    }

    #[tokio::test]
    async fn a_panic_in_a_body_ends_it_with_internal() {
        let stream = futures::stream::poll_fn(|_| panic!("midway"));
        let body: Pin<Box<_>> = Box::pin(Body::Stream(Box::pin(stream)));
        let collected = body.collect().await.unwrap();
        assert_eq!(code_in(collected.trailers().unwrap()), Some(Code::Internal));
    }
}
