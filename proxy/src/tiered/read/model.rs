//! Readers that come, read and leave at random, against the true bytes.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures::StreamExt as _;
use proptest::prelude::*;

use super::super::read_harness::{Harness, noise};
use super::super::{CallError, Reading};
use super::Rings;
use crate::blob::ByteRange;
use crate::tier2::Tier2Error;
use crate::tier2::memory::ReadPlan;

#[derive(Debug, Clone)]
enum Op {
    /// A reader comes, for a part given in thousandths of the blob.
    Come { from: u64, len: Option<u64> },
    /// One of the readers takes up to so many chunks.
    Take { who: usize, chunks: usize },
    /// One of the readers hangs up.
    Leave { who: usize },
    /// Tier 2 brings bytes up to so many thousandths.
    Bring { up_to: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (prop_oneof![2 => Just(0), 1 => 0..1000_u64], proptest::option::weighted(0.3, 1..1000_u64))
            .prop_map(|(from, len)| Op::Come { from, len }),
        6 => (any::<usize>(), 1..12_usize).prop_map(|(who, chunks)| Op::Take { who, chunks }),
        1 => any::<usize>().prop_map(|who| Op::Leave { who }),
        3 => (0..1100_u64).prop_map(|up_to| Op::Bring { up_to }),
    ]
}

/// What Tier 2 does to its first reads.
fn plan(size: u64) -> impl Strategy<Value = ReadPlan> {
    prop_oneof![
        4 => Just(ReadPlan::Good),
        2 => (1..size).prop_map(|byte| ReadPlan::BreakAt(byte, Tier2Error::Short)),
        1 => (0..size).prop_map(ReadPlan::FlipAt),
    ]
}

#[derive(Debug, Clone)]
struct Case {
    size: u64,
    chunk_bytes: usize,
    has_disk: bool,
    plans: Vec<ReadPlan>,
    ops: Vec<Op>,
}

fn case() -> impl Strategy<Value = Case> {
    (1..2_000_000_u64, 1..300_000_usize, any::<bool>()).prop_flat_map(|(size, chunk_bytes, has_disk)| {
        // Tiny chunks of a large blob only take time.
        let chunk_bytes = chunk_bytes.max(usize::try_from(size / 500).unwrap() + 1);
        (
            proptest::collection::vec(plan(size.max(2)), 0..3),
            proptest::collection::vec(op(), 1..40),
        )
            .prop_map(move |(plans, ops)| Case {
                size,
                chunk_bytes,
                has_disk,
                plans,
                ops,
            })
    })
}

enum State<'a> {
    Opening(Pin<Box<dyn Future<Output = Result<Reading, CallError>> + 'a>>),
    Open(Box<Reading>),
    Over,
}

struct Reader<'a> {
    state: State<'a>,
    wanted: Bytes,
    had: Vec<u8>,
    may_be_wrong: bool,
    /// A read of a part has a stream of its own, which Tier 2 may refuse before its first byte.
    may_fail: bool,
    is_part: bool,
}

impl Reader<'_> {
    /// Takes one chunk if there is one. Returns whether anything happened.
    async fn step(&mut self, may_wait: bool) -> bool {
        match &mut self.state {
            State::Opening(open) => {
                let opened = if may_wait {
                    open.await
                } else {
                    tokio::task::yield_now().await;
                    match futures::poll!(open) {
                        Poll::Ready(opened) => opened,
                        Poll::Pending => return false,
                    }
                };
                match opened {
                    Ok(reading) => self.state = State::Open(Box::new(reading)),
                    Err(error) => self.fail(&error),
                }
                true
            }
            State::Open(reading) => {
                let next = if may_wait {
                    reading.next().await
                } else {
                    tokio::task::yield_now().await;
                    match futures::poll!(reading.next()) {
                        Poll::Ready(next) => next,
                        Poll::Pending => return false,
                    }
                };
                match next {
                    Some(Ok(chunk)) => {
                        self.had.extend_from_slice(&chunk);
                        assert!(!chunk.is_empty() && self.had.len() <= self.wanted.len());
                        if !self.may_be_wrong {
                            assert!(self.had == self.wanted[..self.had.len()]);
                        }
                        // Bytes of a part, and bytes that leave before the last, cannot be known to be right. A read
                        // that has its last byte is.
                        if self.had.len() == self.wanted.len() && !self.is_part {
                            assert!(self.had == self.wanted, "wrong bytes to the end");
                        }
                    }
                    Some(Err(error)) => self.fail(&error),
                    None => {
                        assert_eq!(self.had.len(), self.wanted.len());
                        self.state = State::Over;
                    }
                }
                true
            }
            State::Over => false,
        }
    }

    fn fail(&mut self, error: &CallError) {
        assert!(
            self.may_be_wrong || self.may_fail,
            "nothing was wrong, and yet: {error}"
        );
        self.state = State::Over;
    }
}

async fn run(case: Case) {
    let rings = Rings {
        big_bytes: 200_000,
        small_bytes: 100_000,
    };
    let blob_bytes_max = if case.has_disk { 1 << 30 } else { 0 };
    let harness = Harness::with_rings(rings, case.chunk_bytes, blob_bytes_max).await;
    let bytes = noise(case.size);
    let digest = harness.plant(bytes.clone());
    let may_be_wrong = case.plans.iter().any(|plan| matches!(plan, ReadPlan::FlipAt(_)));
    let breaks = case
        .plans
        .iter()
        .any(|plan| matches!(plan, ReadPlan::BreakAt(..)));
    harness.tier2.plan_reads(case.plans);
    harness.tier2.hold_reads_at(0);
    let mut brought = 0;
    let mut readers: Vec<Reader<'_>> = Vec::new();
    for op in case.ops {
        match op {
            Op::Come { from, len } => {
                let start = case.size * from / 1000;
                let limit = len.map(|len| (case.size * len / 1000).max(1));
                let range = ByteRange::within(&digest, start, limit).unwrap();
                let (reads, call, digest) = (&harness.reads, &harness.call, digest);
                readers.push(Reader {
                    state: State::Opening(Box::pin(async move { reads.open(call, &digest, range).await })),
                    wanted: bytes.slice(
                        usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap(),
                    ),
                    had: Vec::new(),
                    may_be_wrong,
                    may_fail: breaks && !range.reaches_end_of(&digest),
                    is_part: !range.reaches_end_of(&digest),
                });
            }
            Op::Take { who, chunks } if !readers.is_empty() => {
                let who = who % readers.len();
                for _ in 0..chunks {
                    readers[who].step(false).await;
                }
            }
            Op::Leave { who } if !readers.is_empty() => {
                let who = who % readers.len();
                drop(readers.swap_remove(who));
            }
            Op::Take { .. } | Op::Leave { .. } => {}
            Op::Bring { up_to } => {
                brought = brought.max(case.size * up_to / 1000);
                harness.tier2.hold_reads_at(brought);
            }
        }
    }
    harness.tier2.hold_reads_at(u64::MAX);
    for reader in &mut readers {
        while reader.step(true).await {}
    }
    drop(readers);
    harness.landed().await;
    assert_eq!(harness.metrics.reads.flights.get(), 0);
    if harness.is_in_tier1(&digest) {
        assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn readers_get_the_true_bytes_however_they_come_and_go(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(case));
    }
}
