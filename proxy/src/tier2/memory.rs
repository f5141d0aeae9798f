//! A Tier 2 in memory: the fake for tests of what lies above, and their reference model.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::Service;
use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, Piece, PieceStream, Verified};
use crate::call::{ActionKey, BlobKey, Call, InstanceName};
use crate::digest::{ActionDigest, Digest};

/// Holds everything, never evicts, and does what a test tells it.
///
/// A test can take Tier 2 down, plant bytes that do not fit their digest, and hold reads and writes at a byte: a held
/// stream goes on when the gate is raised, so no test has to sleep.
#[derive(Debug)]
pub struct MemoryTier2 {
    state: Mutex<State>,
    read_gate: watch::Sender<u64>,
    write_gate: watch::Sender<u64>,
    calls: watch::Sender<u64>,
    chunk_bytes: usize,
    /// Held by each stream.
    streams: Arc<()>,
}

#[derive(Debug, Default)]
struct State {
    blobs: HashMap<BlobKey, Bytes>,
    actions: HashMap<ActionKey, Bytes>,
    failure: Option<Tier2Error>,
    log: Vec<LoggedCall>,
    read_plans: VecDeque<ReadPlan>,
    offers: Option<Arc<Offers>>,
    acks_early: bool,
    spoilt: HashSet<BlobKey>,
}

/// What becomes of one read, or of every blob of a batch.
#[derive(Debug, Clone)]
pub enum ReadPlan {
    /// All is well.
    Good,
    /// Bytes below this offset, then an error. At or below the start of the read, it fails before its first byte.
    BreakAt(u64, Tier2Error),
    /// The byte at this offset comes with a bit flipped.
    FlipAt(u64),
}

/// A call that arrived, in the order of arrival.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedCall {
    /// The method of [`Tier2`].
    pub method: &'static str,
    /// Digests it was about.
    pub digests: Vec<Digest>,
    /// Where a read began.
    pub from_byte: u64,
}

impl Default for MemoryTier2 {
    fn default() -> MemoryTier2 {
        MemoryTier2::new(64 * 1024)
    }
}

impl MemoryTier2 {
    /// An empty Tier 2 whose reads come in chunks of `chunk_bytes`.
    pub fn new(chunk_bytes: usize) -> MemoryTier2 {
        MemoryTier2 {
            state: Mutex::default(),
            read_gate: watch::channel(u64::MAX).0,
            write_gate: watch::channel(u64::MAX).0,
            calls: watch::channel(0).0,
            chunk_bytes,
            streams: Arc::default(),
        }
    }

    /// Stores bytes under a key, whether they fit it or not.
    pub fn plant(&self, key: BlobKey, bytes: impl Into<Bytes>) {
        self.state.lock().blobs.insert(key, bytes.into());
    }

    /// Forgets a blob.
    pub fn evict(&self, key: &BlobKey) {
        self.state.lock().blobs.remove(key);
    }

    /// The bytes of a blob.
    pub fn blob(&self, key: &BlobKey) -> Option<Bytes> {
        self.state.lock().blobs.get(key).cloned()
    }

    /// From now on every call fails so; `None` ends that.
    pub fn fail_with(&self, failure: Option<Tier2Error>) {
        self.state.lock().failure = failure;
    }

    /// The next reads go so, one plan each in the order of arrival; after the last, all is well again.
    pub fn plan_reads(&self, plans: impl IntoIterator<Item = ReadPlan>) {
        self.state.lock().read_plans.extend(plans);
    }

    /// What [`Tier2::offers`] says from now on.
    pub fn set_offers(&self, offers: Offers) {
        self.state.lock().offers = Some(Arc::new(offers));
    }

    /// Reads deliver only bytes below this offset until the gate is raised.
    pub fn hold_reads_at(&self, byte: u64) {
        self.read_gate.send_replace(byte);
    }

    /// Writes take only bytes below this offset until the gate is raised; at or above a blob's size the acknowledgement
    /// passes. At 0, batches and updates of action results are held as well.
    pub fn hold_writes_at(&self, byte: u64) {
        self.write_gate.send_replace(byte);
    }

    /// From now on a write of a blob that is there is acknowledged at its first piece.
    pub fn ack_early(&self) {
        self.state.lock().acks_early = true;
    }

