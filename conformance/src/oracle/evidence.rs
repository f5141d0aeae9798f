//! What the log proves about a blob at the moment of an answer.
//!
//! Calls overlap, and much happens in one instant of virtual time. Where the log leaves an order open, the proxy has the
//! benefit of it: what is called broken here is broken in every order.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Call, Calls, Digest, Outcome, Told, method};
use tonic::{Code, Status};

use crate::oracle::{Finding, Promise, Times, Truth, name};
use crate::site::{Ask, Seen, WhenDown};

/// Acts that make bytes wrong. A short stream is not among them: it is known to be short.
const WRONG_BYTES: [&str; 4] = ["extra_bytes", "flip_byte", "other_blob", "repeat_chunk"];

/// Acts after which an OK says what cannot be: less than all was sent, or stored.
const NONSENSE: [&str; 2] = ["end_early", "committed_size"];

/// One call of a client, and the log around it.
pub(super) struct Evidence<'a> {
    pub(super) seen: &'a Seen,
    pub(super) truth: &'a Truth,
    pub(super) times: Times,
    when_down: WhenDown,
    /// Calls that had ended when the client asked.
    past: BTreeSet<u64>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(seen: &'a Seen, truth: &'a Truth, times: Times, when_down: WhenDown) -> Evidence<'a> {
        let ended = seen.before.iter().filter(|call| call.outcome != Outcome::Open);
        Evidence {
            seen,
            truth,
            times,
            when_down,
            past: ended.map(|call| call.index).collect(),
        }
    }

    /// Calls of Tier 2 of which the end was not known when the client asked.
    pub(super) fn meanwhile(&self) -> impl Iterator<Item = &'a Call> {
        let calls = self.seen.after.iter();
        calls.filter(|call| !self.past.contains(&call.index))
    }

    /// Whether Tier 2 said meanwhile that the blob, or the action, is not there.
    pub(super) fn said_missing(&self, digest: &Digest) -> bool {
        self.meanwhile().any(|call| says_missing(call, digest))
    }

    /// Whether Tier 2's word that the blob is there stands, and is no older than that.
    pub(super) fn said_present(&self, digest: &Digest, lease: Duration) -> bool {
        let fresh_from = self.seen.sent_at.saturating_sub(lease);
        let calls = || self.seen.after.iter();
        digest.is_empty()
            || calls().any(|call| {
                says_present(call, digest)
                    && call.ended_at.is_none_or(|at| at >= fresh_from)
                    && !calls().any(|later| self.past.contains(&later.index) && voids(later, call, digest))
            })
    }

    /// The same of a word of any age.
    pub(super) fn ever_said_present(&self, digest: &Digest) -> bool {
        self.said_present(digest, Duration::MAX)
    }

    /// All that Tier 2 said of a blob, for people: what, in which call, sent and answered when.
    pub(super) fn words(&self, digest: &Digest) -> String {
        let said = |call: &Call| {
            let told = call.told(digest)?;
            let ended = call.ended_at.map_or(f64::INFINITY, |at| at.as_secs_f64());
            let arrived = call.arrived_at.as_secs_f64();
            Some(format!(
                "{told:?} ({}, {arrived:.3} to {ended:.3} s)",
                call.method
            ))
        };
        let words: Vec<String> = self.seen.after.iter().filter_map(said).collect();
        let sent = self.seen.sent_at.as_secs_f64();
        format!("[{}] before or after {sent:.3} s", words.join(", "))
    }

    /// Whether Tier 2 sent wrong bytes for it twice, so that it may be called missing.
    pub(super) fn was_wrong_twice(&self, digest: &Digest) -> bool {
        let reads = self.seen.after.iter().filter(|call| is_fetch(call, digest));
        let rotten = self.truth.rotten.contains(digest);
        reads.filter(|call| rotten || has_wrong_bytes(call)).count() >= 2
    }

    /// Whether wrong bytes came meanwhile.
    pub(super) fn met_wrong_bytes(&self) -> bool {
        let rotten = |call: &Call| {
            call.digests
                .iter()
                .any(|digest| self.truth.rotten.contains(digest))
        };
        self.meanwhile().any(|call| has_wrong_bytes(call) || rotten(call))
    }

    fn met_nonsense(&self) -> bool {
        self.meanwhile().any(|call| has_act(call, &NONSENSE))
    }

    /// Whether this may be called missing, or not found.
    pub(super) fn may_be_missing(&self, digest: &Digest) -> bool {
        self.said_missing(digest) || self.was_wrong_twice(digest)
    }

    /// P5: NOT_FOUND only for what is not there, and otherwise UNAVAILABLE or the code that Tier 2 gave.
    pub(super) fn failure(&self, about: &Digest, status: &Status) -> Finding {
        self.failed_with(status.code(), self.may_be_missing(about), || {
            format!("{:?}: {status}", self.seen.ask)
        })
    }

    /// The same for a code, and with NOT_FOUND allowed or not.
    pub(super) fn failed_with(
        &self,
        code: Code,
        may_be_missing: bool,
        what: impl FnOnce() -> String,
    ) -> Finding {
        // An OK that cannot be true has no code but the proxy's own.
        let own = || {
            [Code::DataLoss, Code::Internal].contains(&code)
                && (self.met_wrong_bytes() || self.met_nonsense())
        };
        let missing = code == Code::NotFound && may_be_missing;
        // Clients do not repeat it. Readers are not turned away so: Tier 1 may have the bytes.
        let reads = matches!(
            self.seen.ask,
            Ask::Read { .. } | Ask::BatchRead { .. } | Ask::GetTree { .. }
        );
        let turned_away = code == Code::FailedPrecondition && self.when_down == WhenDown::Bypass && !reads;
        let kept = code == Code::Unavailable || missing || turned_away || own() || self.was_given(code);
        // Another code tells a client no lie.
        Finding::of(Promise::P5, kept, || {
            format!("{} was not tier 2's word: {}", name(code), what())
        })
        .beyond_the_protocol(code != Code::NotFound)
    }

    /// Whether Tier 2 answered meanwhile with this code.
    fn was_given(&self, code: Code) -> bool {
        self.meanwhile().any(|call| {
            call.outcome == Outcome::Failed(code)
                || call.told.iter().any(|(_, told)| *told == Told::Failed(code))
        })
    }

    /// Acknowledgements of this action result.
    pub(super) fn was_stored(&self, key: &Digest, result: &Bytes) -> bool {
        self.seen
            .after
            .iter()
            .any(|call| call.method == method::UPDATE_ACTION && gave(call, key) == Some(result))
    }

    /// Whether this was given or acknowledged by Tier 2 for the key, and nothing newer is known to have replaced it.
    pub(super) fn is_current(&self, key: &Digest, result: &Bytes, lease: Duration) -> bool {
        let fresh_from = self.seen.sent_at.saturating_sub(lease);
        let calls = || self.seen.after.iter();
        calls().any(|call| {
            gave(call, key) == Some(result)
                && call.ended_at.is_none_or(|at| at >= fresh_from)
                && !calls().any(|later| {
                    let other = gave(later, key).is_some_and(|given| given != result);
                    self.past.contains(&later.index)
                        && is_after(later, call)
                        && (other || says_missing(later, key))
                })
        })
    }

    /// Whether a miss may stand for an outage: Tier 2 gave nothing meanwhile, and that is how it was told to be.
    pub(super) fn is_bypassed(&self, key: &Digest) -> bool {
        self.when_down == WhenDown::Bypass && !self.meanwhile().any(|call| gave(call, key).is_some())
    }

    /// Results that Tier 2 gave or took, and that may be answered for so long.
    pub(super) fn given(&self, key: &Digest, lease: Duration) -> Vec<&'a Bytes> {
        let fresh_from = self.seen.sent_at.saturating_sub(lease);
        let calls = self.seen.after.iter();
        let fresh = calls.filter(|call| call.ended_at.is_none_or(|at| at >= fresh_from));
        fresh.filter_map(|call| gave(call, key)).collect()
    }
}

