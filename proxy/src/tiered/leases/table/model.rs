//! The table against a Tier 2 that stores, evicts and restarts, with calls that overtake each other at will.

use proptest::prelude::*;

use super::tests::key;
use super::*;
use crate::tiered::leases::LEASES;

const BLOBS: usize = 3;
const NAMES: [&str; BLOBS] = ["a", "b", "c"];

#[derive(Debug, Clone)]
enum Op {
    /// A FindMissing goes out. It is decided at some later step, and heard at another.
    Ask(usize),
    /// A write goes out with its last piece.
    Write(usize),
    /// Tier 2 makes up its mind about the n-th open call.
    Decide(usize),
    /// The answer to the n-th open call arrives.
    Hear(usize),
    Evict(usize),
    /// Tier 2 goes away, forgets some blob, and is back; the node notices.
    Restart(usize),
}

struct Open {
    blob: usize,
    is_write: bool,
    sent_at: Instant,
    /// What Tier 2 found, and whether the blob was absent at any time since the call was sent.
    decided: Option<bool>,
}

fn op() -> impl Strategy<Value = Op> {
    let blob = 0..BLOBS;
    prop_oneof![
        4 => blob.clone().prop_map(Op::Ask),
        3 => blob.clone().prop_map(Op::Write),
        6 => (0_usize..6).prop_map(Op::Decide),
        6 => (0_usize..6).prop_map(Op::Hear),
        1 => blob.clone().prop_map(Op::Evict),
        1 => blob.prop_map(Op::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// P2 in its exact form: a lease dated t means that Tier 2 had the blob at some time from t on, and that nothing heard
    /// since then says otherwise.
    #[test]
    fn a_lease_is_never_dated_after_the_last_time_that_tier_2_had_the_blob(
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let start = Instant::now();
        let mut table = LeaseTable::new(LEASES, Duration::from_secs(300), start);
        let mut stored = [false; BLOBS];
        let mut last_had: [Option<Instant>; BLOBS] = [None; BLOBS];
        let mut last_heard_absent: [Option<Instant>; BLOBS] = [None; BLOBS];
        let mut epoch: Option<Instant> = None;
        let mut calls: Vec<Open> = Vec::new();
        let mut now = start;
        for op in ops {
            now += Duration::from_millis(1);
            match op {
                Op::Ask(blob) | Op::Write(blob) => {
                    table.open(now);
                    let is_write = matches!(op, Op::Write(_));
                    calls.push(Open { blob, is_write, sent_at: now, decided: None });
                }
                Op::Decide(n) => {
                    if let Some(call) = calls.iter_mut().filter(|call| call.decided.is_none()).nth(n) {
                        stored[call.blob] |= call.is_write;
                        call.decided = Some(stored[call.blob]);
                    }
                }
                Op::Hear(n) => {
                    let Some(index) = calls.iter().enumerate().filter(|(_, call)| call.decided.is_some()).nth(n).map(|(index, _)| index) else {
                        continue;
                    };
                    let call = calls.remove(index);
                    let blob = key(NAMES[call.blob]);
                    match (call.is_write, call.decided == Some(true)) {
                        (true, _) => table.acknowledged(&blob, call.sent_at, now),
                        (false, true) => { let _heard = table.present(&blob, call.sent_at); }
                        (false, false) => {
                            let (heard, ended) = table.absent(&blob, call.sent_at, now);
                            if heard == Heard::Stands {
                                prop_assert_eq!(table.evidence(&blob), None);
                                last_heard_absent[call.blob] = Some(now);
                            }
                            if ended {
                                epoch = Some(now);
                            }
                        }
                    }
                    table.close(call.sent_at);
                }
                Op::Evict(blob) => stored[blob] = false,
                Op::Restart(blob) => {
                    stored[blob] = false;
                    table.end_epoch(now);
                    epoch = Some(now);
                }
            }
            for blob in 0..BLOBS {
                if stored[blob] {
                    last_had[blob] = Some(now);
                }
                if let Some(sent_at) = table.evidence(&key(NAMES[blob])) {
                    prop_assert!(last_had[blob].is_some_and(|had| sent_at <= had), "never had since");
                    prop_assert!(last_heard_absent[blob].is_none_or(|absent| absent <= sent_at), "an absence was heard later");
                    prop_assert!(epoch.is_none_or(|epoch| epoch < sent_at), "of an earlier epoch");
                }
            }
            if calls.is_empty() {
                prop_assert_eq!(table.marks.len(), 0);
            }
        }
    }
}
