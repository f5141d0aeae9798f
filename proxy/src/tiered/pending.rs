//! What was acknowledged and is not yet in Tier 1 can be read here (R12).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::call::BlobKey;
use crate::tier1::StagedReader;

/// Bytes of copies held in memory. They come from batches, and a slow disk must not decide how much memory those cost. A
/// copy above the bound is not kept at all: Tier 2, which acknowledged it, has it.
const MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Files that wait to be published. Each is open; on a disk that is this far behind, further copies are dropped.
const STAGED_MAX: usize = 512;

/// Verified copies of acknowledged writes, readable until Tier 1 has published them.
#[derive(Default)]
pub struct Pending {
    copies: Mutex<Copies>,
}

#[derive(Default)]
struct Copies {
    by_key: HashMap<BlobKey, (u64, PendingCopy)>,
    /// Of all that guards hold, also where a newer copy of the same key is the one that is found.
    memory_bytes: usize,
    staged: usize,
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

    /// Lets readers find `copy` while the guard lives. The newest copy of a key is the one that is found. `None` if too
    /// many wait already: the copy should be dropped then.
    pub(super) fn hold(self: &Arc<Self>, key: BlobKey, copy: PendingCopy) -> Option<PendingGuard> {
        let (memory_bytes, staged) = match &copy {
            PendingCopy::Memory(bytes) => (bytes.len(), 0),
            PendingCopy::Staged(_) => (0, 1),
        };
        let mut copies = self.copies.lock();
        if copies.memory_bytes + memory_bytes > MEMORY_BYTES_MAX || copies.staged + staged > STAGED_MAX {
            return None;
        }
        copies.memory_bytes += memory_bytes;
        copies.staged += staged;
        copies.last_ticket += 1;
        let ticket = copies.last_ticket;
        copies.by_key.insert(key.clone(), (ticket, copy));
        Some(PendingGuard {
            pending: self.clone(),
            key,
            ticket,
            memory_bytes,
            staged,
        })
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copies = self.copies.lock();
        f.debug_struct("Pending")
            .field("copies", &copies.by_key.len())
            .field("memory_bytes", &copies.memory_bytes)
            .field("staged", &copies.staged)
            .finish()
    }
}

/// Keeps a copy readable; dropped once Tier 1 has it or gave up on it.
pub(super) struct PendingGuard {
    pending: Arc<Pending>,
    key: BlobKey,
    ticket: u64,
    memory_bytes: usize,
    staged: usize,
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        let mut copies = self.pending.copies.lock();
        copies.memory_bytes -= self.memory_bytes;
        copies.staged -= self.staged;
        let newest = copies.by_key.get(&self.key);
        if newest.is_some_and(|(ticket, _)| *ticket == self.ticket) {
            copies.by_key.remove(&self.key);
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
        let copy = PendingCopy::Memory(Bytes::from_static(b"a"));
        let older = pending.hold(key(b"a"), copy.clone());
        let newer = pending.hold(key(b"a"), copy);
        assert_eq!(pending.copies.lock().memory_bytes, 2);
        drop(older);
        assert!(found(&pending, &key(b"a")).is_some());
        drop(newer);
        assert_eq!(pending.copies.lock().memory_bytes, 0);
        assert_eq!(found(&pending, &key(b"a")), None);
    }

    #[test]
    fn copies_in_memory_are_bounded() {
        let pending = Arc::new(Pending::new());
        let large = Bytes::from(vec![0; MEMORY_BYTES_MAX]);
        let small = PendingCopy::Memory(Bytes::from_static(b"small"));
        let held = pending.hold(key(b"large"), PendingCopy::Memory(large));
        assert!(pending.hold(key(b"small"), small.clone()).is_none());
        assert_eq!(found(&pending, &key(b"small")), None);
        drop(held);
        assert!(pending.hold(key(b"small"), small).is_some());
    }
}
