//! Why a call failed, as far as a client is concerned. There is no variant for Tier 1: its troubles are counted, logged
//! and answered from Tier 2.

use std::sync::Arc;

use super::closure::Flaw;
use crate::blob::DigestMismatch;
use crate::digest::Digest;
use crate::tier2::Tier2Error;

/// Why a call failed. `grpc::status` has the one table from here to gRPC's codes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The client's bytes do not fit the digest that it named.
    #[error("the uploaded bytes do not fit their digest")]
    BadUpload(#[source] DigestMismatch),
    /// The client's upload began at an offset where nothing was left off.
    #[error("the upload can start at byte {expected} or 0, not at {found}")]
    ResumeOffset {
        /// Where an upload of this name can be resumed.
        expected: u64,
        /// Where the client began.
        found: u64,
    },
    /// The same upload was begun anew by a newer stream, which now owns it.
    #[error("a newer stream took over this upload")]
    Superseded,
    /// The client of an upload sent nothing for so long that it counts as gone.
    #[error("the upload has stalled")]
    Quiet,
    /// Tier 2's word, or its silence.
    #[error(transparent)]
    Tier2(#[from] Tier2Error),
    /// Bytes had already left when Tier 2's copy proved bad, and they cannot be taken back.
    #[error("tier 2's copy is bad and part of it was already sent")]
    DataLoss,
    /// Tier 2's copy failed verification twice. For a reader that is an absence, which a new upload heals.
    #[error("tier 2's copy failed verification twice")]
    BadBlob,
    /// An action result names blobs whose upload through this node failed and that Tier 2 does not have.
    #[error("{} blobs that the action result names are missing", .0.len())]
    MissingBlobs(Arc<[Digest]>),
    /// An action result was found that is no hit: something that it refers to is not there, or it is of no use at all.
    #[error("the stored action result cannot be used: {0}")]
    Incomplete(Flaw),
    /// Tier 2 is down, and this node is set to do without it: clients are not to come again.
    #[error("tier 2 is down, and this node goes on without it")]
    DoneWithout,
    /// A bound of this node was reached.
    #[error("{0}")]
    Overloaded(&'static str),
    /// What the call has to wait for takes too long. Nothing was sent for it; another try may find it done.
    #[error("{0}")]
    Busy(&'static str),
    /// The caller's time is up.
    #[error("the deadline passed")]
    DeadlineExceeded,
    /// The node is going down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl From<Flaw> for CallError {
    fn from(flaw: Flaw) -> CallError {
        CallError::Incomplete(flaw)
    }
}
