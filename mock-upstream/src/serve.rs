//! Connections: accepted, served, and closed at will.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::call::{CallHandle, RequestBody, Ticket};
use crate::connection::{Break, ConnectionState, ControlledIo, Transport};
use crate::log::{Call, Firing};
use crate::method;
use crate::mock::Shared;
use crate::rule::Act;
use crate::rules::{Fault, What};
use crate::script::unless_cleared;
use crate::service;
use crate::violation::pick;

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
    /// Connections that may still be open.
    open: Mutex<Vec<Weak<ConnectionState>>>,
    /// Whether the listener is closed because of a rule.
    refusing: watch::Sender<bool>,
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
            open: Mutex::default(),
            refusing: watch::Sender::new(false),
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

    pub(crate) fn serve_stream<I: Transport>(&self, io: I) -> io::Result<()> {
        if let Some((fault, _)) = self.shared.rules.refusal() {
            self.refused(&fault);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.serve(io, None)
    }

    fn serve<I: Transport>(&self, io: I, peer: Option<SocketAddr>) -> io::Result<()> {
        let session = self.session.lock();
        let session = session.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(ConnectionState::new(number, peer, session.stop.clone()));
        {
            let mut open = self.open.lock();
            open.retain(|state| state.strong_count() > 0);
            open.push(Arc::downgrade(&state));
        }
        let io = ControlledIo::new(io, Arc::clone(&state));
        session
            .tasks
            .spawn(connection(Arc::clone(&self.shared), session.clone(), state, io));
        Ok(())
    }

    /// Breaks all connections that are open, and returns how many there were.
    pub(crate) fn break_connections(&self, how: Break) -> usize {
        let open: Vec<_> = self.open.lock().iter().filter_map(Weak::upgrade).collect();
        for state in &open {
            state.break_off(how);
        }
        open.len()
    }

    /// Waits until the listener does what the rules say of it.
    pub(crate) async fn settled(&self) {
        let mut refusing = self.refusing.subscribe();
        let wanted = |refusing: &bool| {
            let listens = self.address().is_some() && self.session.lock().is_some();
            !listens || *refusing == self.shared.rules.refusal().is_some()
        };
        // The sender is ours.
        drop(refusing.wait_for(wanted).await);
    }

    fn refused(&self, fault: &Fault) {
        self.shared.log.fired(fault.firing(None));
    }

    fn accept(self: &Arc<Self>, listener: TcpListener) {
        let server = Arc::clone(self);
        if let Some(session) = self.session.lock().as_ref() {
            let stop = session.stop.clone();
            session.tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = server.accept_all(listener) => {}
                }
                server.refusing.send_replace(false);
            });
        }
    }

    /// Cancel safe: what is dropped with it is the listener.
    async fn accept_all(&self, mut listener: TcpListener) {
        let mut changes = self.shared.rules.changes();
        loop {
            changes.mark_unchanged();
            if let Some((fault, _)) = self.shared.rules.refusal() {
                drop(listener);
                self.refused(&fault);
                listener = match self.listen_again(&mut changes).await {
                    Ok(listener) => listener,
                    Err(error) => return tracing::error!(%error, "the port was lost while refusing"),
                };
                continue;
            }
            let accepted = tokio::select! {
                biased;
                _rules = changes.changed() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                // Refused only if the stop came in between, and then nobody is to be served.
                Ok((socket, peer)) => drop(
                    socket
                        .set_nodelay(true)
                        .and_then(|()| self.serve(socket, Some(peer))),
                ),
                Err(error) => tracing::warn!(%error, "a connection was not accepted"),
            }
        }
    }

    /// Holds the port without listening, until no rule refuses any more.
    async fn listen_again(&self, changes: &mut watch::Receiver<()>) -> io::Result<TcpListener> {
        let address = self.address().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let reserved = bind(address)?;
        self.refusing.send_replace(true);
        while let Some((_, end)) = self.shared.rules.refusal() {
            tokio::select! {
                _rules = changes.changed() => {}
                () = tokio::time::sleep_until(end.unwrap_or_else(far_off)) => {}
            }
        }
        let listener = reserved.listen(BACKLOG)?;
        self.refusing.send_replace(false);
        Ok(listener)
    }
}

