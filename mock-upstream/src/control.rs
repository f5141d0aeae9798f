//! The control port: everything that a test in this process can do, over plain HTTP. The README has the table.

mod calls;
pub(crate) mod gates;
mod link;
mod query;
mod rules;
mod server;
mod store;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::forward::Forwarder;
use crate::gate::Gate;
use crate::mock::Mock;

/// Of a blob that is put: blobs of tests, held in memory.
const MAX_BODY_BYTES: usize = 1024 * 1024 * 1024;

/// What requests share: the mock, and the gates that were asked for here.
#[derive(Clone, Debug)]
struct Port {
    mock: Mock,
    gates: Arc<Mutex<Gates>>,
}

#[derive(Debug, Default)]
struct Gates {
    made: u64,
    closed: BTreeMap<u64, Arc<Gate>>,
}

impl Port {
    fn of(mock: Mock) -> Port {
        let gates = Arc::default();
        Port { mock, gates }
    }

    fn open_gates(&self) {
        let gates = std::mem::take(&mut self.gates.lock().closed);
        for gate in gates.values() {
            gate.release();
        }
    }
}

impl FromRef<Port> for Mock {
    fn from_ref(port: &Port) -> Mock {
        port.mock.clone()
    }
}

/// Serves the control port until it is dropped or stopped.
#[derive(Debug)]
pub struct Control {
    address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Control {
    /// Listens on `address` (`127.0.0.1:0` for a free port). Keeps the mock alive.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(mock: Mock, address: &str) -> io::Result<Control> {
        let app = Router::new()
            .merge(server::routes())
            .merge(rules::routes())
            .merge(calls::routes())
            .merge(gates::routes())
            .merge(store::routes())
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(Port::of(mock));
        Control::serve(app, address).await
    }

    /// Likewise of a forwarder.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn of_forwarder(forwarder: Forwarder, address: &str) -> io::Result<Control> {
        Control::serve(link::routes().with_state(forwarder), address).await
    }

    async fn serve(app: Router, address: &str) -> io::Result<Control> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the control port is closed");
            }
        });
        Ok(Control { address, tasks })
    }

    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends it, open requests included.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// An answer that is no success.
#[derive(Debug)]
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, format!("{}\n", self.1)).into_response()
    }
}

fn bad(error: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, error.to_string())
}

fn absent(what: impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("there is no {what}"))
}

fn json(value: &Value) -> Response {
    let headers = [("content-type", "application/json")];
    (headers, format!("{value}\n")).into_response()
}
