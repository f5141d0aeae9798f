//! A reader's place in a flight: takes bytes from memory while it keeps up, from disk when it fell behind.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::flight::{Flight, Step};
use super::ring::Segment;
use super::source::{DiskRead, Next, Tier, chunk_len};
use crate::blob::{ByteRange, Verifier};

/// A seat in a flight; given back when dropped.
pub(super) struct Follower {
    flight: Arc<Flight>,
    seat: u64,
    prefix: Prefix,
    reading: DiskRead,
}

/// What is known of the bytes before the next one, for a reader that has to go on without its flight: the check of a
/// whole read must cover just the bytes that left.
enum Prefix {
    /// Nothing: the read began in the middle, or does not reach the end.
    Unknown,
    /// They were hashed here, since they came from disk.
    Hashed(Box<Verifier>),
    /// The last of them were part of this piece, which knows the hash of what lies before it.
    In(Arc<Segment>),
}

impl Follower {
    /// Takes its seat for `range`.
    pub(super) fn new(flight: Arc<Flight>, seat: u64, range: ByteRange) -> Follower {
        let digest = flight.key().digest;
        let prefix = if range.start() == 0 && range.reaches_end_of(&digest) {
            Prefix::Hashed(Box::new(Verifier::new(digest)))
        } else {
            Prefix::Unknown
        };
        Follower {
            flight,
            seat,
            prefix,
            reading: DiskRead::default(),
        }
    }

    /// The next bytes of `rest`, which is not empty, or where to get them.
    pub(super) fn poll_next(&mut self, rest: ByteRange, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if self.reading.is_busy() {
                let read = ready!(self.reading.poll(cx));
                match read {
                    Ok(bytes) if !bytes.is_empty() => {
                        if self.flight.took_staged(self.seat, &bytes) {
                            self.hash(rest.start(), &bytes);
                            return Poll::Ready(Next::Bytes(bytes, Tier::Two));
                        }
                        continue;
                    }
                    Ok(_nothing) => {}
                    Err(error) => tracing::warn!(
                        digest = %self.flight.key().digest,
                        error = &error as &dyn std::error::Error,
                        "a staging file cannot be read"
                    ),
                }
                return Poll::Ready(Next::Detached(self.prefix_at(rest.start())));
            }
            return Poll::Ready(match ready!(self.flight.poll_step(self.seat, rest, cx)) {
                Step::Bytes(bytes, segment) => {
                    // A read of a part needs no check to take along.
                    if rest.reaches_end_of(&self.flight.key().digest) {
                        self.prefix = Prefix::In(segment);
                    }
                    Next::Bytes(bytes, Tier::Two)
                }
                Step::Staged(reader) => {
                    self.reading
                        .start(async move { reader.read(rest.start(), chunk_len(rest)).await });
                    continue;
                }
                Step::Copy(copy) => Next::Switch(copy.into()),
                Step::Detached => Next::Detached(self.prefix_at(rest.start())),
                Step::Failed(error) => Next::Failed(error),
            });
        }
    }

    fn hash(&mut self, offset: u64, bytes: &[u8]) {
        if let Prefix::In(_) = self.prefix
            && let Some(verifier) = self.prefix_at(offset)
        {
            self.prefix = Prefix::Hashed(Box::new(verifier));
        }
        if let Prefix::Hashed(verifier) = &mut self.prefix
            && verifier.update(bytes).is_err()
        {
            self.prefix = Prefix::Unknown;
        }
    }

    fn prefix_at(&self, offset: u64) -> Option<Verifier> {
        match &self.prefix {
            Prefix::Unknown => None,
            Prefix::Hashed(verifier) => (verifier.seen_bytes() == offset).then(|| (**verifier).clone()),
            Prefix::In(segment) => segment.verifier_at(offset),
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flight.leave(self.seat);
    }
}
