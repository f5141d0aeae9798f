//! Small blobs at once: one batch for Tier 2, an answer per blob, then Tier 1.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::timeout;

use super::CallError;
use super::pending::{PendingCopy, PendingGuard};
use super::underway::BatchGuard;
use super::uploads::PUBLISH_PATIENCE;
use super::writes::{Inner, Publish, Writes};
use crate::blob::Verified;
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::tier1::Tier1Error;
use crate::tier2::Tier2Error;

/// Batches that are on their way to Tier 2 at once. Each holds its blobs, some MiB, whoever still waits for it; a client
/// whose batch has no place among them waits for one.
pub(super) const BATCHES_MAX: usize = 128;

/// Length from which a blob is not copied out of the message that it came in: a quarter of the largest message.
const LEFT_IN_MESSAGE_BYTES_MIN: usize = 1 << 20;

/// Blobs of one batch that are written to Tier 1 at once: enough to keep a disk busy, few enough to leave it to others.
const FILLS_MAX: usize = 8;

impl Writes {
    /// Writes blobs that are here whole. The i-th answer belongs to the i-th blob; a blob that is there twice is sent
    /// once. Waits while too many batches are on their way; once sent, goes on when the future is dropped.
    pub async fn batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<(), CallError>> {
        let digests: Vec<Digest> = blobs.iter().map(|(proof, _)| *proof.digest()).collect();
        let (told, answers) = oneshot::channel();
        if self.0.tasks.stopping().is_cancelled() {
            return vec![Err(CallError::ShuttingDown); digests.len()];
        }
        let keys = digests.iter().map(|digest| call.blob(digest)).collect();
        let on_its_way = self.0.batches.hold(keys);
        let Ok(place) = self.0.batch_places.clone().acquire_owned().await else {
            return vec![Err(CallError::ShuttingDown); digests.len()];
        };
        // A task of the node's, since what Tier 2 was told to store is worth keeping whoever waits for it.
        let task = write(self.0.clone(), call.clone(), blobs, (on_its_way, place), told);
        drop(self.0.tasks.spawn(task));
        let answers = answers.await.unwrap_or_default();
        let answer = |digest: &Digest| match answers.get(digest) {
            _ if digest.is_empty() => Ok(()),
            Some(answer) => answer.clone(),
            None => Err(Tier2Error::Short.into()),
        };
        digests.iter().map(answer).collect()
    }
}

impl Inner {
    /// Sends distinct blobs as one batch. The i-th answer belongs to the i-th blob.
    pub(super) async fn send_batch(
        &self,
        call: &Call,
        blobs: Vec<(Verified, Bytes)>,
    ) -> Vec<Result<(), CallError>> {
        if blobs.is_empty() {
            return Vec::new();
        }
        let keys: Vec<BlobKey> = blobs.iter().map(|(proof, _)| call.blob(proof.digest())).collect();
        let acks = self.tier2.write_batch(call, blobs).await;
        let mut answers = Vec::with_capacity(keys.len());
        for (key, ack) in keys.iter().zip(acks) {
            let answer = match ack {
                Ok(_ack) => self.confirm(call, key).await,
                Err(error) => Err(error.into()),
            };
            match &answer {
                Ok(()) => self.failed.forget(key),
                Err(_) => self.failed.note(key),
            }
            answers.push(answer);
        }
        answers
    }
}

type Answers = HashMap<Digest, Result<(), CallError>>;

async fn write(
    inner: Arc<Inner>,
    call: Call,
    mut blobs: Vec<(Verified, Bytes)>,
    on_its_way: (BatchGuard, OwnedSemaphorePermit),
    told: oneshot::Sender<Answers>,
) {
    let mut answers = Answers::new();
    // Until Tier 2 answers, an answer that does not come is the one there is.
    blobs.retain(|(proof, _)| {
        let unanswered = Err(Tier2Error::Short.into());
        !proof.digest().is_empty() && answers.insert(*proof.digest(), unanswered).is_none()
    });
    let mut fills = Vec::new();
    if !blobs.is_empty() {
        let (known, sent): (Vec<_>, Vec<_>) = blobs.into_iter().partition(|(proof, _)| {
            let write_lease = inner.presence.options().write_lease;
            inner.presence.is_fresh(&call.blob(proof.digest()), write_lease)
        });
        inner.metrics.early.inc_by(known.len() as u64);
        for (proof, _) in &known {
            inner.failed.forget(&call.blob(proof.digest()));
        }
        let told = inner.send_batch(&call, sent.clone()).await;
        let told = known.iter().map(|_| Ok(())).chain(told).collect::<Vec<_>>();
        for ((proof, bytes), answer) in known.into_iter().chain(sent).zip(told) {
            let key = call.blob(proof.digest());
            answers.insert(key.digest, answer.clone());
            if answer.is_ok() && inner.tier1.keeps(&key.digest) {
                let bytes = apart(bytes);
                let copy = PendingCopy::Memory(bytes.clone());
                let pending = inner.pending.hold(key.clone(), copy);
                fills.extend(pending.map(|pending| (key, proof, bytes, pending)));
            }
        }
    }
    drop(on_its_way);
    match inner.options.publish {
        Publish::Sync => {
            // Late or failed: Tier 2 has the blobs, and that is what counts.
            let filled = inner.tasks.spawn(fill_all(inner.clone(), fills));
            let _done = timeout(PUBLISH_PATIENCE, filled).await;
            let _gone = told.send(answers);
        }
        Publish::Async => {
            let _gone = told.send(answers);
            fill_all(inner, fills).await;
        }
    }
}

/// Bytes that can be kept without the message that they came in: the copies that wait for the disk are counted by their own
/// length. One that is a good part of its message is left there.
pub(super) fn apart(bytes: Bytes) -> Bytes {
    if bytes.len() < LEFT_IN_MESSAGE_BYTES_MIN {
        Bytes::copy_from_slice(&bytes)
    } else {
        bytes
    }
}

type Fill = (BlobKey, Verified, Bytes, PendingGuard);

async fn fill_all(inner: Arc<Inner>, fills: Vec<Fill>) {
    let inner = &inner;
    futures::stream::iter(fills)
        .for_each_concurrent(FILLS_MAX, |(key, proof, bytes, pending)| async move {
            if let Err(error) = fill(inner, &key, proof, bytes).await {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(digest = %key.digest, error, "blob of a batch was not kept in tier 1");
            }
            drop(pending);
        })
        .await;
}

async fn fill(inner: &Inner, key: &BlobKey, proof: Verified, bytes: Bytes) -> Result<(), Tier1Error> {
    let mut staged = inner.tier1.stage(key).await?;
    staged.append(bytes).await?;
    staged.publish(proof).await?;
    Ok(())
}
