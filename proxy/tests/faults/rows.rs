//! The twenty rows of the failure table: where each is shown, or what it waits for.

use std::collections::BTreeSet;

use conformance::scenario;

/// Where a row is.
enum Place {
    /// A scenario of this name.
    Scenario(&'static str),
    /// A function in a file of this crate: for what needs a process, or to stand inside.
    Test(&'static str, &'static str),
    /// Nowhere yet: it needs a part that is not there.
    WaitsFor(&'static str),
}

use Place::{Scenario, Test, WaitsFor};

const ROWS: [(u8, &str, &[Place]); 20] = [
    (
        1,
        "concurrent cold readers cost one read, and all stream",
        &[
            Scenario("01-a-herd-costs-one-read"),
            Test(
                "tests/it/reads.rs",
                "a_hundred_clients_of_one_cold_blob_cost_one_read_and_have_bytes_before_the_last_arrived",
            ),
        ],
    ),
    (
        2,
        "the first byte of a cold blob comes early",
        &[Scenario("02-first-bytes-come-early")],
    ),
    (
        3,
        "a write without Tier 2 is not acknowledged",
        &[Scenario("03-a-write-is-not-acknowledged-without-tier-2")],
    ),
    (
        4,
        "what Tier 1 has and Tier 2 lost reaches Tier 2 again",
        &[Scenario("04-what-tier-2-lost-reaches-it-again")],
    ),
    (
        5,
        "FindMissing after an eviction tells the truth or repairs",
        &[Scenario("05-after-an-eviction-the-truth-is-told")],
    ),
    (
        6,
        "a NOT_FOUND ends the lease at once",
        &[Scenario("06-a-not-found-ends-the-lease")],
    ),
    (
        7,
        "a change of an action result in Tier 2 is seen within the lease",
        &[Scenario("07-a-newer-result-is-seen-within-the-lease")],
    ),
    (
        8,
        "a hit whose output was evicted is NOT_FOUND",
        &[Scenario("08-a-hit-without-its-output-is-not-found")],
    ),
    (
        9,
        "corrupt or short data is never OK, never cached",
        &[Scenario("09-wrong-bytes-are-never-ok-and-never-kept")],
    ),
    (
        10,
        "a flipped bit on disk is never served",
        &[Scenario("10-a-flipped-bit-on-disk-is-never-served")],
    ),
    (
        11,
        "EIO and ENOSPC on Tier 1 never fail a read",
        &[Scenario("11-a-failing-disk-never-fails-a-read")],
    ),
    (
        12,
        "known down fails in under 50 ms",
        &[Scenario("12-known-down-fails-at-once")],
    ),
    (
        13,
        "success within a second of Tier 2's return",
        &[Scenario("13-success-within-a-second-of-tier-2s-return")],
    ),
    (
        14,
        "local hits reach Tier 2 as touches",
        &[Scenario("14-local-hits-reach-tier-2")],
    ),
    (
        15,
        "evicting 100,000 blobs stalls no write",
        &[WaitsFor("the packed store")],
    ),
    (
        16,
        "a batch with one miss and Tier 2 down returns its hits",
        &[Scenario("16-hits-of-a-batch-outlive-tier-2")],
    ),
    (
        17,
        "disk use is counted in allocated bytes",
        &[WaitsFor("the packed store")],
    ),
    (
        18,
        "a client that aborts costs no second fetch",
        &[Scenario("18-a-client-that-leaves-costs-no-second-fetch")],
    ),
    (
        19,
        "the empty blob everywhere, duplicates in batches",
        &[Scenario("19-the-empty-blob-is-everywhere")],
    ),
    (
        20,
        "kill -9 under load",
        &[
            Test(
                "tests/it/process/crash.rs",
                "a_node_that_was_killed_during_writes_has_what_it_acknowledged_and_nothing_half",
            ),
            Test(
                "tests/it/process/crash.rs",
                "a_kill_amid_many_writes_loses_none_that_was_acknowledged",
            ),
        ],
    ),
];

/// Prints the rows.
///
/// # Errors
/// Which row is said to be where it is not, and which scenario of a row is not listed.
pub(crate) fn check() -> Result<(), String> {
    let scenarios = scenario::shipped().unwrap();
    let named: BTreeSet<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    let mut listed = BTreeSet::new();
    for (number, (row, what, places)) in (1..).zip(&ROWS) {
        if *row != number {
            return Err(format!("row {number} stands as {row}"));
        }
        for place in *places {
            let text = match place {
                Scenario(name) => {
                    listed.insert(*name);
                    if !named.contains(name) {
                        return Err(format!("row {row}: there is no scenario {name}"));
                    }
                    format!("scenario {name}")
                }
                Test(file, name) => {
                    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
                    let source = fs_err::read_to_string(&path).unwrap();
                    if !source.contains(&format!("fn {name}(")) {
                        return Err(format!("row {row}: there is no {name} in {file}"));
                    }
                    format!("{file}: {name}")
                }
                WaitsFor(part) => format!("waits for {part}"),
            };
            println!("{row:>4}  {what:<70} {text}");
        }
    }
    let is_row = |name: &&&str| name.starts_with(|first: char| first.is_ascii_digit());
    match named.iter().filter(is_row).find(|name| !listed.contains(*name)) {
        Some(name) => Err(format!("scenario {name} is no row's")),
        None => Ok(()),
    }
}
