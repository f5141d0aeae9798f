//! One HTTP/2 connection, its requests, and the patience they have.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};
use tonic::body::Body;
use tonic::metadata::MetadataMap;

use super::connect::BoxIo;
use super::failure::TransportError;
use crate::task::TaskGroup;
use crate::tier2::health::Service;

/// Bytes that Tier 2 may send on one stream before we took them: 4 MiB at 40 ms round trip is 100 MB/s.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The same for all streams of a connection together. A stream whose reader stalls keeps its own window's worth of it, and
/// when nothing is left every other stream stalls too: so there is room for 64 of those. It bounds what a connection holds in
/// memory, too.
const CONNECTION_WINDOW_BYTES: u32 = 64 * STREAM_WINDOW_BYTES;

/// Largest frame that Tier 2 may send: the step in which the stall limit sees progress.
const FRAME_BYTES_MAX: u32 = 64 * 1024;

/// Headers and trailers of an answer: a status with its details, which may be long.
const HEADER_BYTES_MAX: u32 = 64 * 1024;

/// While streams are open and nothing comes, Tier 2 is asked whether it lives. Not while idle: many servers take that for
/// an attack.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// How long it may take to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that was idle for longer is not used again: something between us may have forgotten it, silently.
const IDLE_MAX: Duration = Duration::from_secs(240);

/// How long to wait for what. `None` where the caller keeps the time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    /// From the request to the headers of the answer.
    pub(super) first_byte: Option<Duration>,
    /// From one frame of the answer to the next.
    pub(super) stall: Option<Duration>,
    /// Waits for no connection while this service is known to be down.
    pub(super) only_while_up: Option<Service>,
}

/// A connection with its count of open requests.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Body>,
    in_flight: AtomicUsize,
    /// Frames that came on it: whether a silent request sits on a silent connection.
    heard: AtomicU64,
    retired: AtomicBool,
    idle_since: Mutex<Instant>,
}

impl Connection {
    /// Speaks HTTP/2 on `io`. The returned future ends when the connection takes no more requests.
    pub(super) async fn open(
        io: BoxIo,
        tasks: TaskGroup,
    ) -> Result<(Arc<Connection>, impl Future<Output = hyper::Result<()>> + Send), hyper::Error> {
        let (sender, driver) = Builder::new(GroupExecutor(tasks))
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_header_list_size(HEADER_BYTES_MAX)
            .keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(false)
            .handshake(TokioIo::new(io))
            .await?;
        let connection = Connection {
            sender,
            in_flight: AtomicUsize::new(0),
            heard: AtomicU64::new(0),
            retired: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
        };
        Ok((Arc::new(connection), driver))
    }

    /// Whether new requests may go here. Those that are open go on in any case.
    pub(super) fn usable(&self) -> bool {
        let stale = || self.load() == 0 && self.idle_since.lock().elapsed() > IDLE_MAX;
        !self.retired.load(Ordering::Relaxed) && !self.sender.is_closed() && !stale()
    }

    /// Open requests.
    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the headers of the answer.
    pub(super) async fn send(
        self: &Arc<Connection>,
        request: Request<Body>,
        patience: Patience,
    ) -> Result<Response<Reply>, SendError> {
        let silence = Silence::from_now(self.clone());
        let flight = Flight::new(self.clone());
        let mut sender = self.sender.clone();
        let sent = sender.try_send_request(request);
        let answer = match patience.first_byte {
            None => sent.await,
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(answer) => answer,
                Err(_elapsed) => return Err(SendError::Failed(silence.stalled(limit))),
            },
        };
        match answer {
            Ok(response) => {
                self.heard.fetch_add(1, Ordering::Relaxed);
                Ok(Reply::wrap(response, flight, patience.stall))
            }
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    self.retired.store(true, Ordering::Relaxed);
                    Err(SendError::Returned(Box::new(request)))
                }
                None => {
                    let draining = self.sender.is_closed();
                    Err(SendError::Failed(TransportError::of_request(
                        error.into_error(),
                        draining,
                    )))
                }
            },
        }
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum SendError {
    /// It never left: the connection was gone.
    Returned(Box<Request<Body>>),
    Failed(TransportError),
}

/// A request that is open on a connection.
#[derive(Debug)]
struct Flight(Arc<Connection>);

impl Flight {
    fn new(connection: Arc<Connection>) -> Flight {
        connection.in_flight.fetch_add(1, Ordering::Relaxed);
        Flight(connection)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 {
            *self.0.idle_since.lock() = Instant::now();
        }
    }
}

