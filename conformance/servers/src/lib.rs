//! Real REAPI servers, of other makes than ours: as processes and in containers.
//!
//! [`Make`] is what can be had and how it is started, [`Server`] a running one with what can happen to it, [`Node`] one of
//! our own in front of it, [`Service`] the process below both. [`judge`] runs the suite against any of them, [`Rig`] is a node
//! over a real server, [`Trial`] what is found out with one, [`Results`] the tables.

mod broken;
mod client;
#[cfg(feature = "containers")]
pub mod container;
pub mod judge;
pub mod make;
pub mod node;
pub mod process;
pub mod proxy;
pub mod rig;
#[cfg(feature = "containers")]
mod rootfs;
pub mod server;
pub mod table;
pub mod trials;

pub use make::Make;
pub use node::Node;
pub use process::Service;
pub use rig::Rig;
pub use server::Server;
pub use table::Results;
pub use trials::Trial;
