//! `/calls` and `/firings`, to list and to wait for; `/log`, which is both, and the time.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json as object};

use crate::control::query::Query;
use crate::control::{Port, Refusal, bad, json};
use crate::mock::Mock;
use crate::written;

/// How long a wait lasts if nothing else is asked: longer than a test should take, shorter than its runner waits.
const WAIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Port> {
    Router::new()
        .route("/calls", get(list).delete(clear))
        .route("/calls/wait", get(wait))
        .route("/firings", get(firings))
        .route("/firings/wait", get(wait_firings))
        .route("/log", get(log))
}

/// Filters as in a rule; `since` an index, `met` the name of a rule.
async fn list(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let mut calls = mock.calls().matching(&query.wanted()?);
    if let Some(index) = query.number("since")? {
        calls = calls.since(index);
    }
    if let Some(rule) = query.text("met") {
        calls = calls.met(&rule);
    }
    query.end()?;
    Ok(json(&written::calls(&calls)))
}

async fn clear(State(mock): State<Mock>) -> Response {
    mock.clear_log();
    json(&object!({}))
}

/// Answers when there are `count` such calls, or when so many have ended (`state=finished`).
async fn wait(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let wanted = query.wanted()?;
    let count = query.number("count")?.unwrap_or(1);
    let timeout = timeout(&mut query)?;
    let state = query.text("state").unwrap_or_else(|| "arrived".to_owned());
    query.end()?;
    let waited = match state.as_str() {
        "arrived" => tokio::time::timeout(timeout, mock.arrived(wanted.clone(), count)).await,
        "finished" => tokio::time::timeout(timeout, mock.finished(wanted.clone(), count)).await,
        _unknown => return Err(bad(format!("state = {state:?} is neither arrived nor finished"))),
    };
    waited.map_err(|_elapsed| too_late(count as u64))?;
    Ok(json(&written::calls(&mock.calls().matching(&wanted))))
}

async fn firings(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let rule = query.text("rule");
    query.end()?;
    Ok(json(&told_firings(&mock, rule.as_deref())))
}

/// The log since an index, what rules did, and the time, which is no earlier than all that is told.
async fn log(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let since = query.number("since")?.unwrap_or(0);
    query.end()?;
    let (next, calls, firings) = (mock.mark(), mock.calls().since(since), mock.firings());
    Ok(json(&object!({
        "now_ms": written::ms(mock.now()),
        "next_call": next,
        "calls": written::calls(&calls),
        "firings": firings.iter().map(written::firing).collect::<Vec<_>>(),
    })))
}

async fn wait_firings(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let rule = query.text("rule").ok_or_else(|| bad("rule is missing"))?;
    let count = query.number("count")?.unwrap_or(1);
    let timeout = timeout(&mut query)?;
    query.end()?;
    let waited = tokio::time::timeout(timeout, mock.fired(&rule, count)).await;
    waited.map_err(|_elapsed| too_late(count as u64))?;
    Ok(json(&told_firings(&mock, Some(&rule))))
}

pub(super) fn timeout(query: &mut Query) -> Result<Duration, Refusal> {
    Ok(query.number("timeout_ms")?.map_or(WAIT, Duration::from_millis))
}

pub(super) fn too_late(count: u64) -> Refusal {
    let text = format!("there were not {count} in time");
    Refusal(StatusCode::REQUEST_TIMEOUT, text)
}

fn told_firings(mock: &Mock, rule: Option<&str>) -> Value {
    let firings = mock.firings();
    let wanted = firings
        .iter()
        .filter(|firing| rule.is_none_or(|rule| rule == firing.name));
    wanted.map(written::firing).collect()
}
