//! The edge: gRPC as clients speak it, on our own HTTP/2 listener. Parses once and hands checked types to `tiered`.
//!
//! Requests are cut into messages and answers are framed here, not by generated servers: what arrives malformed is then the
//! client's INVALID_ARGUMENT and never INTERNAL, a declared length reserves nothing, and a blob goes out uncopied. Only
//! health and reflection are tonic's. Deadlines, metrics and the rest are tower layers around all of them.

mod action_cache;
mod action_result;
mod body;
mod bytestream;
mod caller;
mod capabilities;
mod cas;
mod chunk;
mod deadline;
mod digests;
mod edge;
mod health;
pub mod listener;
mod messages;
mod metering;
mod method;
mod panics;
mod read_body;
mod request_metadata;
mod resource_name;
mod room;
mod services;
mod status;
mod tree;

pub use self::edge::{Edge, EdgeBody, EdgeOptions};
pub use self::health::Health;

#[cfg(test)]
mod tests;
