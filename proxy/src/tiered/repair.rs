//! Repair (R15): what Tier 2 lost and Tier 1 still holds is uploaded again, and is present once Tier 2 has acknowledged it.
//! Small blobs go together, in batches; others, and one that is alone, as one more client of the contest for the blob. How
//! much of it at a time, and how fast, is decided in [`plan`].

mod plan;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use self::plan::{Pace, in_uploads};
use super::session::{Origin, Session};
use super::source::READ_CHUNK_BYTES;
use super::upload::{Pushed, Upload};
use super::writes::{Inner, Writes};
use crate::blob::{ByteRange, Verified};
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::tier1::{Pinned, Tier1Error};

/// How long a question about presence waits for repairs. A client that is told "missing" uploads the blob itself, and joins
/// the repair if that is still on.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// How long one repair may take, beside the time that its bytes are worth: an upload with its commit.
const REPAIR_PATIENCE: Duration = Duration::from_secs(120);

/// What the slowest Tier 2 takes that is worth repairing.
const SLOWEST_BYTES_PER_SECOND: u64 = 5_000_000;

/// Repairs that are planned or on. A blob beyond them is missing until it is asked about again.
const REPAIRS_MAX: usize = 4096;

/// Uploads of repairs that read Tier 1 and feed Tier 2 at once: enough to hide their round trips. Of those that are batches
/// each holds its blobs, some MiB.
const AT_ONCE: usize = 16;

/// Blobs of one batch that are read from disk at the same time.
const DISK_AT_ONCE: usize = 8;

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
        let mut outcomes: Vec<(Digest, Outcome)> = Vec::new();
        let mut begun = Vec::new();
        for (digest, _) in lost {
            let outcome = inner.begin_repair(call, *digest, &mut begun);
            outcomes.extend(outcome.map(|outcome| (*digest, outcome)));
        }
        if outcomes.is_empty() {
            return missing;
        }
        for repairs in in_uploads(begun, |(repair, _)| repair.key.digest.size_bytes()) {
            drop(inner.tasks.spawn(run(inner.clone(), call.for_node(), repairs)));
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
    /// The repair that is on, or a new one, which joins those that have `begun` with the time that it has to wait; `None` if
    /// there is no room for it now.
    fn begin_repair(
        self: &Arc<Inner>,
        call: &Call,
        digest: Digest,
        begun: &mut Vec<(Repair, Duration)>,
    ) -> Option<Outcome> {
        let key = call.blob(&digest);
        if self.bad.is_bad(&key) {
            return None;
        }
        let mut under_way = self.repairs.under_way.lock();
        if let Some(outcome) = under_way.get(&key) {
            return Some(outcome.clone());
        }
        let delay = match under_way.len() < REPAIRS_MAX {
            true => self.repairs.pace.lock().take(digest.size_bytes(), Instant::now()),
            false => None,
        };
        let Some(delay) = delay else {
            self.metrics.repairs.with_label_values(&["refused"]).inc();
            return None;
        };
        let (told, outcome) = watch::channel(None);
        under_way.insert(key.clone(), outcome.clone());
        drop(under_way);
        let repair = Repair {
            inner: self.clone(),
            key,
            told,
        };
        begun.push((repair, delay));
        Some(outcome)
    }
}

/// Up to a quarter more, so that nodes which lost the same Tier 2 do not come in step.
fn jittered(delay: Duration) -> Duration {
    delay.mul_f64(rand::random_range(1.0..1.25))
}

