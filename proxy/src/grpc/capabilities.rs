//! What this node does, narrowed by what Tier 2 allows. Announces only what works today (R18).

use proto::reapi;
use proto::reapi::symlink_absolute_path_strategy::Value as SymlinkStrategy;
use proto::semver::SemVer;

use super::digests::announced;
use crate::tier2::Offers;

/// The oldest and the newest version of the API that this node speaks. All of 2.0 to 2.3 work: what later versions added
/// for a cache are fields that are passed on unread, and the calls that this node does not serve announce themselves by
/// flags of their own. The lower bound is what older clients insist on (CAP-04).
const LOW_API_VERSION: (i32, i32) = (2, 0);
const HIGH_API_VERSION: (i32, i32) = (2, 3);

/// Limits of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Bytes of blobs in one batch call.
    pub batch_bytes_max: u64,
    /// Length of the largest blob that is taken; `None` for no limit.
    pub blob_bytes_max: Option<u64>,
}

impl Limits {
    /// The largest blob that can be stored through this node (PXY-17).
    pub(super) fn storable_bytes_max(&self, offers: &Offers) -> Option<u64> {
        match (self.blob_bytes_max, offers.blob_bytes_max) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        }
    }
}

/// The answer to GetCapabilities. Asks nobody: `offers` is the last that was heard of Tier 2 (CAP-25).
pub(super) fn capabilities(limits: &Limits, offers: &Offers) -> reapi::ServerCapabilities {
    let cache = reapi::CacheCapabilities {
        digest_functions: offers
            .functions
            .iter()
            .map(|function| announced(*function).into())
            .collect(),
        action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities {
            update_enabled: offers.update_enabled,
        }),
        // Ours, not Tier 2's: what is too much for it is split on the way (PXY-15).
        max_batch_total_size_bytes: wire(limits.batch_bytes_max),
        symlink_absolute_path_strategy: SymlinkStrategy::Allowed.into(),
        max_cas_blob_size_bytes: limits.storable_bytes_max(offers).map_or(0, wire),
        // No priorities, compressors, Split or Splice.
        ..Default::default()
    };
    reapi::ServerCapabilities {
        cache_capabilities: Some(cache),
        low_api_version: Some(version(LOW_API_VERSION)),
        high_api_version: Some(version(HIGH_API_VERSION)),
        ..Default::default()
    }
}

fn version((major, minor): (i32, i32)) -> SemVer {
    SemVer {
        major,
        minor,
        ..Default::default()
    }
}

fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        batch_bytes_max: 3 << 20,
        blob_bytes_max: Some(1 << 30),
    };

    #[test]
    fn clients_of_version_2_0_are_in_range() {
        // CAP-04, CAP-06
        let capabilities = capabilities(&LIMITS, &Offers::default());
        let [low, high] = [capabilities.low_api_version, capabilities.high_api_version].map(Option::unwrap);
        assert_eq!((low.major, low.minor, low.prerelease), (2, 0, String::new()));
        assert!(high.major == 2 && high.minor >= 0);
    }

    #[test]
    fn what_is_announced_works_and_what_does_not_work_is_not_announced() {
        let capabilities = capabilities(&LIMITS, &Offers::default());
        assert_eq!(capabilities.execution_capabilities, None); // CAP-02
        let cache = capabilities.cache_capabilities.unwrap();
        assert_eq!(cache.digest_functions, [1]); // CAP-03, DIG-19
        assert!(cache.action_cache_update_capabilities.unwrap().update_enabled); // CAP-08
        assert_eq!(cache.max_batch_total_size_bytes, 3 << 20); // CAP-11
        assert_eq!(
            cache.symlink_absolute_path_strategy,
            SymlinkStrategy::Allowed as i32
        ); // CAP-13
        assert!(cache.supported_compressors.is_empty()); // CAP-15
        assert!(cache.supported_batch_update_compressors.is_empty()); // CAP-16
        assert!(!cache.split_blob_support && !cache.splice_blob_support); // CAP-18
        assert_eq!(cache.cache_priority_capabilities, None); // CAP-09
    }

    #[test]
    fn tier_2_narrows_what_is_stored_through_and_not_the_size_of_batches() {
        let offers = Offers {
            update_enabled: false,
            batch_bytes_max: Some(1 << 20),
            blob_bytes_max: Some(1 << 20),
            ..Offers::default()
        };
        let cache = capabilities(&LIMITS, &offers).cache_capabilities.unwrap();
        assert!(!cache.action_cache_update_capabilities.unwrap().update_enabled); // PXY-13
        assert_eq!(cache.max_batch_total_size_bytes, 3 << 20); // PXY-15
        assert_eq!(cache.max_cas_blob_size_bytes, 1 << 20); // PXY-17
        let unlimited = Limits {
            blob_bytes_max: None,
            ..LIMITS
        };
        assert_eq!(unlimited.storable_bytes_max(&Offers::default()), None);
        assert_eq!(unlimited.storable_bytes_max(&offers), Some(1 << 20));
    }
}
