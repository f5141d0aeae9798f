//! A disk in memory, for tests.

use super::Disk;

/// A disk in memory.
#[derive(Debug, Default)]
pub struct MemoryDisk {}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> MemoryDisk {
        MemoryDisk::default()
    }
}

impl Disk for MemoryDisk {}
