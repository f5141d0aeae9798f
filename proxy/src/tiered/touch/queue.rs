//! Which reads Tier 2 is told of. Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::call::{BlobKey, Call, Scope};
use crate::digest::Digest;
use crate::tiered::leases::{Bounds, Store};

/// Blobs that wait to be told of: a few calls' worth.
pub(super) const WAITING_MAX: usize = 50_000;

/// Blobs in one call.
const BATCH_MAX: usize = 10_000;

/// Blobs remembered as told of. While all of them were within the interval, others are not told of.
const TOLD: Bounds = Bounds {
    leases: 1 << 18,
    bytes: 32 << 20,
};

/// What became of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hit {
    /// Tier 2 was asked about the blob not long ago.
    Ignored,
    /// It will be told.
    Queued,
    /// The same, and nobody sees to that yet.
    First,
    /// There is no room.
    Dropped,
}

/// Reads that wait to be told of.
pub(super) struct Queue {
    interval: Duration,
    told: Store,
    waiting: HashMap<Scope, (Call, Vec<Digest>)>,
    waiting_count: usize,
    /// Somebody takes what waits, and comes back until nothing does.
    is_served: bool,
}

impl Queue {
    /// Tells of a blob at most once per `interval`.
    pub(super) fn new(interval: Duration, now: Instant) -> Queue {
        Queue {
            interval,
            told: Store::new(TOLD, now),
            waiting: HashMap::new(),
            waiting_count: 0,
            is_served: false,
        }
    }

    /// Whether a read of the blob would be told of.
    pub(super) fn is_due(&self, key: &BlobKey, now: Instant) -> bool {
        !self.is_recent(self.told.get(key), now)
    }

    /// A blob was read. `asked_at`: when Tier 2 last said that it has it, for whatever reason it was asked.
    pub(super) fn hit(
        &mut self,
        call: &Call,
        digest: &Digest,
        asked_at: Option<Instant>,
        now: Instant,
    ) -> Hit {
        let key = call.blob(digest);
        if self.is_recent(asked_at, now) || !self.is_due(&key, now) {
            return Hit::Ignored;
        }
        if self.waiting_count >= WAITING_MAX
            || (!self.told.has_room() && self.is_recent(self.told.oldest(), now))
        {
            return Hit::Dropped;
        }
        self.told.put(&key, now);
        let (_, digests) = self
            .waiting
            .entry(key.scope)
            .or_insert_with(|| (call.for_node(), Vec::new()));
        digests.push(*digest);
        self.waiting_count += 1;
        if std::mem::replace(&mut self.is_served, true) {
            Hit::Queued
        } else {
            Hit::First
        }
    }

    /// The next call. `None`: nothing waits, and whoever asked need not come back.
    pub(super) fn take(&mut self) -> Option<(Call, Vec<Digest>)> {
        let Some(scope) = self.waiting.keys().next().cloned() else {
            self.is_served = false;
            return None;
        };
        let (call, mut digests) = self.waiting.remove(&scope)?;
        if digests.len() > BATCH_MAX {
            let later = digests.split_off(BATCH_MAX);
            self.waiting.insert(scope, (call.clone(), later));
        }
        self.waiting_count -= digests.len();
        Some((call, digests))
    }

    /// Gives up what waits. Returns how much that was.
    pub(super) fn clear(&mut self) -> usize {
        self.waiting.clear();
        self.is_served = false;
        std::mem::take(&mut self.waiting_count)
    }

    fn is_recent(&self, at: Option<Instant>, now: Instant) -> bool {
        at.is_some_and(|at| now.saturating_duration_since(at) < self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Cause, InstanceName, Via};
    use crate::digest::Function;

    const INTERVAL: Duration = Duration::from_secs(600);

    fn call(scope: &str) -> Call {
        Call {
            scope: Scope::new(scope),
            instance: InstanceName::parse(scope).unwrap(),
            deadline: None,
            cause: Cause::Client(None),
            via: Via::default(),
        }
    }

    fn digest(number: usize) -> Digest {
        Digest::of(Function::Sha256, &number.to_le_bytes())
    }

    #[test]
    fn a_blob_is_told_of_once_per_interval_and_within_its_scope() {
        let start = Instant::now();
        let mut queue = Queue::new(INTERVAL, start);
        let mut hit = |scope, number, now| queue.hit(&call(scope), &digest(number), None, now);
        assert_eq!(hit("a", 1, start), Hit::First);
        assert_eq!(hit("a", 1, start + INTERVAL / 2), Hit::Ignored);
        assert_eq!(hit("b", 1, start), Hit::Queued);
        assert_eq!(hit("a", 1, start + INTERVAL), Hit::Queued);
        let mut told: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        told.sort_by_key(|(call, _)| call.scope.clone());
        assert_eq!(told[0].1, [digest(1), digest(1)]);
        assert_eq!(told[1].1, [digest(1)]);
        assert_eq!(queue.hit(&call("c"), &digest(1), None, start), Hit::First);
    }

    #[test]
    fn what_tier_2_was_asked_about_anyway_needs_no_touch() {
        let start = Instant::now();
        let mut queue = Queue::new(INTERVAL, start);
        let later = start + INTERVAL;
        let mut hit = |asked_at| queue.hit(&call("a"), &digest(1), Some(asked_at), later);
        assert_eq!(hit(start + Duration::from_millis(1)), Hit::Ignored);
        assert_eq!(hit(start), Hit::First);
    }

    #[test]
    fn what_waits_is_bounded_and_goes_in_calls_of_bounded_size() {
        let start = Instant::now();
        let mut queue = Queue::new(INTERVAL, start);
        for number in 0..WAITING_MAX {
            assert_ne!(queue.hit(&call("a"), &digest(number), None, start), Hit::Dropped);
        }
        assert_eq!(
            queue.hit(&call("a"), &digest(WAITING_MAX), None, start),
            Hit::Dropped
        );
        let calls: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert!(calls.iter().all(|(_, digests)| digests.len() <= BATCH_MAX));
        let told: usize = calls.iter().map(|(_, digests)| digests.len()).sum();
        assert_eq!(told, WAITING_MAX);
        assert_eq!(
            queue.hit(&call("a"), &digest(WAITING_MAX), None, start),
            Hit::First
        );
    }

    #[test]
    fn what_is_remembered_is_bounded_and_gives_way_only_when_its_time_is_over() {
        let start = Instant::now();
        let mut queue = Queue::new(INTERVAL, start);
        queue.told = Store::new(
            Bounds {
                leases: 2,
                bytes: usize::MAX,
            },
            start,
        );
        let mut hit = |number, now| queue.hit(&call("a"), &digest(number), None, now);
        assert_ne!(hit(1, start), Hit::Dropped);
        assert_ne!(hit(2, start), Hit::Dropped);
        assert_eq!(hit(3, start + INTERVAL / 2), Hit::Dropped);
        assert_eq!(hit(1, start + INTERVAL / 2), Hit::Ignored);
        assert_eq!(hit(3, start + INTERVAL), Hit::Queued);
        assert_eq!(queue.clear(), 3);
    }
}
