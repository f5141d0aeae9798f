//! Who shares a call with whom, and when it may go. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::call::{Scope, Via};
use crate::digest::{Digest, Function};

/// Digests in one call: what every server takes.
pub(super) const DIGESTS_MAX: usize = 10_000;

/// Digests that wait at once: fifty times what a call carries, some 50 MiB.
pub(super) const WAITING_DIGESTS_MAX: usize = 500_000;

/// Questions that may share a call: nothing of one scope is told to another, and a call has one digest function and one way
/// that it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) scope: Scope,
    pub(super) function: Function,
    pub(super) via: Via,
}

/// Names a group while it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct GroupId(u64);

/// Questions that go in one call.
pub(super) struct Group<W> {
    pub(super) kind: Kind,
    pub(super) digests: BTreeSet<Digest>,
    /// How many have asked.
    pub(super) askers: usize,
    /// Evidence sent after this answers all of them.
    pub(super) not_before: Instant,
    pub(super) waiting: W,
    go: Arc<Notify>,
}

/// What a question, or a part of it, was given.
pub(super) struct Place {
    pub(super) group: GroupId,
    pub(super) digests: Vec<Digest>,
    /// Set for the first in a group, who has to see to it that it goes: fires when it need not wait for others any more.
    pub(super) go: Option<Arc<Notify>>,
}

/// Too many digests wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The groups that wait, and how many calls are in the air.
pub(super) struct Line<W> {
    groups: HashMap<GroupId, Group<W>>,
    /// The group of each kind that can be joined.
    open: HashMap<Kind, GroupId>,
    in_flight: HashMap<Kind, usize>,
    waiting_digests: usize,
    last_id: u64,
}

impl<W> Default for Line<W> {
    fn default() -> Line<W> {
        Line {
            groups: HashMap::new(),
            open: HashMap::new(),
            in_flight: HashMap::new(),
            waiting_digests: 0,
            last_id: 0,
        }
    }
}

impl<W> Line<W> {
    /// Finds places for a question whose answer may rest on evidence sent after `not_before`. While nothing like it is
    /// asked it goes at once; else it waits for company until a call returns, its group is full, or somebody's patience
    /// ends.
    pub(super) fn join(
        &mut self,
        kind: &Kind,
        digests: &[Digest],
        not_before: Instant,
        new: impl Fn() -> W,
    ) -> Result<Vec<Place>, Full> {
        if self.waiting_digests + digests.len() > WAITING_DIGESTS_MAX {
            return Err(Full);
        }
        let alone = !self.in_flight.contains_key(kind) && !self.open.contains_key(kind);
        let mut places = Vec::new();
        let mut rest = digests;
        while !rest.is_empty() {
            let (id, is_first) = match self.open.get(kind) {
                Some(id) => (*id, false),
                None => (self.begin(kind, not_before, new()), true),
            };
            let Some(group) = self.groups.get_mut(&id) else {
                break;
            };
            let before = group.digests.len();
            let (part, later) = rest.split_at(rest.len().min(DIGESTS_MAX - before));
            group.digests.extend(part);
            group.askers += 1;
            group.not_before = group.not_before.max(not_before);
            self.waiting_digests += group.digests.len() - before;
            let is_full = group.digests.len() == DIGESTS_MAX;
            if is_full || (alone && is_first) {
                group.go.notify_one();
            }
            places.push(Place {
                group: id,
                digests: part.to_vec(),
                go: is_first.then(|| group.go.clone()),
            });
            if is_full {
                self.open.remove(kind);
            }
            rest = later;
        }
        Ok(places)
    }

    fn begin(&mut self, kind: &Kind, not_before: Instant, waiting: W) -> GroupId {
        self.last_id += 1;
        let id = GroupId(self.last_id);
        let group = Group {
            kind: kind.clone(),
            digests: BTreeSet::new(),
            askers: 0,
            not_before,
            waiting,
            go: Arc::new(Notify::new()),
        };
        self.groups.insert(id, group);
        self.open.insert(kind.clone(), id);
        id
    }

    /// What goes along with a group.
    pub(super) fn waiting(&self, id: GroupId) -> Option<&W> {
        self.groups.get(&id).map(|group| &group.waiting)
    }

    /// A group goes: from here on nobody joins it. Each departure is followed by a [`Line::land`].
    pub(super) fn depart(&mut self, id: GroupId) -> Option<Group<W>> {
        let group = self.groups.remove(&id)?;
        if self.open.get(&group.kind) == Some(&id) {
            self.open.remove(&group.kind);
        }
        self.waiting_digests -= group.digests.len();
        *self.in_flight.entry(group.kind.clone()).or_default() += 1;
        Some(group)
    }

