//! `/calls` and `/firings`, to list and to wait for.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json as object};

use crate::control::query::Query;
use crate::control::{Refusal, bad, json};
use crate::digest::Digest;
use crate::log::{Call, Calls, Firing, Outcome, Told};
use crate::mock::Mock;
use crate::rule::code_name;

/// How long a wait lasts if nothing else is asked: longer than a test should take, shorter than its runner waits.
const WAIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Mock> {
    Router::new()
        .route("/calls", get(list).delete(clear))
        .route("/calls/wait", get(wait))
        .route("/firings", get(firings))
        .route("/firings/wait", get(wait_firings))
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
    Ok(json(&told(&calls)))
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
    waited.map_err(|_elapsed| too_late(count))?;
    Ok(json(&told(&mock.calls().matching(&wanted))))
}

async fn firings(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let rule = query.text("rule");
    query.end()?;
    Ok(json(&told_firings(&mock, rule.as_deref())))
}

async fn wait_firings(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let rule = query.text("rule").ok_or_else(|| bad("rule is missing"))?;
    let count = query.number("count")?.unwrap_or(1);
    let timeout = timeout(&mut query)?;
    query.end()?;
    let waited = tokio::time::timeout(timeout, mock.fired(&rule, count)).await;
    waited.map_err(|_elapsed| too_late(count))?;
    Ok(json(&told_firings(&mock, Some(&rule))))
}

fn timeout(query: &mut Query) -> Result<Duration, Refusal> {
    Ok(query.number("timeout_ms")?.map_or(WAIT, Duration::from_millis))
}

fn too_late(count: usize) -> Refusal {
    let text = format!("there were not {count} in time");
    Refusal(StatusCode::REQUEST_TIMEOUT, text)
}

fn told(calls: &Calls) -> Value {
    calls.iter().map(told_call).collect()
}

fn told_call(call: &Call) -> Value {
    let (outcome, code) = match call.outcome {
        Outcome::Open => ("open", None),
        Outcome::Ok => ("ok", Some(tonic::Code::Ok)),
        Outcome::Failed(code) => ("failed", Some(code)),
        Outcome::Reset => ("reset", None),
        Outcome::ConnectionLost => ("connection_lost", None),
        Outcome::HalfClosed => ("half_closed", None),
        Outcome::Suspended => ("suspended", None),
        Outcome::Broken => ("broken", None),
    };
    object!({
        "index": call.index,
        "method": call.method,
        "connection": call.connection,
        "peer": call.peer.map(|peer| peer.to_string()),
        "invocation": call.invocation,
        "headers": call.headers,
        "instance": call.instance,
        "digests": call.digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resource_name": call.resource_name,
        "offset": call.offset,
        "limit": call.limit,
        "bytes_received": call.bytes_received,
        "bytes_sent": call.bytes_sent,
        "outcome": outcome,
        "code": code.map(code_name::name),
        "cancelled": call.outcome.is_cancelled(),
        "arrived_at_ms": ms(call.arrived_at),
        "ended_at_ms": call.ended_at.map(ms),
        "fired": call.fired.iter().map(told_firing).collect::<Vec<_>>(),
        "told": call.told.iter().map(told_word).collect::<Vec<_>>(),
    })
}

fn told_word((about, told): &(Digest, Told)) -> Value {
    let (word, code) = match told {
        Told::Present => ("present", None),
        Told::Missing => ("missing", None),
        Told::Failed(code) => ("failed", Some(code_name::name(*code))),
    };
    object!({ "digest": about.to_string(), "word": word, "code": code })
}

fn told_firings(mock: &Mock, rule: Option<&str>) -> Value {
    let firings = mock.firings();
    let wanted = firings
        .iter()
        .filter(|firing| rule.is_none_or(|rule| rule == firing.name));
    wanted.map(told_firing).collect()
}

fn told_firing(firing: &Firing) -> Value {
    object!({
        "rule": firing.rule,
        "name": firing.name,
        "act": firing.act,
        "call": firing.call,
        "connection": firing.connection,
        "moved": firing.moved,
        "at_ms": ms(firing.at),
    })
}

/// Milliseconds since the mock began, with their fractions.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
