//! Whole nodes: over in-memory pipes with a mock as Tier 2, and as processes.

#![expect(
    clippy::unwrap_used,
    reason = "clippy sees a test in the #[test] function, but not in the helpers beside it"
)]

mod actions;
mod bad_blobs;
mod batches;
mod capabilities;
mod client;
mod conformance_suite;
mod harness;
mod hostile;
mod metrics;
mod outage;
mod presence;
mod process;
mod readiness;
mod reads;
mod restart;
mod scopes;
mod storm;
mod trees;
mod uploads;
mod wire;
