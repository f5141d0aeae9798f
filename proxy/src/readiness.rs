//! Whether this node should get traffic: a pure rule over its phase and the state of Tier 2.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::tier2::health::Outlook;

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The port is open and calls are answered.
    Serving,
    /// Told to end: calls in flight finish, new ones go elsewhere.
    Draining,
}

/// Why a node is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotReady {
    /// It is going down.
    Draining,
    /// Tier 2 has been down for longer than `readiness.tier2`.
    Tier2Down,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotReady::Draining => "draining",
            NotReady::Tier2Down => "tier 2 is down",
        })
    }
}

/// The rule: not while draining, and not once a service of Tier 2 has been down for `patience`. A short outage moves no
/// traffic, since every other node would see the same outage. Without a patience the node is of use without Tier 2.
pub fn judge(
    phase: Phase,
    down_since: Option<Instant>,
    patience: Option<Duration>,
    now: Instant,
) -> Result<(), NotReady> {
    match (phase, down_since, patience) {
        (Phase::Draining, _, _) => Err(NotReady::Draining),
        (Phase::Serving, Some(since), Some(patience)) if now.duration_since(since) >= patience => {
            Err(NotReady::Tier2Down)
        }
        (Phase::Serving, _, _) => Ok(()),
    }
}

/// What `/readyz` and grpc.health.v1 look at.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: watch::Receiver<Phase>,
    tier2: Outlook,
    patience: Option<Duration>,
}

impl Readiness {
    /// Watches the node's phase and Tier 2's health, if there is a `patience` for it.
    pub fn new(phase: watch::Receiver<Phase>, tier2: Outlook, patience: Option<Duration>) -> Readiness {
        Readiness {
            phase,
            tier2,
            patience,
        }
    }

    /// Whether the node is ready at this moment.
    ///
    /// # Errors
    /// The reason why not.
    pub fn now(&self) -> Result<(), NotReady> {
        judge(
            *self.phase.borrow(),
            self.tier2.down_since(),
            self.patience,
            Instant::now(),
        )
    }

    /// Waits until the answer of [`Readiness::now`] may have changed. Cancel safe. Never resolves when it cannot change
    /// any more.
    pub async fn changed(&mut self) {
        let runs_out_at = self.tier2.down_since().zip(self.patience);
        let runs_out_at = runs_out_at.map(|(since, patience)| since + patience);
        let runs_out = async {
            match runs_out_at {
                Some(at) if at > Instant::now() => tokio::time::sleep_until(at).await,
                Some(_) | None => std::future::pending().await,
            }
        };
        let phase = async {
            if self.phase.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            () = runs_out => {}
            () = phase => {}
            () = self.tier2.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::tier2::health::{Health, Service, outlook};

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_moves_no_traffic_and_a_long_one_does() {
        let start = Instant::now();
        let at = |patience, seconds| {
            let now = start + Duration::from_secs(seconds);
            judge(Phase::Serving, Some(start), patience, now)
        };
        assert_eq!(at(PATIENCE, 9), Ok(()));
        assert_eq!(at(PATIENCE, 10), Err(NotReady::Tier2Down));
        assert_eq!(at(None, 1_000_000), Ok(()), "of use without tier 2");
        assert_eq!(judge(Phase::Serving, None, PATIENCE, start), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_comes_first() {
        assert_eq!(
            judge(Phase::Draining, None, PATIENCE, Instant::now()),
            Err(NotReady::Draining)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn changed_wakes_when_patience_runs_out_and_when_the_phase_changes() {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (announcer, outlook) = outlook();
        let mut readiness = Readiness::new(phases, outlook, PATIENCE);
        let since = Instant::now();
        announcer.announce(Service::ActionCache, Health::Down { since });
        readiness.changed().await;
        assert_eq!(readiness.now(), Ok(()));
        readiness.changed().await; // virtual time runs to the end of the patience
        assert_eq!(readiness.now(), Err(NotReady::Tier2Down));
        phase.send_replace(Phase::Draining);
        readiness.changed().await;
        assert_eq!(readiness.now(), Err(NotReady::Draining));
    }
}
