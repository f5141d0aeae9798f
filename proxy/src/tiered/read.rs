//! Reads through both tiers: what Tier 1 has from Tier 1, the rest from Tier 2 by one fetch for all.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::CallError;
use super::bad::{BadBlobs, Verdict};
use super::direct::{Check, direct};
use super::fetch::Fetch;
use super::fill::Fill;
use super::flight::Flight;
use super::flights::Flights;
use super::follower::Follower;
use super::pending::{Pending, PendingCopy};
use super::presence::Presence;
use super::range::starts_flight;
use super::reading::Reading;
use super::source::{DiskRead, Source, Tier};
use super::touch::Touches;
use crate::blob::{ByteRange, Verifier};
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::metrics::ReadMetrics;
use crate::task::TaskGroup;
use crate::tier1::Tier1;
use crate::tier2::{Tier2, Tier2Error};

/// Memory that a fetch may hold for its readers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rings {
    /// For most: what a fast Tier 2 brings while a disk is busy.
    pub(super) big_bytes: usize,
    /// When many fetches are in the air. Slow readers then go to disk sooner.
    pub(super) small_bytes: usize,
}

const RINGS: Rings = Rings {
    big_bytes: 8 << 20,
    small_bytes: 1 << 20,
};

/// Fetches that may have a big ring at once: 256 MiB in all.
const BIG_RINGS_MAX: usize = 32;

/// Fetches that write to disk beside their stream at once: each has a file open and keeps a thread of the disk busy.
/// Above, fetches go on without a copy, so that no reader waits for its turn at the disk.
const STAGED_FILLS_MAX: usize = 256;

/// Bytes of blobs that are fetched in batches and then written to disk. They are in memory meanwhile, though whoever wanted
/// them may be gone long since; what comes on top of them is not kept.
const BATCH_ROOM_BYTES: usize = 64 << 20;

/// Reads blobs. Cheap to clone.
#[derive(Clone)]
pub struct Reads(pub(super) Arc<Shared>);

/// What reads and fetches share.
pub(super) struct Shared {
    pub(super) tier1: Tier1,
    pub(super) tier2: Arc<dyn Tier2>,
    pub(super) presence: Presence,
    pub(super) touches: Touches,
    pub(super) pending: Arc<Pending>,
    pub(super) bad: Arc<BadBlobs>,
    pub(super) tasks: TaskGroup,
    pub(super) metrics: ReadMetrics,
    pub(super) flights: Flights,
    tier1_bytes: IntCounter,
    tier2_bytes: IntCounter,
    staged_fills: Arc<Semaphore>,
    /// In bytes.
    batch_room: Arc<Semaphore>,
    rings: Rings,
    big_rings: Arc<Semaphore>,
}

/// Who fetches what nobody fetches yet.
pub(super) enum Start<'a> {
    /// A task per blob.
    Stream,
    /// Whoever holds this list, in one batch.
    Batch(&'a mut Vec<Fill>),
}

/// Whether a copy in Tier 1 that shows up meanwhile will do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Copies {
    Trusted,
    Distrusted,
}

impl Reads {
    /// Reads through `tier1` and the Tier 2 that `presence` is about. Fetches are tasks of `tasks`.
    pub fn new(
        tier1: Tier1,
        presence: Presence,
        pending: Arc<Pending>,
        touches: Touches,
        tasks: TaskGroup,
        metrics: ReadMetrics,
    ) -> Reads {
        Reads::with_rings(RINGS, tier1, presence, pending, touches, tasks, metrics)
    }

    pub(super) fn with_rings(
        rings: Rings,
        tier1: Tier1,
        presence: Presence,
        pending: Arc<Pending>,
        touches: Touches,
        tasks: TaskGroup,
        metrics: ReadMetrics,
    ) -> Reads {
        Reads(Arc::new(Shared {
            tier1,
            tier2: presence.tier2(),
            bad: presence.0.bad.clone(),
            presence,
            touches,
            pending,
            tasks,
            flights: Flights::default(),
            tier1_bytes: metrics.bytes.with_label_values(&["1"]),
            tier2_bytes: metrics.bytes.with_label_values(&["2"]),
            metrics,
            rings,
            batch_room: Arc::new(Semaphore::new(BATCH_ROOM_BYTES)),
            staged_fills: Arc::new(Semaphore::new(STAGED_FILLS_MAX)),
            big_rings: Arc::new(Semaphore::new(BIG_RINGS_MAX)),
        }))
    }

