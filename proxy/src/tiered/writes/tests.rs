use bytes::Bytes;
use tonic::Code;

use super::*;
use crate::call::{Cause, InstanceName, Scope};
use crate::digest::{ActionDigest, Function};
use crate::metrics::Metrics;
use crate::tier1::{SystemDisk, Tier1Options};
use crate::tier2::memory::MemoryTier2;
use crate::tier2::{RawActionResult, UpstreamStatus};
use crate::tiered::{PendingCopy, Pushed};

mod batches;
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
    tier1: Tier1,
    tier2: Arc<MemoryTier2>,
    pending: Arc<Pending>,
    bad: Arc<BadBlobs>,
    writes: Writes,
    tasks: TaskGroup,
    metrics: Metrics,
    _dir: tempfile::TempDir,
}

struct NodeOptions {
    publish: Publish,
    blob_bytes_max: u64,
}

impl Node {
    fn new() -> Node {
        Node::with(Publish::Sync)
    }

    fn with(publish: Publish) -> Node {
        let blob_bytes_max = u64::MAX;
        Node::build(NodeOptions {
            publish,
            blob_bytes_max,
        })
    }

    /// A node whose Tier 1 keeps nothing.
    fn without_files() -> Node {
        Node::build(NodeOptions {
            publish: Publish::Sync,
            blob_bytes_max: 0,
        })
    }

    fn build(options: NodeOptions) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, metrics) = (TaskGroup::new(), Metrics::new());
        let tier1 = Tier1::open(
            Tier1Options {
                dir: dir.path().to_owned(),
                max_bytes: 1 << 30,
                high_watermark_percent: 95,
                low_watermark_percent: 90,
                blob_bytes_max: options.blob_bytes_max,
            },
            Arc::new(SystemDisk::new()),
            &tasks,
            metrics.tier1.clone(),
        );
        let tier2 = Arc::new(MemoryTier2::default());
        let pending = Arc::new(Pending::new());
        let bad = Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone()));
        let writes = Writes::new(
            tier1.clone(),
            Arc::new(tier2.clone()),
            pending.clone(),
            bad.clone(),
            WriteOptions {
                publish: options.publish,
                resume_window: RESUME_WINDOW,
            },
            tasks.clone(),
            metrics.uploads.clone(),
        );
        Node {
            tier1,
            tier2,
            pending,
            bad,
            writes,
            tasks,
            metrics,
            _dir: dir,
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
