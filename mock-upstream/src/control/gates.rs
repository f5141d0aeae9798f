//! `/gates`: calls that are held until they are let go.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{delete, get};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json as object};

use crate::control::calls::{timeout, too_late};
use crate::control::query::Query;
use crate::control::{Port, Refusal, absent, bad, json};
use crate::gate::Gate;
use crate::rule::{Match, Place, after};

/// Gates that are closed at a time: more than a test can mean.
const GATES_MAX: usize = 1_000;

pub(super) fn routes() -> Router<Port> {
    Router::new()
        .route("/gates", get(list).post(hold).delete(open_all))
        .route("/gates/{id}", delete(open))
        .route("/gates/{id}/wait", get(wait))
}

/// A gate as it is written: which calls it holds, and where in them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateText {
    #[serde(default)]
    pub(crate) calls: Match,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after_bytes: Option<u64>,
}

async fn list(State(port): State<Port>) -> Response {
    let gates = port.gates.lock();
    let gates = gates.closed.iter();
    let list = gates.map(|(id, gate)| object!({ "id": id, "reached": gate.count() }));
    json(&list.collect::<Value>())
}

async fn hold(State(port): State<Port>, text: String) -> Result<Response, Refusal> {
    let text: GateText = serde_json::from_str(&text).map_err(bad)?;
    let after = after(text.at, text.after_bytes).map_err(bad)?;
    let mut gates = port.gates.lock();
    if gates.closed.len() >= GATES_MAX {
        let text = format!("there are {GATES_MAX} gates already");
        return Err(Refusal(StatusCode::TOO_MANY_REQUESTS, text));
    }
    gates.made += 1;
    let id = gates.made;
    gates
        .closed
        .insert(id, Arc::new(port.mock.hold(text.calls, after)));
    Ok(json(&object!({ "id": id })))
}

/// Answers when so many calls came to the gate.
async fn wait(
    State(port): State<Port>,
    Path(id): Path<u64>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let mut query = Query::parse(query);
    let count = query.number("count")?.unwrap_or(1);
    let timeout = timeout(&mut query)?;
    query.end()?;
    let gate: Option<Arc<Gate>> = port.gates.lock().closed.get(&id).cloned();
    let gate = gate.ok_or_else(|| absent(format!("gate {id}")))?;
    let waited = tokio::time::timeout(timeout, gate.reached_by(count)).await;
    waited.map_err(|_elapsed| too_late(count))?;
    Ok(json(&object!({ "id": id, "reached": gate.count() })))
}

async fn open(State(port): State<Port>, Path(id): Path<u64>) -> Result<Response, Refusal> {
    let gate = port.gates.lock().closed.remove(&id);
    // Somebody may wait at it, and keep it.
    gate.ok_or_else(|| absent(format!("gate {id}")))?.release();
    Ok(json(&object!({})))
}

async fn open_all(State(port): State<Port>) -> Response {
    port.open_gates();
    json(&object!({}))
}
