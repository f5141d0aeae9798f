//! Whether Tier 2 answers: what is known of it, for whoever has to know.

mod monitor;

use tokio::sync::watch;
use tokio::time::Instant;

pub(super) use self::monitor::{Monitor, PROBE_TIMEOUT};

/// The services of Tier 2 that fail apart: often they are different servers behind one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Blobs.
    Cas,
    /// Action results.
    ActionCache,
}

impl Service {
    /// Both of them.
    pub const ALL: [Service; 2] = [Service::Cas, Service::ActionCache];

    /// As metrics and logs call it.
    pub fn label(self) -> &'static str {
        match self {
            Service::Cas => "cas",
            Service::ActionCache => "ac",
        }
    }
}

/// Whether a service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// The last probe was answered, or nothing went wrong yet.
    Up,
    /// The last probe was not answered.
    Down {
        /// When the first probe began that was not answered.
        since: Instant,
    },
}

impl Health {
    /// Since when it has been down; `None` while it is up.
    pub fn down_since(self) -> Option<Instant> {
        match self {
            Health::Up => None,
            Health::Down { since } => Some(since),
        }
    }
}

/// The health of both services, to look at. Clones see the same.
#[derive(Clone, Debug)]
pub struct Outlook {
    cas: watch::Receiver<Health>,
    action_cache: watch::Receiver<Health>,
}

/// Tells all who hold the [`Outlook`] what the health is.
#[derive(Debug)]
pub struct Announcer {
    cas: watch::Sender<Health>,
    action_cache: watch::Sender<Health>,
}

/// Both ends. All is well until something else is said.
pub fn outlook() -> (Announcer, Outlook) {
    let (cas, cas_seen) = watch::channel(Health::Up);
    let (action_cache, action_cache_seen) = watch::channel(Health::Up);
    let outlook = Outlook {
        cas: cas_seen,
        action_cache: action_cache_seen,
    };
    (Announcer { cas, action_cache }, outlook)
}

impl Announcer {
    /// The health of a service from now on. Returns what it was before.
    pub fn announce(&self, service: Service, health: Health) -> Health {
        let sender = match service {
            Service::Cas => &self.cas,
            Service::ActionCache => &self.action_cache,
        };
        let before = *sender.borrow();
        // Whoever waits for a change is not to be woken by every probe of an outage.
        sender.send_if_modified(|known| std::mem::replace(known, health) != health);
        before
    }
}

impl Outlook {
    /// The health of a service at this moment.
    pub fn of(&self, service: Service) -> Health {
        *self.seen(service).borrow()
    }

    /// Since when one of the services has been down; `None` while both are up.
    pub fn down_since(&self) -> Option<Instant> {
        let since = Service::ALL.map(|service| self.of(service).down_since());
        since.into_iter().flatten().min()
    }

    /// Waits until a service is known to be down. Cancel safe. Never resolves once nobody watches it any more.
    pub async fn down(&self, service: Service) {
        let mut seen = self.seen(service).clone();
        let down = seen.wait_for(|health| *health != Health::Up).await.is_ok();
        if !down {
            std::future::pending().await
        }
    }

    /// Waits until the health of a service changes from what was seen last. Cancel safe. Never resolves once nobody watches
    /// them any more.
    pub async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.cas.changed() => {}
            Ok(()) = self.action_cache.changed() => {}
            else => std::future::pending().await,
        }
    }

    fn seen(&self, service: Service) -> &watch::Receiver<Health> {
        match service {
            Service::Cas => &self.cas,
            Service::ActionCache => &self.action_cache,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_services_are_told_apart_and_the_longer_outage_counts() {
        let (announcer, mut outlook) = outlook();
        assert_eq!(outlook.down_since(), None);
        let start = Instant::now();
        let later = start + Duration::from_secs(1);
        let up = announcer.announce(Service::ActionCache, Health::Down { since: later });
        assert_eq!(up, Health::Up);
        outlook.changed().await;
        outlook.down(Service::ActionCache).await;
        assert_eq!(outlook.of(Service::Cas), Health::Up);
        assert_eq!(outlook.down_since(), Some(later));
        announcer.announce(Service::Cas, Health::Down { since: start });
        outlook.changed().await;
        assert_eq!(outlook.down_since(), Some(start));
        announcer.announce(Service::Cas, Health::Down { since: start });
        let changed = tokio::time::timeout(Duration::from_secs(60), outlook.changed()).await;
        assert!(changed.is_err(), "the same word wakes nobody");
    }
}
