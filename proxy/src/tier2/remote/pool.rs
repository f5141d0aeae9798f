//! A few connections for each class of calls, made when they are needed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::body::Body;

use super::connect::{BoxIo, Connect};
use super::connection::{Connection, Patience, Reply, Seat, SendError, Silence};
use super::failure::{ConnectError, TransportError};
use crate::metrics::Tier2Metrics;
use crate::task::TaskGroup;
use crate::tier2::Losses;
use crate::tier2::health::{Outlook, Service};

/// A connect that has not succeeded for so long gets company: a packet lost while Tier 2 was away is sent again by the
/// system only after seconds, and Tier 2's return is to be seen within one.
const REDIAL_INTERVAL: Duration = Duration::from_millis(400);

/// Pause after the first failed connect; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);

/// Longest pause: short enough that a probe of 250 ms can sit it out and still be answered.
const BACKOFF_MAX: Duration = Duration::from_millis(100);

/// Connections that may turn a request away, unseen, before that counts as a failure.
const SENDS_MAX: usize = 3;

/// Calls that do not share connections, so that stalled uploads starve nobody (R12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Uploads,
    Reads,
    Small,
}

/// The connections to Tier 2. Clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    connector: Box<dyn Connect>,
    connect_timeout: Duration,
    uploads: Vec<Arc<Slot>>,
    reads: Vec<Arc<Slot>>,
    small: Vec<Arc<Slot>>,
    outlook: Outlook,
    tasks: TaskGroup,
    metrics: Tier2Metrics,
    /// Connections that stand, whatever their class.
    standing: Arc<AtomicUsize>,
    losses: Losses,
}

/// Room for one connection.
type Slot = Mutex<State>;

enum State {
    Empty {
        failures: u32,
        not_before: Option<Instant>,
    },
    Connecting(Outcome),
    Open(Arc<Connection>),
}

/// What becomes of a connect, for all who wait for it.
type Outcome = watch::Receiver<Option<Result<(), ConnectError>>>;

enum Pick {
    Open(Arc<Connection>),
    Wait(Outcome),
}

impl Pool {
    pub(super) fn new(
        connector: Box<dyn Connect>,
        connections: usize,
        connect_timeout: Duration,
        outlook: Outlook,
        tasks: TaskGroup,
        metrics: Tier2Metrics,
    ) -> Pool {
        let slots = || {
            let empty = || Arc::new(Mutex::new(State::NEW));
            (0..connections.max(1)).map(|_| empty()).collect()
        };
        let shared = Shared {
            connector,
            connect_timeout,
            uploads: slots(),
            reads: slots(),
            small: slots(),
            outlook,
            tasks,
            metrics,
            standing: Arc::default(),
            losses: Losses::default(),
        };
        Pool {
            shared: Arc::new(shared),
        }
    }

    /// Counts how often the last connection was lost.
    pub(super) fn losses(&self) -> Losses {
        self.shared.losses.clone()
    }

    /// A gRPC service over the connections of one class. Takes its [`Patience`] from the request's extensions, and a [`Seat`]
    /// that is to be told of the connection.
    pub(super) fn lane(&self, class: Class) -> Lane {
        Lane {
            pool: self.clone(),
            class,
        }
    }

    /// Sends a request on the connection with the least to do.
    pub(super) async fn send(
        &self,
        class: Class,
        mut request: Request<Body>,
    ) -> Result<Response<Reply>, TransportError> {
        let patience: Patience = request.extensions_mut().remove().unwrap_or_default();
        let seat: Seat = request.extensions_mut().remove().unwrap_or_default();
        for _ in 0..SENDS_MAX {
            let connection = self.connection(class, patience.only_while_up).await?;
            seat.take(&connection);
            match connection.send(request, patience).await {
                Ok(response) => return Ok(response),
                Err(SendError::Failed(error)) => return Err(error),
                Err(SendError::Returned(unsent)) => request = *unsent,
            }
        }
        Err(TransportError::Connect(ConnectError::Closed))
    }

    /// What was heard so far on each connection that stands.
    pub(super) fn listen(&self) -> Vec<Silence> {
        let open = |slot: &Arc<Slot>| match &*slot.lock() {
            State::Open(connection) => Some(Silence::from_now(connection.clone())),
            State::Connecting(_) | State::Empty { .. } => None,
        };
        self.shared.all().filter_map(open).collect()
    }

    async fn connection(
        &self,
        class: Class,
        only_while_up: Option<Service>,
    ) -> Result<Arc<Connection>, TransportError> {
        // Those who waited together choose anew, so that they spread over the connections that came meanwhile.
        for _ in 0..SENDS_MAX {
            let mut outcome = match self.pick(class) {
                Pick::Open(connection) => return Ok(connection),
                Pick::Wait(outcome) => outcome,
            };
            let made = tokio::select! {
                biased;
                made = outcome.wait_for(Option::is_some) => match made {
                    Ok(made) => made.clone().unwrap_or(Err(ConnectError::Stopping)),
                    Err(_stopped) => Err(ConnectError::Stopping),
                },
                () = self.shared.known_down(only_while_up) => Err(ConnectError::KnownDown),
            };
            made.map_err(TransportError::Connect)?;
        }
        Err(TransportError::Connect(ConnectError::Closed))
    }

