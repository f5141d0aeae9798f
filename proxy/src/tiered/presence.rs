//! Which blobs Tier 2 has (P2): by lease where one is fresh enough, else by its answer to a question that many share. A copy
//! in Tier 1 proves nothing, and "missing" is never remembered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::CallError;
use super::bad::BadBlobs;
use super::leases::{Leases, Signs};
use super::merge::Merge;
use super::witness::Witness;
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::metrics::PresenceMetrics;
use crate::task::TaskGroup;
use crate::tier2::Tier2;

/// How long Tier 2's word is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceOptions {
    /// For a question about presence (`cas.lease`). Zero: ask every time.
    pub lease: Duration,
    /// For an early answer to an upload (`cas.write_lease`).
    pub write_lease: Duration,
}

/// Answers whether blobs are in Tier 2. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct Presence(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// Tier 2, each of whose words is noted.
    pub(super) tier2: Arc<dyn Tier2>,
    pub(super) bad: Arc<BadBlobs>,
    pub(super) leases: Arc<Leases>,
    merge: Merge,
    options: PresenceOptions,
    metrics: PresenceMetrics,
}

impl Presence {
    /// Knows nothing yet. All that `tiered` asks of `tier2` goes through [`Presence::tier2`], so that every answer counts.
    /// `signs` end all leases; shared questions are tasks of `tasks`.
    pub fn new(
        tier2: Arc<dyn Tier2>,
        bad: Arc<BadBlobs>,
        options: PresenceOptions,
        signs: Signs,
        tasks: &TaskGroup,
        metrics: PresenceMetrics,
    ) -> Presence {
        let leases = Arc::new(Leases::new(options.lease, signs, metrics.clone()));
        leases.watch(tasks);
        let tier2: Arc<dyn Tier2> = Arc::new(Witness::new(tier2, leases.clone()));
        let merge = Merge::new(tier2.clone(), leases.clone(), tasks.clone(), metrics.clone());
        Presence(Arc::new(Inner {
            tier2,
            bad,
            leases,
            merge,
            options,
            metrics,
        }))
    }

    /// Tier 2, with its answers noted.
    pub fn tier2(&self) -> Arc<dyn Tier2> {
        self.0.tier2.clone()
    }

    /// How long Tier 2's word is good.
    pub fn options(&self) -> PresenceOptions {
        self.0.options
    }

    /// Returns those of `digests` that Tier 2 does not have, each once, in the order of the question. The empty blob is
    /// never missing and never asked for; a blob whose copy in Tier 2 is bad is always missing (R10).
    ///
    /// Evidence that was sent less than `freshness` ago is believed; with zero, Tier 2 is asked.
    ///
    /// # Errors
    /// What Tier 2 says. A digest that it could not judge is neither missing nor present. [`CallError::Overloaded`] if too
    /// many questions wait; [`CallError::DeadlineExceeded`].
    ///
    /// # Cancel safety
    /// Cancel safe: a question that was sent goes on for others.
    pub async fn missing(
        &self,
        call: &Call,
        digests: &[Digest],
        freshness: Duration,
    ) -> Result<Vec<Digest>, CallError> {
        self.missing_by(call, digests, |_digest| freshness).await
    }

    /// The same, with a freshness for each digest.
    ///
    /// # Errors
    /// As [`Presence::missing`].
    pub async fn missing_by(
        &self,
        call: &Call,
        digests: &[Digest],
        freshness: impl Fn(&Digest) -> Duration,
    ) -> Result<Vec<Digest>, CallError> {
        let mut seen = HashSet::with_capacity(digests.len());
        let distinct: Vec<Digest> = digests
            .iter()
            .filter(|digest| !digest.is_empty() && seen.insert(**digest))
            .copied()
            .collect();
        let now = Instant::now();
        let is_fresh = |digest: &Digest, evidence: Option<Instant>| {
            evidence.is_some_and(|sent_at| now.saturating_duration_since(sent_at) < freshness(digest))
        };
        let evidence = self.0.leases.evidence_for(&call.scope, &distinct);
        let none_bad = self.0.bad.is_empty();
        let is_bad = |digest: &Digest| !none_bad && self.0.bad.is_bad(&call.blob(digest));
        let asked: Vec<Digest> = distinct
            .iter()
            .zip(evidence)
            .filter(|(digest, evidence)| !is_fresh(digest, *evidence) && !is_bad(digest))
            .map(|(digest, _)| *digest)
            .collect();
        self.0
            .metrics
            .by_lease
            .inc_by((distinct.len() - asked.len()) as u64);
        self.0.metrics.asked.inc_by(asked.len() as u64);
        let missing = if asked.is_empty() {
            HashSet::new()
        } else {
            let strictest = asked.iter().map(&freshness).min().unwrap_or_default();
            // On a machine that started less than that ago, nothing older is known anyway.
            let not_before = now.checked_sub(strictest).unwrap_or(now);
            self.0.merge.missing(call, &asked, not_before).await?
        };
        // One may have turned out bad meanwhile.
        let is_bad = |digest: &Digest| self.0.bad.is_bad(&call.blob(digest));
        let none_bad = self.0.bad.is_empty();
        Ok(distinct
            .into_iter()
            .filter(|digest| missing.contains(digest) || (!none_bad && is_bad(digest)))
            .collect())
    }

    /// When the newest evidence that Tier 2 has a blob was sent, if it still counts. `None` for a blob whose copy is bad.
    /// Asks nobody.
    pub fn evidence(&self, key: &BlobKey) -> Option<Instant> {
        let evidence = self.0.leases.evidence(key)?;
        (!self.0.bad.is_bad(key)).then_some(evidence)
    }

    /// Whether each of `digests` was under a lease at `down_since`, when an outage began that goes on. Asks nobody.
    pub(super) fn known_at(&self, call: &Call, digests: &[Digest], down_since: Instant) -> bool {
        let evidence = self.0.leases.evidence_before(&call.scope, digests, down_since);
        let lease = self.0.options.lease;
        digests.iter().zip(evidence).all(|(digest, evidence)| {
            let is_known =
                evidence.is_some_and(|sent_at| down_since.saturating_duration_since(sent_at) < lease);
            digest.is_empty() || (is_known && !self.0.bad.is_bad(&call.blob(digest)))
        })
    }

    /// Whether evidence for a blob was sent less than `freshness` ago.
    pub fn is_fresh(&self, key: &BlobKey, freshness: Duration) -> bool {
        self.evidence(key)
            .is_some_and(|sent_at| sent_at.elapsed() < freshness)
    }

    /// A whole blob was fetched and is right; its first byte came then.
    pub(super) fn fetched(&self, key: &BlobKey, first_byte_at: Instant) {
        // Where an absence was heard since, this is no evidence, and the blob was read all the same.
        let _heard = self.0.leases.present(key, first_byte_at);
    }

    /// What is known about a blob cannot be relied on any longer.
    pub(super) fn doubt(&self, key: &BlobKey) {
        self.0.leases.unknown(key);
    }
}

#[cfg(test)]
mod tests;
