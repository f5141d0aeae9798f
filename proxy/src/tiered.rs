//! The two tiers as one cache: reads fall through to Tier 2 and fill Tier 1, writes go to Tier 2 first.

mod action;
mod bad;
mod batch;
mod contest;
mod crowd;
mod direct;
mod error;
mod feeder;
mod fetch;
mod fill;
mod flight;
mod flight_state;
mod flights;
mod follower;
mod keep;
mod mend;
mod names;
mod order;
mod pending;
mod presence;
mod range;
mod read;
#[cfg(test)]
mod read_harness;
mod reading;
mod resume;
mod ring;
mod session;
mod source;
mod status;
mod tape;
mod tree;
mod underway;
mod upload;
mod uploads;
mod write_batch;
mod writes;

use std::sync::Arc;

use crate::call::InstanceName;
use crate::tier2::{Offers, Tier2};

pub use self::bad::BadBlobs;
pub use self::error::CallError;
pub use self::pending::{Pending, PendingCopy};
pub use self::read::Reads;
pub use self::reading::Reading;
pub use self::source::READ_CHUNK_BYTES;
pub use self::tree::{TreeError, TreePage, TreeToken};
pub use self::upload::{Pushed, Upload};
pub use self::writes::{Publish, WriteOptions, WriteStatus, Writes};

/// Both tiers, as the edge sees them. Cheap to clone.
#[derive(Clone)]
pub struct Tiered {
    /// Blobs and trees, out.
    pub reads: Reads,
    /// Blobs in, presence, action results.
    pub writes: Writes,
    tier2: Arc<dyn Tier2>,
}

impl Tiered {
    /// Puts the two sides together. Both are over `tier2`.
    pub fn new(reads: Reads, writes: Writes, tier2: Arc<dyn Tier2>) -> Tiered {
        Tiered { reads, writes, tier2 }
    }

    /// What Tier 2 allows for `instance`, as far as it is known. Asks nobody.
    pub fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.tier2.offers(instance)
    }
}
