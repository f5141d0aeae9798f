//! The control port of a forwarder: `/`, `/link` and `/connections/reset`.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json as object;

use crate::control::{Refusal, bad, json};
use crate::forward::{Forwarder, Link};

pub(super) fn routes() -> Router<Forwarder> {
    Router::new()
        .route("/", get(state))
        .route("/link", get(link).put(set))
        .route("/connections/reset", post(reset_connections))
}

async fn state(State(forwarder): State<Forwarder>) -> Response {
    json(&object!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": forwarder.addr().to_string(),
        "carried": forwarder.carried(),
    }))
}

async fn link(State(forwarder): State<Forwarder>) -> Response {
    json(&object!(forwarder.link()))
}

/// What is left out is as in a good network.
async fn set(State(forwarder): State<Forwarder>, text: String) -> Result<Response, Refusal> {
    let new: Link = serde_json::from_str(&text).map_err(bad)?;
    forwarder.set(new);
    Ok(link(State(forwarder)).await)
}

async fn reset_connections(State(forwarder): State<Forwarder>) -> Response {
    forwarder.reset_connections();
    json(&object!({}))
}
