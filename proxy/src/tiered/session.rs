//! One client's upload: its bytes, checked and staged as they come, and what became of it. It outlives the stream that
//! began it, because a broken upload can be resumed and a commit does not need its client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, timeout};

use super::CallError;
use super::contest::Candidate;
use super::tape::{Next, Tape};
use crate::blob::{DigestMismatch, Verified, Verifier};
use crate::call::{BlobKey, Call, Scope};
use crate::tier1::{Staged, StagedReader, Tier1, Tier1Error};

/// How long the disk may take over one chunk before the upload goes on without it. A disk that hangs must not hold up a
/// write that Tier 2 can take.
const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What a client calls its upload: the whole resource name, within its scope.
pub(super) type Name = (Scope, Arc<str>);

/// See the module's documentation.
pub(super) struct Session {
    pub(super) name: Name,
    pub(super) key: BlobKey,
    pub(super) call: Call,
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

/// What only the one that takes bytes sees.
struct Intake {
    verifier: Verifier,
    staged: Option<Staged>,
    /// An append was begun and not seen to its end: its caller was dropped. The file cannot go on from there.
    torn: bool,
}

/// The right to let a newer stream in.
pub(super) struct IntakeGuard<'a> {
    session: &'a Session,
    _intake: MutexGuard<'a, Intake>,
}

