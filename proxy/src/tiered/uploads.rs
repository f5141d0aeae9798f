//! One upstream upload per blob, however many clients send it (R12).
//!
//! The clients that upload the same blob form a contest. Its task, which belongs to the node, lets one of them feed
//! Tier 2. If that one fails, the stream to Tier 2 is reset and the next one feeds a new one from its own first byte. If the
//! connection breaks, the upload is begun anew, once, with what was staged. What Tier 2 says ends the contest for all of them.

mod contests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::contests::Step;
use super::CallError;
use super::feeder::feed;
use super::pending::PendingCopy;
use super::session::{Origin, Session};
use super::writes::{Inner, Publish};
use crate::call::BlobKey;
use crate::tier2::{Ack, Tier2Error};

pub(super) use self::contests::Contests;

/// How often a leading client is compared with the others. Matters only while it has others beside it.
const COMPARE_EVERY: Duration = Duration::from_millis(500);

/// How long an acknowledgement waits for Tier 1 at most: a slow disk is no reason to hold back what Tier 2 has said.
pub(super) const PUBLISH_PATIENCE: Duration = Duration::from_secs(5);

/// How an upstream stream ended.
enum Attempt {
    /// By Tier 2's word.
    Answered(Result<Ack, Tier2Error>),
    /// By its client's fault, or for another client.
    Lost,
}

impl Inner {
    /// Gives an upload a place in the contest of its blob, which begins with the first of them.
    pub(super) fn join(self: &Arc<Inner>, session: Arc<Session>) {
        let key = session.key.clone();
        if let Some(changed) = self.contests.join(session) {
            drop(self.tasks.spawn(self.clone().hold_contest(key, changed)));
        }
    }

    async fn hold_contest(self: Arc<Inner>, key: BlobKey, changed: Arc<Notify>) {
        let stop = self.tasks.stopping();
        let mut attempts = 0;
        let mut repeated = false;
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
                }
                Step::Lead(leader, attempt) => {
                    attempts += 1;
                    self.metrics.upstream.inc();
                    if attempts > 1 + u32::from(repeated) {
                        self.metrics.taken_over.inc();
                    }
                    match self.attempt(&leader, attempt, &changed).await {
                        // Once: what breaks two connections may do so with every one.
                        Attempt::Answered(Err(Tier2Error::Down(cause)))
                            if !repeated && leader.feeds(attempt) =>
                        {
                            repeated = true;
                            self.metrics.repeated.inc();
                            let digest = &leader.key.digest;
                            tracing::debug!(%digest, %cause, "an upload is begun anew on another connection");
                            leader.end_feed(attempt);
                        }
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
        let candidates = self.contests.close(key, outcome.is_ok());
        if let Err(error) = &outcome {
            tracing::debug!(digest = %key.digest, error = error as &dyn std::error::Error, "upload failed");
        } else {
            let clients = candidates.iter().filter(|other| other.origin == Origin::Client);
            let others = clients.filter(|other| !Arc::ptr_eq(other, leader)).count();
            self.metrics.shared.inc_by(others as u64);
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
