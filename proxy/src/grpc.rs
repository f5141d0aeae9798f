//! The edge: gRPC as clients speak it, on our own HTTP/2 listener. Parses once and hands checked types to `tiered`.

mod action_result;
mod capabilities;
mod chunk;
mod digests;
mod messages;
mod method;
mod resource_name;
mod status;
