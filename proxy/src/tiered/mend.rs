//! What is done about wrong bytes from Tier 2 (R10): another fetch, verified whole before any byte of it leaves.

use bytes::{Bytes, BytesMut};

use super::CallError;
use super::fill::{Fill, Flown};
use super::flight_state::{Copy, Phase, State};
use crate::blob::{DigestMismatch, Verified, Verifier};
use crate::digest::{Digest, Hash};
use crate::tier1::Staged;
use crate::tier2::Tier2Error;

/// Blobs up to this length are kept in memory until they are verified, larger ones on disk. Few fetches go wrong, so
/// few of these exist at a time.
const IN_MEMORY_BYTES_MAX: u64 = 4 << 20;

/// What left of the first fetch: its length and hash.
struct Prefix {
    len_bytes: u64,
    hash: Hash,
}

impl Prefix {
    /// Everything that the verifier has seen.
    fn of(sent: &Verifier) -> Prefix {
        Prefix {
            len_bytes: sent.seen_bytes(),
            hash: sent.prefix_hash(),
        }
    }

    /// Whether the rest of the blob fits into memory. It does if one piece was held back.
    fn leaves_little_of(&self, digest: &Digest) -> bool {
        digest.size_bytes() - self.len_bytes <= IN_MEMORY_BYTES_MAX
    }
}

/// A second fetch that brought the right bytes.
enum Anew {
    /// It begins with what was sent: this is the rest.
    Same { tail: Bytes, proof: Verified },
    /// It does not, or nothing was promised to anybody: this is the whole.
    Other((Copy, Verified)),
    /// It does not, and there is no place to keep it.
    Nowhere,
}

/// A second fetch that did not.
enum Trouble {
    /// Wrong bytes again.
    Wrong,
    /// Tier 2 did not answer, or answered something else. That says nothing about the blob.
    Failed(Tier2Error),
}

/// Where the bytes are until they are verified.
enum Store {
    Memory(BytesMut),
    Disk(Staged),
    Nowhere,
}

impl Fill {
    /// Tier 2's bytes do not fit. What has left of them cannot be taken back, so a second fetch has to begin with it.
    pub(super) async fn mend(&self, sent: Verifier, mismatch: &DigestMismatch) -> Flown {
        self.shared.metrics.corrupt.inc();
        tracing::warn!(digest = %self.digest(), error = %mismatch, "tier 2 sent wrong bytes; fetching anew");
        self.flight.change(|state| state.enter(Phase::Held));
        let released = self.flight.look(State::released);
        let prefix = (sent.seen_bytes() == released)
            .then(|| Prefix::of(&sent))
            .filter(|prefix| prefix.leaves_little_of(self.digest()));
        match self.fetch_anew(prefix).await {
            Ok(Anew::Same { tail, proof }) => {
                self.flight.change(|state| {
                    state.enter(Phase::Flowing);
                    state.release(tail, sent);
                });
                return Flown::Landed(proof);
            }
            Ok(Anew::Other(copy)) => self.replace(copy).await,
            Ok(Anew::Nowhere) => {
                self.end(Phase::Replaced(Err(Tier2Error::Corrupt(mismatch.clone()).into())));
            }
            Err(Trouble::Wrong) => self.condemn(),
            Err(Trouble::Failed(error)) => self.end(Phase::Replaced(Err(error.into()))),
        }
        Flown::Told
    }

    /// Tries a bad blob again.
    pub(super) async fn retry(&self) {
        match self.fetch_anew(None).await {
            Ok(Anew::Other(copy)) => {
                self.shared.bad.forgive(self.flight.key());
                self.replace(copy).await;
            }
            // Nowhere to keep it whole, so not a byte of it can be trusted before it leaves: it stays bad.
            Ok(Anew::Same { .. } | Anew::Nowhere) => self.end(Phase::Replaced(Err(CallError::BadBlob))),
            Err(Trouble::Wrong) => self.condemn(),
            Err(Trouble::Failed(error)) => self.end(Phase::Replaced(Err(error.into()))),
        }
    }

    fn condemn(&self) {
        self.shared.metrics.corrupt.inc();
        tracing::error!(digest = %self.digest(), "tier 2's copy is bad; readers are told that it is absent");
        self.shared.bad.condemn(self.flight.key());
        self.shared.presence.doubt(self.flight.key());
        self.end(Phase::Replaced(Err(CallError::BadBlob)));
    }

