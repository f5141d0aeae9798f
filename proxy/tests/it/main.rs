//! Whole nodes: over in-memory pipes with a mock as Tier 2, and as processes.

#![expect(
    clippy::unwrap_used,
    reason = "clippy sees a test in the #[test] function, but not in the helpers beside it"
)]

mod accidents;
mod action_copies;
mod actions;
mod bad_blobs;
mod batches;
mod capabilities;
mod client;
mod completeness;
mod conformance_suite;
mod early;
mod harness;
mod hostile;
mod leases;
mod mesh;
mod metadata;
mod metrics;
mod outage;
mod outage_modes;
#[path = "../common/pipes.rs"]
mod pipes;
mod presence;
mod process;
mod readiness;
mod reads;
mod repair;
mod restart;
mod scopes;
mod storm;
mod tier1_troubles;
mod touches;
mod trees;
mod uploads;
mod wire;
