//! The machine's own file system.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fs_err::File;
use fs_err::os::unix::fs::FileExt as _;
use rustix::fs::{FlockOperation, OFlags};

use super::{Disk, DiskFile, FileFacts, Listed};

/// The unit in which `stat` counts blocks, whatever the file system's own.
const STAT_BLOCK_BYTES: u64 = 512;

/// The machine's own file system. One for each directory, since what it learns holds for one file system.
#[derive(Debug, Default)]
pub struct SystemDisk {
    /// Set once the file system refused to say what is cached (tmpfs always does): asking on is a wasted system call.
    cannot_read_cached: Arc<AtomicBool>,
}

impl SystemDisk {
    /// The file system.
    pub fn new() -> SystemDisk {
        SystemDisk::default()
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(SystemFile {
            file,
            cannot_read_cached: Arc::clone(&self.cannot_read_cached),
        })
    }
}

impl Disk for SystemDisk {
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let writable = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .open(path);
        let file = match writable {
            // A directory that cannot be written can still be read from, and a lock needs no write.
            Err(error) if is_read_only(&error) => File::open(path)?,
            other => other?,
        };
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(file))
    }

    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        fs_err::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs_err::OpenOptions::new();
        options.read(true).write(true).create_new(true);
        // What builds make is nobody else's business on this machine.
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(self.file(options.open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs_err::OpenOptions::new();
        options.read(true);
        // Neither a link out of the directory nor a pipe, on which opening would wait, is a blob.
        let no_traps = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        fs_err::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, no_traps.bits().cast_signed());
        Ok(self.file(options.open(path)?))
    }

    fn facts(&self, path: &Path) -> io::Result<FileFacts> {
        Ok(facts(&fs_err::symlink_metadata(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs_err::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs_err::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for entry in fs_err::read_dir(dir)? {
            let entry = entry?;
            listed.push(Listed {
                name: entry.file_name(),
                is_dir: entry.file_type()?.is_dir(),
            });
        }
        Ok(listed)
    }
}

struct SystemFile {
    file: File,
    cannot_read_cached: Arc<AtomicBool>,
}

impl DiskFile for SystemFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let at = offset + bytes.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut bytes), at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // The allocator may have given more room than was asked for.
        bytes.truncate(len);
        Ok(bytes)
    }

    #[cfg(target_os = "linux")]
    fn read_cached_at(&self, offset: u64, len: usize) -> Option<Vec<u8>> {
        use rustix::io::{Errno, ReadWriteFlags};

        if self.cannot_read_cached.load(Ordering::Relaxed) {
            return None;
        }
        let mut bytes = vec![0; len];
        let buffer = &mut [io::IoSliceMut::new(&mut bytes)];
        match rustix::io::preadv2(&self.file, buffer, offset, ReadWriteFlags::NOWAIT) {
            // Cold data fails (and its read-ahead begins), partly cached data comes short: all as good as nothing.
            Ok(found) => (found == len).then_some(bytes),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.cannot_read_cached.store(true, Ordering::Relaxed);
                None
            }
            Err(_) => None,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn read_cached_at(&self, _offset: u64, _len: usize) -> Option<Vec<u8>> {
        None
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn facts(&self) -> io::Result<FileFacts> {
        Ok(facts(&self.file.metadata()?))
    }
}

fn facts(metadata: &std::fs::Metadata) -> FileFacts {
    let milliseconds = |seconds: i64, nanoseconds: i64| {
        seconds
            .saturating_mul(1000)
            .saturating_add(nanoseconds / 1_000_000)
    };
    FileFacts {
        is_file: metadata.is_file(),
        len_bytes: metadata.len(),
        allocated_bytes: metadata.blocks().saturating_mul(STAT_BLOCK_BYTES),
        used_at_ms: milliseconds(metadata.mtime(), metadata.mtime_nsec())
            .max(milliseconds(metadata.atime(), metadata.atime_nsec())),
    }
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_read_renamed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new();
        let (from, to) = (dir.path().join("from"), dir.path().join("a/b/to"));
        let file = disk.create(&from).unwrap();
        file.write_at(b"world", 6).unwrap();
        file.write_at(b"hello ", 0).unwrap();
        assert_eq!(
            disk.create(&from).err().unwrap().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(
            disk.rename(&from, &to).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        disk.create_dirs(to.parent().unwrap()).unwrap();
        disk.rename(&from, &to).unwrap();
        assert_eq!(disk.open(&to).unwrap().read_at(4, 4).unwrap(), b"o wo");
        assert_eq!(file.read_at(9, 100).unwrap(), b"ld");
        assert_eq!(file.read_at(11, 1).unwrap(), b"");
        let facts = disk.facts(&to).unwrap();
        assert_eq!((facts.is_file, facts.len_bytes), (true, 11));
        assert_eq!(file.facts().unwrap(), facts);
        disk.remove(&to).unwrap();
        assert_eq!(disk.open(&to).err().unwrap().kind(), io::ErrorKind::NotFound);
        assert_eq!(file.read_at(0, 5).unwrap(), b"hello");
    }

    #[test]
    fn cached_reads_give_all_bytes_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk::new().create(&dir.path().join("file")).unwrap();
        file.write_at(b"hello", 0).unwrap();
        if let Some(bytes) = file.read_cached_at(1, 3) {
            assert_eq!(bytes, b"ell");
        }
        assert_eq!(file.read_cached_at(3, 10), None);
    }

    #[test]
    fn allocated_bytes_are_counted_in_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let file = SystemDisk::new().create(&dir.path().join("sparse")).unwrap();
        file.write_at(&[1; 4096], 64 << 20).unwrap();
        let facts = file.facts().unwrap();
        assert_eq!(facts.len_bytes, (64 << 20) + 4096);
        assert!(facts.allocated_bytes < 1 << 20, "{facts:?}");
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let disk = SystemDisk::new();
        let held = disk.lock(&path).unwrap();
        assert_eq!(disk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(disk.lock(&path).is_ok());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        disk.create(&target).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        assert!(disk.open(&link).is_err());
        assert!(!disk.facts(&link).unwrap().is_file);
        assert!(!disk.list(dir.path()).unwrap().iter().any(|listed| listed.is_dir));
    }
}
