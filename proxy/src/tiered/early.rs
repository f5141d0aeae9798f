//! When an upload is answered without being sent on (R2): only on Tier 2's own word that it has the blob, and only if that is
//! fresh.

use std::time::Duration;

use tokio::time::timeout;

use super::writes::Inner;
use crate::call::Call;
use crate::digest::Digest;

/// How long an upload waits for Tier 2's word before it is sent on: a few round trips, far less than most uploads that it
/// can save.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

impl Inner {
    /// Whether Tier 2 has a blob, as far as that is known or likely enough to be asked. With older evidence than
    /// `cas.write_lease` it is asked; with none, or where the answer is no or does not come, the upload finds out.
    pub(super) async fn is_in_tier2(&self, call: &Call, digest: &Digest) -> bool {
        let options = self.presence.options();
        let key = call.blob(digest);
        if self.presence.is_fresh(&key, options.write_lease) {
            return true;
        }
        if options.write_lease.is_zero() || !self.presence.is_fresh(&key, options.lease) {
            return false;
        }
        let digests = [*digest];
        let ask = self.presence.missing(call, &digests, options.write_lease);
        let patience = call.time_left(ASK_PATIENCE);
        matches!(timeout(patience, ask).await, Ok(Ok(missing)) if missing.is_empty())
    }
}
