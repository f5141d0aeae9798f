//! Cuts batches to what Tier 2 takes in one call.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::time::Instant;
use tonic::Code;

use super::health::Service;
use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error, UpstreamStatus, batch_cost};
use crate::blob::{ByteRange, Piece, PieceStream, Verified, Verifier};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};

/// Blobs in one call. Servers are built for what the common clients send, which is at most 4000.
const BLOBS_MAX: usize = 4000;

/// Calls of one batch in the air at once, so that one large batch does not take all of Tier 2.
const CALLS_IN_FLIGHT: usize = 4;

/// Splits batches by the limit that Tier 2 states, framing included; a blob above the limit goes by a stream of its own.
///
/// Wrap what talks to a server; a Tier 2 without a limit is passed through.
#[derive(Clone, Debug)]
pub struct Split<T> {
    inner: T,
}

impl<T: Tier2> Split<T> {
    /// Splits the batches of `inner`.
    pub fn new(inner: T) -> Split<T> {
        Split { inner }
    }

    fn limit(&self, call: &Call) -> u64 {
        let offers = self.inner.offers(&call.instance);
        offers.batch_bytes_max.unwrap_or(u64::MAX)
    }

    async fn read_alone(&self, call: &Call, digest: Digest) -> Result<Bytes, Tier2Error> {
        let stream = self.inner.read(call, &digest, ByteRange::whole(&digest)).await?;
        collect(digest, stream).await
    }

    async fn write_alone(&self, call: &Call, (proof, bytes): (Verified, Bytes)) -> Result<Ack, Tier2Error> {
        let digest = *proof.digest();
        let body: PieceStream = futures::stream::iter([Ok(Piece::Last(bytes, proof))]).boxed();
        self.inner.write(call, &digest, body).await
    }
}

/// Gathers a whole blob and checks it.
pub(super) async fn collect(digest: Digest, mut stream: BlobStream) -> Result<Bytes, Tier2Error> {
    let mut verifier = Verifier::new(digest);
    let mut blob = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        verifier.update(&chunk).map_err(Tier2Error::Corrupt)?;
        blob.put(chunk);
    }
    let _proof = verifier.finish().map_err(Tier2Error::Corrupt)?;
    Ok(blob.freeze())
}

/// Positions of blobs, as they go to Tier 2.
#[derive(Debug, PartialEq, Eq, Default)]
struct Plan {
    batches: Vec<Vec<usize>>,
    alone: Vec<usize>,
}

