//! The suite judged: it passes a right server, fails a wrong one, and names what is wrong.

use std::sync::Arc;

use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Check, Outcome, Target, checks};
use mock_upstream::{Match, Mock, method};
use tonic::Code;

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

#[tokio::test]
async fn a_right_server_passes_every_check_under_any_instance_name() {
    let mock = Mock::builder()
        .settings(|settings| settings.require_complete = true)
        .start();
    let none = Deviations::default();
    for instance in ["", "team/a"] {
        let results = judge(&mock, instance).await;
        let report = Report::new(&results, &none);
        assert!(report.is_good(), "{}", report.text());
        assert!(
            results.iter().all(|(_, outcome)| *outcome == Outcome::Passed),
            "{}",
            report.text()
        );
    }
}

#[tokio::test]
async fn a_failing_method_fails_the_checks_about_it_and_no_others() {
    let mock = Mock::builder().start();
    mock.fail(Match::method(method::GET_TREE), Code::Internal, u64::MAX);
    let results = judge(&mock, "").await;
    let of_trees = checks::all()
        .iter()
        .map(|check| check.id)
        .filter(|id| id.starts_with("TREE-"))
        .collect::<Vec<_>>();
    assert_eq!(failed(&results), of_trees);
}

#[tokio::test]
async fn a_miss_told_for_an_outage_is_noticed() {
    let mock = Mock::builder().start();
    mock.fail(Match::method(method::READ), Code::NotFound, u64::MAX);
    let results = judge(&mock, "").await;
    assert!(failed(&results).contains(&"BS-READ-01"), "{:?}", failed(&results));
}

#[tokio::test]
async fn a_method_that_is_not_implemented_is_not_offered() {
    let mock = Mock::builder().start();
    mock.fail(Match::method(method::GET_TREE), Code::Unimplemented, u64::MAX);
    let results = judge(&mock, "").await;
    assert_eq!(failed(&results), Vec::<&str>::new());
    assert!(
        results
            .iter()
            .any(|(_, outcome)| matches!(outcome, Outcome::NotOffered(_)))
    );
}
