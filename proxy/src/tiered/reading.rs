//! A read under way: one stream for the client, whatever its bytes come from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use tokio::time::Sleep;

use super::CallError;
use super::read::{Copies, Shared, Start};
use super::source::{Next, Source};
use crate::blob::ByteRange;
use crate::call::{BlobKey, Call};

/// Copies in Tier 1 that a read tries before it turns to Tier 2 for good: one that rotted, and one fetched in its place.
const LOST_COPIES_MAX: u32 = 2;

/// The bytes of a range in chunks of at most [`super::source::READ_CHUNK_BYTES`], none empty. Ends after the last byte
/// or with the first error. When a copy in Tier 1 proves rotten or gone, it goes on from Tier 2 at the same byte.
pub struct Reading {
    shared: Arc<Shared>,
    call: Call,
    key: BlobKey,
    rest: ByteRange,
    source: Source,
    /// The first chunk, which came before anybody polled for it.
    ahead: Option<Bytes>,
    /// Made when the read has to wait for the first time.
    deadline: Option<Pin<Box<Sleep>>>,
    has_sent: bool,
    has_failed: bool,
    lost_copies: u32,
    /// The disk did not answer in time.
    was_slow: bool,
}

impl Reading {
    pub(super) fn new(
        shared: Arc<Shared>,
        call: Call,
        key: BlobKey,
        range: ByteRange,
        source: Source,
    ) -> Reading {
        Reading {
            shared,
            call,
            key,
            rest: range,
            source,
            ahead: None,
            deadline: None,
            has_sent: false,
            has_failed: false,
            lost_copies: 0,
            was_slow: false,
        }
    }

    /// A read of no bytes.
    pub(super) fn nothing(shared: Arc<Shared>, call: Call, key: BlobKey, range: ByteRange) -> Reading {
        Reading::new(shared, call, key, range.skip(range.len()), Source::Over)
    }

    /// Bytes that are still to come.
    pub fn remaining_bytes(&self) -> u64 {
        self.rest.len() + self.ahead.as_ref().map_or(0, |bytes| bytes.len() as u64)
    }

    /// Waits for the first chunk and keeps it.
    pub(super) async fn first(&mut self) -> Result<(), CallError> {
        self.ahead = self.next().await.transpose()?;
        Ok(())
    }

    /// All that is left, in one piece.
    pub(super) async fn collect(mut self) -> Result<Bytes, CallError> {
        let Some(first) = self.next().await.transpose()? else {
            return Ok(Bytes::new());
        };
        if self.remaining_bytes() == 0 {
            return Ok(first);
        }
        // Grows with what comes, not with what the digest claims.
        let mut whole = BytesMut::from(first);
        while let Some(next) = self.next().await.transpose()? {
            whole.extend_from_slice(&next);
        }
        Ok(whole.freeze())
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, CallError>> {
        loop {
            match ready!(self.source.poll_next(self.rest, cx)) {
                Next::Bytes(bytes, tier) => {
                    self.shared.served(tier, bytes.len());
                    if !self.has_sent {
                        self.has_sent = true;
                        self.shared.hit(tier, &self.call, &self.key);
                    }
                    return Poll::Ready(Ok(bytes));
                }
                Next::Switch(source) => self.source = source,
                Next::Detached(prefix) => {
                    self.shared.metrics.followers_detached.inc();
                    self.source = self
                        .shared
                        .direct(&self.call, &self.key, self.rest, prefix, self.has_sent);
                }
                Next::Lost => self.source = self.look_again()?,
                Next::Slow => self.source = self.turn_to_tier2()?,
                Next::Failed(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// The copy that the read lived on is no good. It is dropped, and the rest comes from elsewhere.
    fn look_again(&mut self) -> Result<Source, CallError> {
        if let Source::Pinned(pinned, _) = &self.source {
            self.shared.tier1.discard(pinned);
        }
        self.lost_copies += 1;
        if self.lost_copies > LOST_COPIES_MAX {
            return Ok(self.alone());
        }
        self.shared
            .locate(&self.call, &self.key, self.rest, Start::Stream)
    }

    /// The disk hangs. Nothing is known against the copy, so it stays for better times. A shared fetch may lead back to the
    /// disk: once is enough.
    fn turn_to_tier2(&mut self) -> Result<Source, CallError> {
        if std::mem::replace(&mut self.was_slow, true) {
            return Ok(self.alone());
        }
        self.shared.locate_in_tier2(
            &self.call,
            &self.key,
            self.rest,
            Start::Stream,
            Copies::Distrusted,
        )
    }

    /// A stream of this read's own.
    fn alone(&self) -> Source {
        self.shared
            .direct(&self.call, &self.key, self.rest, None, self.has_sent)
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.call.deadline else {
            return Poll::Pending;
        };
        self.deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)))
            .as_mut()
            .poll(cx)
    }

    fn fail(&mut self, error: CallError) -> CallError {
        self.has_failed = true;
        self.source = Source::Over;
        if !self.has_sent {
            self.shared.missed(&error);
        }
        error
    }
}

impl Stream for Reading {
    type Item = Result<Bytes, CallError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(bytes) = this.ahead.take() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        if this.has_failed || this.rest.is_empty() {
            return Poll::Ready(None);
        }
        match this.poll_source(cx) {
            Poll::Ready(Ok(bytes)) => {
                this.rest = this.rest.skip(bytes.len() as u64);
                if this.rest.is_empty() {
                    // Seat, pin and stream are free before the client has taken the last bytes.
                    this.source = Source::Over;
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Some(Err(this.fail(error)))),
            Poll::Pending => {
                ready!(this.poll_deadline(cx));
                Poll::Ready(Some(Err(this.fail(CallError::DeadlineExceeded))))
            }
        }
    }
}
