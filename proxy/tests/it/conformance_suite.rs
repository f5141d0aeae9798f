use std::sync::Arc;

use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Outcome, Target, checks};

use crate::harness::{Harness, Site};

/// What the suite finds lacking that this node does not offer is a failure too: it announces what it offers.
async fn conforms(site: &Site, instance: &str) {
    let target = Target::over(site.channel(), instance);
    let results = conformance::run(Arc::new(target), checks::all()).await;
    let none = Deviations::default();
    let report = Report::new(&results, &none);
    let all_passed = results.iter().all(|(_, outcome)| *outcome == Outcome::Passed);
    assert!(report.is_good() && all_passed, "{}", report.text());
}

#[tokio::test]
async fn a_node_over_another_server_conforms_under_any_instance_name() {
    let site = Harness::new()
        .mock(|settings| settings.require_complete = true)
        .start()
        .await;
    for instance in ["", "team/a"] {
        conforms(&site, instance).await;
    }
}

#[tokio::test]
async fn a_node_with_the_embedded_tier_2_conforms() {
    let site = Harness::new().embedded_tier2().start().await;
    conforms(&site, "").await;
    conforms(&site, "team/a").await;
    assert_eq!(site.mock.calls().count(), 0);
}
