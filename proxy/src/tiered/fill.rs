//! The task behind a flight: fetches a blob from Tier 2, hands it to readers and to the disk, and says how it ended.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::fetch::Fetch;
use super::flight::Flight;
use super::flight_state::{Phase, Room, State};
use super::read::Shared;
use crate::blob::{ByteRange, Verified, Verifier};
use crate::call::Call;
use crate::digest::Digest;
use crate::tier2::Tier2Error;

/// How long, in all, a flight waits for a slow disk while every reader has bytes to go on with: nobody is slowed by it,
/// and a blob that Tier 1 can keep saves many fetches. A disk that hangs must not hold the flight for ever, though.
const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// How long, in all, a flight lets a reader that has taken everything wait for the disk, after a whole ring was filled
/// ahead of it. A disk that is merely busy with one write gets over it; a slow one costs its reader this much, once.
const HUNGRY_PATIENCE: Duration = Duration::from_millis(250);

/// How long the disk may take for what is left when the last byte has come. Nobody waits then.
const LANDING_PATIENCE: Duration = Duration::from_secs(30);

/// How long a stream from Tier 2 is held open for readers that take nothing. It takes room on a connection that others use;
/// another one goes on at its byte.
const READERS_PATIENCE: Duration = Duration::from_secs(10);

/// How long a fetch goes on without a reader when it is not worth finishing.
const LINGER: Duration = Duration::from_secs(5);

/// A fetch with no more than this to go is finished without a reader.
const LITTLE_BYTES: u64 = 64 << 20;

/// The owner of a flight. Dropped, it frees the flight's place and tells whoever still waits.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) flight: Arc<Flight>,
    /// The node's own call, in the scope of the reader that came first.
    pub(super) call: Call,
    /// The right to write to disk beside the stream.
    pub(super) _disk: Option<OwnedSemaphorePermit>,
}

/// How a stream ended.
pub(super) enum Flown {
    /// Everything is released and right; the copy on disk can be published.
    Landed(Verified),
    /// The outcome is told.
    Told,
}

