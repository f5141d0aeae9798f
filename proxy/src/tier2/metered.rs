//! Counts what Tier 2 is asked and how it answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use super::health::Service;
use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, Piece, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};
use crate::metrics::Tier2Metrics;

/// Records every call in [`Tier2Metrics`]. A read counts when its last byte is here; one that is dropped before counts as
/// `aborted`. A batch counts once, under the first error in it that is not an absence.
///
/// Wrap it around what talks to Tier 2 and below what splits batches, so that calls are counted as Tier 2 sees them.
#[derive(Clone, Debug)]
pub struct Metered<T> {
    inner: T,
    metrics: Tier2Metrics,
}

impl<T: Tier2> Metered<T> {
    /// Meters `inner`.
    pub fn new(inner: T, metrics: Tier2Metrics) -> Metered<T> {
        Metered { inner, metrics }
    }

    fn begin(&self, method: &'static str) -> Started {
        Started {
            metrics: self.metrics.clone(),
            method,
            at: Instant::now(),
            open: true,
        }
    }
}

/// A call in the air.
struct Started {
    metrics: Tier2Metrics,
    method: &'static str,
    at: Instant,
    open: bool,
}

impl Started {
    fn answered(&self) {
        let seconds = self.metrics.seconds.with_label_values(&[self.method]);
        seconds.observe(self.at.elapsed().as_secs_f64());
    }

    fn count(&mut self, outcome: &'static str) {
        if std::mem::take(&mut self.open) {
            self.metrics
                .total
                .with_label_values(&[self.method, outcome])
                .inc();
        }
    }

    fn end<A>(mut self, result: Result<A, Tier2Error>) -> Result<A, Tier2Error> {
        self.answered();
        self.count(result.as_ref().map_or_else(outcome, |_| "ok"));
        result
    }

    fn end_batch<A>(mut self, results: Vec<Result<A, Tier2Error>>) -> Vec<Result<A, Tier2Error>> {
        self.answered();
        let errors = results.iter().filter_map(|result| result.as_ref().err());
        let failure = errors.map(outcome).find(|outcome| *outcome != "not_found");
        self.count(failure.unwrap_or("ok"));
        results
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.count("aborted");
    }
}

fn outcome(error: &Tier2Error) -> &'static str {
    match error {
        Tier2Error::NotFound => "not_found",
        Tier2Error::Down(_) => "down",
        Tier2Error::Answered(_) => "answered",
        Tier2Error::Corrupt(_) => "corrupt",
        Tier2Error::Short => "short",
        Tier2Error::Stalled => "stalled",
        Tier2Error::DeadlineExceeded => "deadline",
        Tier2Error::Aborted => "aborted",
    }
}

/// A read whose bytes and end are counted.
struct MeteredRead {
    stream: BlobStream,
    started: Started,
    rest_bytes: u64,
}

impl Stream for MeteredRead {
    type Item = Result<Bytes, Tier2Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.stream.poll_next_unpin(cx);
        match &next {
            Poll::Ready(Some(Ok(chunk))) => {
                let len = chunk.len() as u64;
                self.started.metrics.read_bytes.inc_by(len);
                self.rest_bytes = self.rest_bytes.saturating_sub(len);
                // Whoever has all bytes has no reason to ask on.
                if self.rest_bytes == 0 {
                    self.started.count("ok");
                }
            }
            Poll::Ready(Some(Err(error))) => self.started.count(outcome(error)),
            Poll::Ready(None) => self.started.count("ok"),
            Poll::Pending => {}
        }
        next
    }
}

