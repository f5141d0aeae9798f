//! FindMissingBlobs.

use super::CallError;
use super::writes::Writes;
use crate::call::Call;
use crate::digest::Digest;

impl Writes {
    /// Returns those of `digests` that Tier 2 does not have: [`super::Presence::missing`], with the lease that is
    /// configured.
    ///
    /// # Errors
    /// As there.
    pub async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        let presence = &self.0.presence;
        presence.missing(call, digests, presence.options().lease).await
    }
}
