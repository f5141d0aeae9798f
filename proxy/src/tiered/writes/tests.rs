use bytes::Bytes;
use tonic::Code;

use super::*;
use crate::call::{Cause, InstanceName, Scope, Via};
use crate::digest::{ActionDigest, Function};
use crate::metrics::Metrics;
use crate::tier1::Tier1Options;
use crate::tier1::disk::memory::{MemoryDisk, Step};
use crate::tier2::health::{Announcer, outlook};
use crate::tier2::memory::MemoryTier2;
use crate::tier2::{RawActionResult, UpstreamStatus};
use crate::tiered::read_harness::ALWAYS_ASK;
use crate::tiered::{ActionOptions, Actions, PendingCopy, PresenceOptions, Pushed, Reads, Signs, Touches};

mod batches;
mod concurrent;
mod disk_faults;
mod interleaved;
mod resuming;
mod sharing;
mod uploading;

const KIB: usize = 1024;
const CHUNK: usize = 64 * KIB;

/// Time that passes only when nothing else can happen.
const IDLE: Duration = Duration::from_millis(1);

const RESUME_WINDOW: Duration = Duration::from_secs(60);

/// A write side between a Tier 1 and a Tier 2 that tests can look into.
struct Node {
    disk: MemoryDisk,
    tier1: Tier1,
    tier2: Arc<MemoryTier2>,
    pending: Arc<Pending>,
    bad: Arc<BadBlobs>,
    writes: Writes,
    actions: Actions,
    announcer: Announcer,
    tasks: TaskGroup,
    /// Tier 1's own tasks, which do not end.
    _tier1_tasks: TaskGroup,
    metrics: Metrics,
}

impl Node {
    fn new() -> Node {
        Node::build(Publish::Sync, u64::MAX, RESUME_WINDOW, ALWAYS_ASK)
    }

    fn with(publish: Publish) -> Node {
        Node::build(publish, u64::MAX, RESUME_WINDOW, ALWAYS_ASK)
    }

    /// A node whose Tier 1 keeps nothing.
    fn without_files() -> Node {
        Node::build(Publish::Sync, 0, RESUME_WINDOW, ALWAYS_ASK)
    }

