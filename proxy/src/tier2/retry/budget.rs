//! How many calls may be repeated. Pure.

use tokio::time::Instant;

/// What one repeat costs.
const REPEAT: u64 = 1000;

/// What a call adds: one in ten may be repeated. A Tier 2 in trouble gets a tenth more to do, not a multiple.
const PER_CALL: u64 = REPEAT / 10;

/// What a second adds: two repeats, so that a node with little to do can get over an accident as well.
const PER_SECOND: u64 = 2 * REPEAT;

/// What can be saved up: a lost connection may have had that many calls on it.
const SAVED_MAX: u64 = 100 * REPEAT;

/// What there is at the start.
const AT_FIRST: u64 = 10 * REPEAT;

/// A bucket that calls and time fill and repeats empty.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    filled_at: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Budget {
        Budget {
            left: AT_FIRST,
            filled_at: now,
        }
    }

    /// A call is made for the first time.
    pub(super) fn first(&mut self, now: Instant) {
        self.fill(now);
        self.left = (self.left + PER_CALL).min(SAVED_MAX);
    }

    /// A call wants to be repeated. Returns whether it may.
    pub(super) fn repeat(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.left.checked_sub(REPEAT) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let added = millis.saturating_mul(PER_SECOND) / 1000;
        // What does not make a whole unit yet counts from the same moment on.
        if added > 0 {
            self.filled_at = now;
            self.left = self.left.saturating_add(added).min(SAVED_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn granted(budget: &mut Budget, now: Instant) -> u64 {
        let mut count = 0;
        while budget.repeat(now) {
            count += 1;
        }
        count
    }

    #[test]
    fn the_floor_is_what_a_quiet_node_lives_on() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        assert_eq!(granted(&mut budget, start), 10);
        assert_eq!(granted(&mut budget, start + Duration::from_millis(499)), 0);
        assert_eq!(granted(&mut budget, start + Duration::from_millis(500)), 1);
        assert_eq!(granted(&mut budget, start + Duration::from_secs(3600)), 100);
    }

    #[test]
    fn a_tenth_of_many_calls_may_be_repeated() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        granted(&mut budget, start);
        let mut repeated = 0;
        for _ in 0..10_000 {
            budget.first(start);
            repeated += u64::from(budget.repeat(start));
        }
        assert_eq!(repeated, 1000);
    }

    proptest! {
        #[test]
        fn never_more_than_a_tenth_and_the_floor(steps in proptest::collection::vec((0_u64..50, 0_u64..400, 0_u64..30), 1..50)) {
            let start = Instant::now();
            let mut budget = Budget::new(start);
            let (mut now, mut calls, mut repeated) = (start, 0, 0);
            for (first, millis, wanted) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..first {
                    budget.first(now);
                    calls += 1;
                }
                for _ in 0..wanted {
                    repeated += u64::from(budget.repeat(now));
                }
                let seconds = now.duration_since(start).as_secs_f64();
                let most = 10.0 + f64::from(calls) / 10.0 + 2.0 * seconds;
                prop_assert!(f64::from(u32::try_from(repeated).unwrap()) <= most);
            }
        }
    }
}
