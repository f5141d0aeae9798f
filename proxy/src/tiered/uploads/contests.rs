//! The contests that are on: who uploads the same blob, and who of them leads.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::call::BlobKey;
use crate::tiered::contest::{Candidate, choose, gives_way};
use crate::tiered::session::Session;
use crate::tiered::underway::FailedUploads;

/// The contests that are on.
pub(in crate::tiered) struct Contests {
    by_key: Mutex<HashMap<BlobKey, Contest>>,
    /// Told of a contest that ends without an acknowledgement before anybody can see that it ended.
    failed: Arc<FailedUploads>,
}

struct Contest {
    candidates: Vec<Arc<Session>>,
    /// One of them feeds Tier 2.
    led: bool,
    /// Tells the contest's task to look again.
    changed: Arc<Notify>,
    /// Fires when the contest is closed.
    over: DropGuard,
}

/// What the contest's task does next.
pub(super) enum Step {
    /// Nobody is left, and the contest is closed.
    Done,
    /// Nobody has sent a byte.
    Wait,
    /// Let this one feed Tier 2, by the stream of this number.
    Lead(Arc<Session>, u64),
    /// These cannot lead, and nobody else can. They have given up their places.
    Hopeless(Vec<Arc<Session>>),
}

impl Contests {
    /// No contest is on.
    pub(in crate::tiered) fn new(failed: Arc<FailedUploads>) -> Contests {
        Contests {
            by_key: Mutex::default(),
            failed,
        }
    }

    /// Gives an upload a place. If it is the first, returns what tells the contest's task to look again: that task has to
    /// be started.
    pub(super) fn join(&self, session: Arc<Session>) -> Option<Arc<Notify>> {
        let mut by_key = self.by_key.lock();
        if let Some(contest) = by_key.get_mut(&session.key) {
            if contest.led {
                session.follow();
            }
            if !contest
                .candidates
                .iter()
                .any(|candidate| Arc::ptr_eq(candidate, &session))
            {
                contest.candidates.push(session);
            }
            contest.changed.notify_one();
            return None;
        }
        let changed = Arc::new(Notify::new());
        let contest = Contest {
            candidates: vec![session.clone()],
            led: false,
            changed: changed.clone(),
            over: CancellationToken::new().drop_guard(),
        };
        by_key.insert(session.key.clone(), contest);
        Some(changed)
    }

    /// An upload gives up its place, if it has one.
    pub(in crate::tiered) fn leave(&self, session: &Arc<Session>) {
        if let Some(contest) = self.by_key.lock().get_mut(&session.key) {
            contest
                .candidates
                .retain(|candidate| !Arc::ptr_eq(candidate, session));
            contest.changed.notify_one();
        }
    }

    #[cfg(test)]
    pub(in crate::tiered) fn is_empty(&self) -> bool {
        self.by_key.lock().is_empty()
    }

    /// Fires when the uploads of this blob have ended; `None` if there are none.
    pub(in crate::tiered) fn over(&self, key: &BlobKey) -> Option<CancellationToken> {
        let by_key = self.by_key.lock();
        by_key.get(key).map(|contest| contest.over.token().clone())
    }

    /// Something changed for one of the uploads.
    pub(in crate::tiered) fn stir(&self, key: &BlobKey) {
        if let Some(contest) = self.by_key.lock().get(key) {
            contest.changed.notify_one();
        }
    }

    /// Ends a contest. Who comes later begins another.
    pub(super) fn close(&self, key: &BlobKey, stored: bool) -> Vec<Arc<Session>> {
        if stored {
            self.failed.forget(key);
        } else {
            self.failed.note(key);
        }
        let contest = self.by_key.lock().remove(key);
        contest.map(|contest| contest.candidates).unwrap_or_default()
    }

    pub(super) fn step(&self, key: &BlobKey) -> Step {
        let mut by_key = self.by_key.lock();
        let Some(contest) = by_key.get_mut(key) else {
            return Step::Done;
        };
        let facts = contest.facts();
        let leader = choose(&facts).and_then(|index| contest.candidates.get(index));
        contest.led = leader.is_some();
        if let Some(leader) = leader {
            // Within the lock, so that a client that hangs up does so before its stream begins or ends it.
            let attempt = leader.start_feed();
            for other in contest
                .candidates
                .iter()
                .filter(|other| !Arc::ptr_eq(other, leader))
            {
                other.follow();
            }
            return Step::Lead(leader.clone(), attempt);
        }
        if contest.candidates.is_empty() {
            self.failed.note(key);
            by_key.remove(key);
            return Step::Done;
        }
        let mut whole = facts.iter().map(|candidate| candidate.whole);
        let (waiting, hopeless): (Vec<_>, Vec<_>) = std::mem::take(&mut contest.candidates)
            .into_iter()
            .partition(|_| whole.next().unwrap_or(true));
        contest.candidates = waiting;
        if hopeless.is_empty() {
            Step::Wait
        } else {
            Step::Hopeless(hopeless)
        }
    }

    /// Whether the stream of `leader` has to end, and how many others there are.
    pub(super) fn compare(&self, leader: &Arc<Session>) -> (bool, usize) {
        let by_key = self.by_key.lock();
        let Some(contest) = by_key.get(&leader.key) else {
            return (true, 0);
        };
        let index = contest
            .candidates
            .iter()
            .position(|candidate| Arc::ptr_eq(candidate, leader));
        match index {
            Some(index) => (gives_way(index, &contest.facts()), contest.candidates.len() - 1),
            None => (true, contest.candidates.len()),
        }
    }

    /// Takes out those that cannot end without their client.
    pub(super) fn take_unfinished(&self, key: &BlobKey) -> Vec<Arc<Session>> {
        let mut by_key = self.by_key.lock();
        let Some(contest) = by_key.get_mut(key) else {
            return Vec::new();
        };
        let (finished, unfinished) = std::mem::take(&mut contest.candidates)
            .into_iter()
            .partition(|candidate| candidate.is_finished());
        contest.candidates = finished;
        unfinished
    }
}

impl Contest {
    fn facts(&self) -> Vec<Candidate> {
        let now = Instant::now();
        self.candidates
            .iter()
            .map(|candidate| candidate.candidate(now))
            .collect()
    }
}
