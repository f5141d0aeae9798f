//! Verifies the blobs of a batch, leaving the thread to others every now and then.

use crate::blob::{Verified, Verifier};
use crate::digest::Digest;
use crate::tiered::CallError;

/// Bytes hashed before other calls get their turn: about a tenth of a millisecond.
const TURN_BYTES: usize = 256 * 1024;

/// The hashing of one batch.
#[derive(Debug, Default)]
pub(super) struct Hashing {
    since_turn_bytes: usize,
}

impl Hashing {
    /// Checks a blob.
    ///
    /// # Errors
    /// [`CallError::BadUpload`] if it does not fit its digest.
    pub(super) async fn verify(&mut self, expected: Digest, blob: &[u8]) -> Result<Verified, CallError> {
        let mut verifier = Verifier::new(expected);
        for part in blob.chunks(TURN_BYTES) {
            verifier.update(part).map_err(CallError::BadUpload)?;
            self.since_turn_bytes += part.len();
            if self.since_turn_bytes >= TURN_BYTES {
                self.since_turn_bytes = 0;
                tokio::task::yield_now().await;
            }
        }
        verifier.finish().map_err(CallError::BadUpload)
    }
}
