//! Repeats calls that lose nothing by it, within a budget (R14).

mod budget;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::budget::Budget;
use super::health::{Health, Outlook, Service};
use super::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error};
use crate::blob::{ByteRange, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};
use crate::metrics::RetryMetrics;

/// Repeats of one call. The first comes at once, since whoever noticed the failure has just heard that Tier 2 is there.
const REPEATS_MAX: u32 = 2;

/// The pause before the second repeat; a random half of it is left out.
const PAUSE: Duration = Duration::from_millis(50);

/// Repeats calls that failed by an accident: a broken connection, or an UNAVAILABLE of a Tier 2 that is there.
///
/// What changes nothing is repeated, and batches of blobs, of which only those that failed. Not repeated are streams that
/// have begun, because whoever reads one goes on at its byte; uploads, whose bytes have passed; action results, whose order
/// counts; calls that stalled, whose time is used up; and answers that say when to come again, which is for the client to
/// heed. While a service is known to be down nothing is repeated.
///
/// Wrap what knows of outages ([`super::breaker::Breaker`]), below what splits batches.
#[derive(Clone, Debug)]
pub struct Retried<T> {
    inner: T,
    outlook: Outlook,
    budget: Arc<Mutex<Budget>>,
    metrics: RetryMetrics,
}

impl<T: Tier2> Retried<T> {
    /// Repeats calls to `inner`, whose health is in `outlook`.
    pub fn new(inner: T, outlook: Outlook, metrics: RetryMetrics) -> Retried<T> {
        Retried {
            inner,
            outlook,
            budget: Arc::new(Mutex::new(Budget::new(Instant::now()))),
            metrics,
        }
    }

    /// Waits until a call that was repeated so often can be repeated again, if it can.
    async fn again(&self, method: &'static str, service: Service, call: &Call, repeats: u32) -> bool {
        let pause = match repeats {
            0 => Duration::ZERO,
            1..REPEATS_MAX => PAUSE.mul_f64(rand::random_range(0.5..1.0)),
            _ => return false,
        };
        let now = Instant::now();
        let in_time = call.deadline.is_none_or(|deadline| now + pause < deadline);
        if self.outlook.of(service) != Health::Up || !in_time {
            return false;
        }
        if !self.budget.lock().repeat(now) {
            self.metrics.refused.inc();
            return false;
        }
        self.metrics.repeated.with_label_values(&[method]).inc();
        tokio::time::sleep(pause).await;
        true
    }

    async fn repeated<A, F>(
        &self,
        method: &'static str,
        service: Service,
        call: &Call,
        attempt: impl Fn() -> F,
    ) -> Result<A, Tier2Error>
    where
        F: Future<Output = Result<A, Tier2Error>>,
    {
        self.budget.lock().first(Instant::now());
        let mut repeats = 0;
        loop {
            match attempt().await {
                Err(error) if is_accident(&error) && self.again(method, service, call, repeats).await => {
                    repeats += 1;
                }
                ended => return ended,
            }
        }
    }

    /// Repeats those parts of a batch that failed by an accident.
    async fn repeated_parts<P: Clone, A, F>(
        &self,
        method: &'static str,
        call: &Call,
        parts: Vec<P>,
        attempt: impl Fn(Vec<P>) -> F,
    ) -> Vec<Result<A, Tier2Error>>
    where
        F: Future<Output = Vec<Result<A, Tier2Error>>>,
    {
        self.budget.lock().first(Instant::now());
        let mut answers = attempt(parts.clone()).await;
        for repeats in 0..REPEATS_MAX {
            let failed = |answer: &Result<A, Tier2Error>| answer.as_ref().is_err_and(is_accident);
            let positions: Vec<usize> = (0..answers.len())
                .filter(|position| failed(&answers[*position]))
                .collect();
            if positions.is_empty() || !self.again(method, Service::Cas, call, repeats).await {
                break;
            }
            let failed: Vec<P> = positions
                .iter()
                .filter_map(|&at| parts.get(at).cloned())
                .collect();
            for (position, answer) in positions.into_iter().zip(attempt(failed).await) {
                answers[position] = answer;
            }
        }
        answers
    }
}

/// Whether a failure may be gone at the next try, and nobody said when to come for it.
fn is_accident(error: &Tier2Error) -> bool {
    match error {
        Tier2Error::Down(_) => true,
        Tier2Error::Answered(status) => error.is_outage_like() && status.details.is_empty(),
        Tier2Error::NotFound
        | Tier2Error::Corrupt(_)
        | Tier2Error::Short
        | Tier2Error::Stalled
        | Tier2Error::DeadlineExceeded
        | Tier2Error::Aborted => false,
    }
}

#[async_trait]
impl<T: Tier2> Tier2 for Retried<T> {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        self.repeated("read", Service::Cas, call, || {
            self.inner.read(call, digest, range)
        })
        .await
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        self.inner.write(call, digest, body).await
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let find = || self.inner.find_missing(call, digests);
        self.repeated("find_missing", Service::Cas, call, find).await
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let read = |part: Vec<Digest>| async move { self.inner.read_batch(call, &part).await };
        self.repeated_parts("read_batch", call, digests.to_vec(), read)
            .await
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let write = |part| self.inner.write_batch(call, part);
        self.repeated_parts("write_batch", call, blobs, write).await
    }

    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error> {
        let find = || self.inner.action(call, key);
        self.repeated("action", Service::ActionCache, call, find).await
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
mod tests;
