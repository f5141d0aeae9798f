//! Connections: accepted, served, and closed at will.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::call::{CallHandle, ConnectionState, RequestBody, Ticket};
use crate::mock::Shared;
use crate::service;

/// Clients keep hundreds of calls on one connection; a limit must not become their error.
const MAX_STREAMS: u32 = 4096;

/// Cancelling calls by the hundred is everyday traffic, not an attack on a mock.
const MAX_RESET_STREAMS: usize = 4096;

/// Room for request metadata and a client's own headers.
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// Connections waiting to be accepted, before the kernel refuses more.
const BACKLOG: u32 = 1024;

/// Like a socket's buffer.
const PIPE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    /// `None` while suspended.
    session: Mutex<Option<Session>>,
    port: tokio::sync::Mutex<Port>,
    address: Mutex<Option<SocketAddr>>,
    connections: AtomicU64,
}

/// All that runs between a resume and the next suspend.
#[derive(Clone, Debug, Default)]
struct Session {
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
enum Port {
    /// Listening, or there is none.
    Open,
    /// Bound without listening: nobody can take it, and connecting is refused.
    Reserved(TcpSocket),
}

impl Server {
    pub(crate) fn new(shared: Arc<Shared>) -> Server {
        Server {
            shared,
            session: Mutex::new(Some(Session::default())),
            port: tokio::sync::Mutex::new(Port::Open),
            address: Mutex::new(None),
            connections: AtomicU64::new(0),
        }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn address(&self) -> Option<SocketAddr> {
        *self.address.lock()
    }

    /// Listens for the first time.
    pub(crate) async fn listen(self: &Arc<Self>, address: SocketAddr) -> io::Result<()> {
        let _port = self.port.lock().await;
        let listener = bind(address)?.listen(BACKLOG)?;
        *self.address.lock() = Some(listener.local_addr()?);
        self.accept(listener);
        Ok(())
    }

    pub(crate) async fn suspend(&self) -> io::Result<()> {
        let mut port = self.port.lock().await;
        let Some(session) = self.session.lock().take() else {
            return Ok(());
        };
        session.end().await;
        if let Some(address) = self.address() {
            *port = Port::Reserved(bind(address)?);
        }
        Ok(())
    }

    pub(crate) async fn resume(self: &Arc<Self>) -> io::Result<()> {
        let mut port = self.port.lock().await;
        if self.session.lock().is_some() {
            return Ok(());
        }
        let listener = match (std::mem::replace(&mut *port, Port::Open), self.address()) {
            (Port::Reserved(socket), _) => Some(socket.listen(BACKLOG)?),
            (Port::Open, Some(address)) => Some(bind(address)?.listen(BACKLOG)?),
            (Port::Open, None) => None,
        };
        *self.session.lock() = Some(Session::default());
        if let Some(listener) = listener {
            self.accept(listener);
        }
        Ok(())
    }

    /// Ends for good, the port included.
    pub(crate) async fn stop(&self) {
        let mut port = self.port.lock().await;
        *port = Port::Open;
        let session = self.session.lock().take();
        if let Some(session) = session {
            session.end().await;
        }
    }

    /// Tells all to end, without waiting for it.
    pub(crate) fn cut(&self) {
        if let Some(session) = self.session.lock().take() {
            session.stop.cancel();
        }
    }

    pub(crate) fn connect(&self) -> io::Result<DuplexStream> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        self.serve_stream(far)?;
        Ok(near)
    }

    pub(crate) fn serve_stream<I>(&self, io: I) -> io::Result<()>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let session = self.session.lock();
        let session = session.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        session
            .tasks
            .spawn(connection(Arc::clone(&self.shared), session.clone(), number, io));
        Ok(())
    }

    fn accept(self: &Arc<Self>, listener: TcpListener) {
        let server = Arc::clone(self);
        if let Some(session) = self.session.lock().as_ref() {
            let stop = session.stop.clone();
            session.tasks.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        biased;
                        () = stop.cancelled() => return,
                        accepted = listener.accept() => accepted,
                    };
                    match accepted {
                        // Refused only if the stop came in between, and then nobody is to be served.
                        Ok((socket, _peer)) => drop(
                            socket
                                .set_nodelay(true)
                                .and_then(|()| server.serve_stream(socket)),
                        ),
                        Err(error) => tracing::warn!(%error, "a connection was not accepted"),
                    }
                }
            });
        }
    }
}

impl Session {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// `SO_REUSEADDR`, for ports whose last connections linger in the kernel.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn connection<I>(shared: Arc<Shared>, session: Session, number: u64, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::new(ConnectionState {
        lost: AtomicBool::new(false),
        stop: session.stop.clone(),
    });
    let io = WatchedIo {
        io,
        state: Arc::clone(&state),
    };
    let stop = session.stop.clone();
    let routes = service::routes(Arc::clone(&shared));
    let serve = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        // In here, not in the future: calls are numbered as they come, not as they are polled.
        let call = CallHandle::open(
            Arc::clone(&shared),
            Arc::clone(&state),
            number,
            request.uri().path(),
        );
        let ticket = Ticket(call.clone());
        let mut request = request.map(|body| RequestBody::new(body, call.clone()));
        request.extensions_mut().insert(call);
        let answer = routes.clone().oneshot(request);
        async move { Ok::<_, Infallible>(ticket.answer(answer.await?)) }
    });
    let connection = http2::Builder::new(session)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(io), serve);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        ended = connection => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(number, %error, "a connection broke");
    }
}

/// Streams of a connection, too, are tasks of the session, and end with it.
impl<F> Executor<F> for Session
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ended = stream => {}
            }
        });
    }
}

/// Notes that the peer is gone, before HTTP/2 tells the streams: they cannot tell it from a reset.
struct WatchedIo<I> {
    io: I,
    state: Arc<ConnectionState>,
}

impl<I> WatchedIo<I> {
    fn lost(&self) {
        self.state.lost.store(true, Ordering::SeqCst);
    }

    fn watch<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = polled {
            self.lost();
        }
        polled
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.remaining();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_ready() && room > 0 && buf.remaining() == room {
            self.lost();
        }
        self.watch(polled)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WatchedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
