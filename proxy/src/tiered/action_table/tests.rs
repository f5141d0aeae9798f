use bytes::Bytes;

use super::*;
use crate::call::Scope;
use crate::digest::{ActionDigest, Digest, Function};

const LEASE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn key(name: &str) -> ActionKey {
    ActionKey {
        scope: Scope::new("main"),
        action: ActionDigest(Digest::of(Function::Sha256, name.as_bytes())),
    }
}

fn copy(text: &'static str, dated: Instant) -> Arc<ActionCopy> {
    Arc::new(ActionCopy {
        result: RawActionResult(Bytes::from_static(text.as_bytes())),
        references: Ok(References::default()),
        dated,
    })
}

fn table() -> ActionTable {
    ActionTable::new(LEASE, 1 << 20)
}

#[track_caller]
fn asks(table: &mut ActionTable, key: &ActionKey, now: Instant) -> (Question, watch::Sender<Option<Answer>>) {
    match table.ask(key, &Via::default(), now) {
        Way::Ask(question, told) => (question, told),
        Way::Join(_) => panic!("it joined a question"),
    }
}

fn text(copy: Option<Arc<ActionCopy>>) -> Option<String> {
    copy.map(|copy| String::from_utf8(copy.result.0.to_vec()).unwrap())
}

#[track_caller]
fn has(table: &mut ActionTable, now: Instant, expected: Option<&str>) {
    assert_eq!(text(table.current(&key("a"), now)).as_deref(), expected);
}

fn is_outdated(answer: &Answer) -> bool {
    matches!(answer, Answer::Outdated)
}

#[test]
fn a_copy_is_current_for_the_lease_after_its_question_was_sent() {
    // R7, PXY-41
    let (mut table, now) = (table(), Instant::now());
    let (question, _told) = asks(&mut table, &key("a"), now);
    let answer = table.answered(&key("a"), question, Ok(copy("one", now)));
    assert!(!is_outdated(&answer));
    has(&mut table, now + LEASE - SECOND, Some("one"));
    has(&mut table, now + LEASE, None);
    // What was valid at a moment stays so, for whoever asks about that moment.
    has(&mut table, now + SECOND, Some("one"));
}

#[test]
fn without_a_lease_nothing_is_current_and_nothing_is_joined() {
    let (mut table, now) = (ActionTable::new(Duration::ZERO, 1 << 20), Instant::now());
    let (first, _told) = asks(&mut table, &key("a"), now);
    let (second, _told) = asks(&mut table, &key("a"), now);
    for question in [first, second] {
        let answer = table.answered(&key("a"), question, Ok(copy("one", now)));
        assert!(!is_outdated(&answer));
    }
    has(&mut table, now, None);
}

#[test]
fn a_question_is_joined_while_its_answer_would_be_within_the_lease() {
    let (mut table, now) = (table(), Instant::now());
    let (slow, _told) = asks(&mut table, &key("a"), now);
    assert!(matches!(
        table.ask(&key("a"), &Via::default(), now + SECOND),
        Way::Join(_)
    ));
    assert!(matches!(table.ask(&key("b"), &Via::default(), now), Way::Ask(..)));
    let elsewhence = Via::arrived("another", "me").unwrap();
    assert!(matches!(table.ask(&key("a"), &elsewhence, now), Way::Ask(..)));
    let (quick, _told) = asks(&mut table, &key("a"), now + LEASE);
    let later = now + LEASE;
    table.answered(&key("a"), quick, Ok(copy("new", later)));
    assert!(
        matches!(table.ask(&key("a"), &Via::default(), later), Way::Ask(..)),
        "an answered one is not joined"
    );
    // The elder of the two is answered last, and its answer does not replace a younger one.
    let answer = table.answered(&key("a"), slow, Ok(copy("old", now)));
    assert!(!is_outdated(&answer));
    has(&mut table, later, Some("new"));
    let (late, _told) = asks(&mut table, &key("a"), later + LEASE);
    table.answered(&key("a"), late, Err(Tier2Error::NotFound));
    assert!(
        table.copies.peek(&key("a")).is_none(),
        "tier 2 has none: nor have we"
    );
}

