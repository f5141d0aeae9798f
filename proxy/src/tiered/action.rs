//! Action results: our copy within its lease, else Tier 2's word by one question for all (R7); a hit only if all that it
//! refers to is there (P3). Updates go to Tier 2 one after another.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::CallError;
use super::action_lines::{Place, UpdateLines};
use super::action_table::{ActionCopy, ActionTable, Answer, Awaited, Question, Way};
use super::closure::References;
use super::complete::Closures;
use super::order::uploads_first;
use super::read::Reads;
use super::write_batch::apart;
use super::writes::Writes;
use crate::call::{ActionKey, Call};
use crate::digest::ActionDigest;
use crate::metrics::ActionMetrics;
use crate::tier2::health::{Outlook, Service};
use crate::tier2::{RawActionResult, Tier2, Tier2Error};

/// Questions to Tier 2 that are open at once, each a small call. Clients that need another one wait for a place.
const QUESTIONS_MAX: usize = 1024;

/// How long a question that clients share may take: a connect and a first byte, twice.
const QUESTION_PATIENCE: Duration = Duration::from_secs(30);

/// Shared questions per call, while updates of the same key keep outdating their answers. After them it asks for itself.
const SHARED_QUESTIONS: usize = 3;

/// How long an update may wait before it is sent: for the updates of its key that came before, and for uploads of blobs that
/// it names. Tier 2 answers an update within seconds, and a client that works in order has its blobs acknowledged before it
/// sends the result; one that finds it otherwise should not stand in line for as long as many calls that hang.
const SEND_PATIENCE: Duration = Duration::from_secs(10);

/// How action results are kept.
#[derive(Debug, Clone)]
pub struct ActionOptions {
    /// How long a copy is as good as Tier 2's word. Zero asks every time.
    pub lease: Duration,
    /// Bytes of memory for copies, and for what is known of the trees that they refer to.
    pub memory_bytes: usize,
}

/// Action results through both tiers. Cheap to clone.
#[derive(Clone)]
pub struct Actions(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) reads: Reads,
    pub(super) writes: Writes,
    pub(super) closures: Closures,
    /// How old evidence may be for a blob of which there is no copy here.
    pub(super) lease: Duration,
    pub(super) metrics: ActionMetrics,
    table: Mutex<ActionTable>,
    lines: UpdateLines,
    questions: Arc<Semaphore>,
    outlook: Outlook,
}

/// A result that was found, and who had it.
struct Found {
    copy: Arc<ActionCopy>,
    is_ours: bool,
}

/// Why there is no hit.
enum NoHit {
    /// Our copy is of no use.
    Copy(CallError),
    /// Tier 2's word, or its silence.
    Tier2(CallError),
}

impl Actions {
    /// Action results beside the blobs of `reads` and `writes`, over the same tiers. Updates do not wait while Tier 2 is down
    /// in `outlook`.
    pub fn new(
        reads: Reads,
        writes: Writes,
        options: &ActionOptions,
        outlook: Outlook,
        metrics: ActionMetrics,
    ) -> Actions {
        let half_bytes = options.memory_bytes / 2;
        Actions(Arc::new(Inner {
            reads,
            writes,
            closures: Closures::new(half_bytes),
            lease: options.lease,
            metrics,
            table: Mutex::new(ActionTable::new(options.lease, half_bytes)),
            lines: UpdateLines::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            outlook,
        }))
    }

