//! Uploads by what their clients call them, so that a broken one can be asked about and resumed.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::IntGauge;
use tokio::time::Instant;

use super::crowd::Crowd;
use super::resume::Kept;
use super::session::{Name, Session};

/// The uploads that are open, being committed or kept. Bounded by the bounds on those.
pub(super) struct Names {
    by_name: HashMap<Name, Arc<Session>>,
    kept: Kept<Arc<Session>>,
    crowd: Crowd,
    /// Whether a task ends what is kept when its time is up.
    pub(super) swept: bool,
    gauge: IntGauge,
}

impl Names {
    pub(super) fn new(gauge: IntGauge) -> Names {
        Names {
            by_name: HashMap::new(),
            kept: Kept::default(),
            crowd: Crowd::default(),
            swept: false,
            gauge,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(super) fn find(&self, name: &Name) -> Option<&Arc<Session>> {
        self.by_name.get(name)
    }

    /// Whether `session` is what its name stands for.
    pub(super) fn holds(&self, session: &Arc<Session>) -> bool {
        self.find(&session.name)
            .is_some_and(|found| Arc::ptr_eq(found, session))
    }

    /// Gives the name to a new upload. Returns the one that had it.
    pub(super) fn claim(&mut self, session: &Arc<Session>) -> Option<Arc<Session>> {
        let older = self.by_name.insert(session.name.clone(), session.clone())?;
        self.reopen(&older);
        Some(older)
    }

    /// Forgets an upload.
    pub(super) fn forget(&mut self, session: &Arc<Session>) {
        if self.holds(session) {
            self.by_name.remove(&session.name);
        }
        self.reopen(session);
    }

    /// Keeps a broken upload until a client comes back for it.
    pub(super) fn keep(&mut self, session: &Arc<Session>, until: Instant) {
        if self.holds(session) {
            let gone = self.kept.keep(session.clone(), session.watermark(), until);
            self.let_go(&gone);
        }
    }

    /// The upload is open again.
    pub(super) fn reopen(&mut self, session: &Arc<Session>) {
        self.kept.take(|kept| Arc::ptr_eq(kept, session));
        self.count();
    }

    /// The open uploads that give way to newer ones, a few at a time: those whose clients have been silent for
    /// longest, if they were for long enough.
    pub(super) fn giving_way(&mut self, now: Instant) -> Vec<Arc<Session>> {
        if !self.crowd.worth_a_look(now) {
            return Vec::new();
        }
        let idle = self.by_name.values();
        let idle = idle.filter_map(|session| Some((session.idle(now)?, session.clone())));
        self.crowd.choose(idle, now)
    }

    /// Forgets what was kept long enough. Returns when to look again.
    pub(super) fn sweep(&mut self, now: Instant) -> Option<Instant> {
        let gone = self.kept.expire(now);
        self.let_go(&gone);
        self.kept.next_end()
    }

    fn let_go(&mut self, gone: &[Arc<Session>]) {
        for session in gone {
            if self.holds(session) {
                self.by_name.remove(&session.name);
            }
        }
        self.count();
    }

    fn count(&self) {
        self.gauge.set(i64::try_from(self.kept.len()).unwrap_or(i64::MAX));
    }
}
