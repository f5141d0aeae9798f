//! Tier 2, the authoritative cache: a trait, because there are several and because behaviour is added by wrapping.

pub mod breaker;
pub mod embedded;
mod error;
pub mod health;
#[cfg(test)]
pub mod memory;
pub mod metered;
pub mod remote;
pub mod retry;
pub mod split;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::blob::{ByteRange, PieceStream, Verified};
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest, Function};

use self::health::Service;

pub use self::error::{BoxError, Tier2Error, UpstreamStatus};

/// The authoritative cache behind this node. Implementations are thin; retrying, metering, limiting and the like are
/// wrappers around one, put together in `assemble`.
///
/// No implementation is asked for the empty blob: it is answered before it gets here. Bytes from Tier 2 are not checked
/// against their digest by [`Tier2::read`]; whoever keeps or passes them on does that. [`Tier2::read_batch`] checks, since
/// it has them whole.
///
/// Every method is cancel safe: dropping the future, or a stream it returned, resets the call upstream.
#[async_trait]
pub trait Tier2: Send + Sync + 'static {
    /// Streams a part of a blob, length-checked: it ends after exactly `range.len()` bytes or with an error.
    ///
    /// # Errors
    /// Resolves once Tier 2 has sent the first bytes, so that "not found" comes here and not midway.
    async fn read(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<BlobStream, Tier2Error>;

    /// Uploads a blob. The call upstream begins with the first piece. A body that ends without [`crate::blob::Piece::Last`]
    /// resets it. Tier 2 may acknowledge before it has seen the end, when it has the blob already.
    ///
    /// # Errors
    /// [`Tier2Error::Aborted`] when the body gave up; everything else is Tier 2's word.
    async fn write(&self, call: &Call, digest: &Digest, body: PieceStream) -> Result<Ack, Tier2Error>;

    /// Returns those of `digests` that Tier 2 does not have, each at most once and never one that was not asked for.
    async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error>;

    /// Reads small blobs. The i-th answer belongs to the i-th digest; a batch has no error of its own.
    async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, Tier2Error>>;

    /// Writes small blobs. The i-th answer belongs to the i-th blob; a batch has no error of its own.
    async fn write_batch(&self, call: &Call, blobs: Vec<(Verified, Bytes)>) -> Vec<Result<Ack, Tier2Error>>;

    /// Reads an action result, as the bytes that Tier 2 sent.
    async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, Tier2Error>;

    /// Writes an action result, as the bytes that the client sent.
    async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<Ack, Tier2Error>;

    /// Finds out whether a service of Tier 2 answers at all, by a call that costs it nothing.
    async fn probe(&self, service: Service, deadline: Instant) -> Result<(), Tier2Error>;

    /// What Tier 2 allows for `instance`: the last known good, or [`Offers::default`] before any was heard.
    fn offers(&self, instance: &InstanceName) -> Arc<Offers>;
}

/// Bytes of a blob as they arrive. Chunks are never empty.
pub type BlobStream = Pin<Box<dyn Stream<Item = Result<Bytes, Tier2Error>> + Send>>;

/// Tier 2's word that it has what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// When the last piece was sent: the date of this evidence. What Tier 2 lost after it is not covered.
    pub sent_at: Instant,
}

/// How often the last connection to Tier 2 that stood was lost. A Tier 2 without connections loses none. Clones count
/// together.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    count: Arc<AtomicU64>,
    /// Told of each loss, and of each connect that failed while no connection stood.
    none_left: watch::Sender<()>,
}

impl Losses {
    /// So far.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.none_left.send_replace(());
    }

    pub(crate) fn none_made(&self) {
        self.none_left.send_replace(());
    }

    /// Changes whenever no connection is left, or none can be made.
    pub(crate) fn none_left(&self) -> watch::Receiver<()> {
        self.none_left.subscribe()
    }
}

/// A serialized `ActionResult`, passed on as it came: unknown fields survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawActionResult(pub Bytes);

/// What Tier 2 allows, learned from its capabilities.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offers {
    /// Digest functions it accepts, among those that this node can verify.
    pub functions: Vec<Function>,
    /// Whether it takes action results from this node.
    pub update_enabled: bool,
    /// Total bytes of blobs in one batch call; `None` where it states no limit.
    pub batch_bytes_max: Option<u64>,
    /// Length of the largest blob it takes; `None` where it states no limit.
    pub blob_bytes_max: Option<u64>,
}

/// What a blob costs in a batch beside its bytes: its digest, a status, the lengths of all fields.
const FRAMING_BYTES: u64 = 100;

impl Offers {
    /// Whether one batch has room for the blob, framing included.
    pub fn fits_batch(&self, digest: &Digest) -> bool {
        let cost = batch_cost(digest.size_bytes());
        self.batch_bytes_max.is_none_or(|max| cost <= max)
    }
}

/// What a blob takes of the room in a batch.
fn batch_cost(size_bytes: u64) -> u64 {
    size_bytes.saturating_add(FRAMING_BYTES)
}

impl Default for Offers {
    /// What is assumed of a Tier 2 that has not spoken yet: everything, since a client's build should not lose its cache
    /// for the order in which servers start.
    fn default() -> Offers {
        Offers {
            functions: Function::ALL.to_vec(),
            update_enabled: true,
            batch_bytes_max: None,
            blob_bytes_max: None,
        }
    }
}