    fn build(publish: Publish, blob_bytes_max: u64, resume_window: Duration, lease: PresenceOptions) -> Node {
        let (tasks, tier1_tasks, metrics) = (TaskGroup::new(), TaskGroup::new(), Metrics::new());
        let disk = MemoryDisk::new();
        let tier1 = Tier1::open(
            Tier1Options {
                dir: "/tier1".into(),
                watermarks: crate::watermarks::Watermarks::new(1 << 30, 950 << 20, 900 << 20).unwrap(),
                blob_bytes_max,
            },
            Arc::new(disk.clone()),
            &tier1_tasks,
            metrics.tier1.clone(),
        );
        let tier2 = Arc::new(MemoryTier2::default());
        let pending = Arc::new(Pending::new());
        let bad = Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone()));
        let presence = Presence::new(
            Arc::new(tier2.clone()),
            bad.clone(),
            lease,
            Signs::none(),
            &TaskGroup::new(),
            metrics.presence.clone(),
        );
        let reads = Reads::new(
            tier1.clone(),
            presence.clone(),
            pending.clone(),
            Touches::none(),
            tasks.clone(),
            metrics.reads.clone(),
        );
        let writes = Writes::new(
            tier1.clone(),
            presence,
            pending.clone(),
            WriteOptions {
                publish,
                resume_window,
                repair: false,
            },
            tasks.clone(),
            metrics.uploads.clone(),
        );
        let options = ActionOptions {
            lease: Duration::from_secs(60),
            memory_bytes: 1 << 20,
        };
        let (announcer, outlook) = outlook();
        let actions = Actions::new(reads, writes.clone(), &options, outlook, metrics.actions.clone());
        Node {
            disk,
            tier1,
            tier2,
            pending,
            bad,
            writes,
            actions,
            announcer,
            tasks,
            _tier1_tasks: tier1_tasks,
            metrics,
        }
    }

    async fn begin(&self, blob: &Blob, name: &str) -> Upload {
        self.resume(blob, name, 0).await.unwrap()
    }

    async fn resume(&self, blob: &Blob, name: &str, offset: u64) -> Result<Upload, CallError> {
        self.writes.begin(&call(), &blob.digest, name, offset).await
    }

    /// A whole upload, as most clients do it.
    async fn upload(&self, blob: &Blob, name: &str) -> Result<(), CallError> {
        let mut upload = self.resume(blob, name, 0).await?;
        for chunk in blob.chunks(0..blob.bytes.len()) {
            if upload.push(chunk).await? == Pushed::Acknowledged {
                return Ok(());
            }
        }
        upload.finish().await
    }

    async fn status(&self, blob: &Blob, name: &str) -> (u64, bool) {
        let status = self.writes.status(&call(), &blob.digest, name).await.unwrap();
        (status.committed_bytes, status.complete)
    }

    fn in_tier2(&self, blob: &Blob) -> bool {
        self.tier2
            .blob(&blob.key())
            .is_some_and(|bytes| bytes == blob.bytes)
    }

    async fn in_tier1(&self, blob: &Blob) -> bool {
        self.tier1.loaded().await;
        let Some(pinned) = self.tier1.lookup(&blob.key()) else {
            return false;
        };
        let mut range = ByteRange::whole(&blob.digest);
        let mut bytes = Vec::new();
        while !range.is_empty() {
            let chunk = pinned.read(range, CHUNK).await.unwrap();
            bytes.extend_from_slice(&chunk);
            range = range.skip(chunk.len() as u64);
        }
        bytes == blob.bytes
    }

    /// Whether nothing is left of any upload. Ends what is kept for resuming.
    async fn settles(&self) {
        assert_eq!(self.tasks.settle(10 * RESUME_WINDOW).await, 0);
        assert_eq!(self.metrics.uploads.open.get(), 0);
        assert_eq!(self.metrics.uploads.kept_for_resume.get(), 0);
        assert_eq!(self.writes.0.open.available_permits(), UPLOADS_MAX);
        assert!(self.writes.0.contests.is_empty());
        assert!(self.writes.0.names.lock().is_empty());
    }
}

struct Blob {
    digest: Digest,
    bytes: Bytes,
}

impl Blob {
    /// A blob of `len` bytes that differ along it.
    fn of_len(len: usize) -> Blob {
        let period: Vec<u8> = (0..=250).flat_map(|byte| [byte; 7]).collect();
        Blob::of(period.into_iter().cycle().take(len).collect::<Vec<u8>>())
    }

    fn of(bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        Blob {
            digest: Digest::of(Function::Sha256, &bytes),
            bytes,
        }
    }

    fn copy(&self) -> Blob {
        Blob {
            digest: self.digest,
            bytes: self.bytes.clone(),
        }
    }

    /// The same digest over bytes that do not fit it.
    fn spoilt(&self) -> Blob {
        let mut bytes = self.bytes.to_vec();
        bytes[0] ^= 1;
        Blob {
            digest: self.digest,
            bytes: bytes.into(),
        }
    }

    fn chunks(&self, range: std::ops::Range<usize>) -> Vec<Bytes> {
        let end = range.end;
        range
            .step_by(CHUNK)
            .map(|from| self.bytes.slice(from..end.min(from + CHUNK)))
            .collect()
    }

    fn key(&self) -> BlobKey {
        call().blob(&self.digest)
    }
}

fn call() -> Call {
    Call {
        scope: Scope::new("scope"),
        instance: InstanceName::parse("").unwrap(),
        deadline: None,
        cause: Cause::Client(None),
        via: Via::default(),
    }
}

fn answered(code: Code) -> Tier2Error {
    Tier2Error::Answered(UpstreamStatus {
        code,
        message: "no".to_owned(),
        details: Bytes::new(),
    })
}

async fn push_all(upload: &mut Upload, blob: &Blob, range: std::ops::Range<usize>) {
    for chunk in blob.chunks(range) {
        assert_eq!(upload.push(chunk).await.unwrap(), Pushed::Taken);
    }
}

/// Whether a future has nothing to say once everything that can happen has happened.
async fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    tokio::time::timeout(IDLE, future).await.is_err()
}

/// Lets everything happen that can.
async fn idle() {
    tokio::time::sleep(IDLE).await;
}
