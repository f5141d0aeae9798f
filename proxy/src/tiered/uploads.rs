//! One upstream upload per blob, however many clients send it (R12).
//!
//! The clients that upload the same blob form a contest. Its task, which belongs to the node, lets one of them feed
//! Tier 2. If that one fails, the stream to Tier 2 is reset and the next one feeds a new one from its own first byte. What
//! Tier 2 says ends the contest for all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::CallError;
use super::contest::{Candidate, choose, gives_way};
use super::feeder::feed;
use super::pending::PendingCopy;
use super::session::Session;
use super::writes::{Inner, Publish};
use crate::call::BlobKey;
use crate::tier2::{Ack, Tier2Error};

/// How often a leading client is compared with the others. Matters only while it has others beside it.
const COMPARE_EVERY: Duration = Duration::from_millis(500);

/// How long an acknowledgement waits for Tier 1 at most: a slow disk is no reason to hold back what Tier 2 has said.
pub(super) const PUBLISH_PATIENCE: Duration = Duration::from_secs(5);

/// The contests that are on.
#[derive(Default)]
pub(super) struct Contests {
    by_key: Mutex<HashMap<BlobKey, Contest>>,
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
enum Step {
    /// Nobody is left, and the contest is closed.
    Done,
    /// Nobody has sent a byte.
    Wait,
    /// Let this one feed Tier 2, by the stream of this number.
    Lead(Arc<Session>, u64),
    /// These cannot lead, and nobody else is there. The contest is closed.
    Hopeless(Vec<Arc<Session>>),
}

/// How an upstream stream ended.
enum Attempt {
    /// By Tier 2's word.
    Answered(Result<Ack, Tier2Error>),
    /// By its client's fault, or for another client.
    Lost,
}

impl Contests {
    /// An upload gives up its place, if it has one.
    pub(super) fn leave(&self, session: &Arc<Session>) {
        if let Some(contest) = self.by_key.lock().get_mut(&session.key) {
            contest
                .candidates
                .retain(|candidate| !Arc::ptr_eq(candidate, session));
            contest.changed.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_key.lock().is_empty()
    }

    /// Fires when the uploads of this blob have ended; `None` if there are none.
    pub(super) fn over(&self, key: &BlobKey) -> Option<CancellationToken> {
        let by_key = self.by_key.lock();
        by_key.get(key).map(|contest| contest.over.token().clone())
    }

    /// Something changed for one of the uploads.
    pub(super) fn stir(&self, key: &BlobKey) {
        if let Some(contest) = self.by_key.lock().get(key) {
            contest.changed.notify_one();
        }
    }

    /// Ends a contest. Who comes later begins another.
    fn close(&self, key: &BlobKey) -> Vec<Arc<Session>> {
        let contest = self.by_key.lock().remove(key);
        contest.map(|contest| contest.candidates).unwrap_or_default()
    }

    fn step(&self, key: &BlobKey) -> Step {
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
        if facts.iter().any(|candidate| candidate.whole) {
            return Step::Wait;
        }
        let candidates = by_key
            .remove(key)
            .map(|contest| contest.candidates)
            .unwrap_or_default();
        if candidates.is_empty() {
            Step::Done
        } else {
            Step::Hopeless(candidates)
        }
    }

    /// Whether the stream of `leader` has to end, and how many others there are.
    fn compare(&self, leader: &Arc<Session>) -> (bool, usize) {
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
    fn take_unfinished(&self, key: &BlobKey) -> Vec<Arc<Session>> {
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

impl Inner {
    /// Gives an upload a place in the contest of its blob, which begins with the first of them.
    pub(super) fn join(self: &Arc<Inner>, session: Arc<Session>) {
        let mut by_key = self.contests.by_key.lock();
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
            return;
        }
        let key = session.key.clone();
        let changed = Arc::new(Notify::new());
        let contest = Contest {
            candidates: vec![session],
            led: false,
            changed: changed.clone(),
            over: CancellationToken::new().drop_guard(),
        };
        by_key.insert(key.clone(), contest);
        drop(self.tasks.spawn(self.clone().hold_contest(key, changed)));
    }

    async fn hold_contest(self: Arc<Inner>, key: BlobKey, changed: Arc<Notify>) {
        let stop = self.tasks.stopping();
        let mut attempts = 0;
        loop {
            if stop.is_cancelled() {
                self.turn_away(&key);
            }
            match self.contests.step(&key) {
                Step::Done => return,
                Step::Wait => tokio::select! {
                    () = changed.notified() => {}
                    () = stop.cancelled() => {}
                },
                Step::Hopeless(sessions) => {
                    for session in sessions {
                        self.ended(&session, Err(Tier2Error::Aborted.into()));
                    }
                    return;
                }
                Step::Lead(leader, attempt) => {
                    attempts += 1;
                    self.metrics.upstream.inc();
                    if attempts > 1 {
                        self.metrics.taken_over.inc();
                    }
                    match self.attempt(&leader, attempt, &changed).await {
                        Attempt::Answered(answer) => return self.end_contest(&leader, answer).await,
                        Attempt::Lost => leader.end_feed(attempt),
                    }
                }
            }
        }
    }

    /// One stream to Tier 2. Dropping the call resets it.
    async fn attempt(&self, leader: &Arc<Session>, attempt: u64, changed: &Notify) -> Attempt {
        let call = leader.call.for_node();
        let stop = self.tasks.stopping();
        let write = self
            .tier2
            .write(&call, &leader.key.digest, feed(leader.clone(), attempt));
        tokio::pin!(write);
        let answer = loop {
            let (gives_way, others) = self.contests.compare(leader);
            if gives_way {
                return Attempt::Lost;
            }
            tokio::select! {
                answer = &mut write => break answer,
                () = changed.notified() => {}
                () = sleep(COMPARE_EVERY), if others > 0 => {}
                () = stop.cancelled(), if !leader.is_finished() => return Attempt::Lost,
            }
        };
        match answer {
            // The body gave up because its client did, or because its bytes could not be read back.
            Err(Tier2Error::Aborted) if !leader.feeds(attempt) => Attempt::Lost,
            answer => Attempt::Answered(answer),
        }
    }

    /// Tells all clients what Tier 2 said, and fills Tier 1.
    async fn end_contest(&self, leader: &Arc<Session>, answer: Result<Ack, Tier2Error>) {
        let key = &leader.key;
        let outcome = match answer {
            Ok(_ack) => self.confirm(&leader.call.for_node(), key).await,
            Err(error) => Err(error.into()),
        };
        let candidates = self.contests.close(key);
        if let Err(error) = &outcome {
            tracing::debug!(digest = %key.digest, error = error as &dyn std::error::Error, "upload failed");
        } else {
            self.metrics
                .shared
                .inc_by((candidates.len() as u64).saturating_sub(1));
            self.publish(leader, &candidates).await;
        }
        for session in &candidates {
            self.ended(session, outcome.clone());
        }
    }

    /// Makes a copy of the blob visible in Tier 1 if one of the clients has sent it all. Until that is done the copy is
    /// found among the pending ones.
    async fn publish(&self, leader: &Arc<Session>, candidates: &[Arc<Session>]) {
        for session in std::iter::once(leader).chain(candidates) {
            let Some((staged, proof)) = session.take_copy().await else {
                continue;
            };
            let key = session.key.clone();
            let copy = PendingCopy::Staged(staged.reader());
            let Some(pending) = self.pending.hold(key.clone(), copy) else {
                return;
            };
            let publish = self.tasks.spawn(async move {
                if let Err(error) = staged.publish(proof).await {
                    let error = &error as &dyn std::error::Error;
                    tracing::debug!(digest = %key.digest, error, "upload was not kept in tier 1");
                }
                drop(pending);
            });
            if self.options.publish == Publish::Sync {
                // Late or failed: Tier 2 has the blob, and that is what counts.
                let _done = timeout(PUBLISH_PATIENCE, publish).await;
            }
            return;
        }
    }

    /// The node goes down: what cannot end without its client ends here.
    fn turn_away(&self, key: &BlobKey) {
        for session in self.contests.take_unfinished(key) {
            self.ended(&session, Err(CallError::ShuttingDown));
        }
    }
}
