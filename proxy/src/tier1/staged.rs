//! Writing a blob into Tier 1.

mod reader;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Tier1Error;
use super::disk::DiskFile;
use super::faults::Op;
use super::format::{self, Checksums, Extension};
use super::index;
use super::layout::{Home, Place};
use super::leaving::Leaving;
use super::pinned::{OpenBlob, Pinned};
use super::store::Store;
use crate::blob::Verified;
use crate::call::BlobKey;

pub use self::reader::StagedReader;

/// Unit in which room is noted while a file grows: what file systems allocate. Published, a file counts with what it takes.
const PAGE_BYTES: u64 = 4096;

/// An open staging file. Dropped without [`Staged::publish`] it is deleted, in the background.
pub struct Staged {
    writing: Writing,
    key: BlobKey,
    /// Set while an append is under way, and so left set by one that failed or whose future was dropped: what is in the
    /// file is then unknown, and no blob.
    spoilt: bool,
}

/// The file, with what it takes; deleted when this is dropped with a path.
struct Writing {
    store: Arc<Store>,
    place: Place,
    file: Arc<StagedFile>,
    path: Option<PathBuf>,
    staged_bytes: u64,
}

struct StagedFile {
    file: Arc<dyn DiskFile>,
    sums: Mutex<Checksums>,
}

impl Staged {
    pub(super) async fn create(store: &Arc<Store>, key: &BlobKey) -> Result<Staged, Tier1Error> {
        if !store.keeps(&key.digest) {
            return Err(Tier1Error::Full);
        }
        store.opened().await?;
        if store.is_passed_over() {
            return Err(Tier1Error::Slow);
        }
        // One page, for the trailer: so a disk that is full is noticed before the first byte.
        store.reserve(PAGE_BYTES)?;
        let reserved = Reserved {
            store: Arc::clone(store),
            bytes: PAGE_BYTES,
        };
        let key = key.clone();
        store
            .in_time(move |store| {
                let place = Place {
                    home: Arc::new(Home::of(&key.scope)),
                    digest: key.digest,
                };
                let path = store.staging_path();
                let created = store.disk.create(&path);
                let file = created.map_err(|error| store.trouble(Op::Write, &place, error))?;
                Ok(Staged {
                    writing: Writing {
                        store: Arc::clone(store),
                        place,
                        file: Arc::new(StagedFile {
                            file,
                            sums: Mutex::default(),
                        }),
                        path: Some(path),
                        staged_bytes: reserved.hand_over(),
                    },
                    key,
                    spoilt: false,
                })
            })
            .await
    }

    /// Appends the next bytes. They can be read once this resolves.
    ///
    /// # Errors
    /// [`Tier1Error::Full`], [`Tier1Error::Slow`], [`Tier1Error::Io`]: drop this and go on without a copy. [`Tier1Error::Damaged`]: an earlier
    /// append did not resolve, or more bytes come than the blob has.
    ///
    /// # Cancel safety
    /// Dropping the future is safe but spoils the staged blob: it can only be dropped then.
    pub async fn append(&mut self, bytes: Bytes) -> Result<(), Tier1Error> {
        let watermark = self.watermark();
        let size_bytes = self.key.digest.size_bytes();
        let end = watermark
            .checked_add(bytes.len() as u64)
            .filter(|end| *end <= size_bytes && !self.spoilt);
        let Some(end) = end else {
            self.spoilt = true;
            return Err(Tier1Error::Damaged);
        };
        if bytes.is_empty() {
            return Ok(());
        }
        self.spoilt = true;
        let needed = end.next_multiple_of(PAGE_BYTES) + PAGE_BYTES;
        let more = needed.saturating_sub(self.writing.staged_bytes);
        self.writing.store.reserve(more)?;
        self.writing.staged_bytes += more;
        let (file, place) = (Arc::clone(&self.writing.file), self.writing.place.clone());
        // Small pieces go to a thread as well: a write waits for the disk whenever the kernel has too much unwritten.
        let append = move |store: &Arc<Store>| {
            file.file
                .write_at(&bytes, watermark)
                .map_err(|error| store.trouble(Op::Write, &place, error))?;
            let extension = Extension::of(&file.sums, &bytes);
            file.sums.lock().extend(extension);
            Ok(())
        };
        self.writing.store.in_time(append).await?;
        self.spoilt = false;
        Ok(())
    }