impl Fill {
    /// Fetches the blob as a stream.
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.fly() => {}
            () = self.abandoned() => tracing::debug!(digest = %self.digest(), "nobody wants it any more"),
        }
    }

    /// Fetches the blob whole, before a byte leaves: another try of a bad one.
    pub(super) async fn run_held(self) {
        tokio::select! {
            () = self.retry() => {}
            () = self.abandoned() => {}
        }
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.flight.key().digest
    }

    async fn fly(&self) {
        let mut disk = pin!(self.keep());
        let mut disk_done = false;
        let mut staged = None;
        let flown = {
            let mut stream = pin!(self.stream());
            loop {
                tokio::select! {
                    flown = &mut stream => break flown,
                    kept = &mut disk, if !disk_done => {
                        disk_done = true;
                        staged = kept;
                    }
                }
            }
        };
        let Flown::Landed(proof) = flown else {
            return;
        };
        if !disk_done && self.flight.look(State::has_disk) {
            staged = match timeout(LANDING_PATIENCE, disk).await {
                Ok(kept) => kept,
                Err(_elapsed) => {
                    self.give_up_disk("lagged");
                    None
                }
            };
        }
        if let Some(staged) = staged {
            self.publish(staged, proof).await;
        }
    }

    /// Reads Tier 2 to the end. The piece that completes the blob stays here until the hash is known.
    async fn stream(&self) -> Flown {
        let digest = *self.digest();
        let mut fetch = self.fetch();
        let mut verifier = Verifier::new(digest);
        let mut patience = Patience::default();
        loop {
            let piece = match fetch.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return self.broken(Tier2Error::Short),
                Err(Tier2Error::Corrupt(mismatch)) => return self.mend(verifier, &mismatch).await,
                Err(error) => return self.broken(error),
            };
            let before = verifier.clone();
            if let Err(mismatch) = verifier.update(&piece) {
                return self.mend(before, &mismatch).await;
            }
            if verifier.remaining_bytes() > 0 {
                self.make_room(piece.len(), &mut patience, &mut fetch).await;
                self.flight.change(|state| state.release(piece, before));
                continue;
            }
            return match verifier.finish() {
                Ok(proof) => {
                    self.fetched(&fetch);
                    self.make_room(piece.len(), &mut patience, &mut fetch).await;
                    self.flight.change(|state| state.release(piece, before));
                    Flown::Landed(proof)
                }
                Err(mismatch) => self.mend(before, &mismatch).await,
            };
        }
    }

    /// Everything came and is right.
    pub(super) fn fetched(&self, fetch: &Fetch) {
        if let Some(first_byte_at) = fetch.first_byte_at() {
            self.shared.presence.fetched(self.flight.key(), first_byte_at);
        }
    }

    pub(super) fn broken(&self, error: Tier2Error) -> Flown {
        self.end(Phase::Broken(error.into()));
        Flown::Told
    }

    pub(super) fn fetch(&self) -> Fetch {
        Fetch::new(
            self.shared.tier2.clone(),
            self.call.clone(),
            *self.digest(),
            ByteRange::whole(self.digest()),
            false,
            self.shared.metrics.resumed.clone(),
        )
    }

    /// Waits until the next piece fits into memory: for the disk within its patience, for readers as long as they take. The
    /// stream from Tier 2 does not wait with them for long.
    async fn make_room(&self, len: usize, patience: &mut Patience, fetch: &mut Fetch) {
        loop {
            let hungry = match self.flight.change_quietly(|state| state.make_room(len)) {
                Room::Ready => return,
                Room::BehindDisk { hungry } => Some(hungry),
                Room::BehindReaders => None,
            };
            // Waits for any of: room, a change of who is hungry. Both come with a change of state.
            let waited = self.flight.when(|state| {
                let now = match state.make_room(len) {
                    Room::Ready => return Some(()),
                    Room::BehindDisk { hungry } => Some(hungry),
                    Room::BehindReaders => None,
                };
                (now != hungry).then_some(())
            });
            let Some(hungry) = hungry else {
                let mut waited = pin!(waited);
                if timeout(READERS_PATIENCE, &mut waited).await.is_err() {
                    fetch.suspend();
                    waited.await;
                }
                continue;
            };
            if !patience.wait(hungry, waited).await {
                self.give_up_disk("lagged");
            }
        }
    }

    /// Frees the flight's place and then tells how it ended: whoever sees the end finds the place free.
    pub(super) fn end(&self, phase: Phase) {
        self.shared.flights.remove(&self.flight);
        self.flight.change(|state| state.enter(phase));
    }

    /// Resolves when the flight was given up for want of readers. A node that goes down lands its flights, but does not
    /// wait for readers to come back.
    async fn abandoned(&self) {
        let stopping = self.shared.tasks.stopping();
        let size_bytes = self.digest().size_bytes();
        loop {
            let pointless = |state: &State| state.is_deserted() && !is_worth_finishing(state, size_bytes);
            self.flight.when(|state| pointless(state).then_some(())).await;
            let point = self.flight.when(|state| (!pointless(state)).then_some(()));
            let returned = tokio::select! {
                returned = timeout(LINGER, point) => returned.is_ok(),
                () = stopping.cancelled() => false,
            };
            if !returned && self.shared.flights.remove_if_deserted(&self.flight) {
                return;
            }
        }
    }
}

/// Whether a fetch that nobody reads is still good for Tier 1 at a small price. Without a disk it is good for nothing.
fn is_worth_finishing(state: &State, size_bytes: u64) -> bool {
    let remaining = size_bytes - state.released();
    state.has_disk() && (remaining <= LITTLE_BYTES || remaining <= size_bytes / 2)
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.shared.flights.remove(&self.flight);
        let size_bytes = self.digest().size_bytes();
        self.flight.change(|state| {
            if !state.is_decided(size_bytes) {
                state.enter(Phase::Broken(Tier2Error::down("the fetch was given up").into()));
            }
        });
        self.shared.metrics.flights.dec();
    }
}

/// What is left of the time that a flight grants its disk.
struct Patience {
    calm: Duration,
    hungry: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            calm: DISK_PATIENCE,
            hungry: HUNGRY_PATIENCE,
        }
    }
}

impl Patience {
    /// Waits, at the cost of patience. Returns whether it lasted.
    async fn wait(&mut self, hungry: bool, waited: impl Future<Output = ()>) -> bool {
        let left = if hungry { &mut self.hungry } else { &mut self.calm };
        let since = Instant::now();
        let came = timeout(*left, waited).await.is_ok();
        *left = left.saturating_sub(since.elapsed());
        came
    }
}
