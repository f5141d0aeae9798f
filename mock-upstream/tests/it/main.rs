//! The mock seen by plain clients: over pipes in memory, over TCP, and frame by frame.

mod client;
mod gates;
mod life;
mod log;
