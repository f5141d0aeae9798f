//! One connection: what its calls and the rules want of it, and the stream of bytes under it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::frames::{Frames, Orders};
use crate::log::Outcome;

/// What a connection's calls want to know about it, and may ask of it.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    /// Numbered from 0, in the order of arrival.
    pub(crate) number: u64,
    pub(crate) peer: Option<SocketAddr>,
    /// The peer is gone. Known before any of its streams hears of it.
    lost: AtomicBool,
    /// We are closing it, with all others.
    pub(crate) stop: CancellationToken,
    /// A rule has broken it, the first one in this way.
    broken: OnceLock<Break>,
    /// Cancelled when it is broken.
    pub(crate) breaking: CancellationToken,
    /// Cancelled when it is to end once its streams have.
    pub(crate) drain: CancellationToken,
    orders: Mutex<Orders>,
}

/// Ways to end a connection that the peer would have kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Break {
    /// By a TCP reset.
    Reset,
    /// By closing it.
    Close,
    /// By a GOAWAY that knows of no stream.
    Disown,
}

impl ConnectionState {
    pub(crate) fn new(number: u64, peer: Option<SocketAddr>, stop: CancellationToken) -> ConnectionState {
        ConnectionState {
            number,
            peer,
            lost: AtomicBool::new(false),
            stop,
            broken: OnceLock::new(),
            breaking: CancellationToken::new(),
            drain: CancellationToken::new(),
            orders: Mutex::default(),
        }
    }

    /// How calls ended that did not come to their end.
    pub(crate) fn cut(&self) -> Outcome {
        if self.stop.is_cancelled() {
            Outcome::Suspended
        } else if self.broken.get().is_some() {
            Outcome::Broken
        } else if self.lost.load(Ordering::SeqCst) {
            Outcome::ConnectionLost
        } else {
            Outcome::Reset
        }
    }

    pub(crate) fn break_off(&self, how: Break) {
        if self.broken.set(how).is_err() {
            return;
        }
        match how {
            Break::Reset | Break::Close => self.breaking.cancel(),
            Break::Disown => {
                self.orders.lock().disown = true;
                // HTTP/2 has something to say then, and what it says is replaced.
                self.drain.cancel();
            }
        }
    }

    pub(crate) fn starve(&self) {
        self.orders.lock().starve = true;
    }
}

/// What carries a connection.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Makes its end, when it is dropped, a reset, where there is such a thing.
    fn arm_reset(&self);
}

impl Transport for TcpStream {
    fn arm_reset(&self) {
        if let Err(error) = self.set_zero_linger() {
            tracing::warn!(%error, "a connection is closed that should be reset");
        }
    }
}

impl Transport for DuplexStream {
    fn arm_reset(&self) {}
}

/// Streams of tests.
pub(crate) struct Foreign<I>(pub(crate) I);

impl<I: AsyncRead + AsyncWrite + Unpin + Send + 'static> Transport for Foreign<I> {
    fn arm_reset(&self) {}
}

impl<I: AsyncRead + Unpin> AsyncRead for Foreign<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Foreign<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Carries out what rules want of the bytes, and notes that the peer is gone before HTTP/2 tells the streams: they
/// cannot tell it from a reset.
pub(crate) struct ControlledIo<I: Transport> {
    io: I,
    state: Arc<ConnectionState>,
    frames: Frames,
    /// Taken from HTTP/2, not yet by the transport. More is taken only when it is empty.
    out: BytesMut,
}

impl<I: Transport> ControlledIo<I> {
    pub(crate) fn new(io: I, state: Arc<ConnectionState>) -> ControlledIo<I> {
        ControlledIo {
            io,
            state,
            frames: Frames::default(),
            out: BytesMut::new(),
        }
    }

    fn lost(&self) {
        self.state.lost.store(true, Ordering::SeqCst);
    }

    fn watch<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = polled {
            self.lost();
        }
        polled
    }

    /// Hands to the transport what was taken.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let polled = Pin::new(&mut self.io).poll_write(cx, &self.out);
            match std::task::ready!(self.watch(polled))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.out.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_drain(cx))?;
        if self.frames.ended() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let orders = *self.state.orders.lock();
        for part in parts {
            self.frames.pass(part, orders, &mut self.out);
        }
        // Whether it went out at once does not matter here: a flush follows.
        if let Poll::Ready(Err(error)) = self.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()))
    }
}

impl<I: Transport> Drop for ControlledIo<I> {
    fn drop(&mut self) {
        if self.state.broken.get() == Some(&Break::Reset) {
            self.io.arm_reset();
        }
    }
}

impl<I: Transport> AsyncRead for ControlledIo<I> {
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

impl<I: Transport> AsyncWrite for ControlledIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_take(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(cx))?;
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        self.watch(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