/// Fills one batch after the other, in order.
fn plan(sizes: impl IntoIterator<Item = u64>, limit_bytes: u64, blobs_max: usize) -> Plan {
    let mut plan = Plan::default();
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    for (position, size_bytes) in sizes.into_iter().enumerate() {
        let cost = batch_cost(size_bytes);
        if cost > limit_bytes {
            plan.alone.push(position);
            continue;
        }
        if cost > limit_bytes - batch_bytes || batch.len() == blobs_max {
            plan.batches.push(std::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch.push(position);
        batch_bytes += cost;
    }
    if !batch.is_empty() {
        plan.batches.push(batch);
    }
    plan
}

/// Runs the calls of a plan and puts their answers in order. A position that nobody answered is an error of its own
/// (PXY-64).
async fn gather<A>(
    batches: Vec<impl Future<Output = Vec<(usize, Result<A, Tier2Error>)>>>,
    alone: Vec<impl Future<Output = (usize, Result<A, Tier2Error>)>>,
    len: usize,
) -> Vec<Result<A, Tier2Error>> {
    let mut answers = HashMap::with_capacity(len);
    let mut batches = futures::stream::iter(batches).buffer_unordered(CALLS_IN_FLIGHT);
    while let Some(part) = batches.next().await {
        answers.extend(part);
    }
    let mut alone = futures::stream::iter(alone).buffer_unordered(CALLS_IN_FLIGHT);
    while let Some((position, answer)) = alone.next().await {
        answers.insert(position, answer);
    }
    (0..len)
        .map(|position| answers.remove(&position).unwrap_or_else(|| Err(unanswered())))
        .collect()
}

fn unanswered() -> Tier2Error {
    Tier2Error::Answered(UpstreamStatus {
        code: Code::Internal,
        message: "tier 2 left a part of a batch unanswered".to_owned(),
        details: Bytes::new(),
    })
}

#[async_trait]
impl<T: Tier2> Tier2 for Split<T> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        self.inner.read(call, digest, range).await
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        self.inner.write(call, digest, body).await
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        self.inner.find_missing(call, digests).await
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let plan = plan(
            digests.iter().map(Digest::size_bytes),
            self.limit(call),
            BLOBS_MAX,
        );
        if plan.alone.is_empty() && plan.batches.len() <= 1 {
            return self.inner.read_batch(call, digests).await;
        }
        let batches: Vec<_> = plan
            .batches
            .into_iter()
            .map(|batch| async move {
                let part: Vec<Digest> = batch.iter().map(|&position| digests[position]).collect();
                let answers = self.inner.read_batch(call, &part).await;
                batch.into_iter().zip(answers).collect::<Vec<_>>()
            })
            .collect();
        let alone: Vec<_> = plan
            .alone
            .into_iter()
            .map(|position| async move { (position, self.read_alone(call, digests[position]).await) })
            .collect();
        gather(batches, alone, digests.len()).await
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let sizes = blobs.iter().map(|(proof, _)| proof.digest().size_bytes());
        let plan = plan(sizes, self.limit(call), BLOBS_MAX);
        if plan.alone.is_empty() && plan.batches.len() <= 1 {
            return self.inner.write_batch(call, blobs).await;
        }
        let len = blobs.len();
        let blobs = &blobs;
        let batches: Vec<_> = plan
            .batches
            .into_iter()
            .map(|batch| async move {
                let part = batch.iter().map(|&position| blobs[position].clone()).collect();
                let answers = self.inner.write_batch(call, part).await;
                batch.into_iter().zip(answers).collect::<Vec<_>>()
            })
            .collect();
        let alone: Vec<_> = plan
            .alone
            .into_iter()
            .map(|position| async move { (position, self.write_alone(call, blobs[position].clone()).await) })
            .collect();
        gather(batches, alone, len).await
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        self.inner.action(call, key).await
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        self.inner.put_action(call, key, result).await
    }

    async fn probe(&self, service: Service, deadline: Instant) -> Result<(), Tier2Error> {
        self.inner.probe(service, deadline).await
    }

    fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.inner.offers(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;
    use crate::tier2::memory::MemoryTier2;

    #[track_caller]
    fn check(sizes: &[u64], limit_bytes: u64, batches: &[&[usize]], alone: &[usize]) {
        let expected = Plan {
            batches: batches.iter().map(|batch| batch.to_vec()).collect(),
            alone: alone.to_vec(),
        };
        assert_eq!(plan(sizes.iter().copied(), limit_bytes, 3), expected);
    }

    #[test]
    fn batches_stay_within_the_limit_with_framing() {
        check(&[], 1000, &[], &[]);
        check(&[400, 400], 1000, &[&[0, 1]], &[]);
        check(&[400, 401], 1000, &[&[0], &[1]], &[]); // PXY-15
        check(&[900, 1, 1], 1000, &[&[0], &[1, 2]], &[]);
    }

    #[test]
    fn a_blob_above_the_limit_goes_alone() {
        check(&[1, 901, 2], 1000, &[&[0, 2]], &[1]);
        check(&[1, u64::MAX], u64::MAX, &[&[0], &[1]], &[]);
        check(&[0, 1], 0, &[], &[0, 1]);
    }

    #[test]
    fn batches_stay_within_the_count() {
        check(&[1; 7], u64::MAX, &[&[0, 1, 2], &[3, 4, 5], &[6]], &[]); // PXY-16
    }

    fn call() -> Call {
        Call::of_node(InstanceName::default())
    }

    fn with_limit(limit_bytes: u64) -> (Arc<MemoryTier2>, Split<Arc<MemoryTier2>>) {
        let memory = Arc::new(MemoryTier2::default());
        memory.set_offers(Offers {
            batch_bytes_max: Some(limit_bytes),
            ..Offers::default()
        });
        (memory.clone(), Split::new(memory))
    }

    #[tokio::test]
    async fn answers_come_in_the_order_of_the_questions() {
        let (memory, split) = with_limit(1000);
        let blobs = [vec![1; 500], vec![2; 5000], vec![3; 700], vec![4; 10]];
        let digests: Vec<Digest> = blobs
            .iter()
            .map(|blob| Digest::of(Function::Sha256, blob))
            .collect();
        let writes = blobs.iter().zip(&digests);
        let writes = writes.map(|(blob, digest)| (Verified::of(*digest, blob).unwrap(), blob.clone().into()));
        let acks = split.write_batch(&call(), writes.collect()).await;
        assert!(acks.iter().all(Result::is_ok), "{acks:?}");
        assert_eq!((memory.count("write_batch"), memory.count("write")), (2, 1));

        memory.evict(&call().blob(&digests[2]));
        let asked = [digests[3], digests[1], digests[2], digests[0], digests[1]];
        let found = split.read_batch(&call(), &asked).await;
        let found: Vec<Option<&[u8]>> = found.iter().map(|answer| answer.as_deref().ok()).collect();
        let expected = [
            Some(&blobs[3][..]),
            Some(&blobs[1]),
            None,
            Some(&blobs[0]),
            Some(&blobs[1]),
        ];
        assert_eq!(found, expected);
        assert_eq!((memory.count("read_batch"), memory.count("read")), (2, 2));
    }

    #[tokio::test]
    async fn a_blob_read_by_a_stream_is_checked_like_one_of_a_batch() {
        let (memory, split) = with_limit(100);
        let digest = Digest::of(Function::Sha256, b"right");
        memory.plant(call().blob(&digest), &b"wrong"[..]);
        let found = split.read_batch(&call(), &[digest]).await;
        assert!(matches!(&found[..], [Err(Tier2Error::Corrupt(_))]), "{found:?}");
    }

    #[tokio::test]
    async fn one_failing_call_fails_only_its_own_blobs() {
        let (memory, split) = with_limit(200);
        let digest = Digest::of(Function::Sha256, b"here");
        memory.plant(call().blob(&digest), &b"here"[..]);
        let absent = Digest::of(Function::Sha256, &[0; 150]);
        let found = split.read_batch(&call(), &[digest, absent]).await;
        assert!(
            matches!(&found[..], [Ok(_), Err(Tier2Error::NotFound)]),
            "{found:?}"
        ); // PXY-65
    }
}
