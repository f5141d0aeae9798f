//! Reading a blob while it arrives.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::StagedFile;
use crate::tier1::Tier1Error;
use crate::tier1::faults::Op;
use crate::tier1::format::Span;
use crate::tier1::layout::Place;
use crate::tier1::store::Store;

/// Reads below the watermark while appends go on. Stays readable after publish, after eviction and, for the bytes that were
/// appended, after the [`Staged`](super::Staged) was dropped.
#[derive(Clone)]
pub struct StagedReader {
    pub(super) store: Arc<Store>,
    pub(super) place: Place,
    pub(super) file: Arc<StagedFile>,
}

impl StagedReader {
    /// Bytes that can be read.
    pub fn watermark(&self) -> u64 {
        self.file.sums.lock().len_bytes()
    }

    /// Reads appended bytes from offset `from`: at most `len_max`, none at the watermark or beyond it. Checked as those of
    /// a [`Pinned`](crate::tier1::Pinned).
    ///
    /// # Errors
    /// [`Tier1Error::Damaged`], [`Tier1Error::Slow`], [`Tier1Error::Io`]: the bytes must come from elsewhere.
    pub async fn read(&self, from: u64, len_max: usize) -> Result<Bytes, Tier1Error> {
        let (span, blocks) = {
            let sums = self.file.sums.lock();
            let watermark = sums.len_bytes();
            let span = Span::new(from, watermark, len_max, watermark);
            let blocks = sums.of_span(&span);
            (span, blocks)
        };
        if span.is_empty() {
            return Ok(Bytes::new());
        }
        let file = &self.file.file;
        if let Some(read) = file.read_cached_at(span.start(), span.len())
            && let Some(answer) = span.check(read, &blocks)
        {
            return Ok(answer);
        }
        let (file, place) = (Arc::clone(file), self.place.clone());
        let read = move |store: &Arc<Store>| {
            let read = file
                .read_at(span.start(), span.len())
                .map_err(|error| store.trouble(Op::Read, &place, error))?;
            span.check(read, &blocks).ok_or_else(|| {
                store.faults.note(Op::Read, &place.digest, &Tier1Error::Damaged);
                Tier1Error::Damaged
            })
        };
        self.store.in_time(read).await
    }
}

impl fmt::Debug for StagedReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "StagedReader({}, {} bytes)",
            self.place.digest,
            self.watermark()
        )
    }
}
