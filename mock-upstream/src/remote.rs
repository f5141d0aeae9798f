//! A mock in another process, reached through its control port.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::control::gates::GateText;
use crate::digest::Digest;
use crate::rule::{After, Match, Rule, place};
use crate::written::{LogText, Snapshot};

/// How long a wait is asked for at a time; it is asked for again.
const WAIT: Duration = Duration::from_secs(10);

/// How long any other answer may take. The mock answers at once, but for a suspension, which waits for calls to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Of an answer: a log of many thousand calls.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The control port is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// Nobody answers there, or no longer.
    #[error("the mock's control port {address} does not answer {request}")]
    Unreachable {
        address: String,
        request: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// It answered with an error.
    #[error("the mock's control port {address} refused {request}: {status} {text}")]
    Refused {
        address: String,
        request: String,
        status: StatusCode,
        text: String,
    },
    /// It answered with something that no mock of this version says.
    #[error("what answers at {address} is no control port of a mock of this version: {what}")]
    Foreign { address: String, what: String },
}

type Outcome<T> = Result<T, RemoteError>;

/// A handle of a mock behind its control port. Clones are handles of the same one.
///
/// A call that is dropped is given up; what it asked for may have been done or not.
#[derive(Clone, Debug)]
pub struct Remote {
    client: Arc<Client<HttpConnector, Full<Bytes>>>,
    address: String,
}

/// Calls that a mock elsewhere holds. They are let go by [`RemoteGate::release`] or by a reset of the mock, and not when
/// this is dropped.
#[must_use = "its calls are held until they are released"]
#[derive(Debug)]
pub struct RemoteGate {
    remote: Remote,
    id: u64,
}

#[derive(Deserialize)]
struct Id {
    id: u64,
}

