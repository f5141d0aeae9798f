//! The connections of the operators' port: few, and never so many silent ones that a probe finds no place.

use std::collections::BTreeMap;
use std::io;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::Router;
use futures::stream::{FuturesUnordered, poll_fn};
use futures::{Stream, StreamExt as _};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections at a time: some scrapers and probes. A newer one ends the oldest: whoever has a question asks it at once.
pub(super) const CONNECTIONS_MAX: usize = 64;

/// How long a connection may take for a request's head, and be idle between two.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a connection that are read ahead: far more than a probe's or scraper's head has.
const BUFFER_BYTES: usize = 16 * 1024;

/// Pause after a failed accept. Out of file descriptors, an immediate retry would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves what a listener accepts until `stop` fires.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let accepted = poll_fn(move |cx| {
        let accepted = ready!(listener.poll_accept(cx));
        Poll::Ready(Some(accepted.map(|(socket, _peer)| socket)))
    });
    stop.run_until_cancelled(run(accepted, router)).await;
}

/// Serves the connections that come.
async fn run<I>(mut accepted: impl Stream<Item = io::Result<I>> + Unpin, router: Router)
where
    I: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(BUFFER_BYTES);
    let mut open = FuturesUnordered::new();
    let mut seats: BTreeMap<u64, DropGuard> = BTreeMap::new();
    let mut last = 0;
    loop {
        let next = tokio::select! { // cancel safe: what is not yet accepted stays in the kernel's queue
            biased;
            Some(number) = open.next() => {
                seats.remove(&number);
                continue;
            }
            next = accepted.next() => next,
        };
        let io = match next {
            None => return,
            Some(Ok(io)) => io,
            Some(Err(error)) => {
                tracing::warn!(%error, "a connection for operators could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        last += 1;
        let number = last;
        let gave_way = CancellationToken::new();
        seats.insert(number, gave_way.clone().drop_guard());
        if seats.len() > CONNECTIONS_MAX {
            seats.pop_first();
        }
        let service = TowerToHyperService::new(router.clone());
        let connection = http1.serve_connection(TokioIo::new(io), service);
        open.push(async move {
            // Peers break connections every day.
            let _end = gave_way.run_until_cancelled(connection).await;
            number
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;
    use crate::task::TaskGroup;

    struct Site {
        tasks: TaskGroup,
        sender: mpsc::Sender<DuplexStream>,
    }

    impl Site {
        fn new() -> Site {
            let tasks = TaskGroup::new();
            let (sender, mut receiver) = mpsc::channel(1);
            let router = Router::new().route("/", get(async || "here"));
            let accepted = poll_fn(move |cx| receiver.poll_recv(cx).map(|io| io.map(Ok)));
            drop(tasks.spawn(run(accepted, router)));
            Site { tasks, sender }
        }

        async fn connect(&self) -> DuplexStream {
            let (near, far) = duplex(1024);
            self.sender.send(far).await.unwrap();
            near
        }
    }

    async fn ask(io: &mut DuplexStream) -> String {
        io.write_all(b"GET / HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_too_many_ends_the_oldest_and_is_served() {
        // P8
        let site = Site::new();
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(site.connect().await);
        }
        let mut probe = site.connect().await;
        assert!(ask(&mut probe).await.ends_with("here"));
        assert_eq!(silent[0].read(&mut [0]).await.unwrap(), 0, "it was closed");
        assert!(ask(&mut silent[1]).await.ends_with("here"), "the others were not");
        assert_eq!(site.tasks.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_closed_in_the_end() {
        // P10
        let site = Site::new();
        for said in [&b""[..], b"GET / HT"] {
            let mut silent = site.connect().await;
            silent.write_all(said).await.unwrap();
            let mut heard = Vec::new();
            silent.read_to_end(&mut heard).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_without_end_is_refused() {
        // P8
        let site = Site::new();
        let mut endless = site.connect().await;
        endless.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let line = [b"x: ", [b'y'; 1000].as_slice(), b"\r\n"].concat();
        let mut sent = 0;
        while endless.write_all(&line).await.is_ok() {
            sent += line.len();
            assert!(sent < 10 * BUFFER_BYTES, "it reads on and on");
        }
    }
}
