//! Real Bazel builds through real nodes, judged by Bazel's own execution log.
//!
//! [`Scenarios`] strings the parts together: [`Bazel`] (one Bazel with output trees of its own), [`Node`](real_servers::Node) (a gorego
//! process), [`Upstream`] (what stands behind it), [`ExecutionLog`] and [`Snapshot`] (what a build executed, fetched, and
//! left on disk), [`Table`] (the summary).

pub mod bazel;
pub mod execlog;
pub mod grpclog;
pub mod scenarios;
pub mod snapshot;
pub mod table;
pub mod upstream;

pub use bazel::Bazel;
pub use execlog::ExecutionLog;
pub use grpclog::GrpcLog;
pub use scenarios::Scenarios;
pub use snapshot::Snapshot;
pub use table::Table;
pub use upstream::Upstream;