    /// Reads an action result, as the bytes that Tier 2 has, or had no longer ago than the lease. What this node wrote is
    /// read back at once.
    ///
    /// # Errors
    /// [`Tier2Error::NotFound`] if there is none, [`CallError::Incomplete`] if it is of no use: these two are misses. If it
    /// cannot be told whether it is of use, what stood in the way.
    ///
    /// # Cancel safety
    /// A question to Tier 2 goes on for others when the future is dropped.
    pub async fn get(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, CallError> {
        let mut found = self.usable(call, key).await;
        // What makes our copy useless may be older than a newer result in Tier 2, which is not.
        if let Err(NoHit::Copy(_)) = &found {
            found = self.usable(call, key).await;
        }
        let metrics = &self.0.metrics;
        match found {
            Ok(found) => {
                let hits = if found.is_ours {
                    &metrics.hits_tier1
                } else {
                    &metrics.hits_tier2
                };
                hits.inc();
                Ok(found.copy.result.clone())
            }
            Err(NoHit::Copy(error) | NoHit::Tier2(error)) => {
                if let CallError::Incomplete(flaw) = &error {
                    metrics.incomplete.with_label_values(&[flaw.reason()]).inc();
                    tracing::info!(action = %key, reason = flaw.reason(), %flaw, "an action result cannot be used");
                }
                if let CallError::Incomplete(_) | CallError::Tier2(Tier2Error::NotFound) = &error {
                    metrics.misses.inc();
                }
                Err(error)
            }
        }
    }

    /// Writes an action result, as the bytes that the client sent, after the updates of the same key that came before and
    /// after the uploads of the blobs that it names, if they come through this node. Waits for neither for longer than some
    /// seconds. Identical updates in line are sent each: results that clients make tell when they were made, and differ.
    ///
    /// Goes on when the future is dropped, so that a later update cannot overtake it.
    ///
    /// # Errors
    /// What Tier 2 says; [`CallError::Overloaded`] if too many updates wait, of the key or altogether;
    /// [`CallError::DeadlineExceeded`] if the caller's time was up before this one's turn, and nothing was sent;
    /// [`CallError::Busy`] if those updates or uploads take too long; [`Tier2Error::Down`] if Tier 2 goes down meanwhile;
    /// [`CallError::MissingBlobs`] if the upload of one failed.
    pub async fn put(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<(), CallError> {
        let tasks = &self.0.writes.0.tasks;
        if tasks.stopping().is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let place = self.0.lines.queue(&call.action(key))?;
        let update = update(self.clone(), call.clone(), *key, result, place);
        // The task ends early only if it panics, which nothing in it does.
        tasks.spawn(update).await.unwrap_or(Err(CallError::ShuttingDown))
    }

    /// A result that was found and checked.
    async fn usable(&self, call: &Call, key: &ActionDigest) -> Result<Found, NoHit> {
        let found = self.find(call, key).await.map_err(NoHit::Tier2)?;
        match self.complete(call, &found.copy).await {
            Ok(()) => Ok(found),
            Err(error @ CallError::Incomplete(_)) if found.is_ours => {
                let mut table = self.0.table.lock();
                table.forget(&call.action(key), &found.copy);
                self.show_size(&table);
                Err(NoHit::Copy(error))
            }
            Err(error) => Err(NoHit::Tier2(error)),
        }
    }

    /// What may be answered while Tier 2 is down (R13): our copy, if it counted as Tier 2's word at `down_since` and this
    /// node holds everything that it refers to. Asks nobody, unless a copy in Tier 1 turns out to be rotten.
    pub(super) async fn held(
        &self,
        call: &Call,
        key: &ActionDigest,
        down_since: Instant,
    ) -> Option<RawActionResult> {
        let copy = self.0.table.lock().current(&call.action(key), down_since)?;
        self.holds_all(call, &copy).await.then(|| copy.result.clone())
    }

    async fn find(&self, call: &Call, key: &ActionDigest) -> Result<Found, CallError> {
        let action = call.action(key);
        for _ in 0..SHARED_QUESTIONS {
            if let Some(copy) = self.0.table.lock().current(&action, Instant::now()) {
                return Ok(Found { copy, is_ours: true });
            }
            let mut awaited = self.awaited(call, &action).await?;
            // Closed without an answer only by a node that goes down.
            let answer = match awaited.wait_for(Option::is_some).await {
                Ok(answer) => answer.clone(),
                Err(_closed) => return Err(CallError::ShuttingDown),
            };
            match answer {
                Some(Answer::Current(Ok(copy))) => return Ok(Found { copy, is_ours: false }),
                Some(Answer::Current(Err(error))) if error.may_be_the_callers_own() => break,
                Some(Answer::Current(Err(error))) => return Err(error.into()),
                Some(Answer::Outdated) | None => {}
            }
        }
        let sent = Instant::now();
        let result = self.tier2().action(call, key).await?;
        let copy = Arc::new(copy_of(key, result, sent));
        Ok(Found { copy, is_ours: false })
    }

    /// The answer to a question that is on its way, or to one of our own.
    async fn awaited(&self, call: &Call, key: &ActionKey) -> Result<Awaited, CallError> {
        let place = self.0.questions.clone().acquire_owned().await;
        let place = place.map_err(|_closed| CallError::ShuttingDown)?;
        match self.0.table.lock().ask(key, &call.via, Instant::now()) {
            Way::Join(awaited) => Ok(awaited),
            Way::Ask(question, told) => {
                let awaited = told.subscribe();
                let asking = Asking {
                    actions: self.clone(),
                    key: key.clone(),
                    question,
                    told,
                    _place: place,
                };
                let tasks = &self.0.reads.0.tasks;
                let (stop, ask) = (tasks.stopping(), asking.ask(call.for_node()));
                drop(tasks.spawn(async move { stop.run_until_cancelled_owned(ask).await }));
                Ok(awaited)
            }
        }
    }

    fn tier2(&self) -> &Arc<dyn Tier2> {
        &self.0.writes.0.tier2
    }

    fn show_size(&self, table: &ActionTable) {
        let (count, bytes) = table.size();
        self.0
            .metrics
            .copies
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        self.0
            .metrics
            .copy_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// A question to Tier 2, which belongs to the node.
struct Asking {
    actions: Actions,
    key: ActionKey,
    question: Question,
    told: watch::Sender<Option<Answer>>,
    _place: OwnedSemaphorePermit,
}

impl Asking {
    async fn ask(self, call: Call) {
        let key = self.key.action;
        let answer = timeout(QUESTION_PATIENCE, self.actions.tier2().action(&call, &key)).await;
        let answer = answer.unwrap_or(Err(Tier2Error::Stalled));
        let answer = answer.map(|result| Arc::new(copy_of(&key, result, self.question.sent)));
        let mut table = self.actions.0.table.lock();
        let answer = table.answered(&self.key, self.question, answer);
        self.actions.show_size(&table);
        drop(table);
        self.told.send_replace(Some(answer));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if self.told.borrow().is_none() {
            self.actions.0.table.lock().given_up(&self.key, self.question);
        }
    }
}

fn copy_of(key: &ActionDigest, result: RawActionResult, dated: Instant) -> ActionCopy {
    ActionCopy {
        references: References::of(key.0.function(), &result),
        // What it came in is some KiB, and copies are counted by their own length.
        result: RawActionResult(apart(result.0)),
        dated,
    }
}

async fn update(
    actions: Actions,
    call: Call,
    key: ActionDigest,
    result: RawActionResult,
    mut place: Place,
) -> Result<(), CallError> {
    let outcome = match actions.may_be_sent(&call, &key, &result, &mut place).await {
        Ok(()) => actions.send(&call, &key, result).await,
        Err(error) => Err(error),
    };
    actions.0.lines.leave(&call.action(&key), place);
    outcome
}

impl Actions {
    /// Waits for an update's turn, and for the uploads that come before it, as long as that is worth it.
    async fn may_be_sent(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: &RawActionResult,
        place: &mut Place,
    ) -> Result<(), CallError> {
        let until = Instant::now() + call.time_left(SEND_PATIENCE);
        let ready = async {
            let turn = timeout_at(until, place.turn()).await;
            turn.map_err(|_elapsed| match call.deadline {
                Some(deadline) if deadline <= until => CallError::DeadlineExceeded,
                Some(_) | None => CallError::Busy("earlier updates of the action result take too long"),
            })?;
            uploads_first(self, call, key.0.function(), result, until).await
        };
        tokio::select! {
            biased;
            () = self.0.outlook.down(Service::ActionCache) => Err(Tier2Error::known_down().into()),
            ready = ready => ready,
        }
    }

    async fn send(&self, call: &Call, key: &ActionDigest, result: RawActionResult) -> Result<(), CallError> {
        if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(CallError::DeadlineExceeded);
        }
        let action = call.action(key);
        self.0.table.lock().raise(&action);
        let ack = self.tier2().put_action(call, key, result.clone()).await;
        let mut table = self.0.table.lock();
        match &ack {
            Ok(ack) => table.acknowledged(&action, Arc::new(copy_of(key, result, ack.sent_at))),
            // It may have been stored all the same, or may be stored yet.
            Err(_) => table.raise(&action),
        }
        self.show_size(&table);
        drop(table);
        ack?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