    /// An idle connection; else the least loaded one, while another is being made if there is room; else one to come.
    fn pick(&self, class: Class) -> Pick {
        let mut open: Option<Arc<Connection>> = None;
        let mut coming = None;
        let mut room = None;
        for slot in self.shared.slots(class) {
            let mut state = slot.lock();
            if matches!(&*state, State::Open(connection) if !connection.usable()) {
                *state = State::NEW;
            }
            match &*state {
                State::Open(connection) => {
                    if open.as_ref().is_none_or(|best| connection.load() < best.load()) {
                        open = Some(connection.clone());
                    }
                }
                State::Connecting(outcome) => coming = Some(outcome.clone()),
                State::Empty { .. } => room = Some(slot),
            }
        }
        match (open, room, coming) {
            (Some(connection), Some(slot), None) if connection.load() > 0 => {
                drop(self.start(slot));
                Pick::Open(connection)
            }
            (Some(connection), _, _) => Pick::Open(connection),
            (None, Some(slot), _) => self.start(slot),
            (None, None, Some(outcome)) => Pick::Wait(outcome),
            (None, None, None) => unreachable!("a slot is empty, coming or open"),
        }
    }

    /// Begins to connect, if nobody did meanwhile. A task does it: callers come and go.
    fn start(&self, slot: &Arc<Slot>) -> Pick {
        let mut state = slot.lock();
        let (failures, not_before) = match &*state {
            State::Open(connection) => return Pick::Open(connection.clone()),
            State::Connecting(outcome) => return Pick::Wait(outcome.clone()),
            State::Empty { failures, not_before } => (*failures, *not_before),
        };
        let (sender, outcome) = watch::channel(None);
        *state = State::Connecting(outcome.clone());
        drop(state);
        let (shared, slot) = (self.shared.clone(), slot.clone());
        let connecting = async move {
            if let Some(at) = not_before {
                tokio::time::sleep_until(at).await;
            }
            let made = shared.connect().await;
            if made.is_ok() {
                shared.forgive();
            }
            *slot.lock() = match &made {
                Ok(connection) => State::Open(connection.clone()),
                Err(error) => {
                    tracing::debug!(%error, "no connection to tier 2");
                    if shared.standing.load(Ordering::Acquire) == 0 {
                        shared.losses.none_made();
                    }
                    State::Empty {
                        failures: failures.saturating_add(1),
                        not_before: Some(Instant::now() + backoff(failures)),
                    }
                }
            };
            sender.send_replace(Some(made.map(drop)));
        };
        let stop = self.shared.tasks.stopping();
        drop(
            self.shared
                .tasks
                .spawn(async move { stop.run_until_cancelled(connecting).await }),
        );
        Pick::Wait(outcome)
    }
}

impl State {
    const NEW: State = State::Empty {
        failures: 0,
        not_before: None,
    };
}

impl Shared {
    fn slots(&self, class: Class) -> &[Arc<Slot>] {
        match class {
            Class::Uploads => &self.uploads,
            Class::Reads => &self.reads,
            Class::Small => &self.small,
        }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Slot>> {
        self.uploads.iter().chain(&self.reads).chain(&self.small)
    }

    /// Tier 2 can be reached: no other connect has to make a pause first.
    fn forgive(&self) {
        for slot in self.all() {
            let mut state = slot.lock();
            if matches!(&*state, State::Empty { .. }) {
                *state = State::NEW;
            }
        }
    }

    async fn known_down(&self, service: Option<Service>) {
        match service {
            Some(service) => self.outlook.down(service).await,
            None => std::future::pending().await,
        }
    }

    async fn connect(&self) -> Result<Arc<Connection>, ConnectError> {
        let started = Instant::now();
        let io = tokio::time::timeout(self.connect_timeout, dial(&*self.connector)).await;
        let io = io
            .map_err(|_elapsed| ConnectError::Timeout(self.connect_timeout))?
            .map_err(|error| ConnectError::Io(Arc::new(error)))?;
        let opened = Connection::open(io, self.tasks.clone()).await;
        let (connection, driver) = opened.map_err(|error| ConnectError::Handshake(Arc::new(error)))?;
        self.metrics
            .connect_seconds
            .observe(started.elapsed().as_secs_f64());
        let (shown, standing, losses) = (
            self.metrics.connections.clone(),
            self.standing.clone(),
            self.losses.clone(),
        );
        shown.inc();
        standing.fetch_add(1, Ordering::AcqRel);
        let stop = self.tasks.stopping();
        drop(self.tasks.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(driver).await {
                tracing::debug!(%error, "a connection to tier 2 was lost");
            }
            shown.dec();
            if standing.fetch_sub(1, Ordering::AcqRel) == 1 {
                losses.add();
            }
        }));
        Ok(connection)
    }
}

/// Connects; the first of several tries wins, and the first error ends it.
async fn dial(connector: &dyn Connect) -> std::io::Result<BoxIo> {
    let mut tries = FuturesUnordered::new();
    loop {
        tries.push(connector.connect());
        if let Ok(Some(done)) = tokio::time::timeout(REDIAL_INTERVAL, tries.next()).await {
            return done;
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST
        .saturating_mul(1 << failures.min(8))
        .min(BACKOFF_MAX)
}

/// See [`Pool::lane`].
#[derive(Clone)]
pub(super) struct Lane {
    pool: Pool,
    class: Class,
}

impl tower::Service<Request<Body>> for Lane {
    type Response = Response<Reply>;
    type Error = TransportError;
    type Future = BoxFuture<'static, Result<Response<Reply>, TransportError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (pool, class) = (self.pool.clone(), self.class);
        Box::pin(async move { pool.send(class, request).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_shorter_than_a_probe() {
        let pauses: Vec<_> = [0, 1, 2, 3, 4, u32::MAX].map(|n| backoff(n).as_millis()).into();
        assert_eq!(pauses, [10, 20, 40, 80, 100, 100]);
    }
}
