//! Repair (R15): what Tier 2 lost and Tier 1 still holds is uploaded again, and is present once Tier 2 has acknowledged it.
//! How much of it at a time, and how fast, is decided in [`plan`].

mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use self::plan::Pace;
use super::session::{Origin, Session};
use super::source::READ_CHUNK_BYTES;
use super::upload::{Pushed, Upload};
use super::writes::{Inner, Writes};
use crate::blob::ByteRange;
use crate::call::{BlobKey, Call};
use crate::digest::Digest;

/// How long a question about presence waits for repairs. A client that is told "missing" uploads the blob itself, and joins
/// the repair if that is still on.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long one repair may take, beside the time that its bytes are worth: an upload with its commit.
const REPAIR_PATIENCE: Duration = Duration::from_secs(120);

/// What the slowest Tier 2 takes that is worth repairing.
const SLOWEST_BYTES_PER_SECOND: u64 = 5_000_000;

/// Repairs that are planned or on. A blob beyond them is missing until it is asked about again.
const REPAIRS_MAX: usize = 4096;

/// Repairs that read Tier 1 and feed Tier 2 at once: enough to hide the round trips of small blobs.
const AT_ONCE: usize = 16;

/// The repairs of a node.
pub(super) struct Repairs {
    under_way: Mutex<HashMap<BlobKey, Outcome>>,
    pace: Mutex<Pace>,
    places: Semaphore,
    is_on: bool,
}

/// Whether the blob is in Tier 2 now, for all who wait for it.
type Outcome = watch::Receiver<Option<bool>>;

impl Repairs {
    /// None under way.
    pub(super) fn new(is_on: bool) -> Repairs {
        Repairs {
            under_way: Mutex::default(),
            pace: Mutex::new(Pace::new(Instant::now())),
            places: Semaphore::new(AT_ONCE),
            is_on,
        }
    }
}

impl Writes {
    /// Repairs those of `missing` that Tier 1 holds, and returns those that Tier 2 still lacks, in their order. Waits a few
    /// seconds; repairs go on behind. A blob whose copy in Tier 2 is bad is left to its clients (R10).
    ///
    /// # Cancel safety
    /// Dropping the future stops no repair.
    pub async fn repair(&self, call: &Call, missing: Vec<Digest>) -> Vec<Digest> {
        let inner = &self.0;
        if !inner.repairs.is_on || missing.is_empty() || inner.tasks.stopping().is_cancelled() {
            return missing;
        }
        let held = inner.tier1.holds(&call.scope, &missing);
        let lost = missing.iter().zip(held).filter(|(_, held)| *held);
        let outcomes: Vec<(Digest, Outcome)> = lost
            .filter_map(|(digest, _)| Some((*digest, inner.begin_repair(call, *digest)?)))
            .collect();
        if outcomes.is_empty() {
            return missing;
        }
        let patience = Instant::now() + call.time_left(ANSWER_PATIENCE);
        let waits = outcomes.into_iter().map(|(digest, mut outcome)| async move {
            let repaired = tokio::time::timeout_at(patience, outcome.wait_for(Option::is_some)).await;
            let is_there = matches!(repaired, Ok(Ok(known)) if *known == Some(true));
            is_there.then_some(digest)
        });
        let repaired: HashSet<Digest> = join_all(waits).await.into_iter().flatten().collect();
        let is_lacking = |digest: &Digest| !repaired.contains(digest);
        missing.into_iter().filter(is_lacking).collect()
    }
}

