//! Whether Tier 2 answers: doubted by calls, decided by a probe.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prometheus::IntGauge;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};
use crate::task::TaskGroup;

/// How long a probe may take (R13).
const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// From the start of one probe to the start of the next while Tier 2 is down (R13).
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// From the start of one probe to the start of the next while Tier 2 is up: calls may fail by the thousand beside probes
/// that succeed.
const DOUBT_INTERVAL: Duration = Duration::from_millis(50);

/// Whether Tier 2 answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last probe was answered, or nothing went wrong yet.
    Up,
    /// The last probe was not answered.
    Down {
        /// When the first probe began that was not answered.
        since: Instant,
    },
}

/// Watches what becomes of calls. One that fails for want of an answer starts a probe; only the probe changes the
/// [`Health`]. Calls are passed on whatever the health is.
#[derive(Clone, Debug)]
pub struct Watched<T> {
    inner: Arc<T>,
    doubts: Arc<Notify>,
    health: watch::Receiver<Health>,
}

impl<T: Tier2> Watched<T> {
    /// Watches `inner`; probes are a task of `tasks`. `up` is 1 while the health is [`Health::Up`].
    pub fn new(inner: T, tasks: &TaskGroup, up: IntGauge) -> Watched<T> {
        let inner = Arc::new(inner);
        let doubts = Arc::new(Notify::new());
        let (sender, health) = watch::channel(Health::Up);
        up.set(1);
        let stop = tasks.stopping();
        let probes = probe_in_doubt(inner.clone(), doubts.clone(), sender, up);
        drop(tasks.spawn(async move { stop.run_until_cancelled(probes).await }));
        Watched {
            inner,
            doubts,
            health,
        }
    }

    /// The health from now on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.clone()
    }

    fn note<A>(&self, result: Result<A, Tier2Error>) -> Result<A, Tier2Error> {
        if let Err(error) = &result {
            doubt(&self.doubts, error);
        }
        result
    }

    fn note_all<A>(&self, results: Vec<Result<A, Tier2Error>>) -> Vec<Result<A, Tier2Error>> {
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            doubt(&self.doubts, error);
        }
        results
    }
}

fn doubt(doubts: &Notify, error: &Tier2Error) {
    match error {
        Tier2Error::Down(_) | Tier2Error::Stalled => doubts.notify_one(),
        Tier2Error::NotFound
        | Tier2Error::Answered(_)
        | Tier2Error::Corrupt(_)
        | Tier2Error::Short
        | Tier2Error::DeadlineExceeded
        | Tier2Error::Aborted => {}
    }
}

/// Runs until dropped.
async fn probe_in_doubt<T: Tier2>(
    tier2: Arc<T>,
    doubts: Arc<Notify>,
    health: watch::Sender<Health>,
    up: IntGauge,
) {
    let mut monitor = Monitor::default();
    loop {
        match monitor.next_probe() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => {
                doubts.notified().await;
                monitor.doubt(Instant::now());
                continue;
            }
        }
        let started = Instant::now();
        let deadline = started + PROBE_TIMEOUT;
        let answer = tokio::time::timeout_at(deadline, tier2.probe(deadline)).await;
        let answered = matches!(answer, Ok(Ok(())));
        monitor.probed(started, answered);
        let before = health.send_replace(monitor.health);
        match (before, monitor.health) {
            (Health::Up, Health::Down { .. }) => tracing::warn!(?answer, "tier 2 is down"),
            (Health::Down { since }, Health::Up) => {
                tracing::info!(down_seconds = since.elapsed().as_secs_f64(), "tier 2 is back");
            }
            (Health::Up, Health::Up) | (Health::Down { .. }, Health::Down { .. }) => {}
        }
        up.set(i64::from(answered));
    }
}

/// When to probe, and what a probe means. Pure.
#[derive(Debug)]
struct Monitor {
    health: Health,
    doubted_at: Option<Instant>,
    probed_at: Option<Instant>,
}

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor {
            health: Health::Up,
            doubted_at: None,
            probed_at: None,
        }
    }
}

impl Monitor {
    /// A call went without an answer.
    fn doubt(&mut self, at: Instant) {
        self.doubted_at = Some(at);
    }

    /// When the next probe is due: while down always, while up if somebody doubts it.
    fn next_probe(&self) -> Option<Instant> {
        let not_before = |interval| self.probed_at.map(|at| at + interval);
        match (self.health, self.doubted_at) {
            (Health::Down { .. }, _) => not_before(PROBE_INTERVAL),
            (Health::Up, Some(doubted_at)) => {
                Some(not_before(DOUBT_INTERVAL).map_or(doubted_at, |at| at.max(doubted_at)))
            }
            (Health::Up, None) => None,
        }
    }

