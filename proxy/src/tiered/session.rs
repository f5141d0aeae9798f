//! One client's upload: its bytes, checked and staged as they come, and what became of it. It outlives the stream that
//! began it, because a broken upload can be resumed and a commit does not need its client.

mod feeding;
mod intake;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use self::intake::Intake;
use super::CallError;
use super::contest::Candidate;
use super::tape::Tape;
use crate::blob::{DigestMismatch, Verified};
use crate::call::{BlobKey, Call, Scope};
use crate::tier1::StagedReader;

/// What a client calls its upload: the whole resource name, within its scope.
pub(super) type Name = (Scope, Arc<str>);

/// Whose bytes they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client's.
    Client,
    /// Tier 1's own, for a blob that Tier 2 lost.
    Repair,
}

/// See the module's documentation.
pub(super) struct Session {
    pub(super) name: Name,
    pub(super) key: BlobKey,
    pub(super) call: Call,
    pub(super) origin: Origin,
    state: watch::Sender<State>,
    /// Held by whoever takes bytes, so that a newer stream of the same name begins after the older one's last chunk.
    intake: Mutex<Intake>,
}

/// What others see of it.
struct State {
    tape: Tape,
    /// Grows with each stream that takes the session over; only the newest may write.
    owner: u64,
    /// All bytes are here and they fit.
    proof: Option<Verified>,
    /// The client wants it stored: it said so, or it left after the last byte.
    finished: bool,
    outcome: Option<Result<(), CallError>>,
    reader: Option<StagedReader>,
    /// Counts it among the open uploads.
    permit: Option<OwnedSemaphorePermit>,
}

/// How far an upload is, for whoever asks about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    /// This many bytes of it are here, fewer than all, and more can follow.
    Partial(u64),
    /// All bytes are here; the commit is under way, or the word that begins it is about to come.
    Committing,
    /// It is stored.
    Stored,
    /// It failed, and nothing of it can be used.
    Failed,
}

/// What becomes of an upload whose client is gone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HangUp {
    /// All bytes are here: the commit goes on, or begins.
    Commit,
    /// Keep them for a client that comes back.
    Keep,
    /// Nothing to keep.
    Forget,
}

impl Session {
    pub(super) fn new(
        name: Name,
        key: BlobKey,
        call: Call,
        origin: Origin,
        staging: bool,
        permit: OwnedSemaphorePermit,
    ) -> Session {
        let state = State {
            tape: Tape::new(key.digest.size_bytes(), staging, Instant::now()),
            owner: 0,
            proof: None,
            finished: false,
            outcome: None,
            reader: None,
            permit: Some(permit),
        };
        let intake = Intake::new(key.digest);
        Session {
            name,
            key,
            call,
            origin,
            state: watch::channel(state).0,
            intake: Mutex::new(intake),
        }
    }

    /// Waits until `look` finds what it looks for. Cancel safe.
    async fn wait<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        let mut states = self.state.subscribe();
        loop {
            if let Some(found) = look(&states.borrow_and_update()) {
                return found;
            }
            if states.changed().await.is_err() {
                // The sender lives in `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Changes the state and wakes those who wait for it.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        match result {
            Some(result) => result,
            None => unreachable!("send_modify calls its argument once"),
        }
    }

    /// Waits until there is room for `owner`'s next chunk. `false`: the upload is acknowledged, no more is needed.
    pub(super) async fn room(&self, owner: u64) -> Result<bool, CallError> {
        self.wait(|state| match state.verdict(owner) {
            Some(verdict) => Some(verdict.map(|()| false)),
            None => (state.tape.has_room() || state.tape.is_full()).then_some(Ok(true)),
        })
        .await
    }

    /// `owner`'s client wants the blob stored.
    pub(super) fn finish(&self, owner: u64) -> Result<(), CallError> {
        self.change(|state| match state.verdict(owner) {
            Some(verdict) => verdict,
            None if state.proof.is_some() => {
                state.finished = true;
                Ok(())
            }
            None => Err(CallError::BadUpload(DigestMismatch::TooShort {
                expected: self.key.digest,
                found_bytes: state.tape.watermark(),
            })),
        })
    }

