//! A map of bounded weight that forgets what was used longest ago.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Bytes that a value costs beside its own: its key, twice, and its places in two maps.
const PLACE_BYTES: usize = 320;

/// Values by key, bounded in bytes. Since each value has at least its place's weight, their number is bounded as well.
pub(super) struct Recent<K, V> {
    values: HashMap<K, Held<V>>,
    /// By the time of the last use.
    order: BTreeMap<u64, K>,
    last_use: u64,
    bytes: usize,
    bytes_max: usize,
}

struct Held<V> {
    value: V,
    bytes: usize,
    used: u64,
}

impl<K: Clone + Eq + Hash, V> Recent<K, V> {
    /// Nothing, with room for `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Recent<K, V> {
        Recent {
            values: HashMap::new(),
            order: BTreeMap::new(),
            last_use: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// The value of a key, which counts as a use.
    pub(super) fn get(&mut self, key: &K) -> Option<&V> {
        let held = self.values.get_mut(key)?;
        self.last_use += 1;
        if let Some(key) = self.order.remove(&held.used) {
            self.order.insert(self.last_use, key);
        }
        held.used = self.last_use;
        Some(&held.value)
    }

    /// The value of a key, unused.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.values.get(key).map(|held| &held.value)
    }

    /// Keeps a value of `bytes` and forgets what there is no more room for. One that is too large for all the room is not kept.
    pub(super) fn insert(&mut self, key: K, value: V, bytes: usize) {
        self.remove(&key);
        let bytes = bytes.saturating_add(PLACE_BYTES);
        if bytes > self.bytes_max {
            return;
        }
        while self.bytes + bytes > self.bytes_max {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.remove(&oldest);
        }
        self.last_use += 1;
        self.order.insert(self.last_use, key.clone());
        let used = self.last_use;
        self.values.insert(key, Held { value, bytes, used });
        self.bytes += bytes;
    }

    /// Forgets a key.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let held = self.values.remove(key)?;
        self.order.remove(&held.used);
        self.bytes -= held.bytes;
        Some(held.value)
    }

    /// Values that are kept.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes that they take, their places included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(room: usize) -> Recent<u32, &'static str> {
        let mut recent = Recent::new(room);
        for (key, value) in [(1, "one"), (2, "two"), (3, "three")] {
            recent.insert(key, value, 100);
        }
        recent
    }

    #[test]
    fn what_was_used_longest_ago_gives_way() {
        let mut recent = filled(3 * (PLACE_BYTES + 100));
        assert_eq!(recent.get(&1), Some(&"one"));
        recent.insert(4, "four", 100);
        assert_eq!(recent.peek(&2), None);
        assert_eq!(recent.len(), 3);
        recent.insert(5, "five", 101);
        let left = [1, 3, 4, 5].map(|key| recent.peek(&key).is_some());
        assert_eq!(left, [false, false, true, true], "room for two of other sizes");
        assert!(recent.bytes() <= 3 * (PLACE_BYTES + 100));
    }

    #[test]
    fn a_replaced_or_removed_value_gives_its_room_back() {
        let mut recent = filled(3 * (PLACE_BYTES + 100));
        recent.insert(1, "uno", 50);
        assert_eq!((recent.len(), recent.bytes()), (3, 3 * PLACE_BYTES + 250));
        assert_eq!(recent.remove(&1), Some("uno"));
        assert_eq!(recent.remove(&1), None);
        assert_eq!((recent.len(), recent.bytes()), (2, 2 * (PLACE_BYTES + 100)));
        assert_eq!(recent.order.len(), 2);
    }

    #[test]
    fn a_value_too_large_for_all_the_room_is_not_kept_and_drops_its_elder_only() {
        let mut recent = filled(1 << 20);
        recent.insert(2, "too much", 1 << 20);
        let left = [1, 2, 3].map(|key| recent.peek(&key).is_some());
        assert_eq!(left, [true, false, true]);
        let mut none = filled(0);
        none.insert(1, "one", 0);
        assert_eq!((none.len(), none.bytes()), (0, 0), "no room keeps nothing");
    }
}