    /// Offers a verified copy to all who took nothing of the first fetch.
    async fn replace(&self, (copy, proof): (Copy, Verified)) {
        match copy {
            Copy::Pinned(_) => self.end(Phase::Replaced(Ok(copy))),
            Copy::Memory(ref bytes) => {
                let bytes = bytes.clone();
                self.flight.change(|state| state.enter(Phase::Replaced(Ok(copy))));
                if self.shared.tier1.keeps(self.digest())
                    && let Err(error) = self.store(bytes, proof).await
                {
                    self.disk_failed(&error);
                }
            }
        }
    }

    /// Fetches the blob once more, from its beginning, as a call of its own: the pool of connections takes turns, so it
    /// travels on another one. Once its beginning proves to be what was sent, only the tail is kept.
    async fn fetch_anew(&self, prefix: Option<Prefix>) -> Result<Anew, Trouble> {
        let digest = self.flight.key().digest;
        let mut store = self.store_for(&digest).await;
        let mut verifier = Verifier::new(digest);
        let mut tail: Option<BytesMut> = None;
        let mut fetch = self.fetch();
        if prefix.as_ref().is_some_and(|prefix| prefix.len_bytes == 0) {
            tail = Some(BytesMut::new());
        }
        while let Some(mut piece) = fetch.next().await.map_err(trouble)? {
            while !piece.is_empty() {
                // Cut where the prefix ends, to compare there.
                let until_end = prefix
                    .as_ref()
                    .and_then(|prefix| prefix.len_bytes.checked_sub(verifier.seen_bytes()))
                    .filter(|left| *left > 0)
                    .and_then(|left| usize::try_from(left).ok());
                let part = piece.split_to(until_end.map_or(piece.len(), |left| left.min(piece.len())));
                verifier.update(&part).map_err(|_mismatch| Trouble::Wrong)?;
                if let Some(tail) = &mut tail {
                    tail.extend_from_slice(&part);
                } else {
                    store.take(part).await;
                }
                if let Some(prefix) = &prefix
                    && prefix.len_bytes == verifier.seen_bytes()
                    && prefix.hash == verifier.prefix_hash()
                {
                    tail = Some(BytesMut::new());
                    store = Store::Nowhere;
                }
            }
        }
        let proof = verifier.finish().map_err(|_mismatch| Trouble::Wrong)?;
        self.fetched(&fetch);
        if let Some(tail) = tail {
            return Ok(Anew::Same {
                tail: tail.freeze(),
                proof,
            });
        }
        Ok(match store {
            Store::Memory(bytes) => Anew::Other((Copy::Memory(bytes.freeze()), proof)),
            Store::Disk(staged) => match staged.publish(proof.clone()).await {
                Ok(pinned) => Anew::Other((Copy::Pinned(pinned), proof)),
                Err(error) => {
                    tracing::warn!(%digest, error = &error as &dyn std::error::Error, "a mended blob is not kept");
                    Anew::Nowhere
                }
            },
            Store::Nowhere => Anew::Nowhere,
        })
    }

    async fn store_for(&self, digest: &Digest) -> Store {
        if digest.size_bytes() <= IN_MEMORY_BYTES_MAX {
            return Store::Memory(BytesMut::new());
        }
        if !self.shared.tier1.keeps(digest) {
            return Store::Nowhere;
        }
        match self.shared.tier1.stage(self.flight.key()).await {
            Ok(staged) => Store::Disk(staged),
            Err(error) => {
                tracing::warn!(%digest, error = &error as &dyn std::error::Error, "no place to mend a blob");
                Store::Nowhere
            }
        }
    }
}

impl Store {
    async fn take(&mut self, bytes: Bytes) {
        let failed = match self {
            Store::Memory(memory) => {
                memory.extend_from_slice(&bytes);
                false
            }
            Store::Disk(staged) => match staged.append(bytes).await {
                Ok(()) => false,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "a blob cannot be mended on disk"
                    );
                    true
                }
            },
            Store::Nowhere => false,
        };
        if failed {
            *self = Store::Nowhere;
        }
    }
}

fn trouble(error: Tier2Error) -> Trouble {
    match error {
        Tier2Error::Corrupt(_) => Trouble::Wrong,
        Tier2Error::NotFound
        | Tier2Error::Down(_)
        | Tier2Error::Answered(_)
        | Tier2Error::Short
        | Tier2Error::Stalled
        | Tier2Error::DeadlineExceeded
        | Tier2Error::Aborted => Trouble::Failed(error),
    }
}
