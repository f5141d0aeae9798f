//! Tier 1, the blobs on this node's own disk: a concrete store whose errors have no way to a client.

pub mod disk;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::blob::{ByteRange, Verified};
use crate::call::BlobKey;
use crate::digest::Digest;
use crate::metrics::Tier1Metrics;
use crate::task::TaskGroup;

pub use self::disk::{Disk, SystemDisk};

/// Where Tier 1 lives and how much of the disk it may take.
#[derive(Debug, Clone)]
pub struct Tier1Options {
    /// Directory of its own. Made when absent.
    pub dir: PathBuf,
    /// Allocated bytes that are never passed.
    pub max_bytes: u64,
    /// Percent of `max_bytes` above which eviction starts.
    pub high_watermark_percent: u8,
    /// Percent of `max_bytes` at which eviction stops.
    pub low_watermark_percent: u8,
    /// Length of the largest blob that is kept.
    pub blob_bytes_max: u64,
}

/// Why Tier 1 did not do what it was asked. No request fails for it: the caller goes on with Tier 2 alone.
#[derive(Debug, thiserror::Error)]
pub enum Tier1Error {
    /// No room. Go on without a copy.
    #[error("tier 1 is full")]
    Full,
    /// The bytes on disk are not those that were written. [`Tier1::discard`] the copy and fetch again.
    #[error("the copy in tier 1 is damaged")]
    Damaged,
    /// The file is not there. [`Tier1::discard`] the copy and fetch again.
    #[error("the copy in tier 1 is gone")]
    Gone,
    /// The disk failed.
    #[error("the disk of tier 1 failed")]
    Io(#[source] io::Error),
}

/// The near store. Cheap to clone; clones name the same store.
#[derive(Clone)]
pub struct Tier1(Arc<Inner>);

struct Inner {
    options: Tier1Options,
    blobs: Mutex<HashMap<BlobKey, Bytes>>,
}

impl Tier1 {
    /// Returns at once; the directory is scanned by a task of `tasks`. Until loaded, lookups miss and stages work.
    pub fn open(
        options: Tier1Options,
        _disk: Arc<dyn Disk>,
        _tasks: &TaskGroup,
        metrics: Tier1Metrics,
    ) -> Tier1 {
        metrics.loaded.set(1);
        Tier1(Arc::new(Inner {
            options,
            blobs: Mutex::default(),
        }))
    }

    /// Finds a copy and pins it against eviction. Memory only; counts as a read.
    pub fn lookup(&self, key: &BlobKey) -> Option<Pinned> {
        let bytes = self.0.blobs.lock().get(key).cloned()?;
        Some(Pinned {
            key: key.clone(),
            bytes,
        })
    }

    /// Opens a staging file.
    ///
    /// # Errors
    /// Any; the caller goes on without Tier 1.
    pub async fn stage(&self, key: &BlobKey) -> Result<Staged, Tier1Error> {
        Ok(Staged {
            store: self.clone(),
            key: key.clone(),
            bytes: Arc::default(),
        })
    }

    /// Drops a copy that proved missing or rotten. Idempotent; never drops a newer copy of the same key.
    pub fn discard(&self, pinned: &Pinned) {
        self.0.blobs.lock().remove(&pinned.key);
    }

    /// Whether blobs of this length are kept.
    pub fn keeps(&self, digest: &Digest) -> bool {
        digest.size_bytes() <= self.0.options.blob_bytes_max
    }

    /// Resolves once the index is loaded.
    pub async fn loaded(&self) {}
}

/// An open staging file; dropped without [`Staged::publish`] it is deleted.
pub struct Staged {
    store: Tier1,
    key: BlobKey,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Staged {
    /// Appends the next bytes.
    ///
    /// # Errors
    /// Any; the caller goes on without Tier 1.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), Tier1Error> {
        self.bytes.lock().extend_from_slice(&bytes);
        Ok(())
    }

    /// Bytes appended, and readable through [`Staged::reader`].
    pub fn watermark(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    /// A reader of the appended bytes.
    pub fn reader(&self) -> StagedReader {
        StagedReader(self.bytes.clone())
    }

    /// Makes the blob visible in Tier 1. Cancel safe: finishes in the background once begun.
    ///
    /// # Errors
    /// Any; nothing is visible then.
    pub async fn publish(self, proof: Verified) -> Result<Pinned, Tier1Error> {
        let bytes = Bytes::copy_from_slice(&self.bytes.lock());
        if *proof.digest() != self.key.digest || bytes.len() as u64 != self.key.digest.size_bytes() {
            return Err(Tier1Error::Damaged);
        }
        self.store.0.blobs.lock().insert(self.key.clone(), bytes.clone());
        Ok(Pinned { key: self.key, bytes })
    }
}

/// Reads below the watermark while appends go on; stays readable after publish, after eviction and, for the bytes that
/// were appended, after the [`Staged`] was dropped.
#[derive(Clone)]
pub struct StagedReader(Arc<Mutex<Vec<u8>>>);

impl StagedReader {
    /// Bytes that can be read.
    pub fn watermark(&self) -> u64 {
        self.0.lock().len() as u64
    }

    /// Reads appended bytes from offset `from`: at most `len_max`, none at the watermark or beyond it.
    ///
    /// # Errors
    /// If the disk failed or altered the bytes.
    pub async fn read(&self, from: u64, len_max: usize) -> Result<Bytes, Tier1Error> {
        let bytes = self.0.lock();
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
        let end = from.saturating_add(len_max).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..end]))
    }
}

/// A copy that is kept from eviction while this, or a clone of it, lives.
#[derive(Clone)]
pub struct Pinned {
    key: BlobKey,
    bytes: Bytes,
}

impl Pinned {
    /// The blob's name.
    pub fn key(&self) -> &BlobKey {
        &self.key
    }

    /// Reads the first bytes of `range` if that takes no waiting for the disk. `None`: use [`Pinned::read`].
    pub fn try_read(&self, range: ByteRange, len_max: usize) -> Option<Bytes> {
        let start = usize::try_from(range.start()).ok()?;
        let end = usize::try_from(range.end()).ok()?;
        Some(self.bytes.slice(start..end.min(start.saturating_add(len_max))))
    }

    /// Reads the first bytes of `range`: at most `len_max`, at least one if the range is not empty. Every block's
    /// checksum is checked before it leaves.
    ///
    /// # Errors
    /// [`Tier1Error::Damaged`], [`Tier1Error::Gone`]: discard and fetch again.
    pub async fn read(&self, range: ByteRange, len_max: usize) -> Result<Bytes, Tier1Error> {
        self.try_read(range, len_max).ok_or(Tier1Error::Damaged)
    }
}
