//! The two tiers as one cache: reads fall through to Tier 2 and fill Tier 1, writes go to Tier 2 first.

mod action;
mod bad;
mod batch;
mod contest;
mod direct;
mod error;
mod feeder;
mod fetch;
mod fill;
mod flight;
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
mod upload;
mod uploads;
mod write_batch;
mod writes;

pub use self::bad::BadBlobs;
pub use self::error::CallError;
pub use self::pending::{Pending, PendingCopy};
pub use self::read::Reads;
pub use self::reading::Reading;
pub use self::source::READ_CHUNK_BYTES;
pub use self::tree::{TreeError, TreePage, TreeToken};
pub use self::upload::{Pushed, Upload};
pub use self::writes::{Publish, WriteOptions, WriteStatus, Writes};
