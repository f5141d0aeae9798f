//! The two tiers as one cache: reads fall through to Tier 2 and fill Tier 1, writes go to Tier 2 first.

mod error;
mod pending;

pub use self::error::CallError;
pub use self::pending::{Pending, PendingCopy};
