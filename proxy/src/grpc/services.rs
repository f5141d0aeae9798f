//! What all services need.

use tonic::Status;

use super::capabilities::Limits;
use super::status::invalid;
use crate::call::Call;
use crate::digest::Digest;
use crate::metrics::CallMetrics;
use crate::tiered::Tiered;

/// The tiers, and the limits under which clients reach them.
pub(super) struct Services {
    pub tiered: Tiered,
    pub limits: Limits,
    pub calls: CallMetrics,
}

impl Services {
    /// Refuses what is too large from the declared size alone (CAS-GEN-12).
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a blob that neither this node nor Tier 2 would keep.
    pub(super) fn check_storable(&self, call: &Call, digest: &Digest) -> Result<(), Status> {
        let offers = self.tiered.offers(&call.instance);
        match self.limits.storable_bytes_max(&offers) {
            Some(max) if digest.size_bytes() > max => Err(invalid(format_args!(
                "blobs of more than {max} bytes are not stored: {digest}"
            ))),
            Some(_) | None => Ok(()),
        }
    }
}
