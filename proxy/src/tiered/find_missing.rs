//! FindMissingBlobs.

use super::CallError;
use super::writes::Writes;
use crate::call::Call;
use crate::digest::Digest;

impl Writes {
    /// Returns those of `digests` that Tier 2 does not have: [`super::Presence::missing`], with the lease that is
    /// configured. What Tier 1 holds of them is repaired first, as far as that is quickly done ([`Writes::repair`]).
    ///
    /// # Errors
    /// As there.
    pub async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        let presence = &self.0.presence;
        let missing = presence.missing(call, digests, presence.options().lease).await?;
        Ok(self.repair(call, missing).await)
    }
}