#[async_trait]
impl<T: Tier2> Tier2 for Metered<T> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        let started = self.begin("read");
        match self.inner.read(call, digest, range).await {
            Ok(stream) => {
                started.answered();
                Ok(Box::pin(MeteredRead {
                    stream,
                    started,
                    rest_bytes: range.len(),
                }))
            }
            Err(error) => started.end(Err(error)),
        }
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        let written_bytes = self.metrics.written_bytes.clone();
        let body = body.inspect(move |piece| {
            if let Ok(Piece::Data(bytes) | Piece::Last(bytes, _)) = piece {
                written_bytes.inc_by(bytes.len() as u64);
            }
        });
        let started = self.begin("write");
        started.end(self.inner.write(call, digest, body.boxed()).await)
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let started = self.begin("find_missing");
        started.end(self.inner.find_missing(call, digests).await)
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let started = self.begin("read_batch");
        let results = started.end_batch(self.inner.read_batch(call, digests).await);
        let bytes = results.iter().flatten().map(|blob| blob.len() as u64).sum();
        self.metrics.read_bytes.inc_by(bytes);
        results
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let bytes = blobs.iter().map(|(_, blob)| blob.len() as u64).sum();
        self.metrics.written_bytes.inc_by(bytes);
        let started = self.begin("write_batch");
        started.end_batch(self.inner.write_batch(call, blobs).await)
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        let started = self.begin("action");
        started.end(self.inner.action(call, key).await)
    }

    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error> {
        let started = self.begin("put_action");
        started.end(self.inner.put_action(call, key, result).await)
    }

    async fn probe(&self, service: Service, deadline: Instant) -> Result<(), Tier2Error> {
        let started = self.begin("probe");
        started.end(self.inner.probe(service, deadline).await)
    }

    fn offers(&self, instance: &InstanceName) -> Arc<Offers> {
        self.inner.offers(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;
    use crate::metrics::Metrics;
    use crate::tier2::memory::MemoryTier2;

    fn call() -> Call {
        Call::of_node(InstanceName::default())
    }

    fn count(metrics: &Metrics, method: &str, outcome: &str) -> u64 {
        let counter = metrics.tier2.total.with_label_values(&[method, outcome]);
        counter.get()
    }

    #[tokio::test]
    async fn reads_count_when_they_end_and_as_aborted_when_dropped() {
        let (metrics, memory) = (Metrics::new(), Arc::new(MemoryTier2::new(2)));
        let metered = Metered::new(memory.clone(), metrics.tier2.clone());
        let digest = Digest::of(Function::Sha256, b"hello");
        let range = ByteRange::whole(&digest);
        memory.plant(call().blob(&digest), &b"hello"[..]);

        let stream = metered.read(&call(), &digest, range).await.unwrap();
        assert_eq!(count(&metrics, "read", "ok"), 0);
        assert_eq!(stream.count().await, 3);
        assert_eq!(count(&metrics, "read", "ok"), 1);
        assert_eq!(metrics.tier2.read_bytes.get(), 5);

        drop(metered.read(&call(), &digest, range).await.unwrap());
        assert_eq!(count(&metrics, "read", "aborted"), 1);

        memory.evict(&call().blob(&digest));
        assert!(metered.read(&call(), &digest, range).await.is_err());
        assert_eq!(count(&metrics, "read", "not_found"), 1);
        let seconds = metrics.tier2.seconds.with_label_values(&["read"]);
        assert_eq!(seconds.get_sample_count(), 3);
    }

    #[tokio::test]
    async fn an_absence_does_not_make_a_batch_a_failure() {
        let (metrics, memory) = (Metrics::new(), Arc::new(MemoryTier2::default()));
        let metered = Metered::new(memory.clone(), metrics.tier2.clone());
        let digest = Digest::of(Function::Sha256, b"hello");
        let found = metered.read_batch(&call(), &[digest]).await;
        assert!(matches!(found[..], [Err(Tier2Error::NotFound)]));
        assert_eq!(count(&metrics, "read_batch", "ok"), 1);

        memory.fail_with(Some(Tier2Error::Stalled));
        metered.read_batch(&call(), &[digest]).await;
        assert_eq!(count(&metrics, "read_batch", "stalled"), 1);
    }

    #[tokio::test]
    async fn uploads_count_their_bytes() {
        let (metrics, memory) = (Metrics::new(), Arc::new(MemoryTier2::default()));
        let metered = Metered::new(memory, metrics.tier2.clone());
        let digest = Digest::of(Function::Sha256, b"hello");
        let proof = Verified::of(digest, b"hello").unwrap();
        let pieces = [
            Ok(Piece::Data(Bytes::from_static(b"hel"))),
            Ok(Piece::Last(Bytes::from_static(b"lo"), proof)),
        ];
        let body = futures::stream::iter(pieces).boxed();
        metered.write(&call(), &digest, body).await.unwrap();
        assert_eq!(metrics.tier2.written_bytes.get(), 5);
        assert_eq!(count(&metrics, "write", "ok"), 1);
    }
}