impl Inner {
    /// The repair that is on, or a new one; `None` if there is no room for it now.
    fn begin_repair(self: &Arc<Inner>, call: &Call, digest: Digest) -> Option<Outcome> {
        let key = call.blob(&digest);
        if self.bad.is_bad(&key) {
            return None;
        }
        let (told, outcome, delay) = {
            let mut under_way = self.repairs.under_way.lock();
            if let Some(outcome) = under_way.get(&key) {
                return Some(outcome.clone());
            }
            if under_way.len() >= REPAIRS_MAX {
                self.metrics.repairs.with_label_values(&["refused"]).inc();
                return None;
            }
            let Some(delay) = self.repairs.pace.lock().take(digest.size_bytes(), Instant::now()) else {
                self.metrics.repairs.with_label_values(&["refused"]).inc();
                return None;
            };
            let (told, outcome) = watch::channel(None);
            under_way.insert(key.clone(), outcome.clone());
            (told, outcome, delay)
        };
        let repair = Repair {
            inner: self.clone(),
            call: call.for_node(),
            key,
            told,
        };
        drop(self.tasks.spawn(repair.run(jittered(delay))));
        Some(outcome)
    }
}

/// Up to a quarter more, so that nodes which lost the same Tier 2 do not come in step.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..1.25))
}

/// One repair. Dropped, it tells whoever waits that the blob is not there.
struct Repair {
    inner: Arc<Inner>,
    call: Call,
    key: BlobKey,
    told: watch::Sender<Option<bool>>,
}

impl Repair {
    async fn run(self, delay: Duration) {
        let stop = self.inner.tasks.stopping();
        let begun = Instant::now();
        let ready = async {
            sleep(delay).await;
            self.inner.repairs.places.acquire().await.ok()
        };
        let Some(Some(_place)) = stop.run_until_cancelled(ready).await else {
            return;
        };
        // Somebody may have uploaded it meanwhile.
        let evidence = self.inner.presence.evidence(&self.key);
        let is_there = evidence.is_some_and(|sent_at| sent_at >= begun) || {
            let worth = Duration::from_secs(self.key.digest.size_bytes() / SLOWEST_BYTES_PER_SECOND);
            let uploaded = timeout(REPAIR_PATIENCE + worth, self.upload()).await;
            uploaded.unwrap_or(false)
        };
        let outcome = if is_there { "ok" } else { "failed" };
        let metrics = &self.inner.metrics;
        metrics.repairs.with_label_values(&[outcome]).inc();
        if is_there {
            metrics.repaired_bytes.inc_by(self.key.digest.size_bytes());
            tracing::debug!(digest = %self.key.digest, "tier 2 lacked a blob that tier 1 holds; it has it again");
        }
        self.inner.repairs.under_way.lock().remove(&self.key);
        self.told.send_replace(Some(is_there));
    }

    /// Sends Tier 1's copy as one more client of the blob's contest. It is hashed on its way, as a client's is.
    async fn upload(&self) -> bool {
        let inner = &self.inner;
        let (Some(pinned), Ok(permit)) = (inner.tier1.lookup(&self.key), inner.admit()) else {
            return false;
        };
        let name = (self.key.scope.clone(), "repair".into());
        let session = Session::new(
            name,
            self.key.clone(),
            self.call.clone(),
            Origin::Repair,
            false,
            permit,
        );
        let session = Arc::new(session);
        inner.join(session.clone());
        let mut upload = Upload::new(inner.clone(), session, 0);
        let mut rest = ByteRange::whole(&self.key.digest);
        while !rest.is_empty() {
            let bytes = match pinned.read(rest, READ_CHUNK_BYTES).await {
                Ok(bytes) if !bytes.is_empty() => bytes,
                Ok(_) | Err(_) => {
                    inner.tier1.discard(&pinned);
                    return false;
                }
            };
            rest = rest.skip(bytes.len() as u64);
            match upload.push(bytes).await {
                Ok(Pushed::Taken) => {}
                Ok(Pushed::Acknowledged) => return true,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(digest = %self.key.digest, error, "repair failed");
                    return false;
                }
            }
        }
        upload.finish().await.is_ok()
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.inner.repairs.under_way.lock().remove(&self.key);
        self.told.send_if_modified(|told| {
            let untold = told.is_none();
            told.get_or_insert(false);
            untold
        });
    }
}
