//! From the first signal to the last log line. Going down is an order, not a flag: stop accepting, drain requests, land
//! commits and flights, tell Tier 2 what was read, stop what runs for ever; each step within what is left of the grace period.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::readiness::Phase;
use crate::task::TaskGroup;

/// How long background tasks may take to notice that they should stop, beside the grace period: they only have to
/// return, and a second is far beyond any step of theirs.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// How long fetches that nobody waits for any more may go on. What they would have stored can be fetched again.
const LANDING_PATIENCE: Duration = Duration::from_secs(2);

/// How long what gathered for Tier 2's eviction may take to be told. It is of use, and nobody misses it.
const TOUCHES_PATIENCE: Duration = Duration::from_secs(2);

/// What a node consists of while it runs, as far as its end is concerned.
#[derive(Debug)]
pub struct Running {
    /// Told to everybody who asks whether this node is ready.
    pub phase: watch::Sender<Phase>,
    /// Makes the listener stop accepting and send GOAWAY.
    pub stop_edge: CancellationToken,
    /// Uploads on their way to Tier 2. They outlive their clients, and count.
    pub commits: TaskGroup,
    /// Fetches from Tier 2.
    pub flights: TaskGroup,
    /// What tells Tier 2 of reads that it does not see.
    pub touches: TaskGroup,
    /// Tasks that run for ever.
    pub background: TaskGroup,
}

/// How a node ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// Every call and every commit came to its end.
    Clean,
    /// The grace period ran out.
    CutShort {
        /// Connections closed over calls that had not ended.
        connections: usize,
        /// Commits given up.
        commits: usize,
    },
    /// A second signal came: nothing was waited for.
    Hurried,
}

impl Ended {
    /// The process's exit code: 0 when clean, 3 when calls may have been cut.
    pub fn exit_code(self) -> u8 {
        match self {
            Ended::Clean => 0,
            Ended::CutShort { .. } | Ended::Hurried => 3,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Clean => f.write_str("clean"),
            Ended::CutShort { connections, commits } => {
                write!(
                    f,
                    "grace period over: {connections} connections and {commits} commits cut"
                )
            }
            Ended::Hurried => f.write_str("second signal: nothing was waited for"),
        }
    }
}

/// Runs until the first signal, then takes the node down. `edge` is the listener: it ends when every call has ended or
/// its grace period, which is the same `grace`, is over, and says how many connections it had to cut.
pub async fn run(
    node: Running,
    edge: impl Future<Output = usize>,
    signals: &mut mpsc::Receiver<()>,
    grace: Duration,
) -> Ended {
    let mut edge = std::pin::pin!(edge);
    tokio::select! { // both arms are cancel safe; an edge that ends by itself has nobody left to serve
        _signal = signals.recv() => {}
        _cut = &mut edge => return go_down(&node, 0, Instant::now() + grace).await,
    }
    let end = Instant::now() + grace;
    node.phase.send_replace(Phase::Draining);
    node.stop_edge.cancel();
    // Whoever reads it can rely on it: nobody is accepted any more.
    tracing::info!(?grace, "stopping");
    let drained = async {
        let connections = edge.await;
        go_down(&node, connections, end).await
    };
    tokio::select! {
        ended = drained => ended,
        Some(()) = signals.recv() => Ended::Hurried,
    }
}

async fn go_down(node: &Running, connections: usize, end: Instant) -> Ended {
    let left = || end.saturating_duration_since(Instant::now());
    // Commits do not heed the stop, only what waits for clients to come back does.
    let commits = node.commits.stop(left().max(STOP_PATIENCE)).await;
    node.flights.stop(left().min(LANDING_PATIENCE)).await;
    node.touches.stop(left().min(TOUCHES_PATIENCE)).await;
    let stuck = node.background.stop(STOP_PATIENCE).await;
    if stuck > 0 {
        tracing::warn!(tasks = stuck, "background tasks did not stop");
    }
    match (connections, commits) {
        (0, 0) => Ended::Clean,
        (connections, commits) => Ended::CutShort { connections, commits },
    }
}

/// SIGTERM and SIGINT, as messages. The first two matter: end, and end at once.
///
/// # Errors
/// If the process cannot listen to its signals.
pub fn signals(tasks: &TaskGroup) -> std::io::Result<mpsc::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = mpsc::channel(2);
    let stop = tasks.stopping();
    drop(tasks.spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = stop.cancelled() => return,
            }
            // A third signal says nothing that the second did not.
            let _ = sender.try_send(());
        }
    }));
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    struct Rig {
        node: Option<Running>,
        phases: watch::Receiver<Phase>,
        stop_edge: CancellationToken,
        commits: TaskGroup,
        signal: mpsc::Sender<()>,
        signals: mpsc::Receiver<()>,
    }

    fn rig() -> Rig {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (stop_edge, commits) = (CancellationToken::new(), TaskGroup::new());
        let (signal, signals) = mpsc::channel(2);
        let node = Running {
            phase,
            stop_edge: stop_edge.clone(),
            commits: commits.clone(),
            flights: TaskGroup::new(),
            touches: TaskGroup::new(),
            background: TaskGroup::new(),
        };
        Rig {
            node: Some(node),
            phases,
            stop_edge,
            commits,
            signal,
            signals,
        }
    }

    /// A listener that drains at once, cutting `cut` connections.
    async fn edge(stop: CancellationToken, cut: usize) -> usize {
        stop.cancelled().await;
        cut
    }

    impl Rig {
        async fn run(&mut self, edge: impl Future<Output = usize>) -> Ended {
            run(self.node.take().unwrap(), edge, &mut self.signals, GRACE).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_signal_drains_and_the_end_is_clean() {
        let mut rig = rig();
        rig.signal.send(()).await.unwrap();
        let edge = edge(rig.stop_edge.clone(), 0);
        assert_eq!(rig.run(edge).await, Ended::Clean);
        assert_eq!(*rig.phases.borrow(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_connection_is_told_by_the_exit_code() {
        let mut rig = rig();
        rig.signal.send(()).await.unwrap();
        let edge = edge(rig.stop_edge.clone(), 2);
        let ended = rig.run(edge).await;
        assert_eq!(
            ended,
            Ended::CutShort {
                connections: 2,
                commits: 0
            }
        );
        assert_eq!(ended.exit_code(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_is_waited_for_and_its_loss_is_not_clean() {
        let mut rig = rig();
        drop(rig.commits.spawn(tokio::time::sleep(GRACE / 2)));
        rig.signal.send(()).await.unwrap();
        let stop = rig.stop_edge.clone();
        assert_eq!(rig.run(edge(stop, 0)).await, Ended::Clean);

        let mut rig = self::rig();
        drop(rig.commits.spawn(std::future::pending::<()>()));
        rig.signal.send(()).await.unwrap();
        let (start, stop) = (Instant::now(), rig.stop_edge.clone());
        assert_eq!(
            rig.run(edge(stop, 0)).await,
            Ended::CutShort {
                connections: 0,
                commits: 1
            }
        );
        assert!(
            start.elapsed() < GRACE + 4 * STOP_PATIENCE,
            "virtual time: {:?}",
            start.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once() {
        let mut rig = rig();
        rig.signal.send(()).await.unwrap();
        rig.signal.send(()).await.unwrap();
        assert_eq!(rig.run(std::future::pending()).await, Ended::Hurried);
        assert_eq!(Ended::Hurried.exit_code(), 3);
    }
}
