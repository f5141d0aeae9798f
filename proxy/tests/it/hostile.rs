//! Clients that misbehave, against a node without sockets. A client beside them is served all the while, nothing is
//! acknowledged that Tier 2 lacks, and nothing is left behind. `process` has more of them, with sockets.

mod hang_up;
mod nonsense;
mod readers;