    /// Bytes appended, and readable through [`Staged::reader`].
    pub fn watermark(&self) -> u64 {
        self.writing.file.sums.lock().len_bytes()
    }

    /// A reader of the appended bytes.
    pub fn reader(&self) -> StagedReader {
        StagedReader {
            store: Arc::clone(&self.writing.store),
            place: self.writing.place.clone(),
            file: Arc::clone(&self.writing.file),
        }
    }

    /// Makes the blob visible in Tier 1, over a copy that is there.
    ///
    /// # Errors
    /// [`Tier1Error::Damaged`] if the proof is of another blob or not all of the blob was appended; [`Tier1Error::Io`].
    /// Nothing is visible then, and the staging file is deleted. [`Tier1Error::Slow`]: one or the other will be so.
    ///
    /// # Cancel safety
    /// Once begun it finishes in the background.
    pub async fn publish(self, proof: Verified) -> Result<Pinned, Tier1Error> {
        let store = Arc::clone(&self.writing.store);
        let publish = async move {
            let store = Arc::clone(&self.writing.store);
            store.in_time(move |_| self.publish_now(&proof)).await
        };
        match store.tasks.spawn(publish).await {
            Ok(published) => published,
            Err(error) => Err(Tier1Error::Io(io::Error::other(error))),
        }
    }

    fn publish_now(self, proof: &Verified) -> Result<Pinned, Tier1Error> {
        let Staged {
            mut writing,
            key,
            spoilt,
        } = self;
        let store = Arc::clone(&writing.store);
        let place = writing.place.clone();
        let sums = writing.file.sums.lock().clone();
        if spoilt || *proof.digest() != place.digest || sums.len_bytes() != place.digest.size_bytes() {
            store
                .faults
                .note(Op::Publish, &place.digest, &Tier1Error::Damaged);
            return Err(Tier1Error::Damaged);
        }
        let trouble = |error| store.trouble(Op::Publish, &place, error);
        let (file, blocks) = (Arc::clone(&writing.file.file), sums.blocks());
        let trailer = format::trailer(&place.home.tag(), &place.digest, &blocks);
        file.write_at(&trailer, place.digest.size_bytes())
            .map_err(trouble)?;
        let facts = file.facts().map_err(trouble)?;
        // Some file systems allocate seconds later (ZFS): until a scan looks again, what was written counts.
        let allocated_bytes = facts.allocated_bytes.max(facts.len_bytes);
        let open = Arc::new(OpenBlob::new(file, blocks));

        let on_path = store.lock_path(&place.digest);
        writing.rename().map_err(trouble)?;
        let mut index = store.index.lock();
        let mut entry = index::entry(place.clone(), allocated_bytes, store.now_ms());
        entry.pins = 1;
        let (id, replaced) = index.insert(entry);
        index.unstaged(std::mem::take(&mut writing.staged_bytes));
        let account = index.account();
        drop(index);
        drop(on_path);

        drop(replaced);
        store.call_janitor_if_high(account);
        Ok(Pinned::new(&store, key, place, id, Some(open)))
    }
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staged({:?}, {} bytes)", self.key, self.watermark())
    }
}

impl Writing {
    fn rename(&mut self) -> io::Result<()> {
        let Some(from) = &self.path else {
            return Err(io::Error::other("the file is published already"));
        };
        let to = self.store.layout.blob(&self.place);
        let disk = &self.store.disk;
        match (disk.rename(from, &to), to.parent()) {
            (Err(error), Some(dir)) if error.kind() == io::ErrorKind::NotFound => {
                disk.create_dirs(dir)?;
                disk.rename(from, &to)?;
            }
            (renamed, _) => renamed?,
        }
        self.path = None;
        Ok(())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            self.store.leave(Leaving::Staging {
                path,
                file: Some(Arc::clone(&self.file.file)),
                staged_bytes: self.staged_bytes,
            });
        }
    }
}

/// Room noted for a file that is not there yet.
struct Reserved {
    store: Arc<Store>,
    bytes: u64,
}

impl Reserved {
    /// Leaves the room to a file.
    fn hand_over(mut self) -> u64 {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.store.index.lock().unstaged(self.bytes);
        }
    }
}
