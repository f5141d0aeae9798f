//! What Tier 1 holds, and the account of the disk that it takes. In memory; does no I/O.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use super::layout::{Home, Place, ScopeTag};
use super::pinned::OpenBlob;
use super::policy::{EntryId, Policy};
use crate::digest::Digest;
use crate::metrics::Tier1Metrics;

/// Blobs whose files stay open between reads, so that a hot blob is read without a thread that may block: a quarter of the
/// descriptors that a process gets where nobody raised the limit.
const OPEN_FILES_MAX: usize = 256;

/// Entries told to the policy under one hold of the lock.
pub(super) const TOLD_AT_ONCE: usize = 1024;

/// All blobs by name, and the account. Behind one lock, each step under it takes a few assignments.
pub(super) struct Index {
    scopes: HashMap<ScopeTag, InScope>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    policy: Box<dyn Policy>,
    /// Entries that the policy is to be told of in the order of their last use, once loading knows them all. `None`: it is
    /// told of each at once.
    untold: Option<Vec<EntryId>>,
    open_files: VecDeque<EntryId>,
    account: Account,
    metrics: Tier1Metrics,
}

/// The blobs of one scope.
struct InScope {
    /// One for all of them: an entry holds no name of its own.
    home: Arc<Home>,
    blobs: HashMap<Digest, EntryId>,
}

/// Bytes of the disk, in allocated blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Blobs that can be read.
    pub(super) blobs: u64,
    /// What they take.
    pub(super) stored_bytes: u64,
    /// What blobs take that cannot be read any longer, until their files are removed.
    pub(super) leaving_bytes: u64,
    /// What files being written take, until they are published or removed.
    pub(super) staged_bytes: u64,
}

impl Account {
    pub(super) fn used_bytes(&self) -> u64 {
        self.stored_bytes + self.leaving_bytes + self.staged_bytes
    }

    /// What will be left once all is removed that is to be.
    pub(super) fn staying_bytes(&self) -> u64 {
        self.stored_bytes + self.staged_bytes
    }
}

#[derive(Default)]
struct Slot {
    generation: u32,
    entry: Option<Entry>,
}

pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) allocated_bytes: u64,
    /// Milliseconds since the store was opened; before it, for what was found.
    pub(super) last_read_ms: i64,
    /// Holders of a [`super::Pinned`].
    pub(super) pins: u32,
    pub(super) open: Option<Arc<OpenBlob>>,
}

impl Index {
    /// An empty index that is being loaded.
    pub(super) fn new(policy: Box<dyn Policy>, metrics: Tier1Metrics) -> Index {
        Index {
            scopes: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            policy,
            untold: Some(Vec::new()),
            open_files: VecDeque::new(),
            account: Account::default(),
            metrics,
        }
    }

    pub(super) fn account(&self) -> Account {
        self.account
    }

    pub(super) fn contains(&self, place: &Place) -> bool {
        self.find(&place.home.tag(), &place.digest).is_some()
    }

    fn find(&self, scope: &ScopeTag, digest: &Digest) -> Option<EntryId> {
        self.scopes.get(scope)?.blobs.get(digest).copied()
    }

