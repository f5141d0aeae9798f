//! The properties hold for a right server; for a wrong one a small counter-example is found.

use conformance::properties;
use conformance::{Outcome, Target};
use mock_upstream::{Match, Mock, Violation, method};
use tonic::Code;

use crate::builder;

/// Enough for most faults to be met; the seed is fixed.
const CASES: u32 = 40;

/// For faults of few inputs: a name has to be changed in the right place.
const MANY: u32 = 1500;

fn tried(mock: &Mock, id: &str, cases: u32) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let property = properties::all()
        .into_iter()
        .find(|property| property.id == id)
        .unwrap();
    let target = {
        let _inside = runtime.enter();
        Target::over(mock.channel(), "")
    };
    let handle = runtime.handle().clone();
    std::thread::scope(|scope| {
        // The thread that drives the runtime, and the one that waits for it.
        let (stop, stopped) = futures::channel::oneshot::channel::<()>();
        scope.spawn(|| runtime.block_on(stopped));
        let tried = property.tried(&handle, &target, cases, 7);
        let _ = stop.send(());
        tried.outcome
    })
}

#[test]
fn every_property_holds_for_a_right_server() {
    for property in properties::all() {
        let mock = builder().start();
        assert_eq!(tried(&mock, property.id, CASES), Outcome::Passed, "{property:?}");
    }
}

#[test]
fn a_property_of_what_no_server_offers_is_not_offered() {
    let mock = builder().start();
    mock.fail(Match::method(method::GET_TREE), Code::Unimplemented, u64::MAX);
    let outcome = tried(&mock, "PROP-05", 5);
    assert!(matches!(outcome, Outcome::NotOffered(_)), "{outcome:?}");
}

#[track_caller]
fn is_found(id: &str, property: &str, shown: &str, cases: u32) {
    let violation = Violation::of(id).unwrap();
    let mock = builder().violates(violation).start();
    let Outcome::Failed(finding) = tried(&mock, property, cases) else {
        panic!("{id} is not found");
    };
    let text = format!("{finding}\n{}", finding.calls.join("\n"));
    assert!(text.contains(shown), "{shown} is not in\n{text}");
    assert!(!finding.sent.is_empty() && finding.calls.len() <= 12, "{text}");
}

#[test]
fn a_wrong_server_is_found_by_a_small_counterexample() {
    is_found("BS-WRITE-06", "PROP-01", "Write", CASES);
    is_found("BS-READ-08", "PROP-02", "limit -", MANY);
    is_found("CAS-BUB-03", "PROP-03", "BatchUpdateBlobs", CASES);
    is_found("RN-12", "PROP-04", "is read as", MANY);
    is_found("TREE-03", "PROP-05", "GetTree", CASES);
    is_found("CAS-GEN-09", "PROP-06", "Write", CASES);
}
