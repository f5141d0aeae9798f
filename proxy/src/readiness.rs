//! Whether this node should get traffic: a pure rule over its phase and the state of Tier 2.

use std::fmt;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::tier2::health::Health;

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

/// The rule: not while draining, and not once Tier 2 has been down for `patience`. A short outage moves no traffic, since
/// every other node would see the same outage.
pub fn judge(phase: Phase, tier2: Health, patience: Duration, now: Instant) -> Result<(), NotReady> {
    match (phase, tier2) {
        (Phase::Draining, _) => Err(NotReady::Draining),
        (Phase::Serving, Health::Down { since }) if now.duration_since(since) >= patience => {
            Err(NotReady::Tier2Down)
        }
        (Phase::Serving, _) => Ok(()),
    }
}

/// What `/readyz` and grpc.health.v1 look at.
#[derive(Clone, Debug)]
pub struct Readiness {
    phase: watch::Receiver<Phase>,
    tier2: watch::Receiver<Health>,
    patience: Duration,
}

impl Readiness {
    /// Watches the node's phase and Tier 2's state.
    pub fn new(
        phase: watch::Receiver<Phase>,
        tier2: watch::Receiver<Health>,
        patience: Duration,
    ) -> Readiness {
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
            *self.tier2.borrow(),
            self.patience,
            Instant::now(),
        )
    }

    /// Waits until the answer of [`Readiness::now`] may have changed. Cancel safe. Never resolves when it cannot change
    /// any more.
    pub async fn changed(&mut self) {
        let tier2 = *self.tier2.borrow();
        let patience = self.patience;
        let runs_out = async {
            match tier2 {
                Health::Down { since } if since + patience > Instant::now() => {
                    tokio::time::sleep_until(since + patience).await;
                }
                Health::Down { .. } | Health::Up => std::future::pending().await,
            }
        };
        let watched = async {
            tokio::select! {
                Ok(()) = self.phase.changed() => {}
                Ok(()) = self.tier2.changed() => {}
                else => std::future::pending().await,
            }
        };
        tokio::select! {
            () = runs_out => {}
            () = watched => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_short_outage_moves_no_traffic_and_a_long_one_does() {
        let start = Instant::now();
        let at = |seconds| {
            judge(
                Phase::Serving,
                Health::Down { since: start },
                PATIENCE,
                start + Duration::from_secs(seconds),
            )
        };
        assert_eq!(at(9), Ok(()));
        assert_eq!(at(10), Err(NotReady::Tier2Down));
        assert_eq!(judge(Phase::Serving, Health::Up, PATIENCE, start), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn draining_comes_first() {
        assert_eq!(
            judge(Phase::Draining, Health::Up, PATIENCE, Instant::now()),
            Err(NotReady::Draining)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn changed_wakes_when_patience_runs_out_and_when_the_phase_changes() {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (down, downs) = watch::channel(Health::Up);
        let mut readiness = Readiness::new(phases, downs, PATIENCE);
        down.send_replace(Health::Down {
            since: Instant::now(),
        });
        readiness.changed().await;
        assert_eq!(readiness.now(), Ok(()));
        readiness.changed().await; // virtual time runs to the end of the patience
        assert_eq!(readiness.now(), Err(NotReady::Tier2Down));
        phase.send_replace(Phase::Draining);
        readiness.changed().await;
        assert_eq!(readiness.now(), Err(NotReady::Draining));
    }
}
