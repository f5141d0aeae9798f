//! What is answered while Tier 2 is down: the table of R13. Pure.

use std::time::Duration;

/// `tier2.when_down`: what readers get while Tier 2 is known to be down. No write is acknowledged in any mode (P6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenDown {
    /// Every call fails, also where Tier 1 has the bytes: clients see the outage, and whoever places calls can act on it.
    Fail,
    /// What was known when the outage began is still said for a while, and Tier 1's bytes are served.
    ServeTier1,
    /// A build goes on as if it had no cache: nothing is found, and what is refused is refused in a way that no client
    /// repeats.
    Bypass,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Whether there is an action result.
    Action,
    /// Which blobs are missing.
    Missing,
    /// Bytes of blobs.
    Bytes,
    /// To have something stored.
    Store,
}

/// What this node can say of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// What Tier 2 said before the outage answers the whole question: our copy of the action result was valid then and
    /// Tier 1 has all that it refers to; or each blob was under a lease.
    pub(super) known_before: bool,
    pub(super) down_for: Duration,
    /// `tier2.max_outage`: for how long that counts.
    pub(super) max_outage: Duration,
}

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What was known before.
    Known,
    /// Whatever Tier 1 has of it; for the rest UNAVAILABLE.
    Tier1,
    /// UNAVAILABLE: clients come again.
    Unavailable,
    /// NOT_FOUND, which makes a build do the work itself.
    NotFound,
    /// FAILED_PRECONDITION: clients do not come again.
    Refused,
}

/// The table.
pub(super) fn answer(mode: WhenDown, asked: Asked, facts: Facts) -> Answer {
    match (mode, asked) {
        (WhenDown::Fail, _) | (WhenDown::ServeTier1, Asked::Store) => Answer::Unavailable,
        (WhenDown::ServeTier1, Asked::Action | Asked::Missing) => {
            if facts.known_before && facts.down_for <= facts.max_outage {
                Answer::Known
            } else {
                Answer::Unavailable
            }
        }
        (WhenDown::ServeTier1 | WhenDown::Bypass, Asked::Bytes) => Answer::Tier1,
        (WhenDown::Bypass, Asked::Action) => Answer::NotFound,
        (WhenDown::Bypass, Asked::Missing | Asked::Store) => Answer::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[track_caller]
    fn check(asked: Asked, known_before: bool, down_for: Duration, expected: [Answer; 3]) {
        let facts = Facts {
            known_before,
            down_for,
            max_outage: HOUR,
        };
        let modes = [WhenDown::Fail, WhenDown::ServeTier1, WhenDown::Bypass];
        assert_eq!(modes.map(|mode| answer(mode, asked, facts)), expected);
    }

    #[test]
    fn each_call_has_its_answer_in_each_mode() {
        use Answer::{Known, NotFound, Refused, Tier1, Unavailable};
        let soon = Duration::from_secs(1);
        let late = HOUR + Duration::from_millis(1);
        check(Asked::Action, true, soon, [Unavailable, Known, NotFound]);
        check(Asked::Action, false, soon, [Unavailable, Unavailable, NotFound]);
        check(Asked::Action, true, HOUR, [Unavailable, Known, NotFound]);
        check(Asked::Action, true, late, [Unavailable, Unavailable, NotFound]);
        check(Asked::Missing, true, soon, [Unavailable, Known, Refused]);
        check(Asked::Missing, false, soon, [Unavailable, Unavailable, Refused]);
        check(Asked::Missing, true, late, [Unavailable, Unavailable, Refused]);
        for (known, down_for) in [(false, soon), (true, late)] {
            check(Asked::Bytes, known, down_for, [Unavailable, Tier1, Tier1]);
            check(Asked::Store, known, down_for, [Unavailable, Unavailable, Refused]);
        }
    }
}
