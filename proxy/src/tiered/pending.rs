//! What was acknowledged and is not yet in Tier 1 can be read here (R12).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::call::BlobKey;
use crate::tier1::StagedReader;

/// Bytes of copies held in memory. They come from batches, whose clients would otherwise decide how much memory a slow
/// disk costs; a copy above the bound is not held, and its readers ask Tier 2, which acknowledged it.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Verified copies of acknowledged writes, readable until Tier 1 has published them.
#[derive(Default)]
pub struct Pending {
    copies: Mutex<Copies>,
}

#[derive(Default)]
struct Copies {
    by_key: HashMap<BlobKey, (u64, PendingCopy)>,
    memory_bytes: usize,
    last_ticket: u64,
}

/// Where the bytes of an acknowledged write are.
#[derive(Clone)]
pub enum PendingCopy {
    /// Here.
    Memory(Bytes),
    /// In the file that is about to be published.
    Staged(StagedReader),
}

impl Pending {
    /// No copies.
    pub fn new() -> Pending {
        Pending::default()
    }

    /// The copy of a blob, if one waits to be published.
    pub fn find(&self, key: &BlobKey) -> Option<PendingCopy> {
        self.copies.lock().by_key.get(key).map(|(_, copy)| copy.clone())
    }

    /// Lets readers find `copy` while the guard lives. The newest copy of a key is the one that is found.
    pub(super) fn hold(self: &Arc<Self>, key: BlobKey, copy: PendingCopy) -> PendingGuard {
        let mut copies = self.copies.lock();
        copies.last_ticket += 1;
        let ticket = copies.last_ticket;
        if copies.memory_bytes + copy.memory_bytes() <= MEMORY_BYTES_MAX {
            copies.memory_bytes += copy.memory_bytes();
            if let Some((_, older)) = copies.by_key.insert(key.clone(), (ticket, copy)) {
                copies.memory_bytes -= older.memory_bytes();
            }
        }
        PendingGuard {
            pending: self.clone(),
            key,
            ticket,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = self.copies.lock();
        f.debug_struct("Pending")
            .field("copies", &copies.by_key.len())
            .field("memory_bytes", &copies.memory_bytes)
            .finish()
    }
}

impl PendingCopy {
    fn memory_bytes(&self) -> usize {
        match self {
            PendingCopy::Memory(bytes) => bytes.len(),
            PendingCopy::Staged(_) => 0,
        }
    }
}

/// Keeps a copy readable; dropped once Tier 1 has it or gave up on it.
pub(super) struct PendingGuard {
    pending: Arc<Pending>,
    key: BlobKey,
    ticket: u64,
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut copies = self.pending.copies.lock();
        let newest = copies.by_key.get(&self.key);
        if newest.is_some_and(|(ticket, _)| *ticket == self.ticket)
            && let Some((_, copy)) = copies.by_key.remove(&self.key)
        {
            copies.memory_bytes -= copy.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Scope;
    use crate::digest::{Digest, Function};

    fn key(bytes: &[u8]) -> BlobKey {
        BlobKey {
            scope: Scope::new("s"),
            digest: Digest::of(Function::Sha256, bytes),
        }
    }

    fn found(pending: &Pending, key: &BlobKey) -> Option<Bytes> {
        match pending.find(key)? {
            PendingCopy::Memory(bytes) => Some(bytes),
            PendingCopy::Staged(_) => None,
        }
    }

    #[test]
    fn a_copy_is_found_while_its_guard_lives() {
        let pending = Arc::new(Pending::new());
        let guard = pending.hold(key(b"a"), PendingCopy::Memory(Bytes::from_static(b"a")));
        assert_eq!(found(&pending, &key(b"a")), Some(Bytes::from_static(b"a")));
        drop(guard);
        assert_eq!(found(&pending, &key(b"a")), None);
    }

    #[test]
    fn an_older_guard_leaves_the_newer_copy_alone() {
        let pending = Arc::new(Pending::new());
        let older = pending.hold(key(b"a"), PendingCopy::Memory(Bytes::from_static(b"a")));
        let newer = pending.hold(key(b"a"), PendingCopy::Memory(Bytes::from_static(b"a")));
        drop(older);
        assert!(found(&pending, &key(b"a")).is_some());
        drop(newer);
        assert_eq!(pending.copies.lock().memory_bytes, 0);
    }

    #[test]
    fn copies_in_memory_are_bounded() {
        let pending = Arc::new(Pending::new());
        let large = Bytes::from(vec![0; MEMORY_BYTES_MAX]);
        let _large = pending.hold(key(b"large"), PendingCopy::Memory(large));
        let _small = pending.hold(key(b"small"), PendingCopy::Memory(Bytes::from_static(b"small")));
        assert_eq!(found(&pending, &key(b"small")), None);
    }
}
