//! Which blob leaves first.

/// Names an entry of the index. A slot that is used again gets another generation, so that a name that outlived its entry
/// means nothing instead of something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryId {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// Chooses what leaves Tier 1. Pure: told what happens, asked for one victim at a time; never sees the whole index.
/// What it is told of entries that it does not know is nothing to it.
pub(super) trait Policy: Send {
    fn inserted(&mut self, entry: EntryId, allocated_bytes: u64);
    fn read(&mut self, entry: EntryId);
    fn removed(&mut self, entry: EntryId);
    /// The entry to go next. It stays known until [`Policy::removed`]; one that cannot go is reported as read.
    fn victim(&mut self) -> Option<EntryId>;
}

/// Evicts what was not read for longest. A list through the slots: every step is a few assignments, whatever the number
/// of entries.
#[derive(Debug, Default)]
pub(super) struct Lru {
    links: Vec<Link>,
    oldest: Option<u32>,
    newest: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    /// Generation of the entry in this slot while it is in the list.
    generation: Option<u32>,
    older: Option<u32>,
    newer: Option<u32>,
}

impl Lru {
    fn knows(&self, entry: EntryId) -> bool {
        self.links
            .get(entry.slot as usize)
            .is_some_and(|link| link.generation == Some(entry.generation))
    }

    fn link(&mut self, slot: u32) -> &mut Link {
        &mut self.links[slot as usize]
    }

    fn push_newest(&mut self, entry: EntryId) {
        let older = self.newest.replace(entry.slot);
        *self.link(entry.slot) = Link {
            generation: Some(entry.generation),
            older,
            newer: None,
        };
        match older {
            Some(older) => self.link(older).newer = Some(entry.slot),
            None => self.oldest = Some(entry.slot),
        }
    }

    fn unlink(&mut self, slot: u32) {
        let link = std::mem::take(self.link(slot));
        match link.older {
            Some(older) => self.link(older).newer = link.newer,
            None => self.oldest = link.newer,
        }
        match link.newer {
            Some(newer) => self.link(newer).older = link.older,
            None => self.newest = link.older,
        }
    }
}

impl Policy for Lru {
    fn inserted(&mut self, entry: EntryId, _allocated_bytes: u64) {
        let slot = entry.slot as usize;
        if self.links.len() <= slot {
            self.links.resize(slot + 1, Link::default());
        }
        if self.links[slot].generation.is_some() {
            self.unlink(entry.slot);
        }
        self.push_newest(entry);
    }

    fn read(&mut self, entry: EntryId) {
        if self.knows(entry) {
            self.unlink(entry.slot);
            self.push_newest(entry);
        }
    }

    fn removed(&mut self, entry: EntryId) {
        if self.knows(entry) {
            self.unlink(entry.slot);
        }
    }

    fn victim(&mut self) -> Option<EntryId> {
        let slot = self.oldest?;
        let generation = self.link(slot).generation?;
        Some(EntryId { slot, generation })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> EntryId {
        EntryId { slot, generation: 7 }
    }

    fn order(mut lru: Lru) -> Vec<u32> {
        std::iter::from_fn(|| {
            let victim = lru.victim()?;
            lru.removed(victim);
            Some(victim.slot)
        })
        .collect()
    }

    fn filled() -> Lru {
        let mut lru = Lru::default();
        (0..4).for_each(|slot| lru.inserted(id(slot), 1));
        lru
    }

    #[test]
    fn what_was_not_read_for_longest_goes_first() {
        let mut lru = filled();
        lru.read(id(0));
        lru.read(id(2));
        assert_eq!(order(lru), [1, 3, 0, 2]);
    }

    #[test]
    fn removed_entries_are_no_victims_wherever_they_stood() {
        for gone in 0..4 {
            let mut lru = filled();
            lru.removed(id(gone));
            lru.removed(id(gone));
            assert_eq!(
                order(lru),
                (0..4).filter(|slot| *slot != gone).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn an_earlier_generation_of_a_slot_means_nothing() {
        let mut lru = filled();
        lru.removed(id(0));
        let second = EntryId {
            slot: 0,
            generation: 8,
        };
        lru.inserted(second, 1);
        lru.read(id(0));
        lru.removed(id(0));
        assert_eq!(order(lru), [1, 2, 3, 0]);
    }

    #[test]
    fn a_list_without_entries_has_no_victim() {
        let mut lru = Lru::default();
        lru.read(id(3));
        lru.removed(id(3));
        assert_eq!(lru.victim(), None);
    }
}
