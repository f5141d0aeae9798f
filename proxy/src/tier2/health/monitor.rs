//! When to probe a service of Tier 2, and what a probe means (R13). Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Health;

/// How long a probe may take.
pub(in crate::tier2) const PROBE_TIMEOUT: Duration = Duration::from_millis(250);

/// From the start of one probe to the start of the next while the service is down.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// From the start of one probe to the start of the next while the service is up: calls may fail by the thousand beside
/// probes that are answered.
const DOUBT_INTERVAL: Duration = Duration::from_millis(50);

/// Decides for one service. Told of doubts and of what became of probes; one probe is under way at a time.
#[derive(Debug)]
pub(in crate::tier2) struct Monitor {
    health: Health,
    doubted_at: Option<Instant>,
    probed_at: Option<Instant>,
}

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor {
            health: Health::Up,
            doubted_at: None,
            probed_at: None,
        }
    }
}

impl Monitor {
    /// What is known.
    pub(in crate::tier2) fn health(&self) -> Health {
        self.health
    }

    /// A call went without an answer, or was answered with UNAVAILABLE.
    pub(in crate::tier2) fn doubt(&mut self, at: Instant) {
        self.doubted_at.get_or_insert(at);
    }

    /// When the next probe is due: while down always, while up if somebody doubts it.
    pub(in crate::tier2) fn next_probe(&self) -> Option<Instant> {
        let not_before = |interval| self.probed_at.map(|at| at + interval);
        match (self.health, self.doubted_at) {
            (Health::Down { .. }, _) => not_before(PROBE_INTERVAL),
            (Health::Up, Some(doubted_at)) => {
                Some(not_before(DOUBT_INTERVAL).map_or(doubted_at, |at| at.max(doubted_at)))
            }
            (Health::Up, None) => None,
        }
    }

    /// A probe that began at `started` has ended. Doubts from before its start are settled by it; those that came later are
    /// to be raised again.
    pub(in crate::tier2) fn probed(&mut self, started: Instant, answered: bool) {
        self.health = match (self.health, answered) {
            (_, true) => Health::Up,
            (Health::Up, false) => Health::Down { since: started },
            (Health::Down { since }, false) => Health::Down { since },
        };
        self.doubted_at = None;
        self.probed_at = Some(started);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_probe_changes_the_health() {
        let start = Instant::now();
        let mut monitor = Monitor::default();
        assert_eq!(monitor.next_probe(), None);
        monitor.doubt(start);
        assert_eq!(monitor.health(), Health::Up);
        assert_eq!(monitor.next_probe(), Some(start));
        monitor.probed(start, false);
        assert_eq!(monitor.health(), Health::Down { since: start });
        assert_eq!(monitor.next_probe(), Some(after(start, 250)));
        monitor.probed(after(start, 250), false);
        assert_eq!(monitor.health(), Health::Down { since: start });
        monitor.probed(after(start, 500), true);
        assert_eq!((monitor.health(), monitor.next_probe()), (Health::Up, None));
    }

    #[tokio::test(start_paused = true)]
    async fn doubts_beside_probes_that_succeed_are_probed_at_a_bounded_pace() {
        let start = Instant::now();
        let mut monitor = Monitor::default();
        monitor.doubt(start);
        monitor.probed(start, true);
        monitor.doubt(after(start, 1));
        assert_eq!(monitor.next_probe(), Some(after(start, 50)));
        monitor.doubt(after(start, 40));
        assert_eq!(
            monitor.next_probe(),
            Some(after(start, 50)),
            "put off by no doubt"
        );
    }

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Doubt,
        /// So many milliseconds pass.
        Pass(u64),
        /// From here on Tier 2 answers, after this long, or does not.
        Answers(Option<u64>),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            Just(Event::Doubt),
            (1_u64..600).prop_map(Event::Pass),
            proptest::option::of(0_u64..400).prop_map(Event::Answers),
        ];
        proptest::collection::vec(event, 1..60)
    }

    /// Runs a monitor against a Tier 2 that is described by events, a millisecond at a time, as the task around it does.
    struct Simulation {
        start: Instant,
        now: u64,
        monitor: Monitor,
        /// Started at, and how it will end, and when.
        probe: Option<(u64, bool, u64)>,
        answers: Option<u64>,
        /// Since when Tier 2 has been answering in time, or not.
        changed_at: u64,
        doubted_at: Option<u64>,
        probes: Vec<u64>,
    }

    impl Simulation {
        fn new() -> Simulation {
            Simulation {
                start: Instant::now(),
                now: 0,
                monitor: Monitor::default(),
                probe: None,
                answers: Some(0),
                changed_at: 0,
                doubted_at: None,
                probes: Vec::new(),
            }
        }

        fn answers_in_time(&self) -> bool {
            self.answers.is_some_and(|millis| millis < 250)
        }

        fn apply(&mut self, event: Event) {
            match event {
                Event::Doubt => {
                    self.doubted_at.get_or_insert(self.now);
                    if self.probe.is_none() {
                        self.monitor.doubt(after(self.start, self.now));
                    }
                }
                Event::Pass(millis) => (0..millis).for_each(|_| self.tick()),
                Event::Answers(millis) => {
                    let before = self.answers_in_time();
                    self.answers = millis;
                    if self.answers_in_time() != before {
                        self.changed_at = self.now;
                    }
                }
            }
        }

        fn tick(&mut self) {
            if let Some((started, answered, ends)) = self.probe
                && ends <= self.now
            {
                self.probe = None;
                self.monitor.probed(after(self.start, started), answered);
                match self.doubted_at {
                    Some(doubted_at) if doubted_at > started => {
                        self.monitor.doubt(after(self.start, self.now));
                    }
                    _ => self.doubted_at = None,
                }
            }
            let due = self.monitor.next_probe();
            if self.probe.is_none() && due.is_some_and(|at| at <= after(self.start, self.now)) {
                self.probes.push(self.now);
                let took = self.answers.unwrap_or(u64::MAX).min(250);
                self.probe = Some((self.now, self.answers_in_time(), self.now + took));
            }
            self.check();
            self.now += 1;
        }

        fn check(&self) {
            let down = self.monitor.health() != Health::Up;
            let steady_for = self.now - self.changed_at;
            // A probe under way, its pause, and the one that finds out.
            if down && self.answers_in_time() {
                assert!(
                    steady_for <= 750,
                    "a return is seen within a second: {}",
                    self.now
                );
            }
            if let Some(doubted_at) = self.doubted_at
                && !down
                && !self.answers_in_time()
                && doubted_at >= self.changed_at
            {
                assert!(self.now - doubted_at <= 600, "a doubt is settled: {}", self.now);
            }
            if down {
                assert!(!self.probes.is_empty(), "nothing but a probe takes it down");
            }
        }
    }

    proptest! {
        #[test]
        fn outages_and_returns_are_found_out_whatever_happens(events in events()) {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let _time = runtime.enter();
            let mut simulation = Simulation::new();
            for event in events {
                simulation.apply(event);
            }
            for pair in simulation.probes.windows(2) {
                prop_assert!(pair[1] - pair[0] >= 50, "probes keep their distance: {pair:?}");
            }
        }
    }
}
