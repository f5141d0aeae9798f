use conformance::connect::Options;
use conformance::deviations::Deviations;
use conformance::proxy::{Arguments, Run, judge};
use conformance::report::Report;
use mock_upstream::Control;

use super::start::mock;
use super::{Binary, own_address};

/// Combinations of the fault matrix that are tried here: some of each call. `just conformance` tries more.
const SAMPLE: usize = 40;

#[tokio::test]
async fn the_binary_keeps_its_promises_over_a_mock_that_is_reached_by_its_control_port_alone() {
    let mock = mock().await;
    let control = format!("{}:0", own_address());
    let control = Control::start(mock.clone(), &control).await.unwrap();
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    let endpoint = format!("grpc://{}", node.grpc);
    // Scenarios of some kinds, and then the matrix.
    for filter in ["PXY-S-1", "PXY-S-own", "PXY-P"] {
        let run = Run {
            proxy: Options::new(&endpoint),
            instance: "team/a".to_owned(),
            arguments: Arguments {
                proxy_upstream_control: Some(format!("http://{}", control.addr())),
                sample: SAMPLE,
                ..Arguments::default()
            },
            filter: filter.to_owned(),
            seed: 1,
        };
        let judged = tokio::select! {
            judged = judge(&run, |_, _| {}) => judged.unwrap(),
            // What it logs has to go somewhere.
            () = async { while node.lines.next_line().await.unwrap().is_some() {} } => panic!("the node ended"),
        };
        let none = Deviations::default();
        let report = Report::new(&[], &none).with_rows(&judged.results);
        assert!(report.is_good(), "{}\n{}", judged.matrix, report.text());
        let passed = report.json()["passed"].as_u64().unwrap();
        assert!(passed > 0, "{}", report.text());
    }
    node.ends_well().await;
}
