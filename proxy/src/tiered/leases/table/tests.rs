use super::*;
use crate::call::Scope;
use crate::digest::{Digest, Function};
use crate::tiered::leases::LEASES;

const LEASE: Duration = Duration::from_secs(300);

pub(super) fn key(name: &str) -> BlobKey {
    BlobKey {
        scope: Scope::new("main"),
        digest: Digest::of(Function::Sha256, name.as_bytes()),
    }
}

/// A table, and times in milliseconds from its beginning.
struct Rig {
    table: LeaseTable,
    start: Instant,
}

impl Rig {
    fn new() -> Rig {
        let start = Instant::now();
        Rig {
            table: LeaseTable::new(LEASES, LEASE, start),
            start,
        }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn open(&mut self, millis: u64) {
        self.table.open(self.at(millis));
    }

    fn present(&mut self, name: &str, sent: u64) -> Heard {
        self.table.present(&key(name), self.at(sent))
    }

    fn acknowledged(&mut self, name: &str, sent: u64, now: u64) {
        self.table.acknowledged(&key(name), self.at(sent), self.at(now));
    }

    fn absent(&mut self, name: &str, sent: u64, now: u64) -> (Heard, bool) {
        self.table.absent(&key(name), self.at(sent), self.at(now))
    }

    /// When the evidence for a blob was sent.
    fn since(&self, name: &str) -> Option<u128> {
        let sent_at = self.table.evidence(&key(name))?;
        Some(sent_at.duration_since(self.start).as_millis())
    }
}

#[test]
fn r3_a_lease_is_dated_by_its_evidence_and_the_newest_counts() {
    let mut rig = Rig::new();
    assert_eq!(rig.since("a"), None);
    assert_eq!(rig.present("a", 5), Heard::Stands);
    rig.acknowledged("a", 3, 9);
    assert_eq!(rig.since("a"), Some(5));
    rig.acknowledged("a", 7, 10);
    assert_eq!(rig.since("a"), Some(7));
    assert_eq!(rig.since("b"), None);
}

#[test]
fn r3_present_from_a_call_sent_before_the_last_absence_is_void() {
    let mut rig = Rig::new();
    rig.open(1);
    rig.open(2);
    assert_eq!(rig.absent("a", 2, 3), (Heard::Stands, false));
    assert_eq!(rig.present("a", 1), Heard::AskAgain);
    assert_eq!(rig.since("a"), None);
    rig.open(4);
    assert_eq!(rig.present("a", 4), Heard::Stands);
    assert_eq!(rig.since("a"), Some(4));
}

#[test]
fn r3_an_absence_heard_after_presence_ends_the_lease_whichever_call_was_sent_first() {
    for (present, absent) in [(1, 2), (2, 1)] {
        let mut rig = Rig::new();
        rig.open(1);
        rig.open(2);
        assert_eq!(rig.present("a", present), Heard::Stands);
        assert_eq!(rig.absent("a", absent, 3), (Heard::Stands, false));
        assert_eq!(rig.since("a"), None, "sent at {absent}");
    }
}

#[test]
fn r3_missing_from_a_call_sent_before_the_last_acknowledgement_is_asked_again() {
    let mut rig = Rig::new();
    rig.open(1);
    rig.open(2);
    rig.acknowledged("a", 2, 3);
    assert_eq!(rig.absent("a", 1, 4), (Heard::AskAgain, false));
    assert_eq!(
        rig.since("a"),
        Some(2),
        "the lease stays until Tier 2 has said it again"
    );
    rig.open(5);
    assert_eq!(rig.absent("a", 5, 6), (Heard::Stands, false));
    assert_eq!(rig.since("a"), None);
}

#[test]
fn r3_a_write_acknowledged_over_an_absence_counts_and_gives_no_lease() {
    let mut rig = Rig::new();
    rig.open(1);
    rig.open(2);
    assert_eq!(rig.absent("a", 2, 3), (Heard::Stands, false));
    rig.acknowledged("a", 1, 4);
    assert_eq!(rig.since("a"), None);
}

#[test]
fn r3_what_was_heard_is_forgotten_with_the_last_call_that_was_open() {
    let mut rig = Rig::new();
    rig.open(1);
    assert_eq!(rig.absent("a", 1, 3), (Heard::Stands, false));
    rig.table.close(rig.at(1));
    assert_eq!(rig.table.marks.len(), 0);
}

#[test]
fn r4_evidence_sent_before_an_epoch_ended_proves_nothing_when_it_arrives_after() {
    let mut rig = Rig::new();
    rig.open(5);
    assert_eq!(rig.present("a", 1), Heard::Stands);
    rig.table.end_epoch(rig.at(6));
    assert_eq!(rig.since("a"), None);
    assert_eq!(rig.present("b", 5), Heard::Stands, "the answer itself stands");
    rig.acknowledged("c", 6, 8);
    assert_eq!((rig.since("b"), rig.since("c")), (None, None));
    assert_eq!(rig.present("b", 7), Heard::Stands);
    assert_eq!(rig.since("b"), Some(7));
}

#[test]
fn r4_the_third_surprise_within_ten_seconds_ends_the_epoch() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c", "d"] {
        rig.present(name, 1);
    }
    assert_eq!(rig.absent("never leased", 2, 2), (Heard::Stands, false));
    assert_eq!(rig.absent("a", 2, 3), (Heard::Stands, false));
    assert_eq!(rig.absent("b", 2, 4), (Heard::Stands, false));
    assert_eq!(rig.since("d"), Some(1));
    assert_eq!(rig.absent("c", 2, 5), (Heard::Stands, true));
    assert_eq!(rig.since("d"), None);
}

