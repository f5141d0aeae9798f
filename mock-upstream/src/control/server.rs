//! `/`, `/settings`, `/reset`, `/suspend`, `/resume` and `/connections`.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json as object;

use crate::control::{Port, Refusal, bad, json};
use crate::mock::{Mock, Settings};

pub(super) fn routes() -> Router<Port> {
    Router::new()
        .route("/", get(state))
        .route("/settings", get(settings).patch(change))
        .route("/reset", post(reset))
        .route("/suspend", post(suspend))
        .route("/resume", post(resume))
        .route("/connections/reset", post(reset_connections))
}

/// Settings as they are written; those that are left out stay as they are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SettingsText {
    max_batch_bytes: Option<u64>,
    max_message_bytes: Option<usize>,
    max_blob_bytes: Option<u64>,
    read_chunk_bytes: Option<usize>,
    window_bytes: Option<u32>,
    update_enabled: Option<bool>,
    require_complete: Option<bool>,
}

impl SettingsText {
    fn of(settings: &Settings) -> SettingsText {
        SettingsText {
            max_batch_bytes: Some(settings.max_batch_bytes),
            max_message_bytes: Some(settings.max_message_bytes),
            max_blob_bytes: Some(settings.max_blob_bytes),
            read_chunk_bytes: Some(settings.read_chunk_bytes),
            window_bytes: Some(settings.window_bytes),
            update_enabled: Some(settings.update_enabled),
            require_complete: Some(settings.require_complete),
        }
    }

    fn apply(self, settings: &mut Settings) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut settings.max_batch_bytes, self.max_batch_bytes);
        set(&mut settings.max_message_bytes, self.max_message_bytes);
        set(&mut settings.max_blob_bytes, self.max_blob_bytes);
        set(&mut settings.read_chunk_bytes, self.read_chunk_bytes);
        set(&mut settings.window_bytes, self.window_bytes);
        set(&mut settings.update_enabled, self.update_enabled);
        set(&mut settings.require_complete, self.require_complete);
    }
}

async fn state(State(mock): State<Mock>) -> Response {
    let counts = mock.counts();
    json(&object!({
        "version": env!("CARGO_PKG_VERSION"),
        "address": mock.listens_on().map(|address| address.to_string()),
        "next_call": mock.mark(),
        "blobs": counts.blobs,
        "blob_bytes": counts.blob_bytes,
        "actions": counts.actions,
        "rules": mock.rules().len(),
    }))
}

async fn settings(State(mock): State<Mock>) -> Result<Response, Refusal> {
    let text = SettingsText::of(&mock.settings());
    Ok(json(&serde_json::to_value(text).map_err(bad)?))
}

async fn change(State(mock): State<Mock>, text: String) -> Result<Response, Refusal> {
    let text: SettingsText = serde_json::from_str(&text).map_err(bad)?;
    mock.configure(|settings| text.apply(settings));
    settings(State(mock)).await
}

async fn reset(State(port): State<Port>) -> Result<Response, Refusal> {
    port.open_gates();
    port.mock.reset();
    resume(State(port.mock)).await
}

async fn suspend(State(mock): State<Mock>) -> Result<Response, Refusal> {
    mock.suspend().await.map_err(|error| internal(&error))?;
    Ok(json(&object!({})))
}

async fn resume(State(mock): State<Mock>) -> Result<Response, Refusal> {
    mock.resume().await.map_err(|error| internal(&error))?;
    mock.settled().await;
    Ok(json(&object!({})))
}

async fn reset_connections(State(mock): State<Mock>) -> Response {
    json(&object!({ "connections": mock.reset_connections() }))
}

fn internal(error: &std::io::Error) -> Refusal {
    Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
