use std::sync::Arc;

use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Outcome, Target, checks};

use crate::harness::{Harness, Site};

/// What this node does not offer, by what the ids begin with. Anything else that is not offered is a failure: the node
/// announces what it offers.
const NOT_OFFERED: &[&str] = &[
    "AC-UPD-09",
    "ASSET-",
    "BS-QWS-10",
    "BS-WRITE-26",
    "CAP-17",
    "CAP-19",
    "CAP-20",
    "CAP-21",
    "CAP-22",
    "CAP-23",
    "CAP-26",
    "CAS-BUB-09",
    "CAS-BUB-11",
    "CAS-BUB-12",
    "CAS-GEN-10",
    "CAS-GEN-12",
    "CDC-",
    "COMP-",
    "DIG-12",
    "DIG-18",
    "DIG-21",
    "DIG-22",
    "RN-07",
    "RN-18",
    "TREE-26",
    "ZSTD-",
];

async fn conforms(site: &Site, instance: &str) {
    let target = Target::over(site.channel(), instance).dialled_by(site.dial());
    let results = conformance::run(Arc::new(target), checks::all()).await;
    let none = Deviations::default();
    let report = Report::new(&results, &none);
    let lacking = |id: &str| NOT_OFFERED.iter().any(|prefix| id.starts_with(prefix));
    let all_passed = results.iter().all(|(check, outcome)| match outcome {
        Outcome::Passed => true,
        Outcome::NotOffered(_) => lacking(check.id),
        Outcome::Failed(_) | Outcome::Broken(_) => false,
    });
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
