//! Digests whose copy in Tier 2 failed verification twice (R10).

use std::collections::HashSet;

use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::call::BlobKey;

/// The bad blobs.
#[derive(Debug)]
pub struct BadBlobs {
    keys: Mutex<HashSet<BlobKey>>,
    count: IntGauge,
}

impl BadBlobs {
    /// No blob is bad. `count` shows how many are.
    pub fn new(count: IntGauge) -> BadBlobs {
        BadBlobs {
            keys: Mutex::default(),
            count,
        }
    }

    /// Whether Tier 2's copy is known to be bad.
    pub fn is_bad(&self, key: &BlobKey) -> bool {
        self.keys.lock().contains(key)
    }

    /// A good copy was seen.
    pub fn forgive(&self, key: &BlobKey) {
        if self.keys.lock().remove(key) {
            self.count.dec();
        }
    }

    /// Tier 2's copy failed verification twice.
    #[cfg(test)]
    pub(super) fn condemn(&self, key: &BlobKey) {
        if self.keys.lock().insert(key.clone()) {
            self.count.inc();
        }
    }
}
