//! Leases: Tier 2's own word that it has a blob, as long as it can be trusted (P2).
//!
//! A lease is dated by its evidence, not by when that arrived. It ends with the first word of Tier 2 against it, and all of
//! them end when there is doubt about what happened meanwhile. They are never written to disk: a node that starts knows
//! nothing.

mod doubts;
mod marks;
mod scopes;
mod store;
mod table;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use self::table::LeaseTable;
use crate::call::{BlobKey, Scope};
use crate::digest::Digest;
use crate::metrics::PresenceMetrics;
use crate::task::TaskGroup;

pub(super) use self::doubts::Doubt;
pub use self::doubts::{Signs, time_slept};
pub(super) use self::store::{Bounds, Store};
pub(super) use self::table::Heard;

/// Leases that are remembered: enough for the largest builds at once, at a hundred bytes each.
pub(in crate::tiered) const LEASES: Bounds = Bounds {
    leases: 1 << 20,
    bytes: 128 << 20,
};

/// The leases of this node, for all who learn and all who ask.
pub(super) struct Leases {
    state: Mutex<State>,
    metrics: PresenceMetrics,
}

struct State {
    table: LeaseTable,
    signs: Signs,
}

/// A call to Tier 2 that may bring news of blobs. Dropped when they were noted.
pub(super) struct OpenCall<'a> {
    leases: &'a Leases,
    pub(super) sent_at: Instant,
}

impl OpenCall<'_> {
    /// Leaves the call open until [`Leases::close`] is told of it.
    pub(super) fn stay_open(self) -> Instant {
        let sent_at = self.sent_at;
        std::mem::forget(self);
        sent_at
    }
}

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.leases.close(self.sent_at);
    }
}

impl Leases {
    /// No leases. `lease` is how long one lives for those who do not say otherwise; `signs` is what ends all of them.
    pub(super) fn new(lease: Duration, signs: Signs, metrics: PresenceMetrics) -> Leases {
        Leases {
            state: Mutex::new(State {
                table: LeaseTable::new(LEASES, lease, Instant::now()),
                signs,
            }),
            metrics,
        }
    }

    /// Looks at the signs whenever the health changes, so that an outage between two questions is not overlooked. A task of
    /// `tasks`.
    pub(super) fn watch(self: &Arc<Leases>, tasks: &TaskGroup) {
        let Some(mut outlook) = self.state.lock().signs.outlook() else {
            return;
        };
        let (leases, stop) = (self.clone(), tasks.stopping());
        let look = async move {
            loop {
                outlook.changed().await;
                drop(leases.look());
            }
        };
        drop(tasks.spawn(async move { stop.run_until_cancelled(look).await }));
    }

    /// The table, after a look at whether it can still be trusted.
    fn look(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        if let Some(doubt) = state.signs.arisen() {
            match doubt {
                Doubt::Disconnected => state.table.set_aside(Instant::now()),
                Doubt::Outage | Doubt::Slept | Doubt::Surprises => state.table.end_epoch(Instant::now()),
            }
            self.ended(doubt);
        }
        state
    }

    fn ended(&self, doubt: Doubt) {
        tracing::info!(
            reason = doubt.word(),
            "leases end: tier 2 is asked about every blob anew"
        );
        self.metrics.epochs_ended.with_label_values(&[doubt.word()]).inc();
    }

    fn show(&self, state: &State) {
        let (count, bytes) = state.table.size();
        self.metrics.leases.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.metrics
            .lease_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// When the newest evidence for a blob was sent.
    pub(super) fn evidence(&self, key: &BlobKey) -> Option<Instant> {
        self.look().table.evidence(key)
    }

    /// The same for many blobs of one scope, under one hold of the lock.
    pub(super) fn evidence_for(&self, scope: &Scope, digests: &[Digest]) -> Vec<Option<Instant>> {
        self.each(scope, digests, LeaseTable::evidence)
    }

    /// What the evidence was when an outage began that goes on.
    pub(super) fn evidence_before(
        &self,
        scope: &Scope,
        digests: &[Digest],
        down_since: Instant,
    ) -> Vec<Option<Instant>> {
        self.each(scope, digests, |table, key| {
            table.evidence_before(key, down_since)
        })
    }

    fn each(
        &self,
        scope: &Scope,
        digests: &[Digest],
        evidence: impl Fn(&LeaseTable, &BlobKey) -> Option<Instant>,
    ) -> Vec<Option<Instant>> {
        let Some(first) = digests.first() else {
            return Vec::new();
        };
        let mut key = BlobKey {
            scope: scope.clone(),
            digest: *first,
        };
        let state = self.look();
        let found = digests.iter().map(|digest| {
            key.digest = *digest;
            evidence(&state.table, &key)
        });
        found.collect()
    }

    /// A call goes out now.
    pub(super) fn open_call(&self) -> OpenCall<'_> {
        let sent_at = Instant::now();
        self.look().table.open(sent_at);
        OpenCall {
            leases: self,
            sent_at,
        }
    }

    /// Ends a call that was sent then.
    pub(super) fn close(&self, sent_at: Instant) {
        self.state.lock().table.close(sent_at);
    }

    /// Tier 2 said that it has the blob.
    pub(super) fn present(&self, key: &BlobKey, sent_at: Instant) -> Heard {
        let mut state = self.look();
        let heard = state.table.present(key, sent_at);
        self.show(&state);
        heard
    }

    /// Tier 2 acknowledged a write.
    pub(super) fn acknowledged(&self, key: &BlobKey, sent_at: Instant) {
        let mut state = self.look();
        state.table.acknowledged(key, sent_at, Instant::now());
        self.show(&state);
    }

    /// Tier 2 said that it lacks the blob.
    pub(super) fn absent(&self, key: &BlobKey, sent_at: Instant) -> Heard {
        let mut state = self.look();
        let (heard, epoch_ended) = state.table.absent(key, sent_at, Instant::now());
        if epoch_ended {
            self.ended(Doubt::Surprises);
        }
        self.show(&state);
        heard
    }

    /// Tier 2 said which of `digests` it lacks. Returns those that are to be asked about again.
    pub(super) fn note(
        &self,
        scope: &Scope,
        open: &OpenCall<'_>,
        digests: &[Digest],
        missing: &[Digest],
    ) -> Vec<Digest> {
        let missing: HashSet<&Digest> = missing.iter().collect();
        let now = Instant::now();
        let mut state = self.look();
        let mut again = Vec::new();
        let mut key = BlobKey {
            scope: scope.clone(),
            digest: match digests.first() {
                Some(first) => *first,
                None => return again,
            },
        };
        for digest in digests {
            key.digest = *digest;
            let heard = if missing.contains(digest) {
                let (heard, epoch_ended) = state.table.absent(&key, open.sent_at, now);
                if epoch_ended {
                    self.ended(Doubt::Surprises);
                }
                heard
            } else {
                state.table.present(&key, open.sent_at)
            };
            if heard == Heard::AskAgain {
                again.push(*digest);
            }
        }
        self.show(&state);
        again
    }

    /// Nobody knows what became of a write, or what the blob's copy is worth.
    pub(super) fn unknown(&self, key: &BlobKey) {
        let mut state = self.look();
        state.table.unknown(key);
        self.show(&state);
    }
}
