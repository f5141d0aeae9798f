//! The edge as clients see it: a real gRPC client over in-memory pipes, the tiers over a Tier 2 in memory.

mod action_cache;
mod blobs;
mod calls;
mod connections;
mod harness;
mod malformed;
mod rows;
mod trees;
mod upload;
