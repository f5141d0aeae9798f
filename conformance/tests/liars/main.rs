//! The oracle judged: five proxies that keep every promise but one, each of which it has to find out, and one that is
//! honest, in which it must find nothing.

#![expect(
    clippy::unwrap_used,
    reason = "clippy sees a test in the #[test] function, but not in the helpers beside it"
)]

mod profile;
mod proxy;

use std::collections::BTreeSet;
use std::sync::Arc;

use conformance::faults::{self, Case, Outcome, Table};
use conformance::oracle::{Oracle, Promise};
use conformance::scenario;
use conformance::site::Attached;
use mock_upstream::Mock;

use crate::proxy::{Lie, Proxies};

/// Combinations of the calls that these proxies offer, as far as a seed draws them.
fn drawn(wanted: impl Fn(&str) -> bool) -> Vec<Case> {
    let cases = faults::cases(&Table::shipped().unwrap(), 1);
    let offered = |case: &Case| case.is_drawn() && wanted(&case.id());
    cases.into_iter().filter(offered).collect()
}

/// What such a proxy promises: it mends nothing, and checks no outputs.
fn oracle() -> Oracle {
    Oracle {
        completeness: false,
        mends: false,
        ..Oracle::default()
    }
}

/// How many combinations counted, and what was broken, as the oracle says it.
async fn judged(lie: Option<Lie>, cases: Vec<Case>) -> (usize, Vec<String>) {
    let (mut counted, mut broken) = (0, Vec::new());
    for case in cases {
        match faults::run(&Proxies(lie), &oracle(), &case)
            .await
            .unwrap()
            .outcome
        {
            Outcome::Held(_) => counted += 1,
            Outcome::NotCounted(_) => {}
            Outcome::Broken(what) => {
                broken.extend(what.into_iter().map(|what| format!("{what} in {}", case.id())))
            }
        }
    }
    (counted, broken)
}

/// Promises that were found broken.
fn promises(broken: &[String]) -> BTreeSet<String> {
    let promise = |what: &String| what.split(':').next().unwrap_or_default().to_owned();
    broken.iter().map(promise).collect()
}

async fn finds(lie: Lie, wanted: impl Fn(&str) -> bool, expected: Promise) {
    let (_, broken) = judged(Some(lie), drawn(&wanted)).await;
    assert_eq!(
        promises(&broken),
        BTreeSet::from([expected.to_string()]),
        "{broken:#?}"
    );
    let (counted, broken) = judged(None, drawn(&wanted)).await;
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(counted > 0, "the same without the lie is judged as well");
}

#[tokio::test(start_paused = true)]
async fn an_honest_proxy_is_found_honest_under_every_fault() {
    // It offers no trees, and has one connection to Tier 2, which it keeps even if nothing moves on it any more.
    let wanted = |id: &str| {
        id.contains(".cold.") && !["tree.", "caps.", "starve@"].iter().any(|part| id.contains(part))
    };
    let (counted, broken) = judged(None, drawn(wanted)).await;
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(counted > 400, "{counted} counted");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_acknowledges_before_tier_2_did_is_found_out() {
    let wanted =
        |id: &str| id.starts_with("write.cold.") && (id.contains("status=") || id.contains("hang@start"));
    finds(Lie::AcksEarly, wanted, Promise::P1).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_serves_what_does_not_fit_its_digest_is_found_out() {
    let wanted = |id: &str| {
        (id.starts_with("read.cold.") || id.starts_with("batch.cold.")) && id.contains("flip_byte")
    };
    finds(Lie::ServesCorrupt, wanted, Promise::P4).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_takes_a_failure_for_a_miss_is_found_out() {
    for call in ["find.", "read.", "get."] {
        let wanted = |id: &str| id.starts_with(call) && id.contains("status=INTERNAL@start");
        finds(Lie::MissingForError, wanted, Promise::P5).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_reads_a_blob_twice_for_one_herd_is_found_out() {
    let wanted = |id: &str| id.starts_with("read.cold.herd.") && id.contains("delay");
    finds(Lie::TwoReads, wanted, Promise::P7).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_answers_with_an_old_action_result_is_found_out() {
    let wanted = |id: &str| id.starts_with("get.warm.") && id.contains("delay");
    finds(Lie::StaleAction, wanted, Promise::P3).await;
}

#[tokio::test]
async fn a_proxy_at_an_address_is_judged_by_what_needs_no_hook() {
    let played = |name: &'static str| async move {
        let mock = Mock::builder().start();
        let (address, _serving) = proxy::listening(mock.channel(), None).await;
        let site = Arc::new(Attached::at(&address, mock).unwrap());
        let scenarios = scenario::shipped().unwrap();
        let wanted = scenarios.iter().find(|scenario| scenario.name == name).unwrap();
        scenario::run(site, &oracle(), wanted).await.unwrap()
    };
    let tells = played("06-a-not-found-ends-the-lease").await;
    assert_eq!(tells, scenario::Outcome::Passed);
    let needs_a_hook = played("10-a-flipped-bit-on-disk-is-never-served").await;
    assert!(
        matches!(needs_a_hook, scenario::Outcome::NotOffered(_)),
        "{needs_a_hook:?}"
    );
    // It asks Tier 2 about everything, the empty blob included.
    let lacks = played("19-the-empty-blob-is-everywhere").await;
    assert!(
        matches!(&lacks, scenario::Outcome::Failed(what) if what.contains("Unavailable")),
        "{lacks:?}"
    );
}