/// Repairs that are one upload, when their time has come.
async fn run(inner: Arc<Inner>, call: Call, repairs: Vec<(Repair, Duration)>) {
    let stop = inner.tasks.stopping();
    let begun = Instant::now();
    // The pace counts one after another: the last one's time is that of all.
    let delay = repairs.iter().map(|(_, delay)| *delay).max().unwrap_or_default();
    let ready = async {
        sleep(jittered(delay)).await;
        inner.repairs.places.acquire().await.ok()
    };
    let Some(Some(_place)) = stop.run_until_cancelled(ready).await else {
        return;
    };
    // Somebody may have uploaded some of them meanwhile.
    let is_there = |repair: &Repair| {
        let evidence = inner.presence.evidence(&repair.key);
        evidence.is_some_and(|sent_at| sent_at >= begun)
    };
    let (there, lost): (Vec<Repair>, Vec<Repair>) =
        repairs.into_iter().map(|(repair, _)| repair).partition(is_there);
    there.into_iter().for_each(|repair| repair.end(true));
    let bytes: u64 = lost.iter().map(|repair| repair.key.digest.size_bytes()).sum();
    let worth = Duration::from_secs(bytes / SLOWEST_BYTES_PER_SECOND);
    let upload = async {
        match lost.as_slice() {
            [] => Vec::new(),
            [alone] => vec![alone.upload(&call).await],
            together => upload_together(&inner, &call, together).await,
        }
    };
    let uploaded = timeout(REPAIR_PATIENCE + worth, upload).await.unwrap_or_default();
    // Those without an answer are not there.
    let uploaded = uploaded.into_iter().chain(std::iter::repeat(false));
    for (repair, is_there) in lost.into_iter().zip(uploaded) {
        repair.end(is_there);
    }
}

/// Sends Tier 1's copies as one batch, each hashed before. The i-th answer says whether the i-th blob is there again.
async fn upload_together(inner: &Inner, call: &Call, repairs: &[Repair]) -> Vec<bool> {
    let keys = repairs.iter().map(|repair| repair.key.clone()).collect();
    // Action results that name them wait for them, as for those of clients (R16).
    let _on_its_way = inner.batches.hold(keys);
    let copies: Vec<Option<(Verified, Bytes)>> = futures::stream::iter(repairs)
        .map(Repair::copy)
        .buffered(DISK_AT_ONCE)
        .collect()
        .await;
    let sent: Vec<bool> = copies.iter().map(Option::is_some).collect();
    let answers = inner
        .send_batch(call, copies.into_iter().flatten().collect())
        .await;
    let mut answers = answers.into_iter();
    let is_there = |is_sent: bool| is_sent && answers.next().is_some_and(|answer| answer.is_ok());
    sent.into_iter().map(is_there).collect()
}

/// One repair. Dropped before its end, it tells whoever waits that the blob is not there.
struct Repair {
    inner: Arc<Inner>,
    key: BlobKey,
    told: watch::Sender<Option<bool>>,
}

impl Repair {
    fn end(self, is_there: bool) {
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
    async fn upload(&self, call: &Call) -> bool {
        let inner = &self.inner;
        let (Some(pinned), Ok(permit)) = (inner.tier1.lookup(&self.key), inner.admit()) else {
            return false;
        };
        let name = (self.key.scope.clone(), "repair".into());
        let session = Session::new(
            name,
            self.key.clone(),
            call.clone(),
            Origin::Repair,
            false,
            permit,
        );
        let session = Arc::new(session);
        inner.join(session.clone());
        let mut upload = Upload::new(inner.clone(), session, 0);
        let mut rest = ByteRange::whole(&self.key.digest);
        while !rest.is_empty() {
            let Some(bytes) = self.read(&pinned, rest).await else {
                return false;
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

    /// Tier 1's copy as a whole, if it is right.
    async fn copy(&self) -> Option<(Verified, Bytes)> {
        let pinned = self.inner.tier1.lookup(&self.key)?;
        let mut rest = ByteRange::whole(&self.key.digest);
        let mut copy = BytesMut::new();
        while !rest.is_empty() {
            let bytes = self.read(&pinned, rest).await?;
            rest = rest.skip(bytes.len() as u64);
            copy.put(bytes);
        }
        let copy = copy.freeze();
        let proof = Verified::of(self.key.digest, &copy).ok();
        if proof.is_none() {
            self.inner.tier1.discard(&pinned);
        }
        Some((proof?, copy))
    }

    /// The next bytes of Tier 1's copy. One that cannot be read is dropped, unless the disk is only slow.
    async fn read(&self, pinned: &Pinned, rest: ByteRange) -> Option<Bytes> {
        match pinned.read(rest, READ_CHUNK_BYTES).await {
            Ok(bytes) if !bytes.is_empty() => Some(bytes),
            Err(Tier1Error::Slow) => None,
            Ok(_) | Err(_) => {
                self.inner.tier1.discard(pinned);
                None
            }
        }
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        if self.told.borrow().is_none() {
            self.inner.repairs.under_way.lock().remove(&self.key);
            self.told.send_replace(Some(false));
        }
    }
}
