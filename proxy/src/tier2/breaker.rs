//! Keeps calls from a Tier 2 that is known to be down, and finds out when it is (R13).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use prometheus::IntGaugeVec;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::{Announcer, Health, Monitor, Outlook, PROBE_TIMEOUT, Service};
use super::{Ack, BlobStream, Losses, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};
use crate::task::TaskGroup;

/// From one doubt for want of connections to the next. Tier 2 may close every connection when it is idle, or after every
/// call: that is no reason to ask it without a pause.
const LOSS_INTERVAL: Duration = Duration::from_secs(1);

/// Fails calls at once while their service is known to be down.
///
/// A call that goes without an answer, or is answered with UNAVAILABLE, starts a probe, and only the probe changes the
/// [`Health`]. Such a call fails when the probe has ended: whoever gets the error finds in the [`Outlook`] whether it was an
/// accident or an outage. Streams already under way go on, and end by themselves. The loss of the last connection starts a
/// probe as well, so that a node that nobody asks knows of an outage before somebody does.
///
/// Wrap what talks to Tier 2, below what splits batches and what repeats calls. A store that cannot be out of reach needs
/// none.
#[derive(Clone, Debug)]
pub struct Breaker<T> {
    inner: Arc<T>,
    outlook: Outlook,
    doubts: Doubts,
}

impl<T: Tier2> Breaker<T> {
    /// Stands before `inner`, of whose connections `losses` tells; what it finds out goes to `announcer`, whose other end is
    /// `outlook`. Probes are tasks of `tasks`. `up`, by service, is 1 while it answers.
    pub fn new(
        inner: T,
        (announcer, outlook): (Announcer, Outlook),
        losses: &Losses,
        tasks: &TaskGroup,
        up: &IntGaugeVec,
    ) -> Breaker<T> {
        let (inner, announcer) = (Arc::new(inner), Arc::new(announcer));
        let doubts = Doubts {
            cas: Doubt::new(),
            action_cache: Doubt::new(),
        };
        for service in Service::ALL {
            let prober = Prober {
                tier2: inner.clone(),
                service,
                doubt: doubts.of(service).clone(),
                announcer: announcer.clone(),
                up: up.with_label_values(&[service.label()]),
            };
            prober.up.set(1);
            let stop = tasks.stopping();
            drop(tasks.spawn(async move { stop.run_until_cancelled(prober.run()).await }));
        }
        let (stop, doubt) = (
            tasks.stopping(),
            doubts.clone().raise_at(losses.none_left(), outlook.clone()),
        );
        drop(tasks.spawn(async move { stop.run_until_cancelled(doubt).await }));
        Breaker {
            inner,
            outlook,
            doubts,
        }
    }

    /// Refuses a call to a service that is known to be down.
    fn admit(&self, service: Service) -> Result<(), Tier2Error> {
        match self.outlook.of(service) {
            Health::Up => Ok(()),
            Health::Down { .. } => Err(Tier2Error::known_down()),
        }
    }

    /// Passes a result on, once it is known whether the failure in it is an outage.
    async fn settle<A>(
        &self,
        service: Service,
        call: &Call,
        result: Result<A, Tier2Error>,
    ) -> Result<A, Tier2Error> {
        if let Err(error) = &result {
            self.doubt(service, call, error).await;
        }
        result
    }

    async fn settle_all<A>(
        &self,
        service: Service,
        call: &Call,
        results: Vec<Result<A, Tier2Error>>,
    ) -> Vec<Result<A, Tier2Error>> {
        let mut errors = results.iter().filter_map(|result| result.as_ref().err());
        if let Some(error) = errors.find(|error| error.is_outage_like()) {
            self.doubt(service, call, error).await;
        }
        results
    }

    async fn doubt(&self, service: Service, call: &Call, error: &Tier2Error) {
        let Some(raised) = self.doubts.raise(service, error) else {
            return;
        };
        let settled = self.doubts.of(service).settled(raised);
        let settled = async {
            tokio::select! {
                () = settled => {}
                () = self.outlook.down(service) => {}
            }
        };
        match call.deadline {
            // Late or not, the call has failed.
            Some(deadline) => drop(tokio::time::timeout_at(deadline, settled).await),
            None => settled.await,
        }
    }
}

/// What calls make of each service.
#[derive(Clone, Debug)]
struct Doubts {
    cas: Doubt,
    action_cache: Doubt,
}

impl Doubts {
    fn of(&self, service: Service) -> &Doubt {
        match service {
            Service::Cas => &self.cas,
            Service::ActionCache => &self.action_cache,
        }
    }

    /// Notes what an error says. `None`: nothing against Tier 2. An answer speaks for its own service; silence and broken
    /// connections for all that is at the same address.
    fn raise(&self, service: Service, error: &Tier2Error) -> Option<u64> {
        if !error.is_outage_like() {
            return None;
        }
        if matches!(error, Tier2Error::Answered(_)) {
            return Some(self.of(service).raise());
        }
        let raised = (self.cas.raise(), self.action_cache.raise());
        Some(match service {
            Service::Cas => raised.0,
            Service::ActionCache => raised.1,
        })
    }

