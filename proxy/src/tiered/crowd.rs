//! Who gives way when there are too many uploads. Pure.
//!
//! Clients that begin uploads and go silent could keep every place from those who have something to send, for as long as
//! the silent are tolerated. So a newcomer that finds no place takes that of the most silent.

use std::cmp::Reverse;
use std::time::Duration;

use tokio::time::Instant;

/// Silence after which an upload gives way, when there is no place left. A client that is at work sends many times a second.
pub(super) const SILENCE: Duration = Duration::from_secs(1);

/// Uploads that give way at once: the look at all of them then pays for so many newcomers.
pub(super) const GIVING_WAY_MAX: usize = 64;

/// Remembers when it is worth to look again.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    not_before: Option<Instant>,
}

impl Crowd {
    /// Whether there can be an upload that has been silent for long enough. A flood of newcomers is turned away without a
    /// look at thousands of uploads for each.
    pub(super) fn worth_a_look(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|not_before| now >= not_before)
    }

    /// Those who give way, the most silent first.
    pub(super) fn choose<T>(&mut self, silent: impl Iterator<Item = (Duration, T)>, now: Instant) -> Vec<T> {
        let mut silent: Vec<(Duration, T)> = silent.collect();
        silent.sort_by_key(|(silence, _)| Reverse(*silence));
        let longest = silent.first().map_or(Duration::ZERO, |(silence, _)| *silence);
        self.not_before = Some(now + SILENCE.saturating_sub(longest));
        let giving_way = silent.into_iter().take(GIVING_WAY_MAX);
        giving_way
            .take_while(|(silence, _)| *silence >= SILENCE)
            .map(|(_, upload)| upload)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_most_silent_give_way_and_who_is_at_work_does_not() {
        let mut crowd = Crowd::default();
        let silent = [(SILENCE / 2, 'a'), (SILENCE, 'b'), (SILENCE * 2, 'c')];
        assert_eq!(crowd.choose(silent.into_iter(), Instant::now()), ['c', 'b']);
        let many = (0..1000).map(|number| (SILENCE, number));
        assert_eq!(crowd.choose(many, Instant::now()).len(), GIVING_WAY_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_looks_before_somebody_can_have_been_silent_for_long_enough() {
        let mut crowd = Crowd::default();
        let now = Instant::now();
        assert!(crowd.worth_a_look(now));
        assert_eq!(crowd.choose([(SILENCE / 4, 'a')].into_iter(), now), []);
        assert!(!crowd.worth_a_look(now + SILENCE / 2));
        assert!(crowd.worth_a_look(now + SILENCE * 3 / 4));
    }
}
