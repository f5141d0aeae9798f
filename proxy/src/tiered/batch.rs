//! Reads of many small blobs: what Tier 1 has, what is in the air already, and one call to Tier 2 for the rest.

use std::collections::HashMap;

use bytes::Bytes;
use futures::StreamExt as _;

use super::CallError;
use super::fill::{Fill, Flown};
use super::read::{Reads, Start};
use super::reading::Reading;
use super::write_batch::apart;
use crate::blob::{ByteRange, DigestMismatch, Verified, Verifier};
use crate::call::Call;
use crate::digest::Digest;
use crate::tier2::{Offers, Tier2Error};

/// Length up to which a blob travels in a batch, if Tier 2 takes as much in one. A larger one is worth a stream, which is
/// shared while it arrives, and resumed where it breaks.
const BATCHED_BLOB_BYTES_MAX: u64 = 1 << 20;

/// Blobs of one batch that are read from disk, or written to it, at the same time.
const DISK_AT_ONCE: usize = 16;

impl Reads {
    /// Reads whole blobs. The i-th answer belongs to the i-th digest, duplicates and the empty blob included; one blob's
    /// trouble is its own. The caller bounds how many bytes it asks for.
    ///
    /// What nobody fetches yet goes to Tier 2 as one batch, which other readers can join, and then into Tier 1.
    pub async fn batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, CallError>> {
        let mut answers: HashMap<Digest, Result<Bytes, CallError>> = HashMap::with_capacity(digests.len());
        let mut readings = Vec::new();
        let mut fills = Vec::new();
        let offers = self.0.tier2.offers(&call.instance);
        for digest in digests {
            if answers.contains_key(digest) {
                continue;
            }
            match self.begin(call, digest, &offers, &mut fills) {
                Ok(reading) => {
                    // Replaced below; until then it marks the digest as asked for.
                    answers.insert(*digest, Ok(Bytes::new()));
                    readings.push((*digest, reading));
                }
                Err(error) => {
                    answers.insert(*digest, Err(error));
                }
            }
        }
        if !fills.is_empty() {
            drop(self.0.tasks.spawn(fetch_together(call.for_node(), fills)));
        }
        let mut collected = futures::stream::iter(readings)
            .map(|(digest, reading)| async move { (digest, reading.collect().await) })
            .buffer_unordered(DISK_AT_ONCE);
        while let Some((digest, answer)) = collected.next().await {
            answers.insert(digest, answer);
        }
        digests
            .iter()
            .map(|digest| {
                answers
                    .get(digest)
                    .cloned()
                    .unwrap_or(Err(CallError::ShuttingDown))
            })
            .collect()
    }

    fn begin(
        &self,
        call: &Call,
        digest: &Digest,
        offers: &Offers,
        fills: &mut Vec<Fill>,
    ) -> Result<Reading, CallError> {
        let key = call.blob(digest);
        let range = ByteRange::whole(digest);
        let start = if digest.size_bytes() <= BATCHED_BLOB_BYTES_MAX && offers.fits_batch(digest) {
            Start::Batch(fills)
        } else {
            Start::Stream
        };
        match self.0.locate(call, &key, range, start) {
            Ok(source) => Ok(Reading::new(self.0.clone(), call.clone(), key, range, source)),
            Err(error) => {
                self.0.missed(&error);
                Err(error)
            }
        }
    }
}

/// Fetches blobs in one call and lands each. Belongs to the node: it goes on when the caller hangs up.
async fn fetch_together(call: Call, fills: Vec<Fill>) {
    let Some(first) = fills.first() else {
        return;
    };
    let digests: Vec<Digest> = fills.iter().map(|fill| fill.flight.key().digest).collect();
    let tier2 = first.shared.tier2.clone();
    let answers = tier2.read_batch(&call, &digests).await;
    // Every reader has its bytes before the disk is touched for the first of them.
    let landed: Vec<_> = fills
        .into_iter()
        .zip(answers)
        .map(|(fill, answer)| fill.tell(answer))
        .collect();
    futures::stream::iter(landed)
        .for_each_concurrent(DISK_AT_ONCE, |landed| landed.keep())
        .await;
}

impl Fill {
    /// Hands a blob that came whole, as one of a batch, to its readers.
    fn tell(self, answer: Result<Bytes, Tier2Error>) -> Told {
        let digest = *self.digest();
        let fits = answer.and_then(|bytes| match Verified::of(digest, &bytes) {
            Ok(proof) => Ok((bytes, proof)),
            Err(mismatch) => Err(Tier2Error::Corrupt(mismatch)),
        });
        match fits {
            Ok((bytes, proof)) => {
                let bytes = apart(bytes);
                let piece = bytes.clone();
                self.flight
                    .change(|state| state.release(piece, Verifier::new(digest)));
                Told::Right(self, bytes, proof)
            }
            Err(Tier2Error::Corrupt(mismatch)) => Told::Wrong(self, mismatch),
            Err(error) => {
                self.broken(error);
                Told::Failed
            }
        }
    }
}

/// A blob of a batch whose readers know what Tier 2 said.
enum Told {
    /// They have the bytes.
    Right(Fill, Bytes, Verified),
    /// They wait for a second fetch.
    Wrong(Fill, DigestMismatch),
    /// They have the error.
    Failed,
}

impl Told {
    /// Puts the blob into Tier 1.
    async fn keep(self) {
        match self {
            Told::Right(fill, bytes, proof) => fill.publish_bytes(bytes, proof).await,
            Told::Wrong(fill, mismatch) => {
                let digest = *fill.digest();
                if let Flown::Landed(proof) = fill.mend(Verifier::new(digest), &mismatch).await
                    && let Ok(len) = usize::try_from(digest.size_bytes())
                    && let Some(bytes) = fill.flight.look(|state| state.for_disk(0, len)).flatten()
                {
                    fill.publish_bytes(bytes, proof).await;
                }
            }
            Told::Failed => {}
        }
    }
}

#[cfg(test)]
mod tests;
