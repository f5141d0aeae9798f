//! What Tier 2's answers prove about single blobs, and for how long (P2, R3, R4). Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::marks::Marks;
use super::store::{Bounds, Store};
use crate::call::BlobKey;

/// How many NOT_FOUNDs that meet live leases end all of them (R4), if they come within [`SURPRISE_WINDOW`].
const SURPRISES_MAX: usize = 3;

/// See [`SURPRISES_MAX`].
const SURPRISE_WINDOW: Duration = Duration::from_secs(10);

/// How much earlier than an outage is known the loss of connections may be with which it began: a connect and a probe.
const LOSS_TO_OUTAGE: Duration = Duration::from_secs(3);

/// What to make of an answer about one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tiered) enum Heard {
    /// It stands.
    Stands,
    /// Something newer was heard while the call was open, and says otherwise: ask again, once.
    AskAgain,
}

/// The leases. Positive only: an absence ends a lease and is not remembered, but for as long as calls are open that were
/// sent before.
pub(in crate::tiered) struct LeaseTable {
    store: Store,
    marks: Marks,
    /// How long a lease lives, as far as surprises are concerned.
    lease: Duration,
    /// Evidence up to here is of an earlier epoch and proves nothing.
    epoch_began: Option<Instant>,
    /// Evidence between this and the beginning of the epoch was set aside.
    aside_from: Option<Instant>,
    /// The first of the losses for which it was.
    lost_at: Option<Instant>,
    /// Whether Tier 2 has answered a call that was sent in this epoch.
    answered: bool,
    surprises: VecDeque<Instant>,
}

impl LeaseTable {
    /// No lease. Evidence from before `now` is dated `now`.
    pub(in crate::tiered) fn new(bounds: Bounds, lease: Duration, now: Instant) -> LeaseTable {
        LeaseTable {
            store: Store::new(bounds, now),
            marks: Marks::default(),
            lease,
            epoch_began: None,
            aside_from: None,
            lost_at: None,
            answered: false,
            surprises: VecDeque::new(),
        }
    }

    /// When the newest evidence for a blob was sent, if it is of this epoch. However old it may be is the caller's to
    /// judge.
    pub(in crate::tiered) fn evidence(&self, key: &BlobKey) -> Option<Instant> {
        let evidence = self.store.get(key);
        evidence.filter(|sent_at| self.is_of_epoch(*sent_at))
    }

    fn is_of_epoch(&self, sent_at: Instant) -> bool {
        self.epoch_began.is_none_or(|began| began < sent_at)
    }

    /// The same, as it was when an outage began that goes on. What was set aside by the loss of connections with which it
    /// began counts.
    pub(in crate::tiered) fn evidence_before(&self, key: &BlobKey, down_since: Instant) -> Option<Instant> {
        let from = match self.lost_at {
            Some(lost_at) if down_since <= lost_at + LOSS_TO_OUTAGE => self.aside_from,
            Some(_) | None => self.epoch_began,
        };
        let evidence = self.store.get(key);
        evidence.filter(|sent_at| from.is_none_or(|from| from < *sent_at))
    }

    /// Leases that are remembered, those set aside included, and bytes of memory that they take.
    pub(in crate::tiered) fn size(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    /// A call goes out. Each is closed with the same date, after its answer was noted.
    pub(in crate::tiered) fn open(&mut self, sent_at: Instant) {
        self.marks.open(sent_at);
    }

    /// See [`LeaseTable::open`].
    pub(in crate::tiered) fn close(&mut self, sent_at: Instant) {
        self.marks.close(sent_at);
    }

    /// Tier 2 said, to a call sent then, that it has the blob.
    pub(in crate::tiered) fn present(&mut self, key: &BlobKey, sent_at: Instant) -> Heard {
        if self.marks.absent_since(key, sent_at) {
            return Heard::AskAgain;
        }
        if self.is_of_epoch(sent_at) {
            self.answered = true;
            self.store.put(key, sent_at);
        }
        Heard::Stands
    }

    /// Tier 2 acknowledged a write whose last piece was sent then.
    pub(in crate::tiered) fn acknowledged(&mut self, key: &BlobKey, sent_at: Instant, now: Instant) {
        self.marks.acknowledged(key, now);
        // An absence that was heard meanwhile may be older or newer: the write counts, and gives no lease.
        let _heard = self.present(key, sent_at);
    }

    /// Tier 2 said, to a call sent then, that it lacks the blob. If that stands, the lease ends; and all of them do when it
    /// is one surprise too many. Returns what to make of it, and whether the epoch ended.
    pub(in crate::tiered) fn absent(
        &mut self,
        key: &BlobKey,
        sent_at: Instant,
        now: Instant,
    ) -> (Heard, bool) {
        if self.marks.acknowledged_since(key, sent_at) {
            return (Heard::AskAgain, false);
        }
        self.marks.absent(key, now);
        self.answered |= self.is_of_epoch(sent_at);
        let evidence = self.evidence(key);
        self.store.remove(key);
        let live = evidence.is_some_and(|sent_at| now.saturating_duration_since(sent_at) < self.lease);
        (Heard::Stands, live && self.surprised(now))
    }

    /// Nobody knows what became of a write of the blob.
    pub(in crate::tiered) fn unknown(&mut self, key: &BlobKey) {
        self.store.remove(key);
    }

    /// Evidence that was sent up to `now` proves nothing any more.
    pub(in crate::tiered) fn end_epoch(&mut self, now: Instant) {
        self.epoch_began = self.epoch_began.max(Some(now));
        self.aside_from = self.epoch_began;
        self.lost_at = None;
        self.answered = false;
        self.store.clear();
        self.surprises.clear();
    }

    /// The same, where it may be the beginning of an outage: in that one it still says what was known before. What is in front
    /// of Tier 2 may take connections and drop them until the outage is known: losses without an answer between them are one.
    pub(in crate::tiered) fn set_aside(&mut self, now: Instant) {
        let goes_on = self
            .lost_at
            .is_some_and(|lost_at| now <= lost_at + LOSS_TO_OUTAGE);
        if self.answered || !goes_on {
            self.aside_from = self.epoch_began;
            self.lost_at = Some(now);
        }
        self.answered = false;
        self.epoch_began = self.epoch_began.max(Some(now));
        self.surprises.clear();
    }

    fn surprised(&mut self, now: Instant) -> bool {
        self.surprises.push_back(now);
        if self.surprises.len() < SURPRISES_MAX {
            return false;
        }
        let first = self.surprises.pop_front();
        let is_last_straw =
            first.is_some_and(|first| now.saturating_duration_since(first) <= SURPRISE_WINDOW);
        if is_last_straw {
            self.end_epoch(now);
        }
        is_last_straw
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