impl IntakeGuard<'_> {
    /// Gives the upload to a newer stream that goes on at `offset`. Returns the stream's number.
    pub(super) fn take_over(&self, offset: u64, permit: OwnedSemaphorePermit) -> Result<u64, CallError> {
        self.session.change(|state| {
            let expected = match state.progress() {
                Progress::Partial(expected) => expected,
                Progress::Committing | Progress::Stored | Progress::Failed => 0,
            };
            if expected != offset {
                return Err(CallError::ResumeOffset {
                    expected,
                    found: offset,
                });
            }
            state.owner += 1;
            state.outcome = None;
            state.permit = Some(permit);
            state.tape.resume(Instant::now());
            Ok(state.owner)
        })
    }
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
        let intake = Intake {
            verifier: Verifier::new(key.digest),
            staged: None,
            torn: false,
        };
        Session {
            name,
            key,
            call,
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

    /// Takes `owner`'s next bytes: into memory, where Tier 2 finds them at once, and into the staging file. Says whether
    /// they were the first.
    pub(super) async fn take(&self, tier1: &Tier1, owner: u64, bytes: Bytes) -> Result<bool, CallError> {
        let mut intake = self.intake.lock().await;
        self.mend(&mut intake);
        if let Some(verdict) = self.state.borrow().verdict(owner) {
            return verdict.map(|()| false);
        }
        intake.verifier.update(&bytes).map_err(CallError::BadUpload)?;
        let full = intake.verifier.remaining_bytes() == 0;
        let proof = full.then(|| intake.verifier.clone().finish()).transpose();
        let proof = proof.map_err(CallError::BadUpload)?;
        let (first, stage) = self.change(|state| {
            let first = state.tape.watermark() == 0;
            let stage = state.tape.is_staged();
            state.tape.push(bytes.clone(), Instant::now());
            state.proof = proof;
            (first, stage)
        });
        if stage {
            self.stage(&mut intake, tier1, bytes).await;
        }
        Ok(first)
    }

    async fn stage(&self, intake: &mut Intake, tier1: &Tier1, bytes: Bytes) {
        intake.torn = true;
        let append = async {
            let staged = match &mut intake.staged {
                Some(staged) => staged,
                none => {
                    let staged = tier1.stage(&self.key).await?;
                    let reader = staged.reader();
                    self.change(|state| state.reader = Some(reader));
                    none.insert(staged)
                }
            };
            staged.append(bytes).await?;
            Ok::<u64, Tier1Error>(staged.watermark())
        };
        let appended = timeout(DISK_PATIENCE, append).await;
        intake.torn = false;
        match appended {
            Ok(Ok(staged_bytes)) => self.change(|state| state.tape.staged(staged_bytes)),
            Ok(Err(error)) => self.stop_staging(intake, &error),
            Err(elapsed) => self.stop_staging(intake, &elapsed),
        }
    }

    fn stop_staging(&self, intake: &mut Intake, error: &(dyn std::error::Error + 'static)) {
        tracing::debug!(digest = %self.key.digest, error, "upload goes on without a file in tier 1");
        // What the file has stays readable through the reader.
        intake.staged = None;
        self.change(|state| state.tape.stop_staging());
    }

    /// Gives up a file whose last append was cut short.
    fn mend(&self, intake: &mut Intake) {
        if std::mem::take(&mut intake.torn) {
            intake.staged = None;
            self.change(|state| state.tape.stop_staging());
        }
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

    /// Waits for the last chunk of an older stream. While the guard lives no bytes are taken.
    pub(super) async fn intake(&self) -> IntakeGuard<'_> {
        let mut intake = self.intake.lock().await;
        self.mend(&mut intake);
        IntakeGuard {
            session: self,
            _intake: intake,
        }
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
        }
    }

    /// The file to publish, if the upload was finished and Tier 1 has all of it.
    pub(super) async fn take_copy(&self) -> Option<(Staged, Verified)> {
        let mut intake = self.intake.lock().await;
        let proof = {
            let state = self.state.borrow();
            state.proof.clone().filter(|_| state.tape.is_staged())?
        };
        Some((intake.staged.take()?, proof))
    }

    /// Another upload of the blob leads.
    pub(super) fn follow(&self) {
        self.change(|state| state.tape.follow());
    }

    /// Begins an upstream stream at byte 0. Returns its number.
    pub(super) fn start_feed(&self) -> u64 {
        self.change(|state| state.tape.start_feed(Instant::now()))
    }

    /// Ends the upstream stream `attempt` without a last piece.
    pub(super) fn end_feed(&self, attempt: u64) {
        self.change(|state| {
            if state.tape.is_fed_by(attempt) {
                state.tape.stop_feed();
            }
        });
    }

    /// Whether the upstream stream `attempt` is still this upload's and could be begun anew.
    pub(super) fn feeds(&self, attempt: u64) -> bool {
        let state = self.state.borrow();
        state.tape.is_fed_by(attempt) && state.tape.is_whole()
    }

    /// What the upstream stream does next; waits for the client. Never [`Next::Wait`].
    pub(super) async fn next(&self, attempt: u64) -> (Next, Option<Verified>) {
        let mut states = self.state.subscribe();
        loop {
            states.mark_unchanged();
            let (next, proof) = self.look_or_change(attempt);
            if next != Next::Wait {
                return (next, proof);
            }
            if states.changed().await.is_err() {
                return (Next::GiveUp, None);
            }
        }
    }

    fn look_or_change(&self, attempt: u64) -> (Next, Option<Verified>) {
        let mut result = (Next::Wait, None);
        self.state.send_if_modified(|state| {
            let next = state.tape.next(attempt, state.finished, Instant::now());
            let moved = matches!(next, Next::Send(_) | Next::Finish(_));
            result = (next, state.proof.clone());
            moved
        });
        result
    }

    /// The upstream stream took `len` bytes from the file. Says whether it goes on and whether those were the last.
    pub(super) fn fed(&self, attempt: u64, len: u64) -> Option<bool> {
        self.change(|state| state.tape.fed(attempt, len, Instant::now()))
    }

    /// Reads back what was staged. A file that cannot be read is of no more use to the upload.
    pub(super) async fn read_back(&self, from: u64, len: usize) -> Option<Bytes> {
        let reader = self.state.borrow().reader.clone()?;
        let bytes = match timeout(DISK_PATIENCE, reader.read(from, len)).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => Some(bytes),
            Ok(Ok(_) | Err(_)) | Err(_) => None,
        };
        if bytes.is_none() {
            tracing::debug!(digest = %self.key.digest, from, "staged bytes of an upload cannot be read back");
            self.change(|state| state.tape.lose_staged());
        }
        bytes
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
            None | Some(Err(CallError::Tier2(_) | CallError::ShuttingDown)) => true,
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