impl Remote {
    /// The mock whose control port is at `http://host:port`.
    ///
    /// # Errors
    /// If no mock's control port answers there.
    pub async fn connect(url: &str) -> Outcome<Remote> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let remote = Remote {
            client: Arc::new(Client::builder(TokioExecutor::new()).build(connector)),
            address: url.trim_end_matches('/').to_owned(),
        };
        remote.log(0).await?;
        Ok(remote)
    }

    /// The URL of its control port.
    pub fn address(&self) -> &str {
        &self.address
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Outcome<(StatusCode, Bytes)> {
        let unreachable = |source: Box<dyn StdError + Send + Sync>| RemoteError::Unreachable {
            address: self.address.clone(),
            request: format!("{method} {path}"),
            source,
        };
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.address))
            .body(Full::new(body))
            .map_err(|error| unreachable(error.into()))?;
        let exchange = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await?;
            Ok((status, body.to_bytes()))
        };
        let answered = timeout(patience, exchange).await;
        answered
            .map_err(|elapsed| unreachable(elapsed.into()))?
            .map_err(unreachable)
    }

    fn refused(&self, request: String, status: StatusCode, body: &[u8]) -> RemoteError {
        RemoteError::Refused {
            address: self.address.clone(),
            request,
            status,
            text: String::from_utf8_lossy(body).trim().chars().take(500).collect(),
        }
    }

    /// The body of an answer that has to be a success.
    async fn done(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Outcome<Bytes> {
        let request = format!("{method} {path}");
        let (status, body) = self.send(method, path, body.into(), PATIENCE).await?;
        if status.is_success() {
            Ok(body)
        } else {
            Err(self.refused(request, status, &body))
        }
    }

    fn parsed<T: DeserializeOwned>(&self, body: &[u8]) -> Outcome<T> {
        serde_json::from_slice(body).map_err(|error| self.foreign(error.to_string()))
    }

    fn foreign(&self, what: String) -> RemoteError {
        RemoteError::Foreign {
            address: self.address.clone(),
            what,
        }
    }

    /// Whether something is stored there.
    async fn exists(&self, path: &str) -> Outcome<bool> {
        let (status, body) = self.send(Method::HEAD, path, Bytes::new(), PATIENCE).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(self.refused(format!("HEAD {path}"), status, &body)),
        }
    }

    /// Waits for as long as it takes: asks again where the mock gave up.
    async fn wait(&self, path: &str) -> Outcome<()> {
        let path = format!("{path}timeout_ms={}", WAIT.as_millis());
        loop {
            let (status, body) = self
                .send(Method::GET, &path, Bytes::new(), WAIT + PATIENCE)
                .await?;
            match status {
                StatusCode::REQUEST_TIMEOUT => {}
                status if status.is_success() => return Ok(()),
                status => return Err(self.refused(format!("GET {path}"), status, &body)),
            }
        }
    }

    /// The log since an index, and the time.
    ///
    /// # Errors
    /// As all calls here: if the control port is lost, or says something else.
    pub async fn log(&self, since: u64) -> Outcome<Snapshot> {
        let body = self.done(Method::GET, &format!("/log?since={since}"), "").await?;
        let text: LogText = self.parsed(&body)?;
        text.read().map_err(|what| self.foreign(what))
    }

    /// As [`crate::Mock::add`]. A rule whose act cannot be done to its method is refused.
    pub async fn add(&self, rule: &Rule) -> Outcome<()> {
        let text = serde_json::to_vec(rule).map_err(|error| self.foreign(error.to_string()))?;
        self.done(Method::POST, "/rules", text).await.map(drop)
    }

    /// As [`crate::Mock::heal`].
    pub async fn heal(&self) -> Outcome<()> {
        self.done(Method::DELETE, "/rules", "").await.map(drop)
    }

    /// As [`crate::Mock::suspend`].
    pub async fn suspend(&self) -> Outcome<()> {
        self.done(Method::POST, "/suspend", "").await.map(drop)
    }

    /// As [`crate::Mock::resume`].
    pub async fn resume(&self) -> Outcome<()> {
        self.done(Method::POST, "/resume", "").await.map(drop)
    }

    /// As [`crate::Mock::reset`], and resumed; gates that were asked for through the control port are open.
    pub async fn reset(&self) -> Outcome<()> {
        self.done(Method::POST, "/reset", "").await.map(drop)
    }

    /// As [`crate::Mock::reset_connections`].
    pub async fn reset_connections(&self) -> Outcome<()> {
        self.done(Method::POST, "/connections/reset", "").await.map(drop)
    }

    /// As [`crate::Mock::put_blob`].
    pub async fn put_blob(&self, instance: &str, bytes: Bytes) -> Outcome<Digest> {
        let digest = Digest::of(&bytes);
        self.plant(instance, &digest, bytes).await?;
        Ok(digest)
    }

    /// As [`crate::Mock::plant`].
    pub async fn plant(&self, instance: &str, digest: &Digest, bytes: Bytes) -> Outcome<()> {
        let path = stored("blobs", digest, instance);
        self.done(Method::PUT, &path, bytes).await.map(drop)
    }

    /// Whether it has bytes under this digest.
    pub async fn has_blob(&self, instance: &str, digest: &Digest) -> Outcome<bool> {
        self.exists(&stored("blobs", digest, instance)).await
    }

    /// As [`crate::Mock::evict`].
    pub async fn evict(&self, instance: &str, digest: &Digest) -> Outcome<bool> {
        let path = stored("blobs", digest, instance);
        let (status, body) = self.send(Method::DELETE, &path, Bytes::new(), PATIENCE).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(self.refused(format!("DELETE {path}"), status, &body)),
        }
    }

    /// As [`crate::Mock::put_action`].
    pub async fn put_action(&self, instance: &str, action: &Digest, raw: Bytes) -> Outcome<()> {
        let path = stored("actions", action, instance);
        self.done(Method::PUT, &path, raw).await.map(drop)
    }

    /// Whether it has a result of this action.
    pub async fn has_action(&self, instance: &str, action: &Digest) -> Outcome<bool> {
        self.exists(&stored("actions", action, instance)).await
    }

    /// As [`crate::Mock::hold`].
    pub async fn hold(&self, wanted: Match, after: After) -> Outcome<RemoteGate> {
        let (at, after_bytes) = place(after);
        let calls = wanted;
        let text = GateText {
            calls,
            at,
            after_bytes,
        };
        let text = serde_json::to_vec(&text).map_err(|error| self.foreign(error.to_string()))?;
        let made: Id = self.parsed(&self.done(Method::POST, "/gates", text).await?)?;
        Ok(RemoteGate {
            remote: self.clone(),
            id: made.id,
        })
    }

    /// As [`crate::Mock::arrived`].
    pub async fn arrived(&self, wanted: &Match, count: usize) -> Outcome<()> {
        self.wait(&format!("/calls/wait?{}count={count}&", filters(wanted)))
            .await
    }

    /// As [`crate::Mock::finished`].
    pub async fn finished(&self, wanted: &Match, count: usize) -> Outcome<()> {
        let filters = filters(wanted);
        self.wait(&format!("/calls/wait?{filters}count={count}&state=finished&"))
            .await
    }

    /// As [`crate::Mock::fired`].
    pub async fn fired(&self, rule: &str, count: usize) -> Outcome<()> {
        let rule = query(&[("rule", rule)]);
        self.wait(&format!("/firings/wait?{rule}count={count}&")).await
    }
}

impl RemoteGate {
    /// As [`crate::Gate::reached`].
    pub async fn reached(&self) -> Outcome<()> {
        self.remote.wait(&format!("/gates/{}/wait?", self.id)).await
    }

    /// Lets all go, those who come later too. Done twice it does nothing.
    pub async fn release(&self) -> Outcome<()> {
        let path = format!("/gates/{}", self.id);
        let remote = &self.remote;
        let (status, body) = remote.send(Method::DELETE, &path, Bytes::new(), PATIENCE).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            status => Err(remote.refused(format!("DELETE {path}"), status, &body)),
        }
    }
}

fn stored(kind: &str, digest: &Digest, instance: &str) -> String {
    format!("/{kind}/{digest}?{}", query(&[("instance", instance)]))
}

/// Pairs, each with an `&` behind it.
fn query(pairs: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.extend_pairs(pairs);
    text.finish() + "&"
}

/// A match as filters of a query.
fn filters(wanted: &Match) -> String {
    let Value::Object(fields) = json!(wanted) else {
        return String::new();
    };
    let text = |(key, value): (String, Value)| {
        let number = value.to_string();
        query(&[(&key, value.as_str().unwrap_or(&number))])
    };
    fields.into_iter().map(text).collect()
}
