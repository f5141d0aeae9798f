//! The operators' port: `/metrics`, `/livez`, `/readyz`. Plain HTTP, no state of its own.

mod connections;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// The type that Prometheus' text format has.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the pages show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Rendered by `/metrics`.
    pub metrics: Metrics,
    /// Asked by `/readyz`.
    pub readiness: Readiness,
}

impl Admin {
    /// The pages as a service.
    pub fn router(self) -> Router {
        Router::new()
            .route("/metrics", get(metrics))
            // Alive is whoever answers; Tier 2's state is no reason to restart a node.
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(readyz))
            .with_state(self)
    }

    /// Serves the pages until `stop` fires.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        connections::serve(listener, self.router(), stop).await;
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.readiness.now() {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::sync::watch;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;
    use crate::readiness::Phase;
    use crate::tier2::health::{Announcer, Health, Service, outlook};

    async fn page(admin: &Admin, path: &str) -> (StatusCode, String) {
        let request = axum::http::Request::get(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let answer = admin.clone().router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin() -> (Admin, watch::Sender<Phase>, Announcer) {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (announcer, outlook) = outlook();
        let readiness = Readiness::new(phases, outlook, Some(Duration::from_secs(10)));
        (
            Admin {
                metrics: Metrics::new(),
                readiness,
            },
            phase,
            announcer,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_does_not_depend_on_tier_2_and_readiness_does() {
        let (admin, _phase, announcer) = admin();
        let since = Instant::now();
        announcer.announce(Service::Cas, Health::Down { since });
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(page(&admin, "/livez").await, (StatusCode::OK, "ok\n".into()));
        assert_eq!(
            page(&admin, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, "tier 2 is down\n".into())
        );
        announcer.announce(Service::Cas, Health::Up);
        assert_eq!(page(&admin, "/readyz").await.0, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_goes_off_when_draining_begins() {
        let (admin, phase, _announcer) = admin();
        phase.send_replace(Phase::Draining);
        assert_eq!(
            page(&admin, "/readyz").await,
            (StatusCode::SERVICE_UNAVAILABLE, "draining\n".into())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_page_shows_what_was_counted() {
        let (admin, _phase, _announcer) = admin();
        admin.metrics.reads.flights_started.inc_by(3);
        let (status, text) = page(&admin, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains("gorego_flights_started_total 3"), "{text}");
    }
}
