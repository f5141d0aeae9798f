//! What ends all leases at once, whatever their age (R4): things may have happened in Tier 2 that nobody saw.

use std::fmt;
use std::time::Duration;

use crate::tier2::Losses;
use crate::tier2::health::{Health, Outlook, Service};

/// Difference of two readings of two clocks that is no sleep: what lies between reading one and the other on a machine
/// that is busy.
const SLEEP_MIN: Duration = Duration::from_millis(500);

/// Between two readings of clocks no more than this has to pass; it takes less than a microsecond, if nothing intervenes.
const READING_MAX: Duration = Duration::from_millis(1);

/// Readings until then. One of so many is quick enough on any machine that gets anything done.
const READINGS_MAX: u32 = 16;

/// Why leases ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tiered) enum Doubt {
    /// Tier 2 was down and is back.
    Outage,
    /// The last connection to it was lost.
    Disconnected,
    /// The clock that leases are dated by stood still for a while.
    Slept,
    /// It lacked what it had said it had, several times in a row.
    Surprises,
}

impl Doubt {
    /// As it stands in logs and metrics.
    pub(in crate::tiered) fn word(self) -> &'static str {
        match self {
            Doubt::Outage => "outage",
            Doubt::Disconnected => "disconnected",
            Doubt::Slept => "slept",
            Doubt::Surprises => "surprises",
        }
    }
}

/// The signs that are looked at before leases are used.
pub struct Signs {
    outlook: Option<Outlook>,
    was_down: bool,
    losses: Losses,
    losses_seen: u64,
    slept: Box<dyn Fn() -> Duration + Send>,
    slept_before: Duration,
}

impl Signs {
    /// Whether Tier 2's CAS answers, how often all connections to it were lost, and how long the machine has slept since it
    /// started.
    pub fn new(outlook: Outlook, losses: Losses, slept: impl Fn() -> Duration + Send + 'static) -> Signs {
        Signs::of(Some(outlook), losses, Box::new(slept))
    }

    /// Nothing ever happens.
    pub fn none() -> Signs {
        Signs::of(None, Losses::default(), Box::new(|| Duration::ZERO))
    }

    fn of(outlook: Option<Outlook>, losses: Losses, slept: Box<dyn Fn() -> Duration + Send>) -> Signs {
        Signs {
            outlook,
            was_down: false,
            losses_seen: losses.count(),
            losses,
            slept_before: slept(),
            slept,
        }
    }

    /// What to wait on for changes of the health.
    pub(super) fn outlook(&self) -> Option<Outlook> {
        self.outlook.clone()
    }

    /// What happened since the last look, if that ends leases. While Tier 2 is down they stay: nothing can be asked instead.
    pub(super) fn arisen(&mut self) -> Option<Doubt> {
        let outage = self.outage_ended().then_some(Doubt::Outage);
        let losses = self.losses.count();
        // In an outage each probe may make a connection and lose it. Its end will tell.
        let lost = (losses != self.losses_seen && !self.was_down).then_some(Doubt::Disconnected);
        self.losses_seen = losses;
        let slept = (self.slept)();
        let jumped = (slept.saturating_sub(self.slept_before) >= SLEEP_MIN).then_some(Doubt::Slept);
        if jumped.is_some() {
            self.slept_before = slept;
        }
        outage.or(lost).or(jumped)
    }

    fn outage_ended(&mut self) -> bool {
        let is_down = self
            .outlook
            .as_ref()
            .is_some_and(|outlook| outlook.of(Service::Cas) != Health::Up);
        std::mem::replace(&mut self.was_down, is_down) && !is_down
    }
}

impl fmt::Debug for Signs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signs")
            .field("was_down", &self.was_down)
            .finish_non_exhaustive()
    }
}

/// How long this machine has slept since it started: what one clock counts and the other, by which leases are dated, does
/// not. The two are read one after the other; what a busy machine does in between is no sleep.
pub fn time_slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let read = |clock| {
        let now = clock_gettime(clock);
        let seconds = Duration::from_secs(u64::try_from(now.tv_sec).unwrap_or(0));
        seconds + Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0))
    };
    time_slept_by(|| read(ClockId::Monotonic), || read(ClockId::Boottime))
}

