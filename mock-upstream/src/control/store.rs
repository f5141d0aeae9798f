//! `/blobs` and `/actions`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json as object};

use crate::control::query::{Query, digest_of};
use crate::control::{Port, Refusal, absent, json};
use crate::digest::Digest;
use crate::mock::Mock;

pub(super) fn routes() -> Router<Port> {
    Router::new()
        .route("/blobs", get(blobs).put(put_blob))
        .route("/blobs/{hash}/{size}", get(blob).put(plant).delete(evict))
        .route("/actions", get(actions))
        .route(
            "/actions/{hash}/{size}",
            get(action).put(put_action).delete(evict_action),
        )
}

type Asked = (State<Mock>, Path<(String, String)>, RawQuery);

/// Of whom, and what: the instance comes in the query, the digest in the path.
fn place(
    (State(mock), Path((hash, size)), RawQuery(query)): Asked,
) -> Result<(Mock, String, Digest), Refusal> {
    let digest = digest_of(&format!("{hash}/{size}"))?;
    Ok((mock, instance(query)?, digest))
}

fn instance(query: Option<String>) -> Result<String, Refusal> {
    let mut query = Query::parse(query);
    let instance = query.text("instance").unwrap_or_default();
    query.end()?;
    Ok(instance)
}

async fn blobs(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(json(&told(&mock.blobs(&instance(query)?))))
}

async fn put_blob(
    State(mock): State<Mock>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Response, Refusal> {
    let digest = mock.put_blob(&instance(query)?, body);
    Ok(json(&object!({ "digest": digest.to_string() })))
}

async fn blob(asked: State<Mock>, path: Path<(String, String)>, query: RawQuery) -> Result<Bytes, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    mock.blob(&instance, &digest)
        .ok_or_else(|| absent(format!("blob {digest}")))
}

/// Stores the bytes under this digest, whether they fit or not.
async fn plant(
    asked: State<Mock>,
    path: Path<(String, String)>,
    query: RawQuery,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    mock.plant(&instance, &digest, body);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn evict(
    asked: State<Mock>,
    path: Path<(String, String)>,
    query: RawQuery,
) -> Result<Response, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    match mock.evict(&instance, &digest) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(absent(format!("blob {digest}"))),
    }
}

async fn actions(State(mock): State<Mock>, RawQuery(query): RawQuery) -> Result<Response, Refusal> {
    Ok(json(&told(&mock.actions(&instance(query)?))))
}

async fn action(asked: State<Mock>, path: Path<(String, String)>, query: RawQuery) -> Result<Bytes, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    let raw = mock.action(&instance, &digest);
    raw.ok_or_else(|| absent(format!("result of action {digest}")))
}

/// The body is an encoded ActionResult, or anything else.
async fn put_action(
    asked: State<Mock>,
    path: Path<(String, String)>,
    query: RawQuery,
    body: Bytes,
) -> Result<Response, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    mock.put_action(&instance, &digest, body);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn evict_action(
    asked: State<Mock>,
    path: Path<(String, String)>,
    query: RawQuery,
) -> Result<Response, Refusal> {
    let (mock, instance, digest) = place((asked, path, query))?;
    match mock.evict_action(&instance, &digest) {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(absent(format!("result of action {digest}"))),
    }
}

fn told(digests: &[Digest]) -> Value {
    digests.iter().map(ToString::to_string).collect()
}
