//! The mock seen by plain clients: over pipes in memory, over TCP, and frame by frame.

#![expect(
    clippy::unwrap_used,
    reason = "clippy sees a test in the #[test] function, but not in the helpers beside it"
)]

mod action_cache;
mod answers;
mod broken_connections;
mod bytestream;
mod capabilities;
mod cas;
mod client;
mod control;
mod forward;
mod gates;
mod http;
mod life;
mod log;
mod process;
mod readme;
mod remote;
mod tree;
mod wrong_bytes;