/// The difference of two clocks, by the readings that were taken in the quickest succession.
fn time_slept_by(mut awake: impl FnMut() -> Duration, mut all: impl FnMut() -> Duration) -> Duration {
    let mut best = (Duration::MAX, Duration::ZERO);
    for _ in 0..READINGS_MAX {
        let before = awake();
        let all = all();
        let took = awake().saturating_sub(before);
        best = best.min((took, all.saturating_sub(before)));
        if took < READING_MAX {
            break;
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::tier2::health::outlook;

    #[test]
    fn a_pause_between_two_readings_of_clocks_is_no_sleep() {
        let millis = Duration::from_millis;
        // The machine has slept for 100 s. Between the first two readings this process had to wait for a second.
        let mut awake = [millis(0), millis(1000), millis(1000), millis(1000)].into_iter();
        let mut all = [millis(101_000), millis(101_000)].into_iter();
        let slept = time_slept_by(|| awake.next().unwrap(), || all.next().unwrap());
        assert_eq!(slept, millis(100_000));
    }

    #[test]
    fn r4_leases_end_when_tier_2_is_back_and_not_while_it_is_away() {
        let (announcer, outlook) = outlook();
        let mut signs = Signs::new(outlook, Losses::default(), || Duration::ZERO);
        assert_eq!(signs.arisen(), None);
        let down = Health::Down {
            since: Instant::now(),
        };
        announcer.announce(Service::ActionCache, down);
        announcer.announce(Service::ActionCache, Health::Up);
        assert_eq!(signs.arisen(), None, "blobs are the CAS's");
        announcer.announce(Service::Cas, down);
        assert_eq!((signs.arisen(), signs.arisen()), (None, None));
        announcer.announce(Service::Cas, Health::Up);
        assert_eq!((signs.arisen(), signs.arisen()), (Some(Doubt::Outage), None));
    }

    #[test]
    fn r13_what_an_outage_loses_beside_ends_nothing_before_the_outage_does() {
        let (announcer, outlook) = outlook();
        let losses = Losses::default();
        let mut signs = Signs::new(outlook, losses.clone(), || Duration::ZERO);
        let since = Instant::now();
        announcer.announce(Service::Cas, Health::Down { since });
        losses.add();
        assert_eq!(signs.arisen(), None);
        announcer.announce(Service::Cas, Health::Up);
        assert_eq!((signs.arisen(), signs.arisen()), (Some(Doubt::Outage), None));
    }

    #[test]
    fn r4_leases_end_when_the_last_connection_is_lost() {
        let losses = Losses::default();
        let mut signs = Signs::of(None, losses.clone(), Box::new(|| Duration::ZERO));
        assert_eq!(signs.arisen(), None);
        losses.add();
        assert_eq!(
            (signs.arisen(), signs.arisen()),
            (Some(Doubt::Disconnected), None)
        );
    }

    #[test]
    fn r4_leases_end_when_the_machine_has_slept_and_not_for_the_noise_of_two_clocks() {
        let slept = Arc::new(AtomicU64::new(10_000));
        let clock = slept.clone();
        let read = move || Duration::from_millis(clock.load(Ordering::Relaxed));
        let mut signs = Signs::of(None, Losses::default(), Box::new(read));
        assert_eq!(signs.arisen(), None, "before this process began");
        slept.store(10_300, Ordering::Relaxed);
        assert_eq!(signs.arisen(), None);
        slept.store(10_000, Ordering::Relaxed);
        assert_eq!(signs.arisen(), None);
        slept.store(11_000, Ordering::Relaxed);
        assert_eq!((signs.arisen(), signs.arisen()), (Some(Doubt::Slept), None));
    }

    #[test]
    fn the_clocks_of_this_machine_can_be_read() {
        let slept = time_slept();
        assert!(time_slept().saturating_sub(slept) < SLEEP_MIN);
    }
}
