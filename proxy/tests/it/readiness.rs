use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use gorego::http_admin::Admin;
use gorego::readiness::Phase;
use mock_upstream::{Digest, Mock};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tower::ServiceExt as _;

use crate::client::code;
use crate::harness::{Harness, Site};

async fn page(site: &Site, path: &str) -> StatusCode {
    let admin = Admin {
        metrics: site.node.metrics.clone(),
        readiness: site.node.readiness.clone(),
    };
    let request = Request::get(path).body(Body::empty()).unwrap();
    admin.router().oneshot(request).await.unwrap().status()
}

#[tokio::test(start_paused = true)]
async fn readiness_goes_off_when_tier_2_stays_down_and_on_when_it_returns() {
    let site = Harness::new().set("readiness.tier2", "10s").start().await;
    let mut health = HealthClient::new(site.channel());
    let request = HealthCheckRequest::default();
    let mut watch = health.watch(request).await.unwrap().into_inner();
    let mut next = async || -> ServingStatus {
        let message: HealthCheckResponse = watch.message().await.unwrap().unwrap();
        message.status()
    };
    // Whether the first word comes before or after the node says that it serves is a matter of turns.
    while next().await != ServingStatus::Serving {}
    assert_eq!(page(&site, "/readyz").await, StatusCode::OK);

    site.mock.suspend().await.unwrap();
    let digest = Digest::of(b"content");
    assert_eq!(code(site.client().missing(&[digest]).await), Code::Unavailable);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(page(&site, "/readyz").await, StatusCode::OK, "a short outage");
    assert_eq!(next().await, ServingStatus::NotServing);
    assert_eq!(page(&site, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(page(&site, "/livez").await, StatusCode::OK);

    site.mock.resume().await.unwrap();
    let returned = tokio::time::Instant::now();
    assert_eq!(next().await, ServingStatus::Serving);
    assert!(
        returned.elapsed() <= Duration::from_secs(1),
        "{:?}",
        returned.elapsed()
    ); // P6
    assert_eq!(page(&site, "/readyz").await, StatusCode::OK);

    site.node.running.phase.send_replace(Phase::Draining);
    assert_eq!(next().await, ServingStatus::NotServing);
    assert_eq!(page(&site, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
}

/// Whether operators are told that both services of Tier 2 answer.
fn is_shown_up(site: &Site) -> bool {
    let up = &site.node.metrics.tier2.up;
    ["cas", "ac"]
        .iter()
        .all(|service| up.with_label_values(&[service]).get() == 1)
}

#[tokio::test(start_paused = true)]
async fn r13_a_node_that_nobody_asks_knows_that_tier_2_is_gone_and_that_it_is_back() {
    let digest = Digest::of(b"content");
    for at_the_start in [false, true] {
        let mock = Mock::builder().start();
        if at_the_start {
            mock.suspend().await.unwrap();
        }
        let site = Harness::new().start_over(mock).await;
        if !at_the_start {
            site.client().missing(&[digest]).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert!(is_shown_up(&site));
            site.mock.suspend().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(250)).await; // what a probe may take
        assert!(site.node.outlook.down_since().is_some() && !is_shown_up(&site));
        assert_eq!(page(&site, "/readyz").await, StatusCode::OK, "a short outage");
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(page(&site, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);

        site.mock.resume().await.unwrap();
        let returned = tokio::time::Instant::now();
        site.tier2_is_up().await;
        assert_eq!(site.client().missing(&[digest]).await.unwrap(), [digest]);
        let took = returned.elapsed();
        assert!(took <= Duration::from_secs(1), "{took:?}"); // P6
        assert!(is_shown_up(&site));
        assert_eq!(page(&site, "/readyz").await, StatusCode::OK);
    }
}
