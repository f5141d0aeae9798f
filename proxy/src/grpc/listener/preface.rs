//! Whether the peer of a connection has said that it speaks HTTP/2.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes with which every HTTP/2 client begins.
const PREFACE_BYTES: usize = 24;

/// A byte stream that notes when the first bytes have come. What they are is for HTTP/2 to judge.
pub(super) struct Prefaced<T> {
    io: T,
    lacking_bytes: usize,
    came: Arc<AtomicBool>,
}

impl<T> Prefaced<T> {
    pub(super) fn new(io: T) -> Prefaced<T> {
        Prefaced {
            io,
            lacking_bytes: PREFACE_BYTES,
            came: Arc::default(),
        }
    }

    /// Becomes true with the last byte of the preface.
    pub(super) fn came(&self) -> Arc<AtomicBool> {
        self.came.clone()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefaced<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.lacking_bytes > 0 {
            let read = buf.filled().len() - before;
            self.lacking_bytes = self.lacking_bytes.saturating_sub(read);
            self.came.store(self.lacking_bytes == 0, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Prefaced<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
