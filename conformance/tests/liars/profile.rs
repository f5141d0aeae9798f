//! The proxy profile judged: over the control port alone it finds out what the oracle finds out in the same process, and
//! says which promise it is.

use std::collections::BTreeSet;

use conformance::Outcome;
use conformance::connect::Options;
use conformance::proxy::{Arguments, Judged, Run, Waiver, judge};
use mock_upstream::{Control, Mock};
use tonic::transport::Endpoint;

use crate::proxy::{Lie, listening};

/// A mock on sockets, and its control port.
async fn mock() -> (Mock, Control) {
    let mock = Mock::builder().start_tcp("127.0.0.1:0").await.unwrap();
    let control = Control::start(mock.clone(), "127.0.0.1:0").await.unwrap();
    (mock, control)
}

fn run(endpoint: &str, control: &str) -> Run {
    Run {
        proxy: Options::new(endpoint),
        instance: String::new(),
        arguments: Arguments {
            proxy_upstream_control: Some(control.to_owned()),
            // What these proxies promise: they mend nothing, and check no outputs.
            without: vec![Waiver::Completeness, Waiver::Mends],
            ..Arguments::default()
        },
        filter: String::new(),
        seed: 1,
    }
}

async fn judged(lie: Option<Lie>, change: impl FnOnce(&mut Run)) -> Judged {
    let (mock, control) = mock().await;
    let tier2 = Endpoint::from_shared(format!("http://{}", mock.addr()))
        .unwrap()
        .connect_lazy();
    let (address, _serving) = listening(tier2, lie).await;
    let mut run = run(&address, &format!("http://{}", control.addr()));
    change(&mut run);
    let judged = judge(&run, |_, _| {}).await.unwrap();
    assert!(
        mock.rules().is_empty() && mock.calls().is_empty() && mock.counts().blobs == 0,
        "it is reset"
    );
    judged
}

fn ids(judged: &Judged, wanted: impl Fn(&Outcome) -> bool) -> BTreeSet<&str> {
    let rows = judged.results.iter().filter(|(_, outcome)| wanted(outcome));
    rows.map(|(row, _)| row.id.as_str()).collect()
}

fn failed(judged: &Judged) -> BTreeSet<&str> {
    ids(judged, Outcome::is_bad)
}

/// The liar fails in the matrix's row of this promise alone, with a command that repeats it; the honest one in none.
async fn convicts(lie: Lie, only: &str, promise: &str) {
    let of = |run: &mut Run| run.arguments.only = Some(only.to_owned());
    let liar = judged(Some(lie), of).await;
    assert_eq!(failed(&liar), BTreeSet::from([promise]), "{:#?}", liar.results);
    let (row, outcome) = liar.results.iter().find(|(row, _)| row.id == promise).unwrap();
    let Outcome::Failed(finding) = outcome else {
        panic!("{outcome:?}")
    };
    let again = format!("--seed 1 --only {}", finding.sent);
    assert!(finding.calls[0].contains(&again), "{finding:?}");
    let counts = row.counts.unwrap();
    assert!(counts.held < counts.counted, "{counts:?}");
    let honest = judged(None, of).await;
    assert_eq!(failed(&honest), BTreeSet::new(), "{:#?}", honest.results);
    assert!(ids(&honest, |outcome| *outcome == Outcome::Passed).contains(promise));
}

#[tokio::test]
async fn a_proxy_that_acknowledges_early_is_convicted_over_the_control_port() {
    convicts(Lie::AcksEarly, "write.cold.one.status=INTERNAL@start", "PXY-P1").await;
}

#[tokio::test]
async fn a_proxy_that_serves_corrupt_bytes_is_convicted_over_the_control_port() {
    convicts(Lie::ServesCorrupt, "read.cold.one.flip_byte@end", "PXY-P4").await;
}

#[tokio::test]
async fn a_proxy_that_takes_a_failure_for_a_miss_is_convicted_over_the_control_port() {
    convicts(
        Lie::MissingForError,
        "find.cold.one.status=INTERNAL@start",
        "PXY-P5",
    )
    .await;
}

#[tokio::test]
async fn a_proxy_that_reads_twice_for_a_herd_is_convicted_over_the_control_port() {
    convicts(Lie::TwoReads, "read.cold.herd.connect.delay@start.once", "PXY-P7").await;
}

#[tokio::test]
async fn a_proxy_that_answers_with_an_old_action_result_is_convicted_over_the_control_port() {
    let of = |run: &mut Run| run.filter = "PXY-S-own-updates".to_owned();
    let liar = judged(Some(Lie::StaleAction), of).await;
    assert_eq!(
        failed(&liar),
        BTreeSet::from(["PXY-S-own-updates-are-read-back-at-once"])
    );
    assert_eq!(failed(&judged(None, of).await), BTreeSet::new());
}

#[tokio::test]
async fn a_proxy_is_judged_by_what_it_promises_and_offers() {
    let of = |run: &mut Run| {
        run.filter = "PXY-S-01".to_owned();
        run.arguments
            .without
            .push(Waiver::Promise(conformance::oracle::Promise::P7));
    };
    let waived = judged(Some(Lie::TwoReads), of).await;
    let offered = ids(&waived, |outcome| !matches!(outcome, Outcome::NotOffered(_)));
    assert_eq!(
        (waived.results.len(), offered),
        (1, BTreeSet::new()),
        "P7 is not promised"
    );
    let of = |run: &mut Run| run.arguments.only = Some("read.half.one.status=NOT_FOUND@start".to_owned());
    let judged = judged(None, of).await;
    assert_eq!(failed(&judged), BTreeSet::new(), "{:#?}", judged.results);
    assert!(
        judged.matrix.starts_with("4 of 4 combinations of seed 1"),
        "{}",
        judged.matrix
    );
    let not = ids(&judged, |outcome| matches!(outcome, Outcome::NotOffered(_)));
    assert!(not.is_superset(&BTreeSet::from(["PXY-P8", "PXY-P9"])), "{not:?}");
}

#[tokio::test]
async fn a_control_port_that_is_not_there_and_a_tier_2_that_is_another_are_refused_by_name() {
    let (mock, control) = mock().await;
    let (_other, others_control) = self::mock().await;
    let tier2 = Endpoint::from_shared(format!("http://{}", mock.addr()))
        .unwrap()
        .connect_lazy();
    let (address, _serving) = listening(tier2, None).await;
    let refused = async |address: &str, control: &str| {
        let judged = judge(&run(address, control), |_, _| {}).await;
        format!("{:#}", judged.unwrap_err())
    };
    let error = refused(&address, &format!("http://{}", others_control.addr())).await;
    assert!(
        error.contains("did not reach the mock") && error.contains(&address),
        "{error}"
    );
    let gone = format!("http://{}", control.addr());
    control.stop().await;
    let error = refused(&address, &gone).await;
    assert!(
        error.contains("does not answer") && error.contains(&gone),
        "{error}"
    );
    let error = refused("grpc://127.0.0.1:1", &format!("http://{}", others_control.addr())).await;
    assert!(
        error.contains("connecting to the proxy at grpc://127.0.0.1:1"),
        "{error}"
    );
}