/// Reads of a blob between two moments, and how many of them a fault met, or did not come to an end.
pub(super) fn fetches(before: &Calls, after: &Calls, digest: &Digest) -> (usize, usize) {
    let known: BTreeSet<u64> = before.iter().map(|call| call.index).collect();
    let reads = after.iter().filter(|call| is_fetch(call, digest));
    let (mut all, mut broken) = (0, 0);
    for call in reads.filter(|call| !known.contains(&call.index)) {
        all += 1;
        let cut = matches!(call.outcome, Outcome::Broken | Outcome::Suspended);
        broken += usize::from(cut || !call.fired.is_empty());
    }
    (all, broken)
}

fn is_fetch(call: &Call, digest: &Digest) -> bool {
    [method::READ, method::BATCH_READ].contains(&call.method.as_str()) && call.digests.contains(digest)
}

fn has_wrong_bytes(call: &Call) -> bool {
    has_act(call, &WRONG_BYTES)
}

fn has_act(call: &Call, acts: &[&str]) -> bool {
    call.fired.iter().any(|firing| acts.contains(&firing.act))
}

fn says_present(call: &Call, digest: &Digest) -> bool {
    call.told(digest) == Some(Told::Present)
}

fn says_missing(call: &Call, digest: &Digest) -> bool {
    // That something is missing for a write, or for a question about many, says nothing of the blob.
    let reads = [
        method::READ,
        method::BATCH_READ,
        method::GET_TREE,
        method::GET_ACTION,
    ];
    let whole = call.outcome == Outcome::Failed(Code::NotFound)
        && reads.contains(&call.method.as_str())
        && call.digests.contains(digest);
    whole || call.told(digest) == Some(Told::Missing)
}

/// The result that Tier 2 gave for the key, or took.
fn gave<'a>(call: &'a Call, key: &Digest) -> Option<&'a Bytes> {
    let named = call.digests.contains(key);
    call.result.as_ref().filter(|_| named)
}

/// Whether `later` says that the blob is gone, and began when `earlier` was over.
fn voids(later: &Call, earlier: &Call, digest: &Digest) -> bool {
    says_missing(later, digest) && is_after(later, earlier)
}

fn is_after(later: &Call, earlier: &Call) -> bool {
    earlier.ended_before.is_some_and(|next| later.index >= next)
}
