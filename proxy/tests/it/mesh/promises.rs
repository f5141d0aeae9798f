//! What the promises P1 to P6 allow a node to answer, given what Tier 2 had and when. Written from the promises alone: it
//! knows nothing of how a node comes to its answers.

use std::collections::HashMap;
use std::time::Duration;

use mock_upstream::Digest;
use tokio::time::Instant;

/// The defaults of the leases.
const CAS_LEASE: Duration = Duration::from_secs(300);
pub(super) const AC_LEASE: Duration = Duration::from_secs(60);
const WRITE_LEASE: Duration = Duration::from_secs(5);

/// A moment: many steps can be taken in one instant of virtual time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) step: usize,
    pub(super) time: Instant,
}

/// From when to when Tier 2 had something; open while it has it.
#[derive(Debug, Clone, Copy)]
struct Span {
    from: Moment,
    until: Option<Moment>,
}

/// The times at which Tier 2 had one value.
#[derive(Debug, Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn has_now(&self) -> bool {
        self.has_since(usize::MAX)
    }

    /// Whether Tier 2 has it now and had it at every moment since `step`.
    fn has_since(&self, step: usize) -> bool {
        let last = self.0.last();
        last.is_some_and(|span| span.until.is_none() && span.from.step <= step)
    }

    /// Notes whether it is there at a moment; a change lies between this moment and the one before.
    fn note(&mut self, is_there: bool, now: Moment) {
        match (self.has_now(), is_there) {
            (false, true) => self.0.push(Span {
                from: now,
                until: None,
            }),
            (true, false) => self.0.iter_mut().for_each(|span| {
                span.until.get_or_insert(now);
            }),
            (true, true) | (false, false) => {}
        }
    }

    /// Whether Tier 2 had it at some time after `step` and no longer ago than `age`.
    fn had(&self, step: usize, age: Duration, now: Instant) -> bool {
        self.0.iter().any(|span| {
            span.until
                .is_none_or(|until| until.step > step && now.duration_since(until.time) <= age)
        })
    }
}

/// What Tier 2 has had.
#[derive(Debug, Default)]
pub(super) struct History {
    blobs: HashMap<Digest, Spans>,
    /// By key and value.
    actions: HashMap<(usize, usize), Spans>,
}

impl History {
    pub(super) fn note_blob(&mut self, blob: Digest, is_there: bool, now: Moment) {
        self.blobs.entry(blob).or_default().note(is_there, now);
    }

    pub(super) fn note_action(&mut self, key: usize, value: usize, is_there: bool, now: Moment) {
        self.actions.entry((key, value)).or_default().note(is_there, now);
    }

    pub(super) fn has_blob_since(&self, blob: &Digest, step: usize) -> bool {
        self.blobs.get(blob).is_some_and(|spans| spans.has_since(step))
    }

    fn had_blob(&self, blob: &Digest, step: usize, age: Duration, now: Instant) -> bool {
        self.blobs
            .get(blob)
            .is_some_and(|spans| spans.had(step, age, now))
    }

    fn had_action(&self, key: usize, value: usize, step: usize, age: Duration, now: Instant) -> bool {
        let spans = self.actions.get(&(key, value));
        spans.is_some_and(|spans| spans.had(step, age, now))
    }
}

/// What one node has said and heard, as its clients can tell.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Evidence from before this step is no longer any: the node started, or Tier 2 was away.
    epoch: usize,
    /// Action results from before this step are unknown: the node started.
    start: usize,
    /// The last step at which this node said that a blob is absent.
    absent: HashMap<Digest, usize>,
    /// The last step at which an update of a key was acknowledged, or its absence was told.
    renewed: HashMap<usize, usize>,
}

impl Told {
    pub(super) fn started(&mut self, now: Moment) {
        *self = Told {
            epoch: now.step,
            start: now.step,
            ..Told::default()
        };
    }

    pub(super) fn tier2_came_back(&mut self, now: Moment) {
        self.epoch = now.step;
    }

    pub(super) fn said_absent(&mut self, blob: Digest, now: Moment) {
        self.absent.insert(blob, now.step);
    }

    pub(super) fn renewed(&mut self, key: usize, now: Moment) {
        self.renewed.insert(key, now.step);
    }

    fn since(&self, blob: &Digest) -> usize {
        self.absent
            .get(blob)
            .map_or(self.epoch, |step| self.epoch.max(*step))
    }

    /// P2: "present" is Tier 2's word, no older than the lease, and no older than the last word against it.
    pub(super) fn may_say_present(&self, history: &History, blob: &Digest, now: Instant) -> bool {
        history.had_blob(blob, self.since(blob), CAS_LEASE, now)
    }

    /// P1: a write is acknowledged by Tier 2, if need be a moment before it was sent.
    pub(super) fn may_acknowledge(&self, history: &History, blob: &Digest, now: Instant) -> bool {
        history.had_blob(blob, self.since(blob), WRITE_LEASE, now)
    }

    /// P3: evidence that is good enough for a blob of which this node has no copy.
    pub(super) fn is_fresh(&self, history: &History, blob: &Digest, now: Instant) -> bool {
        history.had_blob(blob, self.since(blob), AC_LEASE, now)
    }

    /// An action result is Tier 2's, no older than its lease, and no older than what this node itself wrote.
    pub(super) fn may_hit(&self, history: &History, key: usize, value: usize, now: Instant) -> bool {
        let renewed = self.renewed.get(&key).copied().unwrap_or_default();
        history.had_action(key, value, self.start.max(renewed), AC_LEASE, now)
    }
}
