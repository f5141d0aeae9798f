//! The properties hold for a right server; for a wrong one a small counter-example is found.

use conformance::Target;
use conformance::properties::{self, Counterexample};
use mock_upstream::{Mock, Violation};

use crate::builder;

/// Enough for most faults to be met; the seed is fixed.
const CASES: u32 = 40;

/// For faults of few inputs: a name has to be changed in the right place.
const MANY: u32 = 1500;

fn tried(mock: &Mock, says: &str, cases: u32) -> Result<(), Counterexample> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let property = properties::all()
        .into_iter()
        .find(|property| property.says.starts_with(says))
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
        let tried = property.holds(&handle, &target, cases, 7);
        let _ = stop.send(());
        tried
    })
}

#[test]
fn every_property_holds_for_a_right_server() {
    for property in properties::all() {
        let mock = builder().start();
        if let Err(counterexample) = tried(&mock, property.says, CASES) {
            panic!("{}\n{counterexample}", property.says);
        }
    }
}

#[track_caller]
fn is_found(id: &str, says: &str, shown: &str, cases: u32) {
    let violation = Violation::of(id).unwrap();
    let mock = builder().violates(violation).start();
    let Err(counterexample) = tried(&mock, says, cases) else {
        panic!("{id} is not found");
    };
    let text = counterexample.to_string();
    assert!(text.contains(shown), "{shown} is not in\n{text}");
    assert!(counterexample.calls.len() <= 12, "{text}");
}

#[test]
fn a_wrong_server_is_found_by_a_small_counterexample() {
    is_found("BS-WRITE-06", "A blob of any size", "Write", CASES);
    is_found("BS-READ-08", "Any offset and limit", "limit -", MANY);
    is_found("CAS-BUB-03", "Each entry of any batch", "BatchUpdateBlobs", CASES);
    is_found("RN-12", "No name but", "is read as", MANY);
    is_found("TREE-03", "Any tree", "GetTree", CASES);
    is_found("CAS-GEN-09", "Clients that work", "Write", CASES);
}
