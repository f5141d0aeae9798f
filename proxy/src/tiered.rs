//! The two tiers as one cache: reads fall through to Tier 2 and fill Tier 1, writes go to Tier 2 first.

mod action;
mod bad;
mod contest;
mod error;
mod feeder;
mod names;
mod order;
mod pending;
mod presence;
mod range;
mod resume;
mod ring;
mod session;
mod status;
mod tape;
mod upload;
mod uploads;
mod write_batch;
mod writes;

pub use self::bad::BadBlobs;
pub use self::error::CallError;
pub use self::pending::{Pending, PendingCopy};
pub use self::upload::{Pushed, Upload};
pub use self::writes::{Publish, WriteOptions, WriteStatus, Writes};