    /// From now on what batches write under this key is stored as zeros.
    pub fn spoil_writes_of(&self, key: &BlobKey) {
        self.state.lock().spoilt.insert(key.clone());
    }

    /// The calls that arrived so far.
    pub fn log(&self) -> Vec<LoggedCall> {
        self.state.lock().log.clone()
    }

    /// How many calls of a method arrived.
    pub fn count(&self, method: &str) -> usize {
        self.state
            .lock()
            .log
            .iter()
            .filter(|call| call.method == method)
            .count()
    }

    /// Streams of reads that nobody has dropped.
    pub fn open_streams(&self) -> usize {
        Arc::strong_count(&self.streams) - 1
    }

    /// Waits until `count` calls of a method have arrived.
    pub async fn arrived(&self, method: &str, count: usize) {
        let mut calls = self.calls.subscribe();
        while self.count(method) < count {
            if calls.changed().await.is_err() {
                return;
            }
        }
    }

    fn arrive(&self, method: &'static str, digests: &[Digest], from_byte: u64) -> Result<(), Tier2Error> {
        let mut state = self.state.lock();
        state.log.push(LoggedCall {
            method,
            digests: digests.to_vec(),
            from_byte,
        });
        self.calls.send_modify(|calls| *calls += 1);
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<Tier2Error> {
        self.state.lock().failure.clone()
    }
}

/// Waits until the gate lets the byte at `offset` through.
async fn pass(gate: &mut watch::Receiver<u64>, offset: u64) {
    // The sender lives as long as the fake; when it is gone the test is over.
    let _over = gate.wait_for(|limit| offset < *limit).await;
}

#[async_trait]
impl Tier2 for Arc<MemoryTier2> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        self.arrive("read", std::slice::from_ref(digest), range.start())?;
        let bytes = self.blob(&call.blob(digest)).ok_or(Tier2Error::NotFound)?;
        let plan = self.state.lock().read_plans.pop_front().unwrap_or(ReadPlan::Good);
        let break_at = match &plan {
            ReadPlan::BreakAt(byte, _) => *byte,
            ReadPlan::Good | ReadPlan::FlipAt(_) => u64::MAX,
        };
        if let ReadPlan::BreakAt(byte, error) = &plan
            && *byte <= range.start()
        {
            return Err(error.clone());
        }
        let mut gate = self.read_gate.subscribe();
        pass(&mut gate, range.start()).await;
        let this = self.clone();
        let chunk_bytes = self.chunk_bytes as u64;
        let open = self.streams.clone();
        let stream = futures::stream::unfold((range, gate), move |(rest, mut gate)| {
            let _open = &open;
            let (this, bytes, plan) = (this.clone(), bytes.clone(), plan.clone());
            async move {
                if rest.is_empty() {
                    return None;
                }
                if let ReadPlan::BreakAt(byte, error) = &plan
                    && *byte <= rest.start()
                {
                    return Some((Err(error.clone()), (rest.skip(rest.len()), gate)));
                }
                pass(&mut gate, rest.start()).await;
                if let Some(failure) = this.failure() {
                    return Some((Err(failure), (rest.skip(rest.len()), gate)));
                }
                let open = gate.borrow().saturating_sub(rest.start());
                let intact = break_at.saturating_sub(rest.start());
                let len = rest.len().min(chunk_bytes).min(open).min(intact);
                let (from, to) = (index(rest.start()), index(rest.start() + len));
                if to > bytes.len() {
                    return Some((Err(Tier2Error::Short), (rest.skip(rest.len()), gate)));
                }
                let chunk = match plan {
                    ReadPlan::FlipAt(byte) => flipped(&bytes, from..to, index(byte)),
                    ReadPlan::Good | ReadPlan::BreakAt(..) => bytes.slice(from..to),
                };
                Some((Ok(chunk), (rest.skip(len), gate)))
            }
        });
        Ok(stream.boxed())
    }

    async fn write(&self, call: &Call, digest: &Digest, mut body: PieceStream) -> Result<Ack, Tier2Error> {
        let Some(mut piece) = body.next().await else {
            return Err(Tier2Error::Aborted);
        };
        self.arrive("write", std::slice::from_ref(digest), 0)?;
        let acks_early = self.state.lock().acks_early;
        if acks_early && self.blob(&call.blob(digest)).is_some() {
            return Ok(Ack {
                sent_at: Instant::now(),
            });
        }
        let mut gate = self.write_gate.subscribe();
        let mut bytes = Vec::new();
        loop {
            match piece {
                Err(_aborted) => return Err(Tier2Error::Aborted),
                Ok(Piece::Data(data)) => bytes.extend_from_slice(&data),
                Ok(Piece::Last(data, proof)) => {
                    bytes.extend_from_slice(&data);
                    let sent_at = Instant::now();
                    pass(&mut gate, digest.size_bytes().saturating_sub(1)).await;
                    if let Some(failure) = self.failure() {
                        return Err(failure);
                    }
                    assert_eq!(
                        proof.digest(),
                        digest,
                        "the proof is for the blob that is written"
                    );
                    self.plant(call.blob(digest), bytes);
                    return Ok(Ack { sent_at });
                }
            }
            pass(&mut gate, (bytes.len() as u64).saturating_sub(1)).await;
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            match body.next().await {
                Some(next) => piece = next,
                None => return Err(Tier2Error::Aborted),
            }
        }
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.arrive("find_missing", digests, 0)?;
        let state = self.state.lock();
        Ok(digests
            .iter()
            .filter(|digest| !state.blobs.contains_key(&call.blob(digest)))
            .copied()
            .collect())
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        if let Err(failure) = self.arrive("read_batch", digests, 0) {
            return vec![Err(failure); digests.len()];
        }
        let plan = self.state.lock().read_plans.pop_front().unwrap_or(ReadPlan::Good);
        let mut gate = self.read_gate.subscribe();
        pass(&mut gate, 0).await;
        let read = |digest: &Digest| {
            let bytes = self.blob(&call.blob(digest)).ok_or(Tier2Error::NotFound)?;
            let bytes = match &plan {
                ReadPlan::Good => bytes,
                ReadPlan::BreakAt(_, error) => return Err(error.clone()),
                ReadPlan::FlipAt(byte) => flipped(&bytes, 0..bytes.len(), index(*byte)),
            };
            let _proof = Verified::of(*digest, &bytes).map_err(Tier2Error::Corrupt)?;
            Ok(bytes)
        };
        digests.iter().map(read).collect()
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let digests: Vec<Digest> = blobs.iter().map(|(proof, _)| *proof.digest()).collect();
        if let Err(failure) = self.arrive("write_batch", &digests, 0) {
            return vec![Err(failure); digests.len()];
        }
        let sent_at = Instant::now();
        pass(&mut self.write_gate.subscribe(), 0).await;
        for (proof, bytes) in blobs {
            let key = call.blob(proof.digest());
            let spoilt = self.state.lock().spoilt.contains(&key);
            self.plant(
                key,
                if spoilt {
                    Bytes::from(vec![0; bytes.len()])
                } else {
                    bytes
                },
            );
        }
        vec![Ok(Ack { sent_at }); digests.len()]
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        self.arrive("action", &[key.0], 0)?;
        let state = self.state.lock();
        state
            .actions
            .get(&call.action(key))
            .cloned()
            .map(RawActionResult)
            .ok_or(Tier2Error::NotFound)
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        let sent_at = Instant::now();
        self.arrive("put_action", &[key.0], 0)?;
        pass(&mut self.write_gate.subscribe(), 0).await;
        self.state.lock().actions.insert(call.action(key), result.0);
        Ok(Ack { sent_at })
    }

    async fn probe(&self, _service: Service, _deadline: Instant) -> Result<(), Tier2Error> {
        self.arrive("probe", &[], 0)
    }

    fn offers(&self, _instance: &InstanceName) -> Arc<Offers> {
        self.state.lock().offers.clone().unwrap_or_default()
    }
}

/// A part of a blob, with a bit of the byte at `at` flipped if it is in there.
fn flipped(bytes: &Bytes, part: std::ops::Range<usize>, at: usize) -> Bytes {
    let mut copy = bytes.slice(part.clone()).to_vec();
    if let Some(byte) = at.checked_sub(part.start).and_then(|at| copy.get_mut(at)) {
        *byte ^= 1;
    }
    copy.into()
}

/// Blobs in memory fit the address space.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}
