//! Calls that no generated client makes: bytes of one's own in frames of one's own.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::{Code, Status};
use tower::ServiceExt as _;

use crate::check::Stop;
use crate::target::Target;
use crate::trace;

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// The HTTP status.
    pub http: http::StatusCode,
    /// Headers, and what trailed.
    pub headers: HeaderMap,
    /// What trailed.
    pub trailers: HeaderMap,
    /// All bytes of the body, frames included.
    pub body: Bytes,
}

impl RawAnswer {
    /// The gRPC code, wherever it stands; where there is none, what the HTTP status stands for.
    pub fn code(&self) -> Code {
        let status =
            Status::from_header_map(&self.trailers).or_else(|| Status::from_header_map(&self.headers));
        match status {
            Some(status) => status.code(),
            None if self.http == http::StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::Unknown,
            None if self.http == http::StatusCode::NOT_FOUND => Code::Unimplemented,
            None if self.http == http::StatusCode::BAD_REQUEST => Code::Internal,
            None => Code::Unknown,
        }
    }

    /// The messages in the body.
    pub fn messages(&self) -> Vec<Bytes> {
        let mut rest = self.body.clone();
        let mut messages = Vec::new();
        while rest.len() >= 5 {
            let length = u32::from_be_bytes([rest[1], rest[2], rest[3], rest[4]]) as usize;
            let end = (5 + length).min(rest.len());
            messages.push(rest.slice(5..end));
            rest = rest.slice(end..);
        }
        messages
    }
}

/// A message in its gRPC frame.
pub fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

impl Target {
    /// Posts `body` to `path`, and returns whatever comes.
    ///
    /// # Errors
    /// If the connection breaks, which the status says.
    pub async fn post(
        &self,
        path: &str,
        body: impl Into<Bytes>,
        headers: &[(&'static str, &str)],
    ) -> Result<RawAnswer, Status> {
        let body = body.into();
        let what = format!("POST {path}, {} bytes", body.len());
        let answer = self.post_untraced(path, body, headers).await;
        self.trace().note(what, &answer, |answer| {
            format!("HTTP {}, {}", answer.http, trace::code(answer.code()))
        });
        answer
    }

    async fn post_untraced(
        &self,
        path: &str,
        body: Bytes,
        headers: &[(&'static str, &str)],
    ) -> Result<RawAnswer, Status> {
        let broke = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
        let mut request = http::Request::post(format!("http://server{path}"))
            .header("te", "trailers")
            .body(tonic::body::Body::new(Full::new(body)))
            .map_err(|error| broke(&error))?;
        *request.headers_mut() = {
            let mut all = self.request(()).metadata().clone().into_headers();
            all.insert("te", http::HeaderValue::from_static("trailers"));
            all.insert("content-type", http::HeaderValue::from_static("application/grpc"));
            for (name, value) in headers {
                let value = http::HeaderValue::from_str(value).map_err(|error| broke(&error))?;
                all.insert(*name, value);
            }
            all
        };
        let answer = self
            .channel()
            .oneshot(request)
            .await
            .map_err(|error| broke(&error))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?;
        Ok(RawAnswer {
            http: parts.status,
            headers: parts.headers,
            trailers: body.trailers().cloned().unwrap_or_default(),
            body: body.to_bytes(),
        })
    }

    /// Posts one message to a method, and returns whatever comes.
    ///
    /// # Errors
    /// [`Stop::Failed`] if the connection breaks.
    pub async fn post_message(&self, path: &str, message: &[u8]) -> Result<RawAnswer, Stop> {
        let answer = self.post(path, framed(message), &[]).await;
        answer.map_err(|status| {
            Stop::Failed(format!("{path}: the connection broke: {}", status.message()).into())
        })
    }

    /// Posts the beginning of a body over a connection without a channel, which would end the call by itself when its
    /// deadline has passed, and sends nothing more; whatever comes, or nothing after `patience`.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] where no such connection can be made, or where the stream is broken off without an answer.
    pub async fn post_and_wait(
        &self,
        path: &str,
        first: Bytes,
        headers: &[(&'static str, &'static str)],
        patience: Duration,
    ) -> Result<Option<RawAnswer>, Stop> {
        let dial = self.dial();
        let dial = dial.ok_or_else(|| Stop::NotOffered("the server is behind a channel only".into()))?;
        let stream = dial.open().await;
        let stream = stream.map_err(|error| Stop::Broken(format!("a connection of its own: {error}")))?;
        let broken = |error: String| Stop::NotOffered(format!("the stream was broken off: {error}"));
        let text = |error: hyper::Error| error.to_string();
        let frames = futures::stream::iter([Ok::<_, Status>(Frame::data(first))]);
        let body = StreamBody::new(frames.chain(futures::stream::pending()));
        let mut request = http::Request::post(format!("http://server{path}"))
            .body(tonic::body::Body::new(body))
            .map_err(|error| Stop::Broken(error.to_string()))?;
        *request.headers_mut() = self.request(()).metadata().clone().into_headers();
        let own = [("te", "trailers"), ("content-type", "application/grpc")];
        for (name, value) in own.iter().chain(headers) {
            request
                .headers_mut()
                .insert(*name, http::HeaderValue::from_static(value));
        }
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(text)
            .map_err(broken)?;
        let call = async {
            let answer = sender.send_request(request).await.map_err(text)?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(text)?;
            Ok(RawAnswer {
                http: parts.status,
                headers: parts.headers,
                trailers: body.trailers().cloned().unwrap_or_default(),
                body: body.to_bytes(),
            })
        };
        let call = async {
            tokio::select! { // neither is asked again
                biased;
                answer = call => answer,
                ended = connection => Err(ended.err().map_or_else(|| "it ended".to_owned(), text)),
            }
        };
        let answer = match tokio::time::timeout(patience, call).await {
            Ok(answer) => Some(answer.map_err(broken)?),
            Err(_elapsed) => None,
        };
        let came = answer
            .as_ref()
            .map_or("nothing", |answer| trace::code(answer.code()));
        let what = format!("POST {path}, left open");
        self.trace()
            .note(what, &Ok::<_, Status>(()), |()| came.to_owned());
        Ok(answer)
    }
}
