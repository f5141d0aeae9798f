//! Many leases in little room: a slab in the order of learning, and a map from fingerprints to it.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::scopes::{ScopeId, Scopes};
use crate::call::BlobKey;
use crate::digest::Digest;

/// How much may be remembered.
#[derive(Debug, Clone, Copy)]
pub(in crate::tiered) struct Bounds {
    /// Leases.
    pub(in crate::tiered) leases: u32,
    /// Bytes of memory that they and the names of their scopes take.
    pub(in crate::tiered) bytes: usize,
}

/// Bytes that one lease takes: its slot, and an entry of the map at the load at which a map is at its largest.
pub(in crate::tiered) const LEASE_BYTES: usize = size_of::<Slot>() + 2 * (size_of::<(u64, u32)>() + 1);

/// No slot: the end of a list.
const NONE: u32 = u32::MAX;

/// Evidence by blob. Above its bounds the lease that was learnt or renewed longest ago goes.
pub(in crate::tiered) struct Store {
    bounds: Bounds,
    /// Dates are counted from here. Evidence that is older counts as being from here, which is before any question.
    start: Instant,
    secret: RandomState,
    /// Two blobs with one fingerprint share a place in turn: forgetting is always allowed.
    by_fingerprint: HashMap<u64, u32, BuildHasherDefault<Taken>>,
    slots: Vec<Slot>,
    free: u32,
    oldest: u32,
    newest: u32,
    scopes: Scopes,
}

#[derive(Clone, Copy)]
struct Slot {
    digest: Digest,
    sent_nanos: u64,
    scope: ScopeId,
    /// The neighbours in the order of learning; of a free slot, `newer` is the next free one.
    older: u32,
    newer: u32,
}

/// A hasher for keys that are hashes.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

impl Store {
    pub(in crate::tiered) fn new(bounds: Bounds, start: Instant) -> Store {
        Store {
            bounds,
            start,
            secret: RandomState::new(),
            by_fingerprint: HashMap::default(),
            slots: Vec::new(),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            scopes: Scopes::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_fingerprint.len()
    }

    /// Bytes of memory that are in use.
    pub(super) fn bytes(&self) -> usize {
        self.len() * LEASE_BYTES + self.scopes.bytes()
    }

    /// Whether one more is kept without another's going.
    pub(in crate::tiered) fn has_room(&self) -> bool {
        self.len() < self.bounds.leases as usize && self.bytes() + LEASE_BYTES <= self.bounds.bytes
    }

    /// The date of what was learnt or renewed longest ago.
    pub(in crate::tiered) fn oldest(&self) -> Option<Instant> {
        let slot = self.slots.get(self.oldest as usize)?;
        Some(self.start + Duration::from_nanos(slot.sent_nanos))
    }

    /// When the evidence was sent.
    pub(in crate::tiered) fn get(&self, key: &BlobKey) -> Option<Instant> {
        let (_, index) = self.find(key)?;
        let slot = self.slots.get(index as usize)?;
        Some(self.start + Duration::from_nanos(slot.sent_nanos))
    }

    /// Remembers evidence, unless newer is known.
    pub(in crate::tiered) fn put(&mut self, key: &BlobKey, sent_at: Instant) {
        let since_start = sent_at.saturating_duration_since(self.start);
        let mut sent_nanos = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX);
        let scope = self.scopes.hold(&key.scope);
        let fingerprint = self.fingerprint(scope, &key.digest);
        if let Some(index) = self.by_fingerprint.get(&fingerprint).copied() {
            if self.is(index, scope, &key.digest) {
                sent_nanos = sent_nanos.max(self.slots[index as usize].sent_nanos);
            }
            self.drop_slot(fingerprint, index);
        }
        while !self.has_room() && self.drop_oldest() {}
        let slot = Slot {
            digest: key.digest,
            sent_nanos,
            scope,
            older: self.newest,
            newer: NONE,
        };
        let index = self.place(slot);
        match self.slots.get_mut(self.newest as usize) {
            Some(before) => before.newer = index,
            None => self.oldest = index,
        }
        self.newest = index;
        self.by_fingerprint.insert(fingerprint, index);
    }

    /// Forgets a lease. Says whether there was one.
    pub(super) fn remove(&mut self, key: &BlobKey) -> bool {
        match self.find(key) {
            Some((fingerprint, index)) => {
                self.drop_slot(fingerprint, index);
                true
            }
            None => false,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.by_fingerprint.clear();
        self.slots.clear();
        (self.free, self.oldest, self.newest) = (NONE, NONE, NONE);
        self.scopes = Scopes::default();
    }

    fn fingerprint(&self, scope: ScopeId, digest: &Digest) -> u64 {
        self.secret.hash_one((scope, digest))
    }

    fn is(&self, index: u32, scope: ScopeId, digest: &Digest) -> bool {
        let slot = self.slots.get(index as usize);
        slot.is_some_and(|slot| slot.scope == scope && slot.digest == *digest)
    }

    fn find(&self, key: &BlobKey) -> Option<(u64, u32)> {
        let scope = self.scopes.find(&key.scope)?;
        let fingerprint = self.fingerprint(scope, &key.digest);
        let index = self.by_fingerprint.get(&fingerprint).copied()?;
        self.is(index, scope, &key.digest).then_some((fingerprint, index))
    }

    fn place(&mut self, slot: Slot) -> u32 {
        if let Some(free) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = free.newer;
            *free = slot;
            return index;
        }
        let index = u32::try_from(self.slots.len()).expect("leases are counted in 32 bits");
        self.slots.push(slot);
        index
    }