    /// A call has returned: those who gathered meanwhile need not wait longer.
    pub(super) fn land(&mut self, kind: &Kind) {
        if let Some(calls) = self.in_flight.get_mut(kind) {
            *calls -= 1;
            if *calls == 0 {
                self.in_flight.remove(kind);
            }
        }
        let waiting = self.open.get(kind).and_then(|id| self.groups.get(id));
        if let Some(group) = waiting {
            group.go.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
            && self.open.is_empty()
            && self.in_flight.is_empty()
            && self.waiting_digests == 0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_test::{assert_pending, assert_ready, task};

    use super::*;

    fn kind(scope: &str) -> Kind {
        Kind {
            scope: Scope::new(scope),
            function: Function::Sha256,
            via: Via::default(),
        }
    }

    fn digests(numbers: std::ops::Range<u32>) -> Vec<Digest> {
        numbers
            .map(|number| Digest::of(Function::Sha256, &number.to_le_bytes()))
            .collect()
    }

    fn may_go(place: &Place) -> bool {
        let go = place.go.as_ref().expect("the first of its group");
        task::spawn(go.notified()).poll().is_ready()
    }

    #[test]
    fn a_question_that_is_alone_goes_at_once_and_the_next_ones_gather_until_it_returns() {
        let (start, mut line) = (Instant::now(), Line::default());
        let first = line.join(&kind("a"), &digests(0..2), start, || ()).unwrap();
        assert!(may_go(&first[0]));
        assert_eq!(line.depart(first[0].group).unwrap().askers, 1);
        let second = line.join(&kind("a"), &digests(0..3), start, || ()).unwrap();
        let later = start + Duration::from_secs(1);
        let third = line.join(&kind("a"), &digests(2..5), later, || ()).unwrap();
        assert_eq!(third[0].group, second[0].group);
        assert!(third[0].go.is_none(), "somebody sees to it already");
        let go = second[0].go.clone().unwrap();
        let mut waits = task::spawn(go.notified());
        assert_pending!(waits.poll());
        line.land(&kind("a"));
        assert_ready!(waits.poll());
        let group = line.depart(second[0].group).unwrap();
        assert_eq!(
            (group.digests.len(), group.askers, group.not_before),
            (5, 2, later)
        );
        line.land(&kind("a"));
        assert!(line.is_empty());
    }

    #[test]
    fn nobody_joins_a_call_that_was_sent_nor_one_of_another_scope() {
        // R5
        let (start, mut line) = (Instant::now(), Line::default());
        let first = line.join(&kind("a"), &digests(0..2), start, || ()).unwrap();
        let _sent = line.depart(first[0].group).unwrap();
        let second = line.join(&kind("a"), &digests(0..2), start, || ()).unwrap();
        let other = line.join(&kind("b"), &digests(0..2), start, || ()).unwrap();
        assert_ne!(first[0].group, second[0].group);
        assert_ne!(other[0].group, second[0].group);
        assert!(may_go(&other[0]) && !may_go(&second[0]));
    }

    #[test]
    fn a_large_question_is_cut_and_all_of_its_parts_go() {
        let (start, mut line) = (Instant::now(), Line::default());
        let places = line.join(&kind("a"), &digests(0..25_000), start, || ()).unwrap();
        let lens: Vec<_> = places.iter().map(|place| place.digests.len()).collect();
        assert_eq!(lens, [10_000, 10_000, 5_000]);
        assert!(may_go(&places[0]) && may_go(&places[1]));
        let joined = line
            .join(&kind("a"), &digests(30_000..30_001), start, || ())
            .unwrap();
        assert_eq!(joined[0].group, places[2].group, "there is room in the last one");
    }

    #[test]
    fn what_waits_is_bounded() {
        let (start, mut line) = (Instant::now(), Line::default());
        let (many, one) = (digests(0..10_000), digests(0..1));
        let mut places = Vec::new();
        for _ in 0..WAITING_DIGESTS_MAX / DIGESTS_MAX {
            places.extend(line.join(&kind("a"), &many, start, || ()).unwrap());
        }
        assert_eq!(line.join(&kind("b"), &one, start, || ()).err(), Some(Full));
        let _sent = line.depart(places[0].group);
        assert!(line.join(&kind("b"), &one, start, || ()).is_ok());
    }
}
