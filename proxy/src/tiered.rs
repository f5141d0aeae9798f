//! The two tiers as one cache: reads fall through to Tier 2 and fill Tier 1, writes go to Tier 2 first.

mod action;
mod action_lines;
mod action_table;
mod bad;
mod batch;
mod closure;
mod complete;
mod contest;
mod crowd;
mod direct;
mod early;
mod error;
mod feeder;
mod fetch;
mod fill;
mod find_missing;
mod flight;
mod flight_state;
mod flights;
mod follower;
mod keep;
mod leases;
mod mend;
mod merge;
mod names;
mod order;
mod outage;
mod pending;
mod presence;
mod range;
mod read;
#[cfg(test)]
mod read_harness;
mod reading;
mod recent;
mod repair;
mod resume;
mod ring;
mod session;
mod source;
mod status;
mod tape;
mod touch;
mod tree;
mod underway;
mod upload;
mod uploads;
mod witness;
mod write_batch;
mod writes;

use std::sync::Arc;

use self::outage::Outage;
use crate::call::InstanceName;
use crate::tier2::health::Outlook;
use crate::tier2::{Offers, Tier2};

pub use self::action::{ActionOptions, Actions};
pub use self::bad::BadBlobs;
pub use self::closure::Flaw;
pub use self::error::CallError;
pub use self::leases::{Signs, time_slept};
pub use self::outage::{OutageOptions, WhenDown};
pub use self::pending::{Pending, PendingCopy};
pub use self::presence::{Presence, PresenceOptions};
pub use self::read::Reads;
pub use self::reading::Reading;
pub use self::source::READ_CHUNK_BYTES;
pub use self::touch::Touches;
pub use self::tree::{TreeError, TreePage, TreeToken};
pub use self::upload::{Pushed, Upload};
pub use self::writes::{Publish, WriteOptions, WriteStatus, Writes};

/// Both tiers, as the edge sees them: the calls of clients, with what is answered to them in an outage. Cheap to clone.
#[derive(Clone)]
pub struct Tiered {
    /// Blobs and trees, out.
    reads: Reads,
    /// Blobs in, presence.
    writes: Writes,
    actions: Actions,
    outage: Outage,
    tier2: Arc<dyn Tier2>,
}

impl Tiered {
    /// Puts the sides together. All are over `tier2`, whose health is in `outlook`.
    pub fn new(
        reads: Reads,
        writes: Writes,
        actions: Actions,
        (options, outlook): (OutageOptions, Outlook),
        tier2: Arc<dyn Tier2>,
    ) -> Tiered {
        Tiered {
            reads,
            writes,
            actions,
            outage: Outage::new(options, outlook),
            tier2,
        }
    }

    /// What Tier 2 allows for `instance`, as far as it is known. Asks nobody.
    pub fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.tier2.offers(instance)
    }
}
