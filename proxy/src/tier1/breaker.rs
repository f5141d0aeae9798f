//! When a disk that hangs or fails is passed over. Pure.
//!
//! Each step on a disk that hangs costs its caller seconds before Tier 2 is asked. After a few such steps the disk is not
//! asked any more for a while; then one caller at a time tries it, until a step succeeds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Reads that hang or fail within [`WINDOW`] before the disk is passed over. One bad sector is not a bad disk.
pub(super) const FAILURES_MAX: usize = 3;

/// For how long a failure counts.
pub(super) const WINDOW: Duration = Duration::from_secs(30);

/// How long the disk is passed over before it is tried, and between two trials. A trial may cost its caller the patience
/// with a step.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(10);

/// What a read is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// Ask the disk.
    Go,
    /// Go on with Tier 2.
    PassOver,
}

/// What changed by a read's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// The disk is passed over from here on.
    Opened,
    /// The disk is in use again.
    Closed,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: VecDeque<Instant>,
    /// While it is passed over: when the next trial is due.
    trial_at: Option<Instant>,
}

impl Breaker {
    /// Whether a read may ask the disk. While the disk is passed over, the read that is told to go is the trial: whatever
    /// becomes of it, the next has to wait.
    pub(super) fn ask(&mut self, now: Instant) -> Word {
        match self.trial_at {
            None => Word::Go,
            Some(trial_at) if now >= trial_at => {
                self.trial_at = Some(now + COOL_DOWN);
                Word::Go
            }
            Some(_) => Word::PassOver,
        }
    }

    /// Whether the disk is passed over, trials aside.
    pub(super) fn is_open(&self) -> bool {
        self.trial_at.is_some()
    }

    /// The disk read something.
    pub(super) fn succeeded(&mut self) -> Option<Turn> {
        self.failures.clear();
        self.trial_at.take().map(|_| Turn::Closed)
    }

    /// The disk did not answer in time, or failed.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Turn> {
        if self.is_open() {
            self.trial_at = Some(now + COOL_DOWN);
            return None;
        }
        let counts = |failure: &Instant| now.saturating_duration_since(*failure) < WINDOW;
        self.failures.retain(counts);
        self.failures.push_back(now);
        if self.failures.len() < FAILURES_MAX {
            return None;
        }
        self.failures.clear();
        self.trial_at = Some(now + COOL_DOWN);
        Some(Turn::Opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(now), None);
        }
        assert_eq!(breaker.failed(now), Some(Turn::Opened));
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_failed_a_few_times_is_passed_over() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert!(breaker.is_open());
        assert_eq!(breaker.ask(now), Word::PassOver);
        assert_eq!(
            breaker.ask(now + COOL_DOWN - Duration::from_millis(1)),
            Word::PassOver
        );
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_are_far_apart_or_have_a_success_between_them_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for number in 0..10 {
            assert_eq!(breaker.failed(now + number * WINDOW), None);
        }
        let later = now + 20 * WINDOW;
        for _ in 0..10 {
            assert_eq!(breaker.failed(later), None);
            assert_eq!(breaker.succeeded(), None);
        }
        assert_eq!(breaker.ask(later), Word::Go);
    }

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_tries_a_disk_that_is_passed_over() {
        let mut breaker = opened(Instant::now());
        let mut now = Instant::now() + COOL_DOWN;
        for _ in 0..3 {
            assert_eq!(breaker.ask(now), Word::Go);
            assert_eq!(breaker.ask(now), Word::PassOver);
            // Its caller may have gone without a word: the next is let through all the same.
            now += COOL_DOWN;
        }
        assert_eq!(breaker.failed(now), None);
        assert_eq!(breaker.ask(now), Word::PassOver);
        assert_eq!(breaker.ask(now + COOL_DOWN), Word::Go);
        assert_eq!(breaker.succeeded(), Some(Turn::Closed));
        assert_eq!(breaker.ask(now), Word::Go);
        assert!(!breaker.is_open());
    }
}
