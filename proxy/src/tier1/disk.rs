//! The disk as Tier 1 sees it.

#[cfg(test)]
pub mod memory;

/// The disk under Tier 1.
pub trait Disk: Send + Sync + 'static {}

/// The machine's own file system.
#[derive(Debug, Default)]
pub struct SystemDisk {}

impl SystemDisk {
    /// The file system.
    pub fn new() -> SystemDisk {
        SystemDisk::default()
    }
}

impl Disk for SystemDisk {}
