//! Real REAPI servers, of other makes than ours: as processes and in containers.
//!
//! [`Make`] is what can be had and how it is started, [`Server`] a running one with what can happen to it, [`Node`] one of
//! our own in front of it, [`Service`] the process below both.

#[cfg(feature = "containers")]
pub mod container;
pub mod make;
pub mod node;
pub mod process;
#[cfg(feature = "containers")]
mod rootfs;
pub mod server;

pub use make::Make;
pub use node::Node;
pub use process::Service;
pub use server::Server;