    fn entry(&mut self, id: EntryId) -> Option<&mut Entry> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        if slot.generation == id.generation {
            slot.entry.as_mut()
        } else {
            None
        }
    }

    /// Whether a blob is here. Not a read.
    pub(super) fn holds(&self, scope: &ScopeTag, digest: &Digest) -> bool {
        self.find(scope, digest).is_some()
    }

    /// Pins a blob against eviction and counts that as a read.
    pub(super) fn pin(
        &mut self,
        scope: &ScopeTag,
        digest: &Digest,
        now_ms: i64,
    ) -> Option<(EntryId, Place, Option<Arc<OpenBlob>>)> {
        let id = self.find(scope, digest)?;
        let entry = self.entry(id)?;
        entry.pins += 1;
        entry.last_read_ms = now_ms;
        let found = (id, entry.place.clone(), entry.open.clone());
        self.policy.read(id);
        Some(found)
    }

    /// Takes a pin back. Says whether that was the entry's last.
    pub(super) fn unpin(&mut self, id: EntryId) -> bool {
        // An entry dropped while pinned is not here: its pins went with it.
        self.entry(id).is_some_and(|entry| {
            assert!(entry.pins > 0, "each pin is taken back once");
            entry.pins -= 1;
            entry.pins == 0
        })
    }

    /// Keeps a file open for the next reader. Returns what is closed for it: close it without the lock.
    #[must_use]
    pub(super) fn keep_open(&mut self, id: EntryId, open: &Arc<OpenBlob>) -> Option<Arc<OpenBlob>> {
        let entry = self.entry(id)?;
        if entry.open.is_some() {
            return None;
        }
        entry.open = Some(Arc::clone(open));
        self.open_files.push_back(id);
        if self.open_files.len() <= OPEN_FILES_MAX {
            return None;
        }
        let closed = self.open_files.pop_front()?;
        self.entry(closed)?.open.take()
    }

    /// Adds a blob. One of the same name is replaced: its file is gone already, the new one having taken its path.
    pub(super) fn insert(&mut self, mut entry: Entry) -> (EntryId, Option<Entry>) {
        let scope = entry.place.home.tag();
        let digest = entry.place.digest;
        let replaced = self
            .find(&scope, &digest)
            .and_then(|id| self.take(id))
            .inspect(|replaced| self.account.stored_bytes -= replaced.allocated_bytes);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            u32::try_from(self.slots.len() - 1).expect("fewer blobs than a file system has inodes")
        });
        let generation = self.slots[slot as usize].generation;
        let id = EntryId { slot, generation };
        let allocated_bytes = entry.allocated_bytes;
        let in_scope = self.scopes.entry(scope).or_insert_with(|| InScope {
            home: Arc::clone(&entry.place.home),
            blobs: HashMap::new(),
        });
        in_scope.blobs.insert(digest, id);
        entry.place.home = Arc::clone(&in_scope.home);
        self.slots[slot as usize].entry = Some(entry);
        self.account.stored_bytes += allocated_bytes;
        self.account.blobs += 1;
        match &mut self.untold {
            Some(untold) => untold.push(id),
            None => self.policy.inserted(id, allocated_bytes),
        }
        self.show();
        (id, replaced)
    }

    /// Takes a blob out, so that no reader finds it. Its bytes count as leaving until [`Index::left`].
    pub(super) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.take(id)?;
        self.account.stored_bytes -= entry.allocated_bytes;
        self.account.leaving_bytes += entry.allocated_bytes;
        self.show();
        Some(entry)
    }

    fn take(&mut self, id: EntryId) -> Option<Entry> {
        self.entry(id)?;
        let slot = &mut self.slots[id.slot as usize];
        let entry = slot.entry.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        self.policy.removed(id);
        if entry.open.is_some() {
            self.open_files.retain(|open| *open != id);
        }
        let scope = entry.place.home.tag();
        if let Some(in_scope) = self.scopes.get_mut(&scope) {
            in_scope.blobs.remove(&entry.place.digest);
            if in_scope.blobs.is_empty() {
                self.scopes.remove(&scope);
            }
        }
        self.account.blobs -= 1;
        Some(entry)
    }

    /// Takes out the blob that shall leave next. `None`: there is none, or all that there are, are being read.
    pub(super) fn evict(&mut self, now_ms: i64) -> Option<Entry> {
        // A victim that is pinned is being read: it moves to the far end, so each is met once.
        for _ in 0..=self.account.blobs {
            let id = self.policy.victim()?;
            match self.entry(id) {
                Some(entry) if entry.pins == 0 => return self.remove(id),
                Some(entry) => {
                    entry.last_read_ms = now_ms;
                    self.policy.read(id);
                }
                None => self.policy.removed(id),
            }
        }
        None
    }

    /// The file of a removed blob is gone.
    pub(super) fn left(&mut self, allocated_bytes: u64) {
        self.account.leaving_bytes -= allocated_bytes;
        self.show();
    }

    /// Takes note of bytes that are about to be written.
    pub(super) fn staged(&mut self, bytes: u64) {
        self.account.staged_bytes += bytes;
        self.show();
    }

    /// Takes back what was noted: the file is published or gone.
    pub(super) fn unstaged(&mut self, bytes: u64) {
        self.account.staged_bytes -= bytes;
        self.show();
    }

    /// The entries not yet told to the policy, with the time of their last use.
    pub(super) fn untold(&mut self) -> Vec<(i64, EntryId)> {
        let untold = self.untold.as_mut().map(std::mem::take).unwrap_or_default();
        let dated = untold.into_iter().filter_map(|id| {
            let last_read_ms = self.entry(id)?.last_read_ms;
            Some((last_read_ms, id))
        });
        dated.collect()
    }

    /// Tells the policy of entries, oldest first. `last`: these were all, and from here on it is told at once; refused while
    /// there are others.
    pub(super) fn tell(&mut self, entries: &[(i64, EntryId)], last: bool) -> bool {
        for (_, id) in entries {
            if let Some(entry) = self.entry(*id) {
                let allocated_bytes = entry.allocated_bytes;
                self.policy.inserted(*id, allocated_bytes);
            }
        }
        let all = last && self.untold.as_ref().is_none_or(Vec::is_empty);
        if all {
            self.untold = None;
        }
        all
    }

    fn show(&self) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.blobs.set(gauge(self.account.blobs));
        let on_disk = self.account.stored_bytes + self.account.leaving_bytes;
        self.metrics.allocated_bytes.set(gauge(on_disk));
        self.metrics.staged_bytes.set(gauge(self.account.staged_bytes));
    }

    /// Checks the account against the entries that it sums up.
    #[cfg(test)]
    pub(super) fn audit(&self) {
        let entries = || self.slots.iter().filter_map(|slot| slot.entry.as_ref());
        assert_eq!(entries().count() as u64, self.account.blobs);
        assert_eq!(
            entries().map(|entry| entry.allocated_bytes).sum::<u64>(),
            self.account.stored_bytes
        );
        assert_eq!(
            self.scopes
                .values()
                .map(|in_scope| in_scope.blobs.len() as u64)
                .sum::<u64>(),
            self.account.blobs
        );
        assert_eq!(
            self.open_files.len(),
            entries().filter(|entry| entry.open.is_some()).count()
        );
        assert!(self.open_files.len() <= OPEN_FILES_MAX);
    }
}

/// An entry for a blob at `place`, unpinned.
pub(super) fn entry(place: Place, allocated_bytes: u64, last_read_ms: i64) -> Entry {
    Entry {
        place,
        allocated_bytes,
        last_read_ms,
        pins: 0,
        open: None,
    }
}

#[cfg(test)]
mod tests;
