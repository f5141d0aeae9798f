//! Files on their way out. Only the janitor removes files, so that nobody else waits for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::DiskFile;
use super::faults::Op;
use super::index::Entry;
use super::store::Store;

/// A file that is to be removed.
pub(super) enum Leaving {
    /// A blob that no reader finds any longer.
    Blob(Entry),
    /// A staging file that was given up. It is open until it has no name, so that its end is not what frees the disk
    /// on a thread that may not block.
    Staging {
        path: PathBuf,
        #[expect(dead_code, reason = "held, not used")]
        file: Option<Arc<dyn DiskFile>>,
        staged_bytes: u64,
    },
}

impl Leaving {
    /// Removes the file and takes it off the account, or returns it if the disk will not. For threads that may block.
    pub(super) fn remove(self, store: &Store) -> Result<(), Leaving> {
        match &self {
            Leaving::Blob(entry) => {
                let _on_path = store.lock_path(&entry.place.digest);
                // If there is a newer copy, it has taken the path, and with it the old file's name.
                let taken = store.index.lock().contains(&entry.place);
                if !taken && !remove(store, &store.layout.blob(&entry.place)) {
                    return Err(self);
                }
                store.index.lock().left(entry.allocated_bytes);
            }
            Leaving::Staging {
                path, staged_bytes, ..
            } => {
                if !remove(store, path) {
                    return Err(self);
                }
                store.index.lock().unstaged(*staged_bytes);
            }
        }
        Ok(())
    }
}

/// Says whether the file is gone.
fn remove(store: &Store, path: &Path) -> bool {
    match store.disk.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            store.faults.note(Op::Remove, &path.display(), &error);
            false
        }
        Ok(()) | Err(_) => true,
    }
}