#[test]
fn an_answer_that_crossed_an_update_is_neither_kept_nor_shared() {
    // R7, PXY-42: sent before the update, answered while it is on its way, or after it.
    for ends_first in [false, true] {
        let (mut table, now) = (table(), Instant::now());
        let (question, _told) = asks(&mut table, &key("a"), now);
        table.raise(&key("a"));
        assert!(
            matches!(table.ask(&key("a"), &Via::default(), now), Way::Ask(..)),
            "nobody joins a question from before the update"
        );
        if ends_first {
            table.acknowledged(&key("a"), copy("new", now));
        }
        let answer = table.answered(&key("a"), question, Ok(copy("old", now)));
        assert!(is_outdated(&answer));
        has(&mut table, now, ends_first.then_some("new"));
    }
}

#[test]
fn a_question_sent_while_an_update_is_on_its_way_is_outdated_by_its_end() {
    // R7
    for ok in [false, true] {
        let (mut table, now) = (table(), Instant::now());
        table.raise(&key("a"));
        let (question, _told) = asks(&mut table, &key("a"), now);
        if ok {
            table.acknowledged(&key("a"), copy("new", now));
        } else {
            table.raise(&key("a"));
        }
        let answer = table.answered(&key("a"), question, Ok(copy("old", now)));
        assert!(is_outdated(&answer));
        has(&mut table, now, ok.then_some("new"));
    }
}

#[test]
fn an_answer_kept_during_an_update_is_gone_at_its_end() {
    // R7: an update that is not OK drops our copy
    let (mut table, now) = (table(), Instant::now());
    table.raise(&key("a"));
    let (question, _told) = asks(&mut table, &key("a"), now);
    let answer = table.answered(&key("a"), question, Ok(copy("old", now)));
    assert!(!is_outdated(&answer));
    has(&mut table, now, Some("old"));
    table.raise(&key("a"));
    has(&mut table, now, None);
}

#[test]
fn only_the_update_of_the_same_key_counts() {
    let (mut table, now) = (table(), Instant::now());
    let (question, _told) = asks(&mut table, &key("a"), now);
    table.raise(&key("b"));
    let answer = table.answered(&key("a"), question, Ok(copy("one", now)));
    assert!(!is_outdated(&answer));
    has(&mut table, now, Some("one"));
}

#[test]
fn tier_2_s_not_found_drops_our_copy_and_another_failure_does_not() {
    // R7
    let (mut table, now) = (table(), Instant::now());
    table.acknowledged(&key("a"), copy("one", now));
    let (question, _told) = asks(&mut table, &key("a"), now + SECOND);
    table.answered(&key("a"), question, Err(Tier2Error::Stalled));
    has(&mut table, now, Some("one"));
    let (question, _told) = asks(&mut table, &key("a"), now + SECOND);
    table.answered(&key("a"), question, Err(Tier2Error::NotFound));
    has(&mut table, now, None);
}

#[test]
fn a_copy_that_is_of_no_use_is_forgotten_and_a_younger_one_is_not() {
    let (mut table, now) = (table(), Instant::now());
    let (old, new) = (copy("old", now), copy("new", now));
    table.acknowledged(&key("a"), old.clone());
    table.acknowledged(&key("a"), new.clone());
    table.forget(&key("a"), &old);
    has(&mut table, now, Some("new"));
    table.forget(&key("a"), &new);
    has(&mut table, now, None);
}

#[test]
fn what_is_open_is_forgotten_with_its_last_question() {
    let (mut table, now) = (table(), Instant::now());
    let (first, _told) = asks(&mut table, &key("a"), now);
    table.raise(&key("a"));
    let (second, _told) = asks(&mut table, &key("a"), now);
    assert!(!table.given_up(&key("a"), first));
    assert!(
        matches!(table.ask(&key("a"), &Via::default(), now), Way::Join(_)),
        "the end of another question closes nothing"
    );
    assert!(table.given_up(&key("a"), second));
    assert!(table.asked.is_empty());
}

#[test]
fn copies_are_bounded_in_bytes() {
    let (mut table, now) = (ActionTable::new(LEASE, 10_000), Instant::now());
    for number in 0..1000 {
        table.acknowledged(&key(&number.to_string()), copy("0123456789", now));
    }
    let (count, bytes) = table.size();
    assert!((10..30).contains(&count) && bytes <= 10_000, "{count} {bytes}");
    assert!(table.current(&key("999"), now).is_some());
    assert!(table.current(&key("0"), now).is_none());
}