#[test]
fn r4_surprises_that_are_far_apart_or_about_leases_that_had_ended_are_no_doubt() {
    let mut rig = Rig::new();
    let names = ["a", "b", "c", "d", "e", "f"];
    for name in names {
        rig.present(name, 1);
    }
    for (name, now) in names.into_iter().zip([2, 3, 10_003, 10_004, 310_000, 310_001]) {
        assert_eq!(rig.absent(name, now, now), (Heard::Stands, false), "{name}");
    }
}

#[test]
fn r4_a_write_of_unknown_outcome_ends_the_lease_of_its_own_blob() {
    let mut rig = Rig::new();
    rig.present("a", 1);
    rig.present("b", 1);
    rig.table.unknown(&key("a"));
    assert_eq!((rig.since("a"), rig.since("b")), (None, Some(1)));
}

#[test]
fn leases_of_one_scope_are_nothing_to_another() {
    // R1
    let mut rig = Rig::new();
    rig.present("a", 1);
    let elsewhere = BlobKey {
        scope: Scope::new("other"),
        ..key("a")
    };
    assert_eq!(rig.table.evidence(&elsewhere), None);
    let now = rig.at(2);
    let _heard = rig.table.absent(&elsewhere, now, now);
    assert_eq!(rig.since("a"), Some(1));
}

#[test]
fn r13_an_outage_that_begins_with_many_losses_begins_once() {
    let mut rig = Rig::new();
    rig.present("before", 5);
    let before = |rig: &Rig| rig.table.evidence_before(&key("before"), rig.at(3000)).is_some();
    for lost_at in [10, 12, 2900] {
        rig.table.set_aside(rig.at(lost_at));
        assert_eq!(rig.since("before"), None);
        assert!(before(&rig), "lost at {lost_at}");
    }
    rig.table.set_aside(rig.at(3020));
    assert!(!before(&rig), "these are too far apart");
}

#[test]
fn r13_a_loss_after_an_answer_begins_another_outage_whatever_the_answer_was() {
    for is_present in [true, false] {
        let mut rig = Rig::new();
        rig.present("before", 5);
        rig.table.set_aside(rig.at(10));
        let heard = match is_present {
            true => rig.present("other", 11),
            false => rig.absent("other", 11, 12).0,
        };
        assert_eq!(heard, Heard::Stands);
        rig.table.set_aside(rig.at(13));
        let known = rig.table.evidence_before(&key("before"), rig.at(20));
        assert_eq!(known, None, "it was there again, perhaps without what it had");
    }
}

#[test]
fn r13_what_was_set_aside_when_an_outage_began_is_what_was_known_before_and_nothing_else_is() {
    let mut rig = Rig::new();
    rig.present("long ago", 5);
    rig.table.set_aside(rig.at(10));
    rig.present("before", 20);
    let before = |rig: &Rig, name: &str, down_since: u64| {
        rig.table
            .evidence_before(&key(name), rig.at(down_since))
            .is_some()
    };
    assert!(before(&rig, "before", 50), "nothing was lost yet");
    rig.table.set_aside(rig.at(30));
    assert_eq!((rig.since("before"), rig.since("long ago")), (None, None));
    assert!(before(&rig, "before", 50));
    assert!(!before(&rig, "long ago", 50), "lost twice");
    assert!(!before(&rig, "before", 30_000), "that outage began otherwise");
    rig.present("after", 40);
    assert!(before(&rig, "after", 50));
    rig.table.end_epoch(rig.at(60));
    for name in ["before", "after"] {
        assert!(!before(&rig, name, 61), "{name}");
    }
}
