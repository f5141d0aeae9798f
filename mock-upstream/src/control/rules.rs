//! `/rules` and `/presets`.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::{Value, json as object};

use crate::control::query::Query;
use crate::control::{Port, Refusal, absent, bad, json};
use crate::mock::Mock;
use crate::preset::Preset;
use crate::rule::{Rule, Rules};

pub(super) fn routes() -> Router<Port> {
    Router::new()
        .route("/rules", get(list).post(add).delete(clear))
        .route("/rules/{id}", delete(remove))
        .route("/presets/{name}", post(preset))
}

async fn list(State(mock): State<Mock>) -> Response {
    let rules = mock.rules().into_iter().map(|status| {
        object!({
            "id": status.id,
            "rule": status.rule,
            "seen": status.seen,
            "met": status.met,
            "ended": status.ended,
        })
    });
    json(&Value::from_iter(rules))
}

/// One rule, a list of them, or what a file has: `{"rule": [...]}`.
async fn add(State(mock): State<Mock>, text: String) -> Result<Response, Refusal> {
    let value: Value = serde_json::from_str(&text).map_err(bad)?;
    let is_file = value.get("rule").is_some();
    let rules = if value.is_array() {
        serde_json::from_value::<Vec<Rule>>(value).map_err(bad)?
    } else if is_file {
        serde_json::from_value::<Rules>(value).map_err(bad)?.rule
    } else {
        vec![serde_json::from_value::<Rule>(value).map_err(bad)?]
    };
    Ok(set(&mock, rules).await)
}

async fn preset(
    State(mock): State<Mock>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let seed = query.number("seed")?.unwrap_or(0);
    query.end()?;
    let preset: Preset = name.parse().map_err(bad)?;
    Ok(set(&mock, preset.rules(seed)).await)
}

async fn set(mock: &Mock, rules: Vec<Rule>) -> Response {
    let ids: Vec<u64> = rules.into_iter().map(|rule| mock.add(rule)).collect();
    // Whoever has the answer can rely on a closed port.
    mock.settled().await;
    json(&object!({ "ids": ids }))
}

async fn clear(State(mock): State<Mock>) -> Response {
    mock.heal();
    mock.settled().await;
    json(&object!({}))
}

async fn remove(State(mock): State<Mock>, Path(id): Path<u64>) -> Result<Response, Refusal> {
    if !mock.remove(id) {
        return Err(absent(format!("rule {id}")));
    }
    mock.settled().await;
    Ok(json(&object!({})))
}
