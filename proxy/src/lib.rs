//! A tiered caching proxy for Bazel and everything else that speaks the Remote Execution API.
//!
//! Imports run one way: `grpc → tiered → tier1, tier2 → blob, call → digest`. Only `grpc` and `tier2` know tonic, only
//! `assemble` names concrete stores, only `task` spawns.

pub mod assemble;
pub mod blob;
pub mod call;
pub mod cli;
pub mod config;
mod descriptors;
pub mod digest;
pub mod grpc;
pub mod http_admin;
pub mod life;
pub mod logs;
pub mod metrics;
pub mod readiness;
pub mod task;
pub mod tier1;
pub mod tier2;
pub mod tiered;
pub mod watermarks;
