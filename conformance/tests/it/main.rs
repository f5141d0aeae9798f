//! The suite judged: it passes a right server, fails a wrong one, and names what is wrong.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without may panic")]

mod properties;
mod red_runs;
mod tls;

use std::sync::Arc;

use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Check, Outcome, Target, checks};
use mock_upstream::{Builder, Function, Match, Mock, method};
use tonic::Code;

/// A server that does as it should.
fn right() -> Mock {
    builder().start()
}

fn builder() -> Builder {
    Mock::builder().settings(|settings| {
        settings.require_complete = true;
        settings.max_blob_bytes = 16 * 1024 * 1024;
        settings.zstd = true;
        settings.split = true;
        settings.functions = vec![Function::Blake3];
        settings.deadlines = true;
        settings.fetch = true;
        settings.push = true;
    })
}

fn target(mock: &Mock, instance: &str) -> Target {
    let dialled = mock.clone();
    Target::over(mock.channel(), instance).dialled_by(move || std::future::ready(dialled.connect()))
}

async fn judge(mock: &Mock, instance: &str) -> Vec<(Check, Outcome)> {
    conformance::run(Arc::new(target(mock, instance)), checks::all()).await
}

fn failed(results: &[(Check, Outcome)]) -> Vec<&'static str> {
    let bad = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Broken(_));
    results
        .iter()
        .filter(|(_, outcome)| bad(outcome))
        .map(|(check, _)| check.id)
        .collect()
}

/// What the mock does not offer, so that nothing can be said of it.
const NOT_OFFERED: &[&str] = &[
    "AC-UPD-09",
    "ASSET-FETCH-06",
    "ASSET-FETCH-07",
    "CAP-26",
    "CDC-01",
    "DIG-21",
    "DIG-22",
    "RN-18",
];

#[tokio::test]
async fn a_right_server_passes_every_check_under_any_instance_name() {
    let mock = right();
    let none = Deviations::default();
    for instance in ["", "team/a"] {
        let results = judge(&mock, instance).await;
        let report = Report::new(&results, &none);
        assert!(report.is_good(), "{}", report.text());
        let lacking = results.iter().filter(|(_, outcome)| *outcome != Outcome::Passed);
        let lacking: Vec<&str> = lacking.map(|(check, _)| check.id).collect();
        assert_eq!(sorted(lacking), sorted(NOT_OFFERED.to_vec()), "{}", report.text());
    }
}

/// The ids of these checks that passed, and that were not offered, of those that begin so.
fn told_apart(results: &[(Check, Outcome)], prefix: &str) -> (Vec<&'static str>, usize) {
    let mine = || results.iter().filter(|(check, _)| check.id.starts_with(prefix));
    let passed = mine().filter(|(_, outcome)| *outcome == Outcome::Passed);
    let not_offered = mine().filter(|(_, outcome)| matches!(outcome, Outcome::NotOffered(_)));
    (passed.map(|(check, _)| check.id).collect(), not_offered.count())
}

#[tokio::test]
async fn either_service_of_assets_is_a_complete_server_and_so_is_none() {
    for (fetch, push) in [(true, false), (false, true), (false, false)] {
        let mock = builder()
            .settings(|settings| (settings.fetch, settings.push) = (fetch, push))
            .start();
        let results = judge(&mock, "").await;
        assert_eq!(failed(&results), Vec::<&str>::new());
        let (passed, not_offered) = told_apart(&results, "ASSET-");
        assert!(passed.contains(&"ASSET-FETCH-29") && passed.contains(&"ASSET-PUSH-13"));
        assert!(not_offered > 10, "{passed:?}");
        // What a Fetch alone has to do shows only there.
        for id in ["ASSET-FETCH-06", "ASSET-FETCH-07"] {
            assert_eq!(passed.contains(&id), fetch && !push, "{id}");
        }
    }
}

#[tokio::test]
async fn a_server_of_one_function_is_asked_by_no_other() {
    let mock = builder().settings(|settings| settings.functions.clear()).start();
    let results = judge(&mock, "").await;
    assert_eq!(failed(&results), Vec::<&str>::new());
    let (passed, not_offered) = told_apart(&results, "DIG-1");
    assert!(!passed.contains(&"DIG-12") && not_offered == 2, "{passed:?}");
}

#[tokio::test]
async fn a_server_of_every_function_passes() {
    let all = [Function::Blake3, Function::Sha256Tree, Function::GitSha1];
    let mock = builder()
        .settings(|settings| settings.functions = all.to_vec())
        .start();
    let results = judge(&mock, "").await;
    assert_eq!(failed(&results), Vec::<&str>::new());
    let (passed, _) = told_apart(&results, "DIG-2");
    assert!(
        ["DIG-21", "DIG-22"].iter().all(|id| passed.contains(id)),
        "{passed:?}"
    );
}

fn sorted(mut ids: Vec<&str>) -> Vec<&str> {
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_failing_method_fails_the_checks_about_it_and_no_others() {
    let mock = right();
    mock.fail(Match::method(method::GET_TREE), Code::Internal, u64::MAX);
    let results = judge(&mock, "").await;
    let failed = failed(&results);
    let others: Vec<_> = failed.iter().filter(|id| !id.starts_with("TREE-")).collect();
    // Two checks of malformed requests are about every method, and a fetched directory has to be one that can be walked.
    assert_eq!(others, [&"GEN-10", &"ERR-04", &"ASSET-FETCH-25"]);
    assert!(failed.contains(&"TREE-01"));
}

#[tokio::test]
async fn a_miss_told_for_an_outage_is_noticed() {
    let mock = right();
    mock.fail(Match::method(method::READ), Code::NotFound, u64::MAX);
    let results = judge(&mock, "").await;
    assert!(failed(&results).contains(&"BS-READ-01"), "{:?}", failed(&results));
}

#[tokio::test]
async fn a_method_that_is_not_implemented_is_not_offered() {
    let mock = right();
    mock.fail(Match::method(method::GET_TREE), Code::Unimplemented, u64::MAX);
    let results = judge(&mock, "").await;
    assert_eq!(failed(&results), Vec::<&str>::new());
    assert!(
        results
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::NotOffered(_)))
    );
}
