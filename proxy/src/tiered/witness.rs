//! Listens to all that Tier 2 says about blobs, whoever asked, and keeps the leases true to it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

use super::leases::{Heard, Leases};
use crate::blob::{ByteRange, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest};
use crate::tier2::health::Service;
use crate::tier2::{Ack, BlobStream, Offers, RawActionResult, Tier2, Tier2Error};

/// Notes every acknowledgement, every "present" and every absence; and asks once more where an answer is older than what was
/// heard since (R3). Everything in `tiered` talks to Tier 2 through one of these.
///
/// A read gives no lease here, since its bytes are not checked yet: whoever verifies them says so.
pub(super) struct Witness {
    inner: Arc<dyn Tier2>,
    leases: Arc<Leases>,
}

impl Witness {
    pub(super) fn new(inner: Arc<dyn Tier2>, leases: Arc<Leases>) -> Witness {
        Witness { inner, leases }
    }

    fn absent(&self, call: &Call, digest: &Digest, sent_at: Instant) -> Heard {
        self.leases.absent(&call.blob(digest), sent_at)
    }

    fn note_write(&self, call: &Call, digest: &Digest, answer: &Result<Ack, Tier2Error>) {
        let key = call.blob(digest);
        match answer {
            Ok(ack) => self.leases.acknowledged(&key, ack.sent_at),
            // Given up here, before its end: there is nothing that Tier 2 could have stored.
            Err(Tier2Error::Aborted) => {}
            Err(
                Tier2Error::NotFound
                | Tier2Error::Down(_)
                | Tier2Error::Answered(_)
                | Tier2Error::Corrupt(_)
                | Tier2Error::Short
                | Tier2Error::Stalled
                | Tier2Error::DeadlineExceeded,
            ) => self.leases.unknown(&key),
        }
    }
}

/// A read whose evidence may still be compared with what is heard meanwhile.
struct WitnessedRead {
    stream: BlobStream,
    leases: Arc<Leases>,
    sent_at: Instant,
}

impl Stream for WitnessedRead {
    type Item = Result<Bytes, Tier2Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.poll_next_unpin(cx)
    }
}

impl Drop for WitnessedRead {
    fn drop(&mut self) {
        self.leases.close(self.sent_at);
    }
}

#[async_trait]
impl Tier2 for Witness {
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error> {
        let mut asked_again = false;
        loop {
            let open = self.leases.open_call();
            match self.inner.read(call, digest, range).await {
                Ok(stream) => {
                    return Ok(Box::pin(WitnessedRead {
                        stream,
                        leases: self.leases.clone(),
                        sent_at: open.stay_open(),
                    }));
                }
                Err(Tier2Error::NotFound)
                    if self.absent(call, digest, open.sent_at) == Heard::AskAgain && !asked_again =>
                {
                    asked_again = true;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error> {
        let _open = self.leases.open_call();
        let answer = self.inner.write(call, digest, body).await;
        self.note_write(call, digest, &answer);
        answer
    }

    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
        let open = self.leases.open_call();
        let mut missing = self.inner.find_missing(call, digests).await?;
        let again = self.leases.note(&call.scope, &open, digests, &missing);
        if again.is_empty() {
            return Ok(missing);
        }
        drop(open);
        let open = self.leases.open_call();
        let still_missing = self.inner.find_missing(call, &again).await?;
        // What is contradicted a second time was absent after it was present: that is no presence.
        let contradicted = self.leases.note(&call.scope, &open, &again, &still_missing);
        missing.retain(|digest| !again.contains(digest));
        let lost = contradicted
            .into_iter()
            .filter(|digest| !still_missing.contains(digest));
        missing.extend(lost.collect::<Vec<_>>());
        missing.extend(still_missing);
        Ok(missing)
    }

    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>> {
        let open = self.leases.open_call();
        let mut answers = self.inner.read_batch(call, digests).await;
        let mut again = Vec::new();
        for (position, (digest, answer)) in digests.iter().zip(&answers).enumerate() {
            match answer {
                // A batch has whole blobs, and was checked.
                Ok(_bytes) => {
                    let _void = self.leases.present(&call.blob(digest), open.sent_at);
                }
                Err(Tier2Error::NotFound) => {
                    if self.absent(call, digest, open.sent_at) == Heard::AskAgain {
                        again.push(position);
                    }
                }
                Err(_) => {}
            }
        }
        drop(open);
        if again.is_empty() {
            return answers;
        }
        let open = self.leases.open_call();
        let part: Vec<Digest> = again.iter().map(|&position| digests[position]).collect();
        let second = self.inner.read_batch(call, &part).await;
        for ((position, digest), answer) in again.into_iter().zip(&part).zip(second) {
            if matches!(answer, Err(Tier2Error::NotFound)) {
                let _heard = self.absent(call, digest, open.sent_at);
            }
            answers[position] = answer;
        }
        answers
    }

    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>> {
        let _open = self.leases.open_call();
        let digests: Vec<Digest> = blobs.iter().map(|(proof, _)| *proof.digest()).collect();
        let answers = self.inner.write_batch(call, blobs).await;
        for (digest, answer) in digests.iter().zip(&answers) {
            self.note_write(call, digest, answer);
        }
        answers
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
mod tests;
