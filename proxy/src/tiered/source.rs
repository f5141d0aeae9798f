//! Where the bytes of a read come from at a moment. A read changes from one source to the next at an offset.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use tokio_util::sync::ReusableBoxFuture;

use super::CallError;
use super::flight_state::Copy;
use super::follower::Follower;
use crate::blob::{ByteRange, Verifier};
use crate::tier1::{Pinned, StagedReader, Tier1Error};

/// Bytes handed on at once: few enough that a gRPC message stays far below the 4 MiB that clients accept and that a
/// read of warm data delays nobody on the same thread, enough that the cost per message does not matter.
pub const READ_CHUNK_BYTES: usize = 256 * 1024;

/// One of few things that bytes come from, polled without a box per chunk.
pub(super) enum Source {
    /// In memory.
    Ready(Bytes),
    /// A blob in Tier 1.
    Pinned(Pinned, DiskRead),
    /// An acknowledged upload that Tier 1 has not published yet.
    Staged(StagedReader, DiskRead),
    /// A fetch shared with others.
    Flight(Follower),
    /// A stream from Tier 2 of this read's own. Boxed once; the stream below it is as well.
    Direct(Pin<Box<dyn Stream<Item = Result<Bytes, CallError>> + Send>>),
    /// Nothing more.
    Over,
}

/// Which store a read was answered from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// This node's disk or memory.
    One,
    /// The authoritative cache.
    Two,
}

/// What a source does next.
pub(super) enum Next {
    /// The next bytes of the range.
    Bytes(Bytes, Tier),
    /// The rest comes from there.
    Switch(Source),
    /// The copy is no good; the rest has to be looked for anew.
    Lost,
    /// The disk does not answer; the rest has to come from Tier 2.
    Slow,
    /// The flight has gone ahead; the check of its prefix goes along if there is one.
    Detached(Option<Verifier>),
    /// The read has failed.
    Failed(CallError),
}

impl From<Copy> for Source {
    fn from(copy: Copy) -> Source {
        match copy {
            Copy::Pinned(pinned) => Source::Pinned(pinned, DiskRead::default()),
            Copy::Memory(whole) => Source::Ready(whole),
        }
    }
}

impl Source {
    /// The next bytes of `rest`, which is not empty.
    pub(super) fn poll_next(&mut self, rest: ByteRange, cx: &mut Context<'_>) -> Poll<Next> {
        match self {
            Source::Ready(whole) => Poll::Ready(slice(whole, rest)),
            Source::Pinned(pinned, reading) => {
                if !reading.is_busy() {
                    if let Some(bytes) = pinned.try_read(rest, READ_CHUNK_BYTES)
                        && !bytes.is_empty()
                    {
                        return Poll::Ready(Next::Bytes(bytes, Tier::One));
                    }
                    let pinned = pinned.clone();
                    reading.start(async move { pinned.read(rest, READ_CHUNK_BYTES).await });
                }
                Poll::Ready(from_disk(ready!(reading.poll(cx))))
            }
            Source::Staged(reader, reading) => {
                if !reading.is_busy() {
                    let reader = reader.clone();
                    reading.start(async move { reader.read(rest.start(), chunk_len(rest)).await });
                }
                Poll::Ready(from_disk(ready!(reading.poll(cx))))
            }
            Source::Flight(follower) => follower.poll_next(rest, cx),
            Source::Direct(stream) => Poll::Ready(match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) => Next::Bytes(bytes, Tier::Two),
                Some(Err(error)) => Next::Failed(error),
                None => Next::Lost,
            }),
            Source::Over => Poll::Ready(Next::Lost),
        }
    }
}

fn slice(whole: &Bytes, rest: ByteRange) -> Next {
    let from = usize::try_from(rest.start()).unwrap_or(usize::MAX);
    let to = from.saturating_add(chunk_len(rest));
    if to > whole.len() {
        return Next::Lost;
    }
    Next::Bytes(whole.slice(from..to), Tier::One)
}

fn from_disk(read: Result<Bytes, Tier1Error>) -> Next {
    match read {
        Ok(bytes) if !bytes.is_empty() => Next::Bytes(bytes, Tier::One),
        Ok(_nothing) => Next::Lost,
        Err(Tier1Error::Slow) => Next::Slow,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a copy in tier 1 cannot be read"
            );
            Next::Lost
        }
    }
}

/// Bytes of `rest` that fit one chunk.
pub(super) fn chunk_len(rest: ByteRange) -> usize {
    usize::try_from(rest.len()).map_or(READ_CHUNK_BYTES, |len| len.min(READ_CHUNK_BYTES))
}

/// A read of the disk under way. The allocation for the first serves all that follow.
#[derive(Default)]
pub(super) struct DiskRead {
    future: Option<ReusableBoxFuture<'static, Result<Bytes, Tier1Error>>>,
    busy: bool,
}

impl DiskRead {
    /// Whether a read was started and not yet polled to its end.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Starts a read; it replaces one that is under way.
    pub(super) fn start(&mut self, read: impl Future<Output = Result<Bytes, Tier1Error>> + Send + 'static) {
        match &mut self.future {
            Some(future) => future.set(read),
            None => self.future = Some(ReusableBoxFuture::new(read)),
        }
        self.busy = true;
    }

    /// What was read. Only after [`DiskRead::start`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Tier1Error>> {
        let Some(future) = &mut self.future else {
            return Poll::Ready(Ok(Bytes::new()));
        };
        let read = ready!(future.poll(cx));
        self.busy = false;
        Poll::Ready(read)
    }
}
