//! The configuration as checked: what the rest of the program is given.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::instances::UpstreamInstances;
use super::settings::{Cas, Log, Readiness, Shutdown, Touch, Upload};
use super::size::ByteSize;
use super::url::UpstreamUrl;
use super::words::{Repair, Tier1Write, WhenDown};
use crate::call::ShareGroups;
use crate::watermarks::Watermarks;

/// Everything that can be configured. Only [`super::load`] makes one, so its fields agree with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// gRPC.
    pub listen_addr: SocketAddr,
    /// Metrics and health.
    pub http_addr: SocketAddr,
    pub tier1: Tier1,
    pub tier2: Tier2,
    pub share_groups: ShareGroups,
    pub ac: Ac,
    pub cas: Cas,
    pub repair: Repair,
    pub touch: Touch,
    pub upload: Upload,
    pub limits: Limits,
    pub shutdown: Shutdown,
    pub readiness: Readiness,
    pub log: Log,
}

/// How copies of action results are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ac {
    /// How long a copy is as good as Tier 2's word.
    pub lease: Duration,
    /// Memory for copies, and for what is known of trees.
    pub memory: ByteSize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier1 {
    pub dir: PathBuf,
    pub watermarks: Watermarks,
    pub write: Tier1Write,
    /// Larger blobs are not kept. At most half of `max_size`.
    pub max_blob_size: ByteSize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier2 {
    pub place: Tier2Place,
    pub when_down: WhenDown,
    /// How long what was known before an outage counts in it.
    pub max_outage: Duration,
    /// For a Write's answer once its last piece was sent, before what its size adds.
    pub commit_timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tier2Place {
    /// The durable directory store in this process.
    Embedded {
        dir: PathBuf,
    },
    Remote(Upstream),
}

/// A remote Tier 2 and how to talk to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub url: UpstreamUrl,
    /// Trusted instead of the system's certificates. Only with a `grpcs` URL.
    pub ca_file: Option<PathBuf>,
    /// Connections for each class of calls; at least 1.
    pub connections: usize,
    pub connect_timeout: Duration,
    pub first_byte_timeout: Duration,
    pub stall_timeout: Duration,
    pub instances: UpstreamInstances,
}

/// What clients may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Announced as `max_batch_total_size_bytes`.
    pub max_batch_size: ByteSize,
    /// Calls that one client connection may have open; at least 1.
    pub max_streams: u32,
    /// Larger blobs are refused. `None` sets no limit.
    pub max_blob_size: Option<ByteSize>,
}
