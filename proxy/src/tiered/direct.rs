//! A stream from Tier 2 that belongs to one read: parts of blobs, and readers that a flight could not take along.

use bytes::{Buf, Bytes};
use futures::Stream;
use prometheus::IntCounter;

use super::CallError;
use super::fetch::Fetch;
use super::source::READ_CHUNK_BYTES;
use crate::blob::{ByteRange, Verifier};
use crate::tier2::Tier2Error;

/// The check of a direct read that reaches the end of its blob.
pub(super) struct Check {
    /// Has seen everything before the first byte of the fetch.
    pub(super) verifier: Verifier,
    /// Bytes that come first and were had elsewhere: hashed, not handed on.
    pub(super) skip: u64,
    /// Whether bytes of the blob have left already, so that a mismatch cannot be mended by a retry.
    pub(super) has_sent: bool,
    /// Counts mismatches.
    pub(super) corrupt: IntCounter,
}

/// Bytes in chunks of at most [`READ_CHUNK_BYTES`]. With a check, the piece that completes the blob is held back until
/// the hash is known.
pub(super) fn direct(
    fetch: Fetch,
    check: Option<Check>,
) -> impl Stream<Item = Result<Bytes, CallError>> + Send {
    let start = Direct {
        fetch,
        check,
        piece: Bytes::new(),
    };
    futures::stream::try_unfold(start, |mut direct| async move {
        let next = direct.next().await?;
        Ok(next.map(|bytes| (bytes, direct)))
    })
}

struct Direct {
    fetch: Fetch,
    check: Option<Check>,
    piece: Bytes,
}

impl Direct {
    async fn next(&mut self) -> Result<Option<Bytes>, CallError> {
        while self.piece.is_empty() {
            let Some(piece) = self.fetch.next().await? else {
                return Ok(None);
            };
            self.piece = match &mut self.check {
                Some(check) => check.pass(piece)?,
                None => piece,
            };
        }
        Ok(Some(self.piece.split_to(self.piece.len().min(READ_CHUNK_BYTES))))
    }
}

impl Check {
    /// A check of the blob's bytes from the first on, of which those before `range` are not wanted.
    pub(super) fn from_the_beginning(
        verifier: Verifier,
        range: ByteRange,
        has_sent: bool,
        corrupt: IntCounter,
    ) -> Check {
        let skip = range.start() - verifier.seen_bytes();
        Check {
            verifier,
            skip,
            has_sent,
            corrupt,
        }
    }

    fn pass(&mut self, mut piece: Bytes) -> Result<Bytes, CallError> {
        let fits = self.verifier.update(&piece).and_then(|()| {
            if self.verifier.remaining_bytes() == 0 {
                self.verifier.clone().finish().map(drop)
            } else {
                Ok(())
            }
        });
        if let Err(mismatch) = fits {
            self.corrupt.inc();
            tracing::warn!(error = %mismatch, "tier 2 sent wrong bytes to a reader of its own");
            return Err(if self.has_sent {
                CallError::DataLoss
            } else {
                CallError::Tier2(Tier2Error::Corrupt(mismatch))
            });
        }
        let skipped = usize::try_from(self.skip).map_or(piece.len(), |skip| skip.min(piece.len()));
        piece.advance(skipped);
        self.skip -= skipped as u64;
        self.has_sent |= !piece.is_empty();
        Ok(piece)
    }
}