    /// Opens a read of `range`. Resolves when the first byte is at hand.
    ///
    /// # Errors
    /// Tier 2's word or silence if Tier 1 has no copy; [`CallError::BadBlob`] if Tier 2's copy is known to be bad.
    ///
    /// # Cancel safety
    /// Dropping the future or the reading frees the caller at once; a fetch that it began goes on for others.
    pub async fn open(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<Reading, CallError> {
        let key = call.blob(digest);
        if range.is_empty() {
            self.exists(call, &key).await?;
            return Ok(Reading::nothing(self.0.clone(), call.clone(), key, range));
        }
        let source = match self.0.locate(call, &key, range, Start::Stream) {
            Ok(source) => source,
            Err(error) => {
                self.0.missed(&error);
                return Err(error);
            }
        };
        let mut reading = Reading::new(self.0.clone(), call.clone(), key, range, source);
        reading.first().await?;
        Ok(reading)
    }

    /// Whether a blob of which no byte is wanted is there.
    async fn exists(&self, call: &Call, key: &BlobKey) -> Result<(), CallError> {
        if key.digest.is_empty() || self.0.tier1.lookup(key).is_some() || self.0.pending.find(key).is_some() {
            return Ok(());
        }
        if self.0.bad.is_bad(key) {
            let error = CallError::BadBlob;
            self.0.missed(&error);
            return Err(error);
        }
        let presence = &self.0.presence;
        let missing = presence
            .missing(call, &[key.digest], presence.options().lease)
            .await?;
        if missing.is_empty() {
            return Ok(());
        }
        let error = CallError::Tier2(Tier2Error::NotFound);
        self.0.missed(&error);
        Err(error)
    }
}

impl Shared {
    /// Finds the place that a read of `range`, which is not empty, takes its bytes from. Does not wait.
    pub(super) fn locate(
        self: &Arc<Self>,
        call: &Call,
        key: &BlobKey,
        range: ByteRange,
        start: Start<'_>,
    ) -> Result<Source, CallError> {
        if key.digest.is_empty() {
            return Ok(Source::Over);
        }
        if let Some(pinned) = self.tier1.lookup(key) {
            return Ok(Source::Pinned(pinned, DiskRead::default()));
        }
        match self.pending.find(key) {
            Some(PendingCopy::Memory(bytes)) => return Ok(Source::Ready(bytes)),
            Some(PendingCopy::Staged(reader)) => return Ok(Source::Staged(reader, DiskRead::default())),
            None => {}
        }
        self.locate_in_tier2(call, key, range, start, Copies::Trusted)
    }

    /// As [`Shared::locate`], past what is at hand.
    pub(super) fn locate_in_tier2(
        self: &Arc<Self>,
        call: &Call,
        key: &BlobKey,
        range: ByteRange,
        start: Start<'_>,
        copies: Copies,
    ) -> Result<Source, CallError> {
        let mut begun = None;
        let source = self.flights.with(|table| {
            if let Some(flight) = table.get(key) {
                return Ok(match flight.board(range) {
                    Some(seat) => {
                        self.metrics.flights_joined.inc();
                        Source::Flight(Follower::new(flight.clone(), seat, range))
                    }
                    None => self.direct(call, key, range, None, false),
                });
            }
            // A fetch publishes before it leaves the table, and an upload before its pending copy goes. One that did
            // so since the lookup above shows here, so that a blob is never fetched a second time for that gap.
            if copies == Copies::Trusted
                && let Some(pinned) = self.tier1.lookup(key)
            {
                return Ok(Source::Pinned(pinned, DiskRead::default()));
            }
            let held = match self.bad.verdict(key) {
                Verdict::Refuse => return Err(CallError::BadBlob),
                Verdict::Try => true,
                Verdict::Good if starts_flight(range, &key.digest) => false,
                Verdict::Good => return Ok(self.direct(call, key, range, None, false)),
            };
            let fill = self.take_off(call, key, held, &start);
            let flight = fill.flight.clone();
            table.insert(key.clone(), flight.clone());
            let seat = flight.board(range);
            begun = Some((fill, held));
            Ok(match seat {
                Some(seat) => Source::Flight(Follower::new(flight, seat, range)),
                None => self.direct(call, key, range, None, false),
            })
        });
        // Outside the table: a runtime that goes down drops the task at once, and the task's end takes the table.
        match (begun, start) {
            (None, _) => {}
            (Some((fill, true)), _) => drop(self.tasks.spawn(fill.run_held())),
            (Some((fill, false)), Start::Stream) => drop(self.tasks.spawn(fill.run())),
            (Some((fill, false)), Start::Batch(fills)) => fills.push(fill),
        }
        source
    }

