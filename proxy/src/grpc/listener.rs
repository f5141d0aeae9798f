//! Our own HTTP/2 server: one hyper connection per client connection, with the windows, limits and drain that a cache
//! node needs. Takes any byte stream, so that a whole node runs over pipes in tests, and TLS goes in front of it.

mod calls;
mod linger;
mod preface;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;

use self::calls::Calls;
pub(super) use self::calls::{handed_on, reset_after, taken};
use self::linger::Lingering;
use self::preface::Prefaced;
use crate::task::TaskGroup;
use crate::tier2::BoxError;

/// Bytes that one upload may have on their way to us: what a 10 Gbit/s path of a millisecond holds.
const STREAM_WINDOW_BYTES: u32 = 1280 * 1024;

/// Bytes that all uploads of a connection may have on their way to us: several streams at full speed. Also what clients
/// can make us hold while Tier 2 is slower than they are; a client has one to a few connections.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Payload of one frame that clients may send. Larger frames mean fewer messages put together from pieces.
const FRAME_BYTES_MAX: u32 = 256 * 1024;

/// Bytes per stream that wait in the connection for the client's window, beside the chunk that waits in the body.
const SEND_BUFFER_BYTES: usize = 512 * 1024;

/// Bytes of a request's headers: 8 KiB of request metadata in base64, and whatever `--remote_header` adds (META-06).
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

/// Streams that we may end for a peer's faults before the connection is taken for an attack.
const LOCAL_RESETS_MAX: usize = 1024;

/// Silence on a connection after which the peer is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a peer may take to say that it speaks HTTP/2. One that is silent, or slower than that, would keep a seat from
/// others; after it the keep-alive watches.
const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a drain waits for a connection on which nothing was ever called: for the GOAWAY to be read. Also for the client
/// to close one whose calls have ended.
const LINGER: Duration = Duration::from_secs(1);

/// Pause after a failed accept. Out of file descriptors, an immediate retry would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an operator chooses.
#[derive(Debug, Clone, Copy)]
pub struct ListenerOptions {
    /// Calls that one connection may have open at a time.
    pub streams_max: u32,
    /// Connections that are served at a time. Further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// How long calls in flight may take to end once the server stops.
    pub grace: Duration,
}

impl Default for ListenerOptions {
    fn default() -> ListenerOptions {
        ListenerOptions {
            streams_max: 1000,
            connections_max: 4096,
            grace: Duration::from_secs(30),
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were closed over calls which had not ended.
    pub cut: usize,
}

impl Drained {
    /// Whether every call came to its end.
    pub fn is_clean(&self) -> bool {
        self.cut == 0
    }
}

/// Serves connections until told to stop. Clones name the same server.
#[derive(Debug, Clone)]
pub struct Server<S> {
    service: S,
    options: ListenerOptions,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: TaskGroup,
    calls: TaskGroup,
    seats: Arc<Semaphore>,
    /// Fires when connections are to say GOAWAY.
    goaway: CancellationToken,
    /// Fires when the grace period is over.
    over: CancellationToken,
    cut: AtomicUsize,
}

impl<S, B> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    B: http_body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A server without connections.
    pub fn new(service: S, options: ListenerOptions) -> Server<S> {
        let shared = Shared {
            connections: TaskGroup::new(),
            calls: TaskGroup::new(),
            seats: Arc::new(Semaphore::new(options.connections_max)),
            goaway: CancellationToken::new(),
            over: CancellationToken::new(),
            cut: AtomicUsize::new(0),
        };
        Server {
            service,
            options,
            shared: Arc::new(shared),
        }
    }

    /// Accepts connections until `stop` fires, then drains them within the grace period of the options.
    pub async fn serve(&self, listener: TcpListener, stop: CancellationToken) -> Drained {
        loop {
            tokio::select! { // cancel safe: what is not yet accepted stays in the kernel's queue
                biased;
                () = stop.cancelled() => break,
                accepted = self.accept(&listener) => match accepted {
                    Ok((socket, seat)) => self.spawn(socket, Some(seat)),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        self.drain(self.options.grace).await
    }

    async fn accept(&self, listener: &TcpListener) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
        let seat = self
            .shared
            .seats
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let (socket, _peer) = listener.accept().await?;
        // Small answers leave at once. A socket that cannot do that is only slower.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        Ok((socket, seat))
    }

    /// Serves one connection over any byte stream, in the background.
    pub fn attach(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        self.spawn(io, None);
    }

    fn spawn(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        seat: Option<OwnedSemaphorePermit>,
    ) {
        let server = self.clone();
        drop(self.shared.connections.spawn(async move {
            server.serve_connection(io).await;
            drop(seat);
        }));
    }

    /// Serves one connection to its end, which comes by the peer, by a drain, or at the end of its grace period.
    pub async fn serve_connection(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let calls = Calls::new(self.shared.calls.clone());
        let service = TowerToHyperService::new(self.service.clone());
        let http2 = http2(&self.options, calls.clone());
        let io = Prefaced::new(io);
        let speaks = io.came();
        let (made, goaway, over) = (
            calls.clone(),
            self.shared.goaway.clone(),
            self.shared.over.clone(),
        );
        // Once the grace period is over nobody is waited for.
        let drained = move || made.were_made() && goaway.is_cancelled() && !over.is_cancelled();
        let io = Lingering::new(io, self.shared.connections.clone(), drained);
        let mut connection = pin!(http2.serve_connection(TokioIo::new(io), service));
        let silent = async {
            sleep(PREFACE_TIMEOUT).await;
            if speaks.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection.as_mut() => return log_end(ended),
            () = silent => return tracing::debug!("a peer did not speak HTTP/2"),
            () = self.shared.goaway.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        let unused = async {
            sleep(LINGER).await;
            if calls.were_made() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = connection => log_end(ended),
            () = unused => {}
            () = self.shared.over.cancelled() => {
                if calls.were_made() {
                    self.shared.cut.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Ends all connections: GOAWAY at once, so that clients go elsewhere; calls in flight may end within `grace`; what is
    /// left then is closed. Returns when nothing runs any more.
    pub async fn drain(&self, grace: Duration) -> Drained {
        let shared = &self.shared;
        shared.goaway.cancel();
        if shared.connections.settle(grace).await > 0 {
            shared.over.cancel();
            shared.connections.settle(LINGER).await;
        }
        // A call ends when its connection is dropped; its task needs a turn for it.
        shared.calls.settle(LINGER).await;
        let cut = shared.cut.load(Ordering::Relaxed);
        if cut > 0 {
            tracing::warn!(connections = cut, "the grace period ended before the calls did");
        }
        Drained { cut }
    }
}

fn http2(options: &ListenerOptions, calls: Calls) -> http2::Builder<Calls> {
    let mut http2 = http2::Builder::new(calls);
    http2
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .max_concurrent_streams(options.streams_max)
        // A client that cancels everything it has asked for, at once, is an interrupted build and no attack.
        .max_pending_accept_reset_streams(usize::try_from(options.streams_max).unwrap_or(usize::MAX))
        .max_local_error_reset_streams(LOCAL_RESETS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .auto_date_header(false);
    http2
}

fn log_end(ended: hyper::Result<()>) {
    // Peers break connections every day.
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
