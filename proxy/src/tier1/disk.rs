//! The disk as Tier 1 sees it: the few steps that it takes there, so that a twin in memory can fail at each of them.

#[cfg(test)]
pub mod memory;
mod system;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use self::system::SystemDisk;

/// Steps on directories and whole files. All of them block: callers are on threads that may.
pub trait Disk: Send + Sync + 'static {
    /// Takes a lock that no other process, and no other holder in this one, has: until the guard is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if somebody else has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>>;

    /// Makes a directory and its parents, where they are absent.
    ///
    /// # Errors
    /// What the file system says.
    fn create_dirs(&self, path: &Path) -> io::Result<()>;

    /// Makes a file to write and read.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`], or what the file system says.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens a file to read.
    ///
    /// # Errors
    /// What the file system says; also for anything that is no regular file.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;

    /// Looks at a file without opening or following it.
    ///
    /// # Errors
    /// What the file system says.
    fn facts(&self, path: &Path) -> io::Result<FileFacts>;

    /// Gives a file another name, at once and over whatever file had it.
    ///
    /// # Errors
    /// What the file system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Whoever has it open reads on.
    ///
    /// # Errors
    /// What the file system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Lists a directory, in no order.
    ///
    /// # Errors
    /// What the file system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
}

/// An open file. Its steps block, but for [`DiskFile::read_cached_at`].
pub trait DiskFile: Send + Sync + 'static {
    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// What the file system says; some of the bytes may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads `len` bytes; fewer only where the file ends.
    ///
    /// # Errors
    /// What the file system says.
    fn read_at(&self, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Reads `len` bytes if they are all at hand in memory. `None`: use [`DiskFile::read_at`].
    fn read_cached_at(&self, offset: u64, len: usize) -> Option<Vec<u8>>;

    /// Has the bytes survive a power cut. Slow: for what is written once.
    ///
    /// # Errors
    /// What the file system says.
    fn sync(&self) -> io::Result<()>;

    /// Looks at the file.
    ///
    /// # Errors
    /// What the file system says.
    fn facts(&self) -> io::Result<FileFacts>;
}

/// What a directory says about one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name within the directory.
    pub name: OsString,
    /// Whether it is a directory itself.
    pub is_dir: bool,
}

/// What the file system says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileFacts {
    /// Whether it is a regular file.
    pub is_file: bool,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Blocks that it takes, in bytes.
    pub allocated_bytes: u64,
    /// When it was last read or written, as far as the file system keeps that: milliseconds on the file system's clock.
    pub used_at_ms: i64,
}