/// Later than any rule is meant to last.
fn far_off() -> Instant {
    const FAR_OFF: Duration = Duration::from_secs(24 * 60 * 60);
    Instant::now() + FAR_OFF
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

async fn connection<I: Transport>(
    shared: Arc<Shared>,
    session: Session,
    state: Arc<ConnectionState>,
    io: ControlledIo<I>,
) {
    let number = state.number;
    let serve = async {
        if greet(&shared, &state).await {
            talk(shared, session, Arc::clone(&state), io).await;
        }
    };
    tokio::select! {
        biased;
        () = state.stop.cancelled() => {}
        () = state.breaking.cancelled() => tracing::debug!(number, "a rule broke a connection"),
        () = serve => {}
    }
}

/// What rules have in mind for connections that were just accepted; false if this one is not to be served.
async fn greet(shared: &Shared, state: &ConnectionState) -> bool {
    let arrived = Call::blank(0, method::CONNECT.to_owned(), state.number);
    for planned in shared.rules.plan(&arrived) {
        let fault = match planned.what {
            What::Hold(barrier) => {
                barrier.pass().await;
                continue;
            }
            What::Fault(fault) => fault,
        };
        shared.log.fired(fault.firing(Some(state.number)));
        match fault.act {
            Act::Hang => fault.cleared.cancelled().await,
            Act::Delay { ms } => unless_cleared(&fault.cleared, Duration::from_millis(ms)).await,
            Act::Close => state.break_off(Break::Close),
            // Accepted before the listener was closed.
            Act::Reset | Act::Refuse => state.break_off(Break::Reset),
            Act::Drip { .. }
            | Act::Status { .. }
            | Act::EntryStatus { .. }
            | Act::EndEarly
            | Act::CommittedSize { .. }
            | Act::SayPresent
            | Act::SayMissing
            | Act::Capabilities(_)
            | Act::ExtraBytes { .. }
            | Act::FlipByte
            | Act::OtherBlob
            | Act::RepeatChunk
            | Act::Drop
            | Act::Evict
            | Act::EvictOutputs
            | Act::ResetStream
            | Act::GoAway { .. }
            | Act::Starve => {}
        }
    }
    !state.breaking.is_cancelled()
}

impl Fault {
    /// Its effect on no call.
    fn firing(&self, connection: Option<u64>) -> Firing {
        Firing {
            rule: self.rule,
            name: self.name.clone(),
            act: self.act.name(),
            call: None,
            connection,
            moved: 0,
            at: Duration::ZERO,
        }
    }
}

async fn talk<I: Transport>(
    shared: Arc<Shared>,
    session: Session,
    state: Arc<ConnectionState>,
    io: ControlledIo<I>,
) {
    let number = state.number;
    let drain = state.drain.clone();
    let routes = service::routes(Arc::clone(&shared));
    let window = shared.settings.lock().window_bytes;
    let serve = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        // In here, not in the future: calls are numbered as they come, not as they are polled.
        let call = CallHandle::open(Arc::clone(&shared), Arc::clone(&state), &request);
        let ticket = Ticket(call.clone());
        let refused = shared.bend_call(request.uri().path(), request.headers());
        let deadlines = shared.settings.lock().deadlines;
        let allowed = deadlines.then(|| allowed(request.headers())).flatten();
        let late = shared.bends().iter().find_map(pick!(Late));
        let mut request = request.map(|body| RequestBody::new(body, call.clone()));
        request.extensions_mut().insert(call);
        let answer = routes.clone().oneshot(request);
        async move {
            if let Some(status) = refused {
                return ticket.answer(status.into_http());
            }
            let answer = async {
                match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            };
            let answered = match allowed {
                Some(allowed) => tokio::time::timeout(allowed, answer).await,
                None => Ok(answer.await),
            };
            let late = || Status::new(late.unwrap_or(Code::DeadlineExceeded), "the deadline has passed");
            ticket.answer(answered.unwrap_or_else(|_elapsed| late().into_http()))
        }
    });
    let connection = http2::Builder::new(session)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .serve_connection(TokioIo::new(io), serve);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(number, %error, "a connection broke");
    }
}

/// What `grpc-timeout` allows a call: at most eight digits, and a unit.
fn allowed(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 60 * 60),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _unknown => return None,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_number_and_a_unit() {
        let of = |text: &str| {
            let value = http::HeaderValue::from_str(text).unwrap();
            allowed(&http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                value,
            )]))
        };
        assert_eq!(of("500m"), Some(Duration::from_millis(500)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 60 * 60)));
        for none in ["", "m", "5", "5x", "123456789S", "-5S", "5\u{e9}"] {
            assert_eq!(of(none), None, "{none}");
        }
        assert_eq!(allowed(&http::HeaderMap::new()), None);
    }
}
