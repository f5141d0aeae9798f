//! What stands for sockets around a whole node in one process: pipes in memory, to its Tier 2 and from its clients.

use std::io;

use async_trait::async_trait;
use gorego::grpc::Edge;
use gorego::grpc::listener::Server;
use gorego::tier2::remote::{BoxIo, Connect};
use hyper_util::rt::TokioIo;
use mock_upstream::Mock;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};

/// Bytes that a pipe holds, about what a socket does.
const PIPE_BYTES: usize = 128 * 1024;

/// Connections to the mock.
pub(crate) struct Pipes(pub(crate) Mock);

#[async_trait]
impl Connect for Pipes {
    async fn connect(&self) -> io::Result<BoxIo> {
        Ok(Box::new(self.0.connect()?))
    }
}

/// The client's end of a connection to a node on which nothing was said.
pub(crate) fn pipe_to(server: &Server<Edge>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    server.attach(far);
    near
}

/// A connection to a node, made when it is first used.
pub(crate) fn channel_to(server: Server<Edge>) -> Channel {
    Endpoint::from_static("http://node").connect_with_connector_lazy(tower::service_fn(move |_uri| {
        std::future::ready(Ok::<_, io::Error>(TokioIo::new(pipe_to(&server))))
    }))
}