    fn drop_oldest(&mut self) -> bool {
        let Some(slot) = self.slots.get(self.oldest as usize) else {
            return false;
        };
        let fingerprint = self.fingerprint(slot.scope, &slot.digest);
        self.drop_slot(fingerprint, self.oldest);
        true
    }

    fn drop_slot(&mut self, fingerprint: u64, index: u32) {
        self.by_fingerprint.remove(&fingerprint);
        let Slot {
            scope, older, newer, ..
        } = self.slots[index as usize];
        match self.slots.get_mut(older as usize) {
            Some(before) => before.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(after) => after.older = older,
            None => self.newest = older,
        }
        self.slots[index as usize].newer = self.free;
        self.free = index;
        self.scopes.release(scope);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::call::Scope;
    use crate::digest::Function;

    fn key(scope: &str, name: u32) -> BlobKey {
        BlobKey {
            scope: Scope::new(scope),
            digest: Digest::of(Function::Sha256, &name.to_le_bytes()),
        }
    }

    fn bounds(leases: u32) -> Bounds {
        Bounds {
            leases,
            bytes: usize::MAX,
        }
    }

    #[test]
    fn a_lease_takes_as_many_bytes_as_it_is_counted_for() {
        let (start, leases) = (Instant::now(), 1 << 15);
        let mut store = Store::new(bounds(leases), start);
        for name in 0..2 * leases {
            store.put(&key("a", name), start);
        }
        let buckets = store.by_fingerprint.capacity().div_ceil(7) * 8;
        let map_bytes = buckets * (size_of::<(u64, u32)>() + 1);
        let slots_bytes = store.slots.capacity() * size_of::<Slot>();
        let each = (map_bytes + slots_bytes) / store.len();
        println!(
            "bytes per lease: {each}; counted: {LEASE_BYTES}; its slot: {}",
            size_of::<Slot>()
        );
        assert!(each <= LEASE_BYTES, "{each}");
    }

    #[test]
    fn the_lease_learnt_longest_ago_goes_first_and_a_renewed_one_stays() {
        let start = Instant::now();
        let mut store = Store::new(bounds(3), start);
        for name in 0..3 {
            store.put(&key("a", name), start + Duration::from_secs(1));
        }
        store.put(&key("a", 0), start);
        store.put(&key("a", 3), start);
        assert_eq!(store.get(&key("a", 1)), None);
        assert_eq!(
            store.get(&key("a", 0)),
            Some(start + Duration::from_secs(1)),
            "the newer date counts"
        );
        assert_eq!(store.len(), 3);
    }

    #[test]
    fn leases_are_bounded_in_bytes_names_of_scopes_included() {
        let start = Instant::now();
        let mut store = Store::new(
            Bounds {
                leases: u32::MAX - 1,
                bytes: 10_000,
            },
            start,
        );
        for name in 0..1000 {
            store.put(&key(&format!("{name:0200}"), name), start);
            assert!(store.bytes() <= 10_000);
        }
        assert!(store.get(&key(&format!("{:0200}", 999), 999)).is_some());
        store.clear();
        assert_eq!((store.len(), store.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn the_store_is_a_map_that_forgets_its_oldest(
            ops in proptest::collection::vec((0_u8..10, 0_u32..12, 0_u64..50), 1..200),
        ) {
            let start = Instant::now();
            let mut store = Store::new(bounds(6), start);
            let mut model: HashMap<(u32, bool), Instant> = HashMap::new();
            let mut order: Vec<(u32, bool)> = Vec::new();
            for (op, name, millis) in ops {
                let other = name % 2 == 0;
                let blob = key(if other { "b" } else { "a" }, name);
                let id = (name, other);
                let sent_at = start + Duration::from_millis(millis);
                match op {
                    0..=6 => {
                        store.put(&blob, sent_at);
                        let newest = model.get(&id).copied().map_or(sent_at, |known| known.max(sent_at));
                        model.insert(id, newest);
                        order.retain(|known| *known != id);
                        order.push(id);
                        if order.len() > 6 {
                            model.remove(&order.remove(0));
                        }
                    }
                    7 | 8 => {
                        prop_assert_eq!(store.remove(&blob), model.remove(&id).is_some());
                        order.retain(|known| *known != id);
                    }
                    _ => {
                        if millis == 0 {
                            store.clear();
                            model.clear();
                            order.clear();
                        }
                    }
                }
                prop_assert_eq!(store.len(), model.len());
                for name in 0..12 {
                    let other = name % 2 == 0;
                    let blob = key(if other { "b" } else { "a" }, name);
                    prop_assert_eq!(store.get(&blob), model.get(&(name, other)).copied());
                }
            }
        }
    }
}