    /// Doubts in both services whenever no connection is left. Runs until dropped.
    async fn raise_at(self, mut none_left: watch::Receiver<()>, outlook: Outlook) {
        let mut not_before = Instant::now();
        while none_left.changed().await.is_ok() {
            // In an outage probes make connections and lose them, and go on anyway.
            if Service::ALL
                .map(|service| outlook.of(service))
                .iter()
                .all(|health| *health != Health::Up)
            {
                continue;
            }
            tokio::time::sleep_until(not_before).await;
            not_before = Instant::now() + LOSS_INTERVAL;
            let raised = (self.cas.raise(), self.action_cache.raise());
            tokio::join!(self.cas.settled(raised.0), self.action_cache.settled(raised.1));
        }
    }
}

/// Doubts in one service, numbered from 1.
#[derive(Clone, Debug)]
struct Doubt {
    raised: watch::Sender<u64>,
    /// Up to here they are settled by probes that began after them.
    settled: watch::Sender<u64>,
}

impl Doubt {
    fn new() -> Doubt {
        Doubt {
            raised: watch::channel(0).0,
            settled: watch::channel(0).0,
        }
    }

    fn raise(&self) -> u64 {
        let mut number = 0;
        self.raised.send_modify(|raised| {
            *raised += 1;
            number = *raised;
        });
        number
    }

    /// Waits until a doubt is settled.
    async fn settled(&self, number: u64) {
        let mut settled = self.settled.subscribe();
        // Its sender is held here.
        let _settled = settled.wait_for(|settled| *settled >= number).await;
    }
}

/// The task that probes one service.
struct Prober<T> {
    tier2: Arc<T>,
    service: Service,
    doubt: Doubt,
    announcer: Arc<Announcer>,
    up: prometheus::IntGauge,
}

impl<T: Tier2> Prober<T> {
    /// Runs until dropped.
    async fn run(self) {
        let mut monitor = Monitor::default();
        let mut raised = self.doubt.raised.subscribe();
        let mut settled = 0;
        loop {
            match monitor.next_probe() {
                Some(at) => tokio::time::sleep_until(at).await,
                None => {
                    if raised.wait_for(|raised| *raised > settled).await.is_err() {
                        return;
                    }
                    monitor.doubt(Instant::now());
                    continue;
                }
            }
            settled = *raised.borrow_and_update();
            self.probe(&mut monitor).await;
            self.doubt.settled.send_replace(settled);
        }
    }

    async fn probe(&self, monitor: &mut Monitor) {
        let started = Instant::now();
        let deadline = started + PROBE_TIMEOUT;
        let answer = tokio::time::timeout_at(deadline, self.tier2.probe(self.service, deadline)).await;
        let answered = matches!(answer, Ok(Ok(())));
        monitor.probed(started, answered);
        self.up.set(i64::from(answered));
        let service = self.service.label();
        match (
            self.announcer.announce(self.service, monitor.health()),
            monitor.health(),
        ) {
            (Health::Up, Health::Down { .. }) => tracing::warn!(service, ?answer, "tier 2 is down"),
            (Health::Down { since }, Health::Up) => {
                let down_seconds = since.elapsed().as_secs_f64();
                tracing::info!(service, down_seconds, "tier 2 is back");
            }
            (Health::Up, Health::Up) | (Health::Down { .. }, Health::Down { .. }) => {}
        }
    }
}

/// A read that may break midway. Whoever goes on with it elsewhere meets the breaker again, so nobody waits here.
struct WatchedRead {
    stream: BlobStream,
    doubts: Doubts,
}

impl Stream for WatchedRead {
    type Item = Result<Bytes, Tier2Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        if let Poll::Ready(Some(Err(error))) = &next {
            self.doubts.raise(Service::Cas, error);
        }
        next
    }
}

#[async_trait]
impl<T: Tier2> Tier2 for Breaker<T> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        self.admit(Service::Cas)?;
        let opened = self.inner.read(call, digest, range).await;
        let stream = self.settle(Service::Cas, call, opened).await?;
        let doubts = self.doubts.clone();
        Ok(Box::pin(WatchedRead { stream, doubts }))
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        self.admit(Service::Cas)?;
        let written = self.inner.write(call, digest, body).await;
        self.settle(Service::Cas, call, written).await
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.admit(Service::Cas)?;
        let found = self.inner.find_missing(call, digests).await;
        self.settle(Service::Cas, call, found).await
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        if let Err(down) = self.admit(Service::Cas) {
            return vec![Err(down); digests.len()];
        }
        let read = self.inner.read_batch(call, digests).await;
        self.settle_all(Service::Cas, call, read).await
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        if let Err(down) = self.admit(Service::Cas) {
            return vec![Err(down); blobs.len()];
        }
        let written = self.inner.write_batch(call, blobs).await;
        self.settle_all(Service::Cas, call, written).await
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        self.admit(Service::ActionCache)?;
        let found = self.inner.action(call, key).await;
        self.settle(Service::ActionCache, call, found).await
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        self.admit(Service::ActionCache)?;
        let written = self.inner.put_action(call, key, result).await;
        self.settle(Service::ActionCache, call, written).await
    }

    async fn probe(&self, service: Service, deadline: Instant) -> Result<(), Tier2Error> {
        self.inner.probe(service, deadline).await
    }

    fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.inner.offers(instance)
    }
}

#[cfg(test)]
mod tests;
