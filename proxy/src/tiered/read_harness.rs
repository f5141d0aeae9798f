//! What tests of the read side need: both tiers in memory, and the true bytes to compare with.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;

use super::read::Rings;
use super::{BadBlobs, CallError, Pending, Presence, PresenceOptions, Reading, Reads, Signs, Touches};
use crate::blob::ByteRange;
use crate::call::{Call, Cause, InstanceName, Scope, Via};
use crate::digest::{Digest, Function};
use crate::metrics::Metrics;
use crate::task::TaskGroup;
use crate::tier1::disk::memory::MemoryDisk;
use crate::tier1::{Tier1, Tier1Options};
use crate::tier2::memory::MemoryTier2;

pub(super) const MIB: u64 = 1 << 20;

/// No lease answers anything.
pub(crate) const ALWAYS_ASK: PresenceOptions = PresenceOptions {
    lease: Duration::ZERO,
    write_lease: Duration::ZERO,
};

pub(super) struct Harness {
    pub(super) tier1: Tier1,
    pub(super) tier2: Arc<MemoryTier2>,
    pub(super) disk: MemoryDisk,
    pub(super) pending: Arc<Pending>,
    pub(super) bad: Arc<BadBlobs>,
    /// The fetches; Tier 1's own tasks are apart.
    pub(super) tasks: TaskGroup,
    pub(super) metrics: Metrics,
    pub(super) presence: Presence,
    pub(super) reads: Reads,
    pub(super) call: Call,
}

impl Harness {
    pub(super) async fn new() -> Harness {
        Harness::with(64 * 1024, 1 << 30).await
    }

    /// A Tier 1 that keeps no blob longer than a byte.
    pub(super) async fn without_disk() -> Harness {
        Harness::with(64 * 1024, 1).await
    }

    pub(super) async fn with(tier2_chunk_bytes: usize, tier1_blob_bytes_max: u64) -> Harness {
        let rings = Rings {
            big_bytes: 8 << 20,
            small_bytes: 1 << 20,
        };
        Harness::with_rings(rings, tier2_chunk_bytes, tier1_blob_bytes_max).await
    }

    pub(super) async fn with_rings(
        rings: Rings,
        tier2_chunk_bytes: usize,
        tier1_blob_bytes_max: u64,
    ) -> Harness {
        let metrics = Metrics::new();
        let tasks = TaskGroup::new();
        let disk = MemoryDisk::new();
        let options = Tier1Options {
            dir: "/tier1".into(),
            watermarks: crate::watermarks::Watermarks::new(1 << 30, 950 << 20, 900 << 20).unwrap(),
            blob_bytes_max: tier1_blob_bytes_max,
        };
        let tier1 = Tier1::open(
            options,
            Arc::new(disk.clone()),
            &TaskGroup::new(),
            metrics.tier1.clone(),
        );
        tier1.loaded().await;
        let tier2 = Arc::new(MemoryTier2::new(tier2_chunk_bytes));
        let pending = Arc::new(Pending::default());
        let bad = Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone()));
        let presence = Presence::new(
            Arc::new(tier2.clone()),
            bad.clone(),
            ALWAYS_ASK,
            Signs::none(),
            &TaskGroup::new(),
            metrics.presence.clone(),
        );
        let reads = Reads::with_rings(
            rings,
            tier1.clone(),
            presence.clone(),
            pending.clone(),
            Touches::none(),
            tasks.clone(),
            metrics.reads.clone(),
        );
        Harness {
            tier1,
            tier2,
            disk,
            pending,
            bad,
            tasks,
            metrics,
            presence,
            reads,
            call: Call {
                scope: Scope::new("main"),
                instance: InstanceName::parse("main").unwrap(),
                deadline: None,
                cause: Cause::Client(None),
                via: Via::default(),
            },
        }
    }

    /// Puts a blob into Tier 2.
    pub(super) fn plant(&self, bytes: impl Into<Bytes>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(Function::Sha256, &bytes);
        self.tier2.plant(self.call.blob(&digest), bytes);
        digest
    }

    pub(super) async fn open(&self, digest: &Digest) -> Result<Reading, CallError> {
        self.open_part(digest, 0, None).await
    }

    pub(super) async fn open_part(
        &self,
        digest: &Digest,
        start: u64,
        limit: Option<u64>,
    ) -> Result<Reading, CallError> {
        let range = ByteRange::within(digest, start, limit).unwrap();
        self.reads.open(&self.call, digest, range).await
    }

    pub(super) async fn read(&self, digest: &Digest) -> Result<Bytes, CallError> {
        self.open(digest).await?.collect().await
    }

    pub(super) async fn read_part(
        &self,
        digest: &Digest,
        start: u64,
        limit: Option<u64>,
    ) -> Result<Bytes, CallError> {
        self.open_part(digest, start, limit).await?.collect().await
    }

    pub(super) fn is_in_tier1(&self, digest: &Digest) -> bool {
        self.tier1.lookup(&self.call.blob(digest)).is_some()
    }

    /// Waits until every fetch has ended.
    pub(super) async fn landed(&self) {
        assert_eq!(self.tasks.settle(Duration::from_secs(3600)).await, 0);
    }
}

/// Bytes without a pattern that a wrong offset could hide in.
pub(super) fn noise(len: u64) -> Bytes {
    let mut state = len ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap() + 8);
    while (bytes.len() as u64) < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(usize::try_from(len).unwrap());
    bytes.into()
}

/// Reads on until `len` bytes were had, or more where a chunk says so.
pub(super) async fn take(reading: &mut Reading, len: u64) -> Bytes {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        bytes.extend_from_slice(&reading.next().await.expect("more bytes").unwrap());
    }
    bytes.into()
}

/// The part of a blob from `start` on.
pub(super) fn part(bytes: &Bytes, start: u64, len: u64) -> Bytes {
    let start = usize::try_from(start).unwrap();
    bytes.slice(start..start + usize::try_from(len).unwrap())
}
