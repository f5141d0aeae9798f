//! The suite judged: it passes a right server, fails a wrong one, and names what is wrong.

#![expect(clippy::unwrap_used, reason = "what a test cannot do without may panic")]

mod properties;
mod red_runs;
mod tls;

use std::sync::Arc;

use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Check, Outcome, Target, checks};
use mock_upstream::{Builder, Match, Mock, method};
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
        settings.blake3 = true;
    })
}

async fn judge(mock: &Mock, instance: &str) -> Vec<(Check, Outcome)> {
    conformance::run(Arc::new(Target::over(mock.channel(), instance)), checks::all()).await
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
const NOT_OFFERED: &[&str] = &["AC-UPD-09", "CAP-23", "CAP-26", "CDC-01", "RN-18"];

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
    // Two checks of malformed requests are about every method.
    assert_eq!(others, [&"GEN-10", &"ERR-04"]);
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