/// What was heard on a connection when waiting began.
pub(super) struct Silence {
    connection: Arc<Connection>,
    heard: u64,
}

impl Silence {
    pub(super) fn from_now(connection: Arc<Connection>) -> Silence {
        let heard = connection.heard.load(Ordering::Relaxed);
        Silence { connection, heard }
    }

    /// Takes the connection out of use if nothing came on it meanwhile. What is open on it goes on.
    pub(super) fn retire(&self) {
        if self.connection.heard.load(Ordering::Relaxed) == self.heard {
            self.connection.retired.store(true, Ordering::Relaxed);
        }
    }

    /// The wait was in vain. If the whole connection was silent meanwhile, it may be dead without knowing: the next
    /// request shall not learn that in the same slow way.
    fn stalled(&self, limit: Duration) -> TransportError {
        self.retire();
        TransportError::Stalled(limit)
    }
}

/// The connection on which a request went, for a sender who may find that nothing is taken there. Travels in the request's
/// extensions.
#[derive(Clone, Debug, Default)]
pub(super) struct Seat(Arc<Mutex<Option<Arc<Connection>>>>);

impl Seat {
    pub(super) fn take(&self, connection: &Arc<Connection>) {
        *self.0.lock() = Some(connection.clone());
    }

    /// Takes the connection out of use, whatever else is heard on it: answers come while no upload gets through, if
    /// Tier 2 grants no more room for bytes. What is open on it goes on.
    pub(super) fn retire(&self) {
        if let Some(connection) = &*self.0.lock() {
            connection.retired.store(true, Ordering::Relaxed);
        }
    }
}

/// The body of an answer: an error if it stalls, or ends without a status.
#[derive(Debug)]
pub(super) struct Reply {
    inner: Incoming,
    flight: Flight,
    status_due: bool,
    stall: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Set while nothing is at hand: what was heard when that began.
    waiting: Option<u64>,
}

impl Reply {
    fn wrap(response: Response<Incoming>, flight: Flight, stall: Option<Duration>) -> Response<Reply> {
        let (mut parts, inner) = response.into_parts();
        drop_bad_details(&mut parts.headers);
        // Answers that are not HTTP 200 speak for themselves.
        let status_due = parts.status == StatusCode::OK && !parts.headers.contains_key("grpc-status");
        let reply = Reply {
            inner,
            flight,
            status_due,
            stall,
            timer: None,
            waiting: None,
        };
        Response::from_parts(parts, reply)
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<TransportError> {
        let Some(limit) = self.stall else {
            return Poll::Pending;
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if self.waiting.is_none() {
            self.waiting = Some(self.flight.0.heard.load(Ordering::Relaxed));
            timer.as_mut().reset(Instant::now() + limit);
        }
        ready!(timer.as_mut().poll(cx));
        let silence = Silence {
            connection: self.flight.0.clone(),
            heard: self.waiting.unwrap_or_default(),
        };
        Poll::Ready(silence.stalled(limit))
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => return self.poll_stall(cx).map(|stalled| Some(Err(stalled))),
        };
        self.waiting = None;
        self.flight.0.heard.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    drop_bad_details(trailers);
                    self.status_due = false;
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.status_due = false;
                let draining = self.flight.0.sender.is_closed();
                Some(Err(TransportError::of_request(error, draining)))
            }
            None if std::mem::take(&mut self.status_due) => Some(Err(TransportError::NoStatus)),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream() && !self.status_due
    }
}

/// tonic panics on details that are not base64. They are not worth a task.
fn drop_bad_details(headers: &mut HeaderMap) {
    const DETAILS: &str = "grpc-status-details-bin";
    if let Some(details) = headers.get(DETAILS) {
        let mut alone = HeaderMap::new();
        alone.insert(DETAILS, details.clone());
        let alone = MetadataMap::from_headers(alone);
        if alone
            .get_bin(DETAILS)
            .is_none_or(|value| value.to_bytes().is_err())
        {
            headers.remove(DETAILS);
        }
    }
}

/// Lets hyper's tasks be tasks of a group, so that they end with it.
#[derive(Clone, Debug)]
struct GroupExecutor(TaskGroup);

impl<F> hyper::rt::Executor<F> for GroupExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        let stop = self.0.stopping();
        drop(self.0.spawn(async move { stop.run_until_cancelled(task).await }));
    }
}
