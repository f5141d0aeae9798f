//! What was heard of single blobs while calls were open (R3): a call sent before it may carry older news.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::call::BlobKey;

/// Marks kept at once: six of the largest questions, each with every blob missing, while one call hangs. What is forgotten
/// counts as heard of every blob, which makes open calls ask once more.
pub(super) const MARKS_MAX: usize = 65_536;

/// The marks that an open call may have to be compared with.
#[derive(Default)]
pub(super) struct Marks {
    /// How many calls were sent at each time.
    open: BTreeMap<Instant, usize>,
    by_key: HashMap<BlobKey, Mark>,
    /// In the order of hearing; a blob that was heard of again stands in it twice.
    order: VecDeque<(Instant, BlobKey)>,
    /// Up to here, every blob counts as heard of.
    floor: Option<Instant>,
}

#[derive(Default, Clone, Copy)]
struct Mark {
    acknowledged: Option<Instant>,
    absent: Option<Instant>,
}

impl Mark {
    fn last(&self) -> Option<Instant> {
        self.acknowledged.max(self.absent)
    }
}

impl Marks {
    /// A call goes out.
    pub(super) fn open(&mut self, sent_at: Instant) {
        *self.open.entry(sent_at).or_default() += 1;
    }

    /// A call was answered, and its answer noted.
    pub(super) fn close(&mut self, sent_at: Instant) {
        if let Some(calls) = self.open.get_mut(&sent_at) {
            *calls -= 1;
            if *calls == 0 {
                self.open.remove(&sent_at);
            }
        }
        self.forget();
    }

    /// Tier 2 acknowledged a write of the blob.
    pub(super) fn acknowledged(&mut self, key: &BlobKey, now: Instant) {
        self.mark(key, now, |mark| mark.acknowledged = Some(now));
    }

    /// Tier 2 said that it lacks the blob.
    pub(super) fn absent(&mut self, key: &BlobKey, now: Instant) {
        self.mark(key, now, |mark| mark.absent = Some(now));
    }

    /// Whether a write of the blob was acknowledged after a call was sent.
    pub(super) fn acknowledged_since(&self, key: &BlobKey, sent_at: Instant) -> bool {
        self.since(key, sent_at, |mark| mark.acknowledged)
    }

    /// Whether the blob was absent after a call was sent.
    pub(super) fn absent_since(&self, key: &BlobKey, sent_at: Instant) -> bool {
        self.since(key, sent_at, |mark| mark.absent)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    fn since(&self, key: &BlobKey, sent_at: Instant, of: impl Fn(&Mark) -> Option<Instant>) -> bool {
        let heard = self.by_key.get(key).and_then(of).max(self.floor);
        heard.is_some_and(|heard| sent_at < heard)
    }

    fn mark(&mut self, key: &BlobKey, now: Instant, set: impl FnOnce(&mut Mark)) {
        // With no call open there is none that could carry older news.
        if self.open.is_empty() {
            return;
        }
        set(self.by_key.entry(key.clone()).or_default());
        self.order.push_back((now, key.clone()));
        self.forget();
        while self.order.len() > MARKS_MAX {
            if let Some((heard, _)) = self.order.front() {
                self.floor = self.floor.max(Some(*heard));
            }
            self.forget_first();
        }
    }

    /// Forgets what no open call was sent before.
    fn forget(&mut self) {
        let oldest = self.open.keys().next().copied();
        while let Some((heard, _)) = self.order.front()
            && oldest.is_none_or(|oldest| *heard <= oldest)
        {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((heard, key)) = self.order.pop_front()
            && self.by_key.get(&key).and_then(Mark::last) == Some(heard)
        {
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Scope;
    use crate::digest::{Digest, Function};

    fn key(name: usize) -> BlobKey {
        BlobKey {
            scope: Scope::new("main"),
            digest: Digest::of(Function::Sha256, &name.to_le_bytes()),
        }
    }

    #[test]
    fn marks_live_while_a_call_is_open_that_was_sent_before() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut marks = Marks::default();
        marks.absent(&key(1), at(0));
        assert_eq!(marks.len(), 0, "nobody to compare with");
        marks.open(at(1));
        marks.open(at(3));
        marks.absent(&key(1), at(2));
        marks.acknowledged(&key(1), at(4));
        assert!(marks.absent_since(&key(1), at(1)) && !marks.absent_since(&key(1), at(3)));
        assert!(marks.acknowledged_since(&key(1), at(3)));
        assert!(!marks.absent_since(&key(2), at(1)), "another blob");
        marks.close(at(1));
        assert_eq!(marks.len(), 1);
        assert!(marks.acknowledged_since(&key(1), at(3)));
        marks.close(at(3));
        assert_eq!((marks.len(), marks.by_key.len()), (0, 0));
    }

    #[test]
    fn marks_are_bounded_and_what_is_forgotten_counts_as_heard_of_every_blob() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut marks = Marks::default();
        marks.open(at(0));
        for name in 0..=MARKS_MAX {
            marks.absent(&key(name), at(1 + name as u64));
        }
        assert_eq!(marks.len(), MARKS_MAX);
        let never_heard_of = key(usize::MAX);
        assert!(
            marks.absent_since(&never_heard_of, at(0)) && marks.acknowledged_since(&never_heard_of, at(0))
        );
        assert!(!marks.absent_since(&never_heard_of, at(1)));
    }
}
