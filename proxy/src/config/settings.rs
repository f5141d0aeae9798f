//! The schema, and the settings as they are written. [`super::check`] makes a [`super::Config`] of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::field::{Defaults, Leaves};
use super::instances::Members;
use super::leaf::{Bounded, Percent};
use super::size::ByteSize;
use super::url::UpstreamUrl;
use super::words::{Repair, Tier1Write, WhenDown};
use crate::call::InstanceName;
use crate::logs;

/// All fields, each well formed by itself, not yet checked against each other.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) listen_addr: SocketAddr,
    pub(crate) http_addr: SocketAddr,
    pub(crate) insecure_listen: bool,
    pub(crate) tier1: Tier1Settings,
    pub(crate) tier2: Tier2Settings,
    pub(crate) instances: Members,
    pub(crate) ac: AcSettings,
    pub(crate) cas: Cas,
    pub(crate) repair: Repair,
    pub(crate) touch: Touch,
    pub(crate) upload: Upload,
    pub(crate) limits: LimitsSettings,
    pub(crate) shutdown: Shutdown,
    pub(crate) readiness: Readiness,
    pub(crate) log: Log,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Tier1Settings {
    pub(crate) dir: PathBuf,
    pub(crate) max_size: ByteSize,
    pub(crate) high_watermark: Percent,
    pub(crate) low_watermark: Percent,
    pub(crate) write: Tier1Write,
    pub(crate) max_blob_size: Option<ByteSize>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Tier2Settings {
    pub(crate) url: Option<UpstreamUrl>,
    pub(crate) dir: PathBuf,
    pub(crate) instance: Option<InstanceName>,
    pub(crate) instances: BTreeMap<InstanceName, InstanceName>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) connections: Bounded<1, 64>,
    pub(crate) connect_timeout: Duration,
    pub(crate) first_byte_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) when_down: WhenDown,
    pub(crate) max_outage: Duration,
}

#[derive(Debug, PartialEq)]
pub(crate) struct AcSettings {
    pub(crate) lease: Duration,
    pub(crate) memory: ByteSize,
}

/// How long Tier 2's word that it has a blob is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cas {
    /// For questions about presence. Zero asks every time.
    pub lease: Duration,
    /// For early answers to uploads.
    pub write_lease: Duration,
}

/// When Tier 2 is told of reads that it does not see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// How long a blob is left alone after Tier 2 was asked about it. Zero: Tier 2 is told nothing.
    pub interval: Duration,
}

/// What happens to uploads that break off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// How long the bytes of a broken upload are kept for its client to go on.
    pub resume_window: Duration,
}

#[derive(Debug, PartialEq)]
pub(crate) struct LimitsSettings {
    pub(crate) max_batch_size: ByteSize,
    pub(crate) max_streams: Bounded<1, 100_000>,
    pub(crate) max_blob_size: ByteSize,
}

/// How the node stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Given to requests in flight after the first signal.
    pub grace: Duration,
}

/// When the node says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// How long Tier 2 must have been down before readiness goes off.
    pub tier2: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: tracing::Level,
    pub format: logs::Format,
}

impl Settings {
    /// Every field at its default.
    pub(crate) fn defaults() -> Self {
        Self::read(&mut Defaults)
    }