    fn take_off(self: &Arc<Self>, call: &Call, key: &BlobKey, held: bool, start: &Start<'_>) -> Fill {
        let streamed = matches!(start, Start::Stream) || held;
        let (keeps, disk) = self.disk_for(&key.digest, streamed);
        let (ring_bytes, ring_room) = self.ring_for(&key.digest);
        self.metrics.flights_started.inc();
        self.metrics.flights.inc();
        Fill {
            shared: self.clone(),
            flight: Flight::new(key.clone(), ring_bytes, ring_room, keeps, held),
            call: call.for_node(),
            _disk: disk,
        }
    }

    /// Whether a fetch writes to disk, and its right to do so: beside a stream, or out of memory after a batch.
    fn disk_for(&self, digest: &Digest, streamed: bool) -> (bool, Option<OwnedSemaphorePermit>) {
        let refuse = |reason| {
            self.metrics.not_kept.with_label_values(&[reason]).inc();
            (false, None)
        };
        if !self.tier1.keeps(digest) {
            return refuse("too_large");
        }
        let permit = if streamed {
            self.staged_fills.clone().try_acquire_owned()
        } else {
            let bytes = u32::try_from(digest.size_bytes()).unwrap_or(u32::MAX);
            self.batch_room.clone().try_acquire_many_owned(bytes)
        };
        match permit {
            Ok(permit) => (true, Some(permit)),
            Err(_all_taken) => refuse("full"),
        }
    }

    fn ring_for(&self, digest: &Digest) -> (usize, Option<OwnedSemaphorePermit>) {
        let Rings {
            big_bytes,
            small_bytes,
        } = self.rings;
        if digest.size_bytes() <= small_bytes as u64 {
            return (small_bytes, None);
        }
        match self.big_rings.clone().try_acquire_owned() {
            Ok(permit) => (big_bytes, Some(permit)),
            Err(_all_taken) => (small_bytes, None),
        }
    }

    /// A stream of this read's own. A read that reaches the end of the blob is verified: with `prefix`, which has seen
    /// just the bytes before `range`, or by reading from the beginning.
    pub(super) fn direct(
        &self,
        call: &Call,
        key: &BlobKey,
        range: ByteRange,
        prefix: Option<Verifier>,
        has_sent: bool,
    ) -> Source {
        let check = range.reaches_end_of(&key.digest).then(|| {
            let verifier = prefix.unwrap_or_else(|| Verifier::new(key.digest));
            Check::from_the_beginning(verifier, range, has_sent, self.metrics.corrupt.clone())
        });
        let fetched = match &check {
            Some(check) => ByteRange::whole(&key.digest).skip(check.verifier.seen_bytes()),
            None => range,
        };
        let fetch = Fetch::new(
            self.tier2.clone(),
            call.clone(),
            key.digest,
            fetched,
            has_sent,
            self.metrics.resumed.clone(),
        );
        Source::Direct(Box::pin(direct(fetch, check)))
    }

    /// Counts a read that neither tier could answer.
    pub(super) fn missed(&self, error: &CallError) {
        if matches!(error, CallError::Tier2(Tier2Error::NotFound) | CallError::BadBlob) {
            self.metrics.misses.with_label_values(&["cas"]).inc();
        }
    }

    /// Counts a read's first bytes.
    pub(super) fn hit(&self, tier: Tier, call: &Call, key: &BlobKey) {
        let tier = match tier {
            Tier::One => {
                self.touches.hit(call, key);
                "1"
            }
            Tier::Two => "2",
        };
        self.metrics.hits.with_label_values(&[tier, "cas"]).inc();
    }

    /// Counts bytes handed on.
    pub(super) fn served(&self, tier: Tier, len: usize) {
        match tier {
            Tier::One => self.tier1_bytes.inc_by(len as u64),
            Tier::Two => self.tier2_bytes.inc_by(len as u64),
        }
    }
}

#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
