//! Real Bazel builds through real nodes, judged by Bazel's own execution log.
//!
//! [`Scenarios`] strings the parts together: [`Bazel`] (one Bazel with output trees of its own), [`Node`] (a gorego
//! process), [`Upstream`] (what stands behind it), [`ExecutionLog`] and [`Snapshot`] (what a build executed, fetched, and
//! left on disk), [`Table`] (the summary).

pub mod bazel;
pub mod casd;
pub mod execlog;
pub mod grpclog;
pub mod node;
pub mod scenarios;
pub mod service;
pub mod snapshot;
pub mod table;
pub mod upstream;

pub use bazel::Bazel;
pub use casd::Casd;
pub use execlog::ExecutionLog;
pub use grpclog::GrpcLog;
pub use node::Node;
pub use scenarios::Scenarios;
pub use snapshot::Snapshot;
pub use table::Table;
pub use upstream::Upstream;
