//! One client's stream of an upload, as the edge drives it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::CallError;
use super::session::Session;
use super::writes::Inner;
use crate::blob::DigestMismatch;
use crate::digest::Digest;

/// How long a client may send nothing before it counts as gone: uploads are bounded in number, and those who only hold a
/// place must not keep it from others. What came is kept for resuming, so a client that wakes up loses little.
const QUIET_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that are taken at once. With what may be there already this is what an upload holds in memory at most.
const PART_BYTES_MAX: usize = 256 * 1024;

/// What became of bytes that a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// They were taken.
    Taken,
    /// Tier 2 has the blob already: the client can be answered with the full size, whatever it has sent.
    Acknowledged,
}

/// A client's stream. Dropped, its client hung up: if all bytes are here the commit goes on and counts, else they are
/// kept for a while so that the client can resume.
pub struct Upload(Kind);

enum Kind {
    /// The empty blob, which is never sent anywhere.
    Nothing(Digest),
    /// Tier 2 has the blob: whatever the client sends is not needed.
    Present,
    Blob(Stream),
}

struct Stream {
    inner: Arc<Inner>,
    session: Arc<Session>,
    owner: u64,
}

impl Upload {
    pub(super) fn of_nothing(digest: Digest) -> Upload {
        Upload(Kind::Nothing(digest))
    }

    pub(super) fn of_present() -> Upload {
        Upload(Kind::Present)
    }

    pub(super) fn new(inner: Arc<Inner>, session: Arc<Session>, owner: u64) -> Upload {
        inner.metrics.open.inc();
        Upload(Kind::Blob(Stream {
            inner,
            session,
            owner,
        }))
    }

    /// Takes the next bytes. Waits while Tier 2 is slower than the client, and while another client's upload of the same
    /// blob is further and there is no room to put these.
    ///
    /// # Errors
    /// [`CallError::BadUpload`] as soon as the bytes cannot fit; [`CallError::Superseded`]; what ended the upload for all
    /// of its clients.
    ///
    /// # Cancel safety
    /// Not cancel safe: the bytes may or may not have been taken. Dropping the upload with it is fine.
    pub async fn push(&mut self, bytes: Bytes) -> Result<Pushed, CallError> {
        match &self.0 {
            Kind::Present => Ok(Pushed::Acknowledged),
            _ if bytes.is_empty() => Ok(Pushed::Taken),
            Kind::Nothing(expected) => Err(CallError::BadUpload(DigestMismatch::TooLong {
                expected: *expected,
            })),
            Kind::Blob(stream) => stream.push(bytes).await,
        }
    }

    /// Resolves when the blob was acknowledged, by another client's upload or early by Tier 2, or when the upload failed.
    ///
    /// # Errors
    /// As [`Upload::push`]; [`CallError::Quiet`] if this has waited for the client's next bytes for too long.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn acknowledged(&mut self) -> Result<(), CallError> {
        match &self.0 {
            // Its client is answered when it has said what it wants.
            Kind::Nothing(_) => std::future::pending().await,
            Kind::Present => Ok(()),
            Kind::Blob(stream) => timeout(QUIET_PATIENCE, stream.session.ended(stream.owner))
                .await
                .unwrap_or(Err(CallError::Quiet)),
        }
    }

    /// The client said that this was all. Resolves when Tier 2 has acknowledged the blob.
    ///
    /// # Errors
    /// As [`Upload::push`]; [`CallError::BadUpload`] if bytes are lacking.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the commit.
    pub async fn finish(self) -> Result<(), CallError> {
        match &self.0 {
            Kind::Nothing(_) | Kind::Present => Ok(()),
            Kind::Blob(stream) => stream.finish().await,
        }
    }

    /// The client ended its stream in order, without saying that this was all: nothing is committed, even if every byte
    /// is here. A part is kept as if the client had hung up.
    pub fn leave(self) {
        if let Kind::Blob(stream) = &self.0 {
            stream.session.withdraw(stream.owner);
        }
    }
}

impl Stream {
    /// A large message is taken in parts, so that what waits for Tier 2 does not depend on how clients cut their blobs.
    async fn push(&self, mut bytes: Bytes) -> Result<Pushed, CallError> {
        if bytes.len() <= PART_BYTES_MAX {
            return self.push_part(bytes).await;
        }
        while !bytes.is_empty() {
            // Copied: a part would keep all of its message in memory.
            let part = bytes.split_to(bytes.len().min(PART_BYTES_MAX));
            if self.push_part(Bytes::copy_from_slice(&part)).await? == Pushed::Acknowledged {
                return Ok(Pushed::Acknowledged);
            }
        }
        Ok(Pushed::Taken)
    }

    async fn push_part(&self, bytes: Bytes) -> Result<Pushed, CallError> {
        if !self.session.room(self.owner).await? {
            return Ok(Pushed::Acknowledged);
        }
        match self.session.take(&self.inner.tier1, self.owner, bytes).await {
            Ok(first) => {
                if first {
                    self.inner.contests.stir(&self.session.key);
                }
                Ok(Pushed::Taken)
            }
            Err(error) => Err(self.blame(error)),
        }
    }

    async fn finish(&self) -> Result<(), CallError> {
        self.session
            .finish(self.owner)
            .map_err(|error| self.blame(error))?;
        self.inner.contests.stir(&self.session.key);
        self.session.ended(self.owner).await
    }

    /// Bytes that do not fit end the upload that they belong to, and leave the others of the blob alone.
    fn blame(&self, error: CallError) -> CallError {
        if matches!(error, CallError::BadUpload(_)) {
            self.inner.fail(&self.session, error.clone());
        }
        error
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.inner.metrics.open.dec();
        self.inner.hang_up(&self.session, self.owner);
    }
}
