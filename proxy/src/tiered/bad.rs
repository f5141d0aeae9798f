//! Blobs whose copy in Tier 2 failed verification twice: absent for readers until a good copy is seen.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGauge;
use tokio::time::Instant;

use crate::call::BlobKey;

/// Digests remembered as bad. A Tier 2 with more rotten blobs than this has a trouble that no list cures; the one that
/// was tried longest ago gives way.
const BAD_BLOBS_MAX: usize = 4096;

/// How long a digest stays bad while nobody asks for it.
const BAD_FOR: Duration = Duration::from_secs(3600);

/// How often a bad blob is fetched again to see whether it was mended.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The bad blobs, bounded in count and time.
#[derive(Debug)]
pub struct BadBlobs {
    tried: Mutex<HashMap<BlobKey, Instant>>,
    count: IntGauge,
}

/// What is to be done about a blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is known against it.
    Good,
    /// Bad, and tried a moment ago: absent.
    Refuse,
    /// Bad, and due for another try: whole, before a byte of it leaves.
    Try,
}

impl BadBlobs {
    /// No blob is bad. `count` shows how many are.
    pub fn new(count: IntGauge) -> BadBlobs {
        BadBlobs {
            tried: Mutex::default(),
            count,
        }
    }

    /// Whether the copy in Tier 2 failed twice and no good one was seen since.
    pub fn is_bad(&self, key: &BlobKey) -> bool {
        self.tried
            .lock()
            .get(key)
            .is_some_and(|tried| tried.elapsed() < BAD_FOR)
    }

    /// Whether no blob is bad, which is how it should be.
    pub(super) fn is_empty(&self) -> bool {
        self.tried.lock().is_empty()
    }

    /// A good copy was seen: a fetch that fits, or an upload that was read back.
    pub fn forgive(&self, key: &BlobKey) {
        let mut tried = self.tried.lock();
        tried.remove(key);
        self.show(&tried);
    }

    /// The copy in Tier 2 failed twice, or failed again.
    pub(super) fn condemn(&self, key: &BlobKey) {
        let now = Instant::now();
        let mut tried = self.tried.lock();
        if tried.len() >= BAD_BLOBS_MAX && !tried.contains_key(key) {
            tried.retain(|_, tried| now.duration_since(*tried) < BAD_FOR);
            if tried.len() >= BAD_BLOBS_MAX
                && let Some(oldest) = tried
                    .iter()
                    .min_by_key(|(_, tried)| **tried)
                    .map(|(key, _)| key.clone())
            {
                tried.remove(&oldest);
            }
        }
        tried.insert(key.clone(), now);
        self.show(&tried);
    }

    /// Decides over a read. Of many readers of a bad blob one is told to try; the others are refused meanwhile, or join it.
    pub(super) fn verdict(&self, key: &BlobKey) -> Verdict {
        let mut tried = self.tried.lock();
        let Some(last) = tried.get_mut(key) else {
            return Verdict::Good;
        };
        let since = last.elapsed();
        if since >= BAD_FOR {
            tried.remove(key);
            self.show(&tried);
            return Verdict::Good;
        }
        if since < RETRY_INTERVAL {
            return Verdict::Refuse;
        }
        *last = Instant::now();
        Verdict::Try
    }

    fn show(&self, tried: &HashMap<BlobKey, Instant>) {
        self.count.set(i64::try_from(tried.len()).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Scope;
    use crate::digest::{Digest, Function};
    use crate::metrics::Metrics;

    fn key(name: &str) -> BlobKey {
        BlobKey {
            scope: Scope::new("main"),
            digest: Digest::of(Function::Sha256, name.as_bytes()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_blob_is_tried_by_one_reader_every_ten_seconds_until_forgiven() {
        let bad = BadBlobs::new(Metrics::new().reads.bad_blobs);
        assert_eq!(bad.verdict(&key("a")), Verdict::Good);
        bad.condemn(&key("a"));
        assert_eq!(bad.verdict(&key("a")), Verdict::Refuse);
        tokio::time::advance(RETRY_INTERVAL).await;
        assert_eq!(bad.verdict(&key("a")), Verdict::Try);
        assert_eq!(bad.verdict(&key("a")), Verdict::Refuse);
        assert!(bad.is_bad(&key("a")) && !bad.is_bad(&key("b")));
        bad.forgive(&key("a"));
        assert_eq!(bad.verdict(&key("a")), Verdict::Good);
        assert_eq!(bad.count.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bad_blobs_are_bounded_in_count_and_time() {
        let bad = BadBlobs::new(Metrics::new().reads.bad_blobs);
        for name in 0..=BAD_BLOBS_MAX {
            bad.condemn(&key(&name.to_string()));
            tokio::time::advance(Duration::from_micros(1)).await;
        }
        assert_eq!(bad.count.get(), i64::try_from(BAD_BLOBS_MAX).unwrap());
        assert!(!bad.is_bad(&key("0")) && bad.is_bad(&key("1")));
        tokio::time::advance(BAD_FOR).await;
        assert!(!bad.is_bad(&key("1")));
        assert_eq!(bad.verdict(&key("1")), Verdict::Good);
    }
}
