use proptest::prelude::*;

use super::super::policy::Lru;
use super::*;
use crate::call::Scope;
use crate::digest::Function;
use crate::metrics::Metrics;

fn index() -> Index {
    let mut index = Index::new(Box::new(Lru::default()), Metrics::new().tier1);
    assert!(index.tell(&[], true));
    index
}

fn place(scope: &str, name: u8) -> Place {
    Place {
        home: Arc::new(Home::of(&Scope::new(scope))),
        digest: Digest::of(Function::Sha256, &[name]),
    }
}

fn pin(index: &mut Index, place: &Place) -> Option<EntryId> {
    let found = index.pin(&place.home.tag(), &place.digest, 0);
    found.map(|(id, ..)| id)
}

#[test]
fn a_blob_is_found_under_its_scope_only() {
    let mut index = index();
    index.insert(entry(place("a", 1), 10, 0));
    assert!(pin(&mut index, &place("a", 1)).is_some());
    assert!(pin(&mut index, &place("b", 1)).is_none());
    assert!(pin(&mut index, &place("a", 2)).is_none());
}

#[test]
fn the_least_recently_read_goes_first_and_a_pinned_one_never() {
    let mut index = index();
    for name in 0..4 {
        index.insert(entry(place("a", name), 10, 0));
    }
    let pinned = pin(&mut index, &place("a", 0)).unwrap();
    let read = pin(&mut index, &place("a", 1)).unwrap();
    assert!(index.unpin(read));
    let order: Vec<Digest> = std::iter::from_fn(|| Some(index.evict(0)?.place.digest)).collect();
    assert_eq!(order, [2, 3, 1].map(|name| place("a", name).digest));
    assert!(index.evict(0).is_none());
    assert!(index.unpin(pinned));
    assert!(index.evict(0).is_some());
    index.audit();
}

#[test]
fn a_removed_blob_is_on_the_account_until_its_file_is_gone() {
    let mut index = index();
    let (id, _) = index.insert(entry(place("a", 1), 10, 0));
    index.remove(id).unwrap();
    assert!(index.remove(id).is_none());
    assert_eq!(
        index.account(),
        Account {
            leaving_bytes: 10,
            ..Account::default()
        }
    );
    index.left(10);
    assert_eq!(index.account(), Account::default());
}

#[test]
fn a_name_of_a_replaced_copy_touches_nothing_of_the_new_one() {
    let mut index = index();
    let (old, _) = index.insert(entry(place("a", 1), 10, 0));
    pin(&mut index, &place("a", 1)).unwrap();
    let (new, replaced) = index.insert(entry(place("a", 1), 20, 0));
    assert_eq!(replaced.unwrap().allocated_bytes, 10);
    assert!(!index.unpin(old));
    assert!(index.remove(old).is_none());
    assert_eq!(index.account().stored_bytes, 20);
    assert!(index.remove(new).is_some());
}

#[test]
fn what_came_while_loading_is_evicted_in_the_order_of_its_last_use() {
    let mut index = Index::new(Box::new(Lru::default()), Metrics::new().tier1);
    for (name, last_read_ms) in [(0, -5), (1, 7), (2, -9), (3, 0)] {
        index.insert(entry(place("a", name), 10, last_read_ms));
    }
    assert!(index.evict(0).is_none());
    let mut entries = index.untold();
    entries.sort_unstable();
    index.insert(entry(place("a", 4), 10, 9));
    assert!(
        !index.tell(&entries, true),
        "one came meanwhile and is not told yet"
    );
    let late = index.untold();
    assert!(index.tell(&late, true));
    let order: Vec<Digest> = std::iter::from_fn(|| Some(index.evict(0)?.place.digest)).collect();
    assert_eq!(order, [2, 0, 3, 1, 4].map(|name| place("a", name).digest));
}

#[derive(Debug, Clone)]
enum Op {
    Insert(u8, u64),
    Remove(u8),
    Pin(u8),
    Unpin,
    Evict,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..6_u8, 0..100_u64).prop_map(|(name, bytes)| Op::Insert(name, bytes)),
        (0..6_u8).prop_map(Op::Remove),
        (0..6_u8).prop_map(Op::Pin),
        Just(Op::Unpin),
        Just(Op::Evict),
    ]
}

proptest! {
    #[test]
    fn the_account_is_the_sum_of_the_entries_after_any_steps(ops in prop::collection::vec(op(), 0..60)) {
        let mut index = index();
        let mut pins: Vec<EntryId> = Vec::new();
        for op in ops {
            match op {
                Op::Insert(name, bytes) => drop(index.insert(entry(place("a", name), bytes, 0))),
                Op::Remove(name) => {
                    let home = place("a", name);
                    if let Some(id) = index.find(&home.home.tag(), &home.digest) {
                        index.remove(id);
                    }
                }
                Op::Pin(name) => pins.extend(pin(&mut index, &place("a", name))),
                Op::Unpin => if let Some(id) = pins.pop() {
                    index.unpin(id);
                },
                Op::Evict => if let Some(evicted) = index.evict(0) {
                    prop_assert_eq!(evicted.pins, 0);
                },
            }
            index.audit();
        }
    }
}
