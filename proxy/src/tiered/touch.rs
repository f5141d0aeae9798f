//! Touches: Tier 2 is asked about blobs that are read from Tier 1, and about those of which clients are told by its word of
//! before, since its own eviction does not see that. What is worth a touch is decided in [`queue`].

mod queue;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use self::queue::{Hit, Queue};
use super::CallError;
use super::presence::Presence;
use super::writes::Writes;
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::metrics::TouchMetrics;
use crate::task::TaskGroup;
use crate::tier2::health::{Health, Outlook, Service};

/// How long reads are gathered before Tier 2 is told: nothing next to the time after which caches evict.
const GATHER: Duration = Duration::from_secs(1);

/// How long one question may take. Nobody waits for it.
const ASK_PATIENCE: Duration = Duration::from_secs(30);

/// Blobs that are looked at in one turn, before other calls get theirs.
const TURN_BLOBS: usize = 4096;

/// Tells Tier 2 of uses that it does not see. Cheap to clone.
#[derive(Clone)]
pub struct Touches(Option<Arc<Shared>>);

struct Shared {
    queue: Mutex<Queue>,
    presence: Presence,
    writes: Writes,
    outlook: Outlook,
    tasks: TaskGroup,
    metrics: TouchMetrics,
    interval: Duration,
}

impl Touches {
    /// Touches a blob at most once per `interval`; never, if that is zero. What a touch finds lacking is repaired by
    /// `writes`. They are tasks of `tasks`, which tell what has gathered before they end.
    pub fn new(
        interval: Duration,
        writes: Writes,
        outlook: Outlook,
        tasks: TaskGroup,
        metrics: TouchMetrics,
    ) -> Touches {
        if interval.is_zero() {
            return Touches::none();
        }
        Touches(Some(Arc::new(Shared {
            queue: Mutex::new(Queue::new(interval, Instant::now())),
            presence: writes.0.presence.clone(),
            writes,
            outlook,
            tasks,
            metrics,
            interval,
        })))
    }

    /// Tells nobody.
    pub fn none() -> Touches {
        Touches(None)
    }

    /// A client was given bytes out of Tier 1.
    pub(super) fn hit(&self, call: &Call, key: &BlobKey) {
        let Some(shared) = &self.0 else {
            return;
        };
        let now = Instant::now();
        if !shared.queue.lock().is_due(key, now) {
            return;
        }
        let asked_at = shared.presence.evidence(key);
        shared.used(call, [(key.digest, asked_at)], now);
    }

    /// A client was told something that rests on these blobs' being there. For those that Tier 2 was asked about just now,
    /// that was the touch.
    pub(super) async fn relied_on(&self, call: &Call, digests: &[Digest]) {
        let Some(shared) = &self.0 else {
            return;
        };
        // No word of before is as old as the interval.
        if shared.presence.options().lease <= shared.interval {
            return;
        }
        for part in digests.chunks(TURN_BLOBS) {
            let evidence = shared.presence.0.leases.evidence_for(&call.scope, part);
            let known = part.iter().copied().zip(evidence);
            let known = known.filter(|(_, asked_at)| asked_at.is_some());
            shared.used(call, known, Instant::now());
            yield_now().await;
        }
    }
}

impl Shared {
    /// Blobs were used, each with the time of the newest evidence for it.
    fn used(
        self: &Arc<Shared>,
        call: &Call,
        blobs: impl IntoIterator<Item = (Digest, Option<Instant>)>,
        now: Instant,
    ) {
        let mut queue = self.queue.lock();
        for (digest, asked_at) in blobs {
            match queue.hit(call, &digest, asked_at, now) {
                Hit::Ignored | Hit::Queued => {}
                Hit::First => drop(self.tasks.spawn(self.clone().tell())),
                Hit::Dropped => self.metrics.dropped.inc(),
            }
        }
    }

    /// Runs while something is queued.
    async fn tell(self: Arc<Shared>) {
        let stop = self.tasks.stopping();
        loop {
            // A node that goes down tells at once what it has, if it can.
            let _stopping = stop.run_until_cancelled(sleep(GATHER)).await;
            let up = self.is_up();
            if stop.run_until_cancelled(up).await.is_none() && self.outlook.of(Service::Cas) != Health::Up {
                let lost = self.queue.lock().clear();
                self.metrics.dropped.inc_by(lost as u64);
                return;
            }
            let Some((call, digests)) = self.queue.lock().take() else {
                return;
            };
            let count = digests.len() as u64;
            match self.touch(&call, &digests).await {
                Ok(()) => self.metrics.touched.inc_by(count),
                Err(error) => {
                    tracing::debug!(
                        blobs = count,
                        error = &error as &dyn std::error::Error,
                        "touch failed"
                    );
                    self.metrics.dropped.inc_by(count);
                }
            }
        }
    }

    async fn is_up(&self) {
        let mut outlook = self.outlook.clone();
        while self.outlook.of(Service::Cas) != Health::Up {
            outlook.changed().await;
        }
    }

    async fn touch(&self, call: &Call, digests: &[Digest]) -> Result<(), CallError> {
        let call = Call {
            deadline: Some(Instant::now() + ASK_PATIENCE),
            ..call.clone()
        };
        let missing = self.presence.missing(&call, digests, Duration::ZERO).await?;
        let _lacking = self.writes.repair(&call, missing).await;
        Ok(())
    }
}