    /// `owner`'s client does not want the blob stored unless it comes back and says so.
    pub(super) fn withdraw(&self, owner: u64) {
        self.change(|state| {
            if state.owner == owner && !state.finished {
                state.proof = None;
            }
        });
    }

    /// Waits until the upload ended for `owner`.
    pub(super) async fn ended(&self, owner: u64) -> Result<(), CallError> {
        self.wait(|state| state.verdict(owner)).await
    }

    /// Waits while the commit is under way.
    pub(super) async fn committed(&self) -> Progress {
        self.wait(|state| match state.progress() {
            Progress::Committing => None,
            ended @ (Progress::Partial(_) | Progress::Stored | Progress::Failed) => Some(ended),
        })
        .await
    }

    /// Tells everybody who waits for the upload how it ended. The first word counts.
    pub(super) fn conclude(&self, outcome: Result<(), CallError>) {
        self.change(|state| {
            state.tape.stop_feed();
            state.permit = None;
            state.outcome.get_or_insert(outcome);
        });
    }

    /// A newer stream owns the name. An upload that only waits for its commit is left alone and `false` returned.
    pub(super) fn supersede(&self) -> bool {
        self.change(|state| {
            if state.finished {
                return false;
            }
            state.owner += 1;
            state.permit = None;
            state.tape.stop_feed();
            true
        })
    }

    /// The stream of `owner` is gone. `None`: it was not the newest, and the upload is another's.
    pub(super) fn hang_up(&self, owner: u64) -> Option<HangUp> {
        if let Ok(mut intake) = self.intake.try_lock() {
            self.mend(&mut intake);
        }
        self.change(|state| {
            if state.owner != owner {
                return None;
            }
            let end = state.hang_up();
            match end {
                HangUp::Commit => state.finished = true,
                HangUp::Keep | HangUp::Forget => {
                    state.permit = None;
                    state.tape.stop_feed();
                }
            }
            Some(end)
        })
    }

    /// How long its client has been silent, if it holds a place among the open uploads for that.
    pub(super) fn idle(&self, now: Instant) -> Option<Duration> {
        let state = self.state.borrow();
        let waits = state.permit.is_some() && !state.finished && state.outcome.is_none();
        waits.then(|| state.tape.silent(now))
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        self.state.borrow().progress()
    }

    /// Whether only the commit is missing.
    pub(super) fn is_finished(&self) -> bool {
        self.state.borrow().finished
    }

    /// Bytes that are here.
    pub(super) fn watermark(&self) -> u64 {
        self.state.borrow().tape.watermark()
    }

    /// The facts by which a leader is chosen.
    pub(super) fn candidate(&self, now: Instant) -> Candidate {
        let state = self.state.borrow();
        Candidate {
            bytes: state.tape.watermark(),
            finished: state.finished,
            whole: state.tape.is_whole(),
            quiet: state.tape.quiet(now),
            starved: state.tape.starved(now),
            repairs: self.origin == Origin::Repair,
        }
    }
}

impl State {
    /// How it ended for the stream `owner`; `None` while it goes on.
    fn verdict(&self, owner: u64) -> Option<Result<(), CallError>> {
        if self.owner != owner {
            return Some(Err(CallError::Superseded));
        }
        self.outcome.clone()
    }

    fn progress(&self) -> Progress {
        match &self.outcome {
            Some(Ok(())) => Progress::Stored,
            Some(Err(_)) if !self.can_resume() => Progress::Failed,
            Some(Err(_)) => Progress::Partial(self.tape.watermark()),
            None if self.tape.is_full() => Progress::Committing,
            None => Progress::Partial(self.tape.watermark()),
        }
    }

    /// A part is here and can be fed from its first byte, and what ended the upload, if anything, was not its own fault.
    fn can_resume(&self) -> bool {
        let faultless = match &self.outcome {
            None | Some(Err(CallError::Tier2(_) | CallError::ShuttingDown | CallError::Overloaded(_))) => {
                true
            }
            Some(_) => false,
        };
        faultless && self.tape.watermark() > 0 && !self.tape.is_full() && self.tape.is_whole()
    }

    fn hang_up(&self) -> HangUp {
        match &self.outcome {
            None if self.proof.is_some() => HangUp::Commit,
            None | Some(_) if self.can_resume() => HangUp::Keep,
            None | Some(_) => HangUp::Forget,
        }
    }
}
