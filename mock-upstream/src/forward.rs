//! The network between two processes, made bad: a TCP forwarder that knows nothing of what it carries.

mod pump;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forward::pump::{Direction, PumpError, pump};

/// What the network does. Connections that are open feel a change at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Every byte arrives so much later, each way.
    pub latency_ms: u64,
    /// Of a connection, each way.
    pub bytes_per_second: Option<u64>,
    /// Connections open and stay open, and nothing arrives until this ends.
    pub black_hole: bool,
    /// A connection is reset, both ends of it, once so many bytes have come from the server.
    pub reset_after_down_bytes: Option<u64>,
    /// Likewise of bytes to the server.
    pub reset_after_up_bytes: Option<u64>,
}

/// What a forwarder has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Carried {
    pub connections: u64,
    /// Connections that the link reset.
    pub resets: u64,
    pub up_bytes: u64,
    pub down_bytes: u64,
}

/// Forwards connections to one target. Clones are handles of the same one; it ends with the last of them.
#[derive(Clone, Debug)]
pub struct Forwarder {
    owner: Arc<Owner>,
}

#[derive(Debug)]
struct Owner {
    address: SocketAddr,
    line: Arc<Line>,
    tasks: TaskTracker,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.line.stop.cancel();
    }
}

/// What connections share.
#[derive(Debug)]
struct Line {
    target: String,
    link: watch::Sender<Link>,
    /// Cancelled to reset what is open, and replaced.
    breaking: parking_lot::Mutex<CancellationToken>,
    stop: CancellationToken,
    connections: AtomicU64,
    resets: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
}

impl Forwarder {
    /// Listens on `listen` (`127.0.0.1:0` for a free port), and connects to `target` for each connection.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(listen: &str, target: impl Into<String>, link: Link) -> io::Result<Forwarder> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let line = Arc::new(Line {
            target: target.into(),
            link: watch::Sender::new(link),
            breaking: parking_lot::Mutex::default(),
            stop: CancellationToken::new(),
            connections: AtomicU64::new(0),
            resets: AtomicU64::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(Arc::clone(&line), tasks.clone(), listener));
        let owner = Owner { address, line, tasks };
        Ok(Forwarder {
            owner: Arc::new(owner),
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.owner.address
    }

    pub fn link(&self) -> Link {
        *self.owner.line.link.borrow()
    }

    pub fn set(&self, link: Link) {
        self.owner.line.link.send_replace(link);
    }

    pub fn carried(&self) -> Carried {
        let line = &self.owner.line;
        Carried {
            connections: line.connections.load(Ordering::Relaxed),
            resets: line.resets.load(Ordering::Relaxed),
            up_bytes: line.up.load(Ordering::Relaxed),
            down_bytes: line.down.load(Ordering::Relaxed),
        }
    }

    /// Resets all connections that are open.
    pub fn reset_connections(&self) {
        let fresh = CancellationToken::new();
        std::mem::replace(&mut *self.owner.line.breaking.lock(), fresh).cancel();
    }

    /// Ends it, and waits until everything has ended.
    pub async fn stop(self) {
        self.owner.line.stop.cancel();
        self.owner.tasks.close();
        self.owner.tasks.wait().await;
    }
}

async fn accept(line: Arc<Line>, tasks: TaskTracker, listener: TcpListener) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = line.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((client, _peer)) => drop(tasks.spawn(connection(Arc::clone(&line), client))),
            Err(error) => tracing::warn!(%error, "a connection was not accepted"),
        }
    }
}

async fn connection(line: Arc<Line>, mut client: TcpStream) {
    line.connections.fetch_add(1, Ordering::Relaxed);
    let breaking = line.breaking.lock().clone();
    let Ok(mut server) = TcpStream::connect(&line.target).await else {
        return arm_reset(&client);
    };
    for socket in [&client, &server] {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "small packets may wait");
        }
    }
    let ended = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let up = pump(from_client, to_server, &line.link, Direction::Up, &line.up);
        let down = pump(from_server, to_client, &line.link, Direction::Down, &line.down);
        tokio::select! {
            biased;
            () = line.stop.cancelled() => Ok(()),
            () = breaking.cancelled() => Err(PumpError::Limit),
            ended = async { tokio::try_join!(up, down) } => ended.map(|((), ())| ()),
        }
    };
    match ended {
        Ok(()) => return,
        Err(PumpError::Limit) => drop(line.resets.fetch_add(1, Ordering::Relaxed)),
        // What one end suffers the other is told.
        Err(PumpError::Io(error)) => tracing::debug!(%error, "a forwarded connection broke"),
    }
    arm_reset(&client);
    arm_reset(&server);
}

/// Makes the socket's end a reset.
fn arm_reset(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::warn!(%error, "a connection is closed that should be reset");
    }
}
