//! The system's disk, failing on request: what Tier 1 meets when its disk is full, broken or mounted read-only.

use std::io;
use std::path::Path;
use std::sync::Arc;

use conformance::site::DiskTrouble;
use gorego::tier1::disk::{Disk, DiskFile, FileFacts, Listed, SystemDisk};
use parking_lot::Mutex;

/// A disk that can be made to fail. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct FailingDisk {
    disk: Arc<SystemDisk>,
    trouble: Arc<Mutex<DiskTrouble>>,
}

impl FailingDisk {
    pub(crate) fn new() -> FailingDisk {
        FailingDisk {
            disk: Arc::new(SystemDisk::new()),
            trouble: Arc::new(Mutex::new(DiskTrouble::None)),
        }
    }

    pub(crate) fn trouble(&self, trouble: DiskTrouble) {
        *self.trouble.lock() = trouble;
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let trouble = self.trouble.clone();
        Arc::new(FailingFile { file, trouble })
    }
}

/// Whether a step that writes fails, and how.
fn writing(trouble: &Mutex<DiskTrouble>) -> io::Result<()> {
    match *trouble.lock() {
        DiskTrouble::Full => Err(io::ErrorKind::StorageFull.into()),
        DiskTrouble::WriteFails => Err(io::ErrorKind::Other.into()),
        DiskTrouble::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        DiskTrouble::ReadFails | DiskTrouble::None => Ok(()),
    }
}

/// The same for names: a full disk can still take them away.
fn naming(trouble: &Mutex<DiskTrouble>) -> io::Result<()> {
    match *trouble.lock() {
        DiskTrouble::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        DiskTrouble::Full | DiskTrouble::WriteFails | DiskTrouble::ReadFails | DiskTrouble::None => Ok(()),
    }
}

fn reads_fail(trouble: &Mutex<DiskTrouble>) -> bool {
    *trouble.lock() == DiskTrouble::ReadFails
}

impl Disk for FailingDisk {
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.disk.lock(path)
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        writing(&self.trouble)?;
        self.disk.create_dirs(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        writing(&self.trouble)?;
        Ok(self.file(self.disk.create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(self.disk.open(path)?))
    }

    fn facts(&self, path: &Path) -> io::Result<FileFacts> {
        self.disk.facts(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        naming(&self.trouble)?;
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        naming(&self.trouble)?;
        self.disk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.disk.list(dir)
    }
}

struct FailingFile {
    file: Arc<dyn DiskFile>,
    trouble: Arc<Mutex<DiskTrouble>>,
}

impl DiskFile for FailingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        writing(&self.trouble)?;
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        if reads_fail(&self.trouble) {
            return Err(io::ErrorKind::Other.into());
        }
        self.file.read_at(offset, len)
    }

    fn read_cached_at(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        if reads_fail(&self.trouble) {
            return None;
        }
        self.file.read_cached_at(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        writing(&self.trouble)?;
        self.file.sync()
    }

    fn facts(&self) -> io::Result<FileFacts> {
        self.file.facts()
    }
}
