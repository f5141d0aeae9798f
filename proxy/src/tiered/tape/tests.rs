use super::*;

const CHUNK: usize = 64 * 1024;

fn now() -> Instant {
    Instant::now()
}

fn chunk(fill: u8) -> Bytes {
    Bytes::from(vec![fill; CHUNK])
}

fn tape(chunks: u64, staging: bool) -> Tape {
    Tape::new(chunks * CHUNK as u64, staging, now())
}

fn push_and_stage(tape: &mut Tape, fill: u8) {
    tape.push(chunk(fill), now());
    tape.staged(tape.watermark());
}

#[test]
fn the_last_piece_is_held_until_the_upload_is_finished() {
    let mut in_memory = tape(2, false);
    in_memory.push(chunk(1), now());
    in_memory.push(chunk(2), now());
    let attempt = in_memory.start_feed(now());
    assert_eq!(in_memory.next(attempt, false, now()), Next::Send(chunk(1)));
    assert_eq!(in_memory.next(attempt, false, now()), Next::Wait);
    assert_eq!(in_memory.next(attempt, true, now()), Next::Finish(chunk(2)));

    let mut on_disk = tape(2, true);
    on_disk.follow();
    push_and_stage(&mut on_disk, 1);
    push_and_stage(&mut on_disk, 2);
    let attempt = on_disk.start_feed(now());
    let len = 2 * CHUNK;
    assert_eq!(on_disk.next(attempt, false, now()), Next::Wait);
    assert_eq!(
        on_disk.next(attempt, true, now()),
        Next::ReadBack { from: 0, len }
    );
    assert_eq!(on_disk.fed(attempt, len as u64, now()), Some(true));
}

#[test]
fn a_stream_that_keeps_up_never_reads_back() {
    let mut tape = tape(3, true);
    tape.push(chunk(1), now());
    let attempt = tape.start_feed(now());
    tape.staged(CHUNK as u64);
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(1)));
    push_and_stage(&mut tape, 2);
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(2)));
    push_and_stage(&mut tape, 3);
    assert_eq!(tape.next(attempt, false, now()), Next::Wait);
    assert_eq!(tape.next(attempt, true, now()), Next::Finish(chunk(3)));
}

#[test]
fn a_slow_tier_2_makes_its_client_wait() {
    let mut tape = tape(100, true);
    tape.push(chunk(0), now());
    let attempt = tape.start_feed(now());
    tape.staged(tape.watermark());
    while tape.has_room() {
        push_and_stage(&mut tape, 0);
    }
    assert_eq!(tape.watermark(), RECENT_BYTES_MAX);
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(0)));
    assert!(tape.has_room());
}

#[test]
fn an_upload_without_company_never_needs_its_file() {
    let mut tape = tape(100, true);
    while tape.has_room() {
        push_and_stage(&mut tape, 1);
    }
    tape.lose_staged();
    let attempt = tape.start_feed(now());
    for _ in 0..tape.watermark() / CHUNK as u64 {
        assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(1)));
    }
}

#[test]
fn a_follower_with_a_file_never_waits_and_holds_nothing() {
    let mut tape = tape(100, true);
    tape.follow();
    for _ in 0..50 {
        assert!(tape.has_room());
        push_and_stage(&mut tape, 0);
        assert_eq!(tape.recent_bytes(), 0);
    }
    assert!(tape.is_whole());
}

#[test]
fn a_follower_without_a_file_waits_once_its_memory_is_full_and_can_still_lead() {
    let mut tape = tape(100, false);
    while tape.has_room() {
        tape.push(chunk(7), now());
    }
    assert!(tape.is_whole());
    let attempt = tape.start_feed(now());
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(7)));
    assert!(tape.has_room());
}

#[test]
fn without_a_file_an_upload_that_outgrew_memory_cannot_begin_again() {
    let mut tape = tape(100, false);
    tape.push(chunk(0), now());
    let attempt = tape.start_feed(now());
    for _ in 0..10 {
        assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(0)));
        tape.push(chunk(0), now());
    }
    tape.stop_feed();
    assert!(!tape.is_whole());
    let attempt = tape.start_feed(now());
    assert_eq!(tape.next(attempt, false, now()), Next::GiveUp);
}

#[test]
fn a_file_that_breaks_midway_serves_the_prefix_and_memory_the_rest() {
    let mut tape = tape(4, true);
    tape.follow();
    push_and_stage(&mut tape, 1);
    tape.push(chunk(2), now());
    tape.stop_staging();
    tape.push(chunk(3), now());
    assert!(tape.is_whole() && !tape.is_staged());
    let attempt = tape.start_feed(now());
    assert_eq!(
        tape.next(attempt, false, now()),
        Next::ReadBack { from: 0, len: CHUNK }
    );
    assert_eq!(tape.fed(attempt, CHUNK as u64, now()), Some(false));
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(2)));
    assert_eq!(tape.next(attempt, false, now()), Next::Send(chunk(3)));
    assert_eq!(tape.next(attempt, false, now()), Next::Wait);
}

#[test]
fn an_unreadable_file_ends_the_stream_unless_memory_has_it_all() {
    let mut staged = tape(2, true);
    staged.follow();
    push_and_stage(&mut staged, 1);
    staged.lose_staged();
    assert!(!staged.is_whole());
    let attempt = staged.start_feed(now());
    assert_eq!(staged.next(attempt, false, now()), Next::GiveUp);

    let mut recent = tape(2, true);
    recent.push(chunk(1), now());
    recent.lose_staged();
    assert!(recent.is_whole());
}

#[test]
fn only_the_newest_stream_is_fed() {
    let mut tape = tape(2, false);
    tape.push(chunk(1), now());
    let old = tape.start_feed(now());
    let new = tape.start_feed(now());
    assert_eq!(tape.next(old, false, now()), Next::GiveUp);
    assert_eq!(tape.fed(old, 1, now()), None);
    assert_eq!(tape.next(new, false, now()), Next::Send(chunk(1)));
}

#[tokio::test(start_paused = true)]
async fn quiet_counts_only_while_the_next_step_is_the_clients() {
    let second = Duration::from_secs(1);
    let mut tape = tape(3, true);
    tape.follow();
    push_and_stage(&mut tape, 1);
    tokio::time::advance(second).await;
    assert_eq!(tape.quiet(now()), second);
    let attempt = tape.start_feed(now());
    tokio::time::advance(second).await;
    // Bytes wait for Tier 2.
    assert_eq!(tape.quiet(now()), Duration::ZERO);
    assert!(matches!(tape.next(attempt, false, now()), Next::ReadBack { .. }));
    tape.fed(attempt, CHUNK as u64, now());
    assert_eq!(tape.quiet(now()), Duration::ZERO);
    tokio::time::advance(second).await;
    assert_eq!((tape.quiet(now()), tape.starved(now())), (second, second));
    push_and_stage(&mut tape, 2);
    assert_eq!((tape.quiet(now()), tape.starved(now())), (Duration::ZERO, second));
    assert!(matches!(tape.next(attempt, false, now()), Next::Send(_)));
    tokio::time::advance(second).await;
    assert_eq!((tape.quiet(now()), tape.starved(now())), (second, 2 * second));
    push_and_stage(&mut tape, 3);
    tokio::time::advance(second).await;
    assert_eq!(tape.quiet(now()), Duration::ZERO);
}
