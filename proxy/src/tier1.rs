//! Tier 1, the blobs on this node's own disk: a concrete store whose errors have no way to a client.
//!
//! A blob is appended to a file in `staging/`, and renamed into place with the proof that its bytes are right. The index
//! of what is there lives in memory and is made anew at each start. The janitor keeps the disk that all of it takes under
//! the marks, and is the only one that removes files. Nothing is synced: see `tier1/format.rs` for why that is safe.

mod breaker;
pub mod disk;
mod faults;
mod format;
mod index;
mod janitor;
mod layout;
mod leaving;
mod pinned;
mod policy;
mod recovery;
mod staged;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::call::{BlobKey, Scope};
use crate::digest::Digest;
use crate::metrics::Tier1Metrics;
use crate::task::TaskGroup;
use crate::watermarks::Watermarks;

#[cfg(test)]
pub(crate) use self::breaker::COOL_DOWN;
pub use self::disk::{Disk, SystemDisk};
pub use self::pinned::Pinned;
pub use self::staged::{Staged, StagedReader};
use self::store::Store;

/// Where Tier 1 lives and how much of the disk it may take.
#[derive(Debug, Clone)]
pub struct Tier1Options {
    /// Directory of its own. Made when absent.
    pub dir: PathBuf,
    /// How much of the disk blobs and files being written may take together, in allocated bytes.
    pub watermarks: Watermarks,
    /// Length of the largest blob that is kept.
    pub blob_bytes_max: u64,
}

/// Why Tier 1 did not do what it was asked. No request fails for it: the caller goes on with Tier 2 alone. What is worth a
/// log line was logged and counted where it happened.
#[derive(Debug, thiserror::Error)]
pub enum Tier1Error {
    /// No room, until the janitor has made some. Go on without a copy.
    #[error("tier 1 is full")]
    Full,
    /// The bytes are not those that were written, or not those that were proved. Of a copy: [`Tier1::discard`] it and fetch
    /// again.
    #[error("the copy in tier 1 is damaged")]
    Damaged,
    /// The file is not there. [`Tier1::discard`] the copy and fetch again.
    #[error("the copy in tier 1 is gone")]
    Gone,
    /// The disk has not answered in time. Says nothing about a copy: leave it, and go on with Tier 2.
    #[error("the disk of tier 1 is too slow")]
    Slow,
    /// The disk failed, or there is no Tier 1 on it.
    #[error("the disk of tier 1 failed")]
    Io(#[source] io::Error),
}

/// The near store. Cheap to clone; clones name the same store.
#[derive(Clone)]
pub struct Tier1(Arc<Store>);

impl Tier1 {
    /// Opens a directory. Returns at once; the directory is scanned by a task of `tasks`. Until that has come to a blob,
    /// lookups miss it; stages work. Where the directory cannot be used (another node has it, the disk is broken), there is
    /// one log line, lookups miss and stages fail, and the node serves from Tier 2.
    pub fn open(
        options: Tier1Options,
        disk: Arc<dyn Disk>,
        tasks: &TaskGroup,
        metrics: Tier1Metrics,
    ) -> Tier1 {
        let store = Arc::new(Store::new(options, disk, tasks.clone(), metrics));
        drop(tasks.spawn(recovery::run(Arc::clone(&store))));
        drop(tasks.spawn(janitor::run(Arc::clone(&store), tasks.stopping())));
        Tier1(store)
    }

    /// Finds a copy and pins it against eviction. Memory only; counts as a read.
    pub fn lookup(&self, key: &BlobKey) -> Option<Pinned> {
        Pinned::lookup(&self.0, key)
    }

    /// Of which blobs of a scope there is a copy now; the i-th answer belongs to the i-th digest. Memory only; does not count
    /// as a read and keeps nothing from being evicted.
    pub fn holds(&self, scope: &Scope, digests: &[Digest]) -> Vec<bool> {
        self.0.holds(scope, digests)
    }

    /// Opens a staging file. Waits for the directory to be opened, not for its scan.
    ///
    /// # Errors
    /// [`Tier1Error::Full`] if there is no room, or none for a blob of this length ([`Tier1::keeps`]), [`Tier1Error::Slow`],
    /// [`Tier1Error::Io`]: go on without a copy.
    pub async fn stage(&self, key: &BlobKey) -> Result<Staged, Tier1Error> {
        Staged::create(&self.0, key).await
    }

    /// Drops a copy that proved missing or rotten. Idempotent; never drops a newer copy of the same key.
    pub fn discard(&self, pinned: &Pinned) {
        self.0.discard(pinned.key(), pinned.entry());
    }

    /// Whether blobs of this length are kept: not those above the configured length, nor those that the janitor could only
    /// keep by evicting everything else.
    pub fn keeps(&self, digest: &Digest) -> bool {
        self.0.keeps(digest)
    }

    /// Resolves once the directory was scanned, or was found to be of no use.
    pub async fn loaded(&self) {
        self.0.loaded().await;
    }

    /// Resolves once the janitor has done all that there was to do when this was called. For tests.
    pub async fn settled(&self) {
        self.0.settled().await;
    }
}