    /// The schema: every field once, with its path, default and help.
    #[rustfmt::skip] // one line per field reads as the table that it is
    pub(crate) fn read(leaves: &mut impl Leaves) -> Self {
        Self {
            listen_addr: leaves.leaf("listen_addr", "127.0.0.1:8980", "Where clients reach the cache (gRPC)."),
            http_addr: leaves.leaf("http_addr", "127.0.0.1:8981", "Where metrics and health are served (HTTP)."),
            insecure_listen: leaves.leaf("insecure_listen", "false", "Allows addresses other than loopback, though nobody who connects is authenticated."),
            tier1: Tier1Settings {
                dir: leaves.leaf("tier1.dir", "gorego-data/tier1", "Tier 1's directory. Its contents may be deleted while the node is stopped; nothing is lost. The default is for trying out; a service has a place of its own, such as `/var/lib/gorego/tier1`."),
                max_size: leaves.leaf("tier1.max_size", "10GiB", "Room that Tier 1 may take on disk; at least 1MiB."),
                high_watermark: leaves.leaf("tier1.high_watermark", "95%", "Part of `tier1.max_size` at which eviction starts."),
                low_watermark: leaves.leaf("tier1.low_watermark", "90%", "Part of `tier1.max_size` at which eviction stops."),
                write: leaves.leaf("tier1.write", "async", "Whether a write is answered after Tier 1 has it too (`sync`), or as soon as Tier 2 has it (`async`)."),
                max_blob_size: leaves.leaf("tier1.max_blob_size", "null", "Blobs above this size are passed through and not kept; at most half of `tier1.max_size`. Left open: 2GiB or that half, whichever is less."),
            },
            tier2: Tier2Settings {
                url: leaves.leaf("tier2.url", "null", "The remote Tier 2. Left open, the embedded one in `tier2.dir` is used."),
                dir: leaves.leaf("tier2.dir", "gorego-data/tier2", "The embedded Tier 2's directory. It is authoritative and nothing is ever evicted from it."),
                instance: leaves.leaf("tier2.instance", "null", "The instance name sent to Tier 2 for every client. Left open, the client's own is sent."),
                instances: leaves.leaf("tier2.instances", "{}", "The instance name sent to Tier 2 by the client's; goes before `tier2.instance`."),
                ca_file: leaves.leaf("tier2.ca_file", "null", "Certificates (PEM) to trust for a `grpcs` Tier 2. Left open, the system's are trusted."),
                connections: leaves.leaf("tier2.connections", "2", "Connections to Tier 2 for each class of calls: uploads, reads, small calls."),
                connect_timeout: leaves.leaf("tier2.connect_timeout", "2s", "Time for a connection to come about."),
                first_byte_timeout: leaves.leaf("tier2.first_byte_timeout", "10s", "Time until Tier 2's answer begins."),
                stall_timeout: leaves.leaf("tier2.stall_timeout", "10s", "Time without any progress of a stream."),
                commit_timeout: leaves.leaf("tier2.commit_timeout", "60s", "Time for Tier 2 to acknowledge a whole blob, plus a second for each 20 MB of it."),
                when_down: leaves.leaf("tier2.when_down", "fail", "What is answered while Tier 2 is down. `fail`: calls fail with UNAVAILABLE, and so does readiness after a while. `serve_tier1`: readers get what Tier 1 has and what was known before. `bypass`: builds go on as if they had no cache, and nothing makes them wait. No write is acknowledged in any mode."),
                max_outage: leaves.leaf("tier2.max_outage", "1h", "With `serve_tier1`: how long what was known before an outage is still said in it."),
            },
            instances: leaves.leaf("instances", "{}", "Share groups: instances of one group share what the node holds. An instance that is not named shares with none."),
            ac: AcSettings {
                lease: leaves.leaf("ac.lease", "60s", "How long a copy of an action result is as good as Tier 2's word; `0s` asks Tier 2 every time. Also how old the evidence for a blob that it refers to may be, if Tier 1 does not have the blob."),
                memory: leaves.leaf("ac.memory", "64MiB", "Memory for copies of action results and for what is known of the trees that they refer to; at most 64GiB."),
            },
            cas: Cas {
                lease: leaves.leaf("cas.lease", "5m", "How long Tier 2's word that it has a blob is good for answers about presence; `0s` asks every time."),
                write_lease: leaves.leaf("cas.write_lease", "5s", "How long that word is good for answering an upload of the blob without sending it on; at most `cas.lease` counts, and `0s` sends every upload on."),
            },
            repair: leaves.leaf("repair", "on", "Whether a blob that Tier 2 lost and Tier 1 still holds is uploaded to it again when it is asked about."),
            touch: Touch {
                interval: leaves.leaf("touch.interval", "10m", "How often Tier 2 is asked about a blob that clients read from Tier 1, so that its own eviction sees that the blob is used; `0s` never."),
            },
            upload: Upload {
                resume_window: leaves.leaf("upload.resume_window", "60s", "How long the bytes of a broken upload are kept for its client to go on; `0s` keeps none."),
            },
            limits: LimitsSettings {
                max_batch_size: leaves.leaf("limits.max_batch_size", "3584KiB", "Bytes of blobs in one batch call, as announced to clients; from 64KiB to 3840KiB."),
                max_streams: leaves.leaf("limits.max_streams", "1000", "Calls that one client connection may have open at a time."),
                max_blob_size: leaves.leaf("limits.max_blob_size", "0", "Blobs above this size are refused; `0` sets no limit."),
            },
            shutdown: Shutdown {
                grace: leaves.leaf("shutdown.grace", "30s", "Time that requests in flight have to end after SIGTERM or SIGINT."),
            },
            readiness: Readiness {
                tier2: leaves.leaf("readiness.tier2", "10s", "How long Tier 2 must have been down before the node says that it is not ready."),
            },
            log: Log {
                level: leaves.leaf("log.level", "info", "The least important event that is logged."),
                format: leaves.leaf("log.format", "text", "How a log line is written."),
            },
        }
    }
}