    /// A probe that began at `started` has ended.
    fn probed(&mut self, started: Instant, answered: bool) {
        self.health = match (self.health, answered) {
            (_, true) => Health::Up,
            (Health::Up, false) => Health::Down { since: started },
            (Health::Down { since }, false) => Health::Down { since },
        };
        self.doubted_at = None;
        self.probed_at = Some(started);
    }
}

/// A read that may break midway.
struct WatchedRead {
    stream: BlobStream,
    doubts: Arc<Notify>,
}

impl Stream for WatchedRead {
    type Item = Result<Bytes, Tier2Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            doubt(&self.doubts, error);
        }
        next
    }
}

#[async_trait]
impl<T: Tier2> Tier2 for Watched<T> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        let stream = self.note(self.inner.read(call, digest, range).await)?;
        let doubts = self.doubts.clone();
        Ok(Box::pin(WatchedRead { stream, doubts }))
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        self.note(self.inner.write(call, digest, body).await)
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.note(self.inner.find_missing(call, digests).await)
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        self.note_all(self.inner.read_batch(call, digests).await)
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        self.note_all(self.inner.write_batch(call, blobs).await)
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        self.note(self.inner.action(call, key).await)
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        self.note(self.inner.put_action(call, key, result).await)
    }

    async fn probe(&self, deadline: Instant) -> Result<(), Tier2Error> {
        self.inner.probe(deadline).await
    }

    fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.inner.offers(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Cause, Scope, Via};
    use crate::digest::Function;
    use crate::metrics::Metrics;
    use crate::tier2::memory::MemoryTier2;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_probe_changes_the_health() {
        let start = Instant::now();
        let mut monitor = Monitor::default();
        assert_eq!(monitor.next_probe(), None);
        monitor.doubt(start);
        assert_eq!(monitor.health, Health::Up);
        assert_eq!(monitor.next_probe(), Some(start));
        monitor.probed(start, false);
        assert_eq!(monitor.health, Health::Down { since: start });
        assert_eq!(monitor.next_probe(), Some(after(start, 250)));
        monitor.probed(after(start, 250), false);
        assert_eq!(monitor.health, Health::Down { since: start });
        monitor.probed(after(start, 500), true);
        assert_eq!((monitor.health, monitor.next_probe()), (Health::Up, None));
    }

    #[tokio::test(start_paused = true)]
    async fn doubts_beside_probes_that_succeed_are_probed_at_a_bounded_pace() {
        let start = Instant::now();
        let mut monitor = Monitor::default();
        monitor.doubt(start);
        monitor.probed(start, true);
        monitor.doubt(after(start, 1));
        assert_eq!(monitor.next_probe(), Some(after(start, 50)));
    }

    fn call() -> Call {
        Call {
            scope: Scope::new(""),
            instance: InstanceName::parse("").unwrap(),
            deadline: None,
            cause: Cause::Node,
            via: Via::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_noticed_by_a_call_and_its_end_by_the_probe() {
        let (tasks, metrics, memory) = (TaskGroup::new(), Metrics::new(), Arc::new(MemoryTier2::default()));
        let watched = Watched::new(memory.clone(), &tasks, metrics.tier2.up.clone());
        let mut health = watched.health();
        assert_eq!(metrics.tier2.up.get(), 1);

        memory.fail_with(Some(Tier2Error::Stalled));
        let digest = Digest::of(Function::Sha256, b"hello");
        assert!(watched.find_missing(&call(), &[digest]).await.is_err());
        let down = *health.wait_for(|health| *health != Health::Up).await.unwrap();
        assert_eq!(
            down,
            Health::Down {
                since: Instant::now()
            },
            "at once"
        );
        assert_eq!(metrics.tier2.up.get(), 0);

        memory.fail_with(None);
        let returned = Instant::now();
        let up = *health.wait_for(|health| *health == Health::Up).await.unwrap();
        assert_eq!(up, Health::Up);
        assert!(returned.elapsed() <= PROBE_INTERVAL);
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_break_midway_is_a_doubt_and_an_answer_is_none() {
        let (tasks, metrics, memory) = (TaskGroup::new(), Metrics::new(), Arc::new(MemoryTier2::new(1)));
        let watched = Watched::new(memory.clone(), &tasks, metrics.tier2.up.clone());
        let mut health = watched.health();
        let digest = Digest::of(Function::Sha256, b"hello");
        let range = ByteRange::whole(&digest);
        assert!(watched.read(&call(), &digest, range).await.is_err(), "absent");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!health.has_changed().unwrap(), "no probe ran");

        memory.plant(call().blob(&digest), &b"hello"[..]);
        let mut stream = watched.read(&call(), &digest, range).await.unwrap();
        assert!(stream.next().await.unwrap().is_ok());
        memory.fail_with(Some(Tier2Error::Stalled));
        assert!(stream.next().await.unwrap().is_err());
        health.wait_for(|health| *health != Health::Up).await.unwrap();
        assert_eq!(tasks.stop(Duration::from_secs(1)).await, 0);
    }
}
