//! Files that are whole or absent: written aside, synced, renamed, and their directory synced, in that order.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fs_err::{self as fs, File};
use parking_lot::Mutex;

/// Makes durable files under one root. All methods block.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    temp_dir: PathBuf,
    next_temp: AtomicU64,
    /// Directories whose own existence is known to survive a power cut.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl Files {
    /// Begins with an empty `temp_dir`: what a crash left there was never acknowledged.
    pub(super) fn open(root: &Path, temp_dir: PathBuf) -> io::Result<Files> {
        match fs::remove_dir_all(&temp_dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::create_dir_all(&temp_dir)?;
        Ok(Files {
            root: root.to_owned(),
            temp_dir,
            next_temp: AtomicU64::new(0),
            durable_dirs: Mutex::default(),
        })
    }

    pub(super) fn create_temp(&self) -> io::Result<TempFile> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.temp_dir.join(number.to_string());
        let file = File::create_new(&path)?;
        Ok(TempFile {
            file,
            path,
            published: false,
        })
    }

    /// Gives a file its final name. It survives a power cut once this returns. Replaces what had the name.
    pub(super) fn publish(&self, mut temp: TempFile, to: &Path) -> io::Result<()> {
        temp.file.sync_data()?;
        let dir = to.parent().unwrap_or(&self.root);
        self.make_durable(dir)?;
        fs::rename(&temp.path, to)?;
        temp.published = true;
        sync_dir(dir)
    }

    fn make_durable(&self, dir: &Path) -> io::Result<()> {
        if self.durable_dirs.lock().contains(dir) {
            return Ok(());
        }
        match fs::create_dir(dir) {
            Ok(()) => {}
            // Perhaps by a process that was killed before it synced: sync again.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && dir != self.root => {
                self.make_durable(dir.parent().unwrap_or(&self.root))?;
                match fs::create_dir(dir) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
            Err(error) => return Err(error),
        }
        let mut above = dir;
        while above != self.root
            && let Some(parent) = above.parent()
        {
            sync_dir(parent)?;
            if self.durable_dirs.lock().contains(parent) {
                break;
            }
            above = parent;
        }
        self.durable_dirs.lock().insert(dir.to_owned());
        Ok(())
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// A file without its final name. Dropped instead of published, it is deleted.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    published: bool,
}

impl TempFile {
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.published
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, "a temporary file stays until the next start");
        }
    }
}
