//! What an action result may have to wait for or to ask about, beside the uploads that are on: blobs on their way in
//! batches, and blobs whose last upload failed (R16).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::call::BlobKey;

/// Failed uploads remembered. An action result that names one costs a question more; one that is forgotten is not asked
/// about, and whoever reads the result finds out.
const FAILED_MAX: usize = 4096;

/// The batches that are on their way, by the blobs in them.
#[derive(Default)]
pub(super) struct Batches {
    by_key: Mutex<ByKey>,
}

#[derive(Default)]
struct ByKey {
    last_ticket: u64,
    /// Of several with the same blob the newest.
    over: HashMap<BlobKey, (u64, CancellationToken)>,
}

impl Batches {
    /// Notes a batch while the guard lives.
    pub(super) fn hold(self: &Arc<Self>, keys: Vec<BlobKey>) -> BatchGuard {
        let over = CancellationToken::new();
        let mut by_key = self.by_key.lock();
        by_key.last_ticket += 1;
        let ticket = by_key.last_ticket;
        for key in &keys {
            by_key.over.insert(key.clone(), (ticket, over.clone()));
        }
        drop(by_key);
        BatchGuard {
            batches: self.clone(),
            keys,
            ticket,
            _over: over.drop_guard(),
        }
    }

    /// Fires when the batch with this blob was answered; `None` if there is none.
    pub(super) fn over(&self, key: &BlobKey) -> Option<CancellationToken> {
        self.by_key.lock().over.get(key).map(|(_, over)| over.clone())
    }
}

/// A batch on its way; over when dropped.
pub(super) struct BatchGuard {
    batches: Arc<Batches>,
    keys: Vec<BlobKey>,
    ticket: u64,
    _over: DropGuard,
}

impl Drop for BatchGuard {
    fn drop(&mut self) {
        let over = &mut self.batches.by_key.lock().over;
        for key in &self.keys {
            if over.get(key).is_some_and(|(ticket, _)| *ticket == self.ticket) {
                over.remove(key);
            }
        }
    }
}

/// Blobs whose last upload through this node failed, and of which nothing better was heard since. Bounded: the one that
/// failed longest ago gives way.
#[derive(Default)]
pub(super) struct FailedUploads {
    since: Mutex<HashMap<BlobKey, Instant>>,
}

impl FailedUploads {
    /// An upload failed.
    pub(super) fn note(&self, key: &BlobKey) {
        let mut since = self.since.lock();
        if since.len() >= FAILED_MAX && !since.contains_key(key) {
            let oldest = since.iter().min_by_key(|(_, since)| **since);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                since.remove(&oldest);
            }
        }
        since.insert(key.clone(), Instant::now());
    }

    /// Tier 2 has the blob.
    pub(super) fn forget(&self, key: &BlobKey) {
        self.since.lock().remove(key);
    }

    /// When the last upload of a blob failed, if nothing better was heard since.
    pub(super) fn since(&self, key: &BlobKey) -> Option<Instant> {
        self.since.lock().get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::call::Scope;
    use crate::digest::{Digest, Function};

    fn key(name: &str) -> BlobKey {
        BlobKey {
            scope: Scope::new("main"),
            digest: Digest::of(Function::Sha256, name.as_bytes()),
        }
    }

    #[test]
    fn a_batch_is_over_when_its_guard_goes_and_not_when_an_older_one_goes() {
        let batches = Arc::new(Batches::default());
        let older = batches.hold(vec![key("a"), key("b")]);
        let newer = batches.hold(vec![key("a")]);
        let (a, b) = (batches.over(&key("a")).unwrap(), batches.over(&key("b")).unwrap());
        drop(older);
        assert!(b.is_cancelled() && !a.is_cancelled());
        assert!(batches.over(&key("b")).is_none() && batches.over(&key("a")).is_some());
        drop(newer);
        assert!(a.is_cancelled() && batches.over(&key("a")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failed_uploads_are_bounded_and_the_oldest_gives_way() {
        let failed = FailedUploads::default();
        for name in 0..=FAILED_MAX {
            failed.note(&key(&name.to_string()));
            tokio::time::advance(Duration::from_micros(1)).await;
        }
        assert!(failed.since(&key("0")).is_none() && failed.since(&key("1")).is_some());
        failed.forget(&key("1"));
        assert!(failed.since(&key("1")).is_none());
        assert_eq!(failed.since.lock().len(), FAILED_MAX - 1);
    }
}
