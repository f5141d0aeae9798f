//! The end of a connection that is drained: closed so that its client gets all that was sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

use super::LINGER;
use crate::task::TaskGroup;

/// A byte stream that, when dropped, takes what its peer still sends, at most for [`LINGER`], if `wanted` says so then.
///
/// A socket that is closed with bytes in it that nobody read, such as a window update of a client that is reading, resets
/// its connection, and the client loses what it had not read by then: the end of a call that was answered in full.
pub(super) struct Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool,
{
    /// There until the drop.
    io: Option<I>,
    tasks: TaskGroup,
    wanted: W,
}

impl<I, W> Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool,
{
    pub(super) fn new(io: I, tasks: TaskGroup, wanted: W) -> Lingering<I, W> {
        Lingering {
            io: Some(io),
            tasks,
            wanted,
        }
    }
}

impl<I, W> Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool + Unpin,
{
    fn io<T>(
        self: Pin<&mut Self>,
        poll: impl FnOnce(Pin<&mut I>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.get_mut().io {
            Some(io) => poll(Pin::new(io)),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl<I, W> Drop for Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool,
{
    fn drop(&mut self) {
        if let Some(mut io) = self.io.take()
            && (self.wanted)()
        {
            let rest = async move {
                // A peer that is gone has nothing to lose.
                let _gone = io.shutdown().await;
                let mut unread = [0; 4096];
                while let Ok(1..) = io.read(&mut unread).await {}
            };
            drop(self.tasks.spawn(timeout(LINGER, rest)));
        }
    }
}

impl<I, W> AsyncRead for Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_read(cx, into))
    }
}

impl<I, W> AsyncWrite for Lingering<I, W>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    W: Fn() -> bool + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.io(|io| io.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io(|io| io.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.io(|io| io.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
