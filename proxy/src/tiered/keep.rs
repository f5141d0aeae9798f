//! The copy of a fetched blob in Tier 1. Its troubles end the copy, never the fetch.

use bytes::Bytes;

use super::fill::Fill;
use super::flight_state::{Phase, State};
use crate::blob::Verified;
use crate::tier1::{Pinned, Staged, Tier1Error};

/// Bytes per write to disk: a few blocks of Tier 1's checksums.
const STAGING_WRITE_BYTES: usize = 256 * 1024;

impl Fill {
    /// Writes what is released to a staging file, beside the stream. `None` when there is to be no copy.
    pub(super) async fn keep(&self) -> Option<Staged> {
        if !self.flight.look(State::has_disk) {
            return None;
        }
        match self.append_all().await {
            Ok(staged) => staged,
            Err(error) => {
                self.disk_failed(&error);
                None
            }
        }
    }

    async fn append_all(&self) -> Result<Option<Staged>, Tier1Error> {
        let mut staged = self.shared.tier1.stage(self.flight.key()).await?;
        self.flight
            .change_quietly(|state| state.staging_opened(staged.reader()));
        while staged.watermark() < self.digest().size_bytes() {
            let offset = staged.watermark();
            let next = self
                .flight
                .when(|state| state.for_disk(offset, STAGING_WRITE_BYTES));
            let Some(bytes) = next.await else {
                return Ok(None);
            };
            staged.append(bytes).await?;
            self.flight
                .change_quietly(|state| state.staged(staged.watermark()));
        }
        Ok(Some(staged))
    }

    pub(super) fn disk_failed(&self, error: &Tier1Error) {
        // Tier 1 has told of what is wrong with the disk, once for all the blobs that it concerns.
        tracing::debug!(
            digest = %self.digest(),
            error = error as &dyn std::error::Error,
            "tier 1 does not keep a fetched blob"
        );
        self.give_up_disk("failed");
    }

    pub(super) fn give_up_disk(&self, reason: &str) {
        if self.flight.change(State::give_up_disk) {
            self.shared.metrics.not_kept.with_label_values(&[reason]).inc();
        }
    }

    pub(super) async fn publish(&self, staged: Staged, proof: Verified) {
        match staged.publish(proof).await {
            Ok(pinned) => self.end(Phase::Published(pinned)),
            Err(error) => self.disk_failed(&error),
        }
    }

    /// Keeps a blob that is in memory and was told.
    pub(super) async fn publish_bytes(&self, bytes: Bytes, proof: Verified) {
        if !self.flight.look(State::has_disk) {
            return;
        }
        match self.store(bytes, proof).await {
            Ok(pinned) => self.end(Phase::Published(pinned)),
            Err(error) => self.disk_failed(&error),
        }
    }

    pub(super) async fn store(&self, bytes: Bytes, proof: Verified) -> Result<Pinned, Tier1Error> {
        let mut staged = self.shared.tier1.stage(self.flight.key()).await?;
        staged.append(bytes).await?;
        staged.publish(proof).await
    }
}
