//! Every check that is counted fails when its requirement, and little else, is broken.
//!
//! For each violation that the mock knows: a server that commits it, judged by every check whose calls it touches. What
//! failed is kept as a snapshot, so that a check that grew blind, or too sharp, is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use conformance::{Check, Outcome, catalogue, checks};
use mock_upstream::{Builder, Violation};

use crate::{builder, target};

/// How many other checks may fail with the one that is meant.
const OTHERS_MAX: usize = 3;

/// Violations are shared out among so many threads.
const THREADS: usize = 2;

/// The outcome of a check, judged on a server of its own, and the methods that it called.
async fn judge_alone(server: Builder, check: Check) -> (Outcome, BTreeSet<String>) {
    let mock = server.start();
    let target = Arc::new(target(&mock, ""));
    let mut results = conformance::run(target, vec![check]).await;
    let called = mock.calls().iter().map(|call| call.method.clone()).collect();
    let (_, outcome) = results.remove(0);
    (outcome, called)
}

/// Time is virtual: what a check waits for in vain costs nothing.
fn in_a_runtime<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(work)
}

/// Shares work out among threads, and keeps its order.
fn shared_out<I: Copy + Sync + Send, T: Send>(items: &[I], work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let parts = items.len().div_ceil(THREADS).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = items
            .chunks(parts)
            .map(|part| scope.spawn(|| part.iter().map(|item| work(*item)).collect::<Vec<T>>()))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    })
}

#[test]
fn a_broken_requirement_fails_its_check_and_hardly_another() {
    let checks = checks::all();
    let methods: BTreeMap<&str, BTreeSet<String>> = shared_out(&checks, |check| {
        let (_, called) = in_a_runtime(judge_alone(builder(), check));
        (check.id, called)
    })
    .into_iter()
    .collect();

    let failed = shared_out(&Violation::all(), |violation| {
        let touched = |check: &&Check| {
            check.id == violation.id
                || (!check.heavy && methods[check.id].iter().any(|method| violation.touches(method)))
        };
        let failed: Vec<&str> = checks
            .iter()
            .filter(touched)
            .filter(|check| {
                let server = builder().violates(violation);
                in_a_runtime(judge_alone(server, **check)).0.is_bad()
            })
            .map(|check| check.id)
            .collect();
        (violation, failed)
    });

    let (mut matrix, mut wrong) = (String::new(), Vec::new());
    for (violation, failed) in &failed {
        let others: Vec<&str> = failed.iter().copied().filter(|id| *id != violation.id).collect();
        if !failed.contains(&violation.id) {
            wrong.push(format!("{violation:?}: its check does not fail"));
        } else if others.len() > OTHERS_MAX {
            wrong.push(format!("{violation:?}: so do {others:?}"));
        }
        let _ = writeln!(
            matrix,
            "{:<14} {} | {}",
            violation.id,
            violation.does,
            others.join(" ")
        );
    }
    println!("{matrix}\n{} violations", failed.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    insta::assert_snapshot!("matrix", matrix);
}

#[test]
fn every_check_has_a_red_run_or_the_reason_why_there_is_none() {
    let unsettled: Vec<&str> = checks::all()
        .iter()
        .map(|check| check.id)
        .filter(|id| {
            let excused = catalogue::find(id).is_some_and(|requirement| requirement.no_red.is_some());
            Violation::of(id).is_some() == excused
        })
        .collect();
    assert_eq!(unsettled, Vec::<&str>::new(), "with neither, or with both");
    let known: BTreeSet<&str> = checks::all().iter().map(|check| check.id).collect();
    let idle: Vec<_> = Violation::all()
        .into_iter()
        .filter(|violation| !known.contains(violation.id))
        .collect();
    assert!(idle.is_empty(), "{idle:?}");
}

/// Faults that servers are known for, and the violation that stands for each.
const CLASSIC: &[(&str, &str)] = &[
    ("accepts a wrong hash in a stream", "BS-WRITE-11"),
    ("accepts a wrong hash in a batch", "CAS-BUB-04"),
    ("accepts a wrong size in a batch", "CAS-BUB-05"),
    ("accepts too few bytes", "BS-WRITE-09"),
    ("finds a wrong size", "CAS-FMB-11"),
    ("reads a wrong size", "BS-READ-12"),
    ("finds an upper-case hash", "DIG-01"),
    ("takes any digest of size 0 for the empty blob", "DIG-07"),
    ("tells NOT_FOUND as INTERNAL in a stream", "BS-READ-10"),
    ("tells NOT_FOUND as INTERNAL in a batch", "CAS-BRB-03"),
    ("commits one byte too few", "BS-WRITE-13"),
    ("has no status of an upload never seen", "BS-QWS-05"),
    ("tells the full size without complete", "BS-QWS-06"),
    ("keeps uploads by their uuid", "BS-QWS-09"),
    ("passes over read_limit", "BS-READ-07"),
    ("counts read_limit from the start", "BS-READ-09"),
    ("is OK behind the end", "BS-READ-04"),
    ("is out of range at the end", "BS-READ-02"),
    ("lacks the empty blob in questions", "CAS-FMB-07"),
    ("lacks the empty blob in streams", "BS-READ-18"),
    ("fails a batch on one bad blob", "CAS-BUB-01"),
    ("fails a batch on one absent blob", "CAS-BRB-02"),
    ("leaves an entry without an answer", "CAS-BUB-02"),
    ("ends a read early with OK", "BS-READ-15"),
    ("ends an early answer with CANCELLED", "BS-WRITE-16"),
    ("calls a blob that is there ALREADY_EXISTS", "BS-WRITE-18"),
    ("commits at a half-close", "BS-WRITE-08"),
    ("shows an upload under way", "CAS-FMB-13"),
    ("acknowledges and drops", "BS-WRITE-28"),
    ("keeps an old action result", "AC-UPD-01"),
    ("shows action results in every instance", "INST-08"),
    ("shows a result whose output is gone", "AC-GET-02"),
    ("does not look into Trees", "AC-GET-05"),
    ("remembers a miss", "AC-GET-03"),
    ("loses unknown fields of results", "AC-RES-02"),
    ("loses unknown fields of directories", "TREE-20"),
    ("pages trees without a limit", "TREE-06"),
    ("passes over page tokens", "TREE-08"),
    ("sends one page of many", "TREE-10"),
    ("fails a tree on a missing child", "TREE-03"),
    ("announces a compressor that does not work", "CAP-15"),
    ("announces no batch limit", "CAP-11"),
    ("calls updates disabled that work", "CAP-08"),
    ("sends messages over 4 MiB", "BS-READ-13"),
    ("calls a zstd bomb want of room", "COMP-14"),
    ("starts a compressed read over", "COMP-07"),
    ("demands that splices are ALREADY_EXISTS", "CDC-28"),
];

#[test]
fn classic_faults_are_among_the_violations() {
    let names: BTreeSet<&str> = CLASSIC.iter().map(|(name, _)| *name).collect();
    let ids: BTreeSet<&str> = CLASSIC.iter().map(|(_, id)| *id).collect();
    assert_eq!((names.len(), ids.len()), (CLASSIC.len(), CLASSIC.len()));
    let unknown: Vec<_> = CLASSIC
        .iter()
        .filter(|(_, id)| Violation::of(id).is_none())
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
