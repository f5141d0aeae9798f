//! How a session takes bytes in: one stream at a time, checked, into memory and into the staging file.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{MutexGuard, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout};

use super::{CallError, Progress, Session};
use crate::blob::{Verified, Verifier};
use crate::digest::Digest;
use crate::tier1::{Staged, Tier1, Tier1Error};

/// How long an upload waits for the disk in all before it goes on without it, beside the time that its bytes are worth. A
/// disk that hangs, or that is slow at every chunk, must not hold up a write that Tier 2 can take.
pub(super) const DISK_PATIENCE: Duration = Duration::from_secs(5);

/// What the slowest disk writes that is worth waiting for.
const DISK_BYTES_PER_SECOND: u64 = 20_000_000;

/// What only the one that takes bytes sees.
pub(super) struct Intake {
    verifier: Verifier,
    staged: Option<Staged>,
    /// How long the disk took so far.
    waited: Duration,
    /// An append was begun and not seen to its end: its caller was dropped. The file cannot go on from there.
    torn: bool,
}

impl Intake {
    pub(super) fn new(expected: Digest) -> Intake {
        Intake {
            verifier: Verifier::new(expected),
            staged: None,
            waited: Duration::ZERO,
            torn: false,
        }
    }
}

/// The right to let a newer stream in.
pub(in crate::tiered) struct IntakeGuard<'a> {
    session: &'a Session,
    _intake: MutexGuard<'a, Intake>,
}

impl IntakeGuard<'_> {
    /// Gives the upload to a newer stream that goes on at `offset`. Returns the stream's number.
    pub(in crate::tiered) fn take_over(
        &self,
        offset: u64,
        permit: OwnedSemaphorePermit,
    ) -> Result<u64, CallError> {
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

impl Session {
    /// Takes `owner`'s next bytes: into memory, where Tier 2 finds them at once, and into the staging file. Says whether
    /// they were the first.
    pub(in crate::tiered) async fn take(
        &self,
        tier1: &Tier1,
        owner: u64,
        bytes: Bytes,
    ) -> Result<bool, CallError> {
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
        let worth = Duration::from_secs(intake.verifier.seen_bytes() / DISK_BYTES_PER_SECOND);
        let patience = (DISK_PATIENCE + worth).saturating_sub(intake.waited);
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
        let since = Instant::now();
        let appended = timeout(patience, append).await;
        intake.waited += since.elapsed();
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
    pub(super) fn mend(&self, intake: &mut Intake) {
        if std::mem::take(&mut intake.torn) {
            intake.staged = None;
            self.change(|state| state.tape.stop_staging());
        }
    }

    /// Waits for the last chunk of an older stream. While the guard lives no bytes are taken.
    pub(in crate::tiered) async fn intake(&self) -> IntakeGuard<'_> {
        let mut intake = self.intake.lock().await;
        self.mend(&mut intake);
        IntakeGuard {
            session: self,
            _intake: intake,
        }
    }

    /// The file to publish, if the upload was finished and Tier 1 has all of it. Does not wait for the disk: nobody writes
    /// to a file that has all.
    pub(in crate::tiered) async fn take_copy(&self) -> Option<(Staged, Verified)> {
        let proof = {
            let state = self.state.borrow();
            state.proof.clone().filter(|_| state.tape.is_staged())?
        };
        let mut intake = self.intake.lock().await;
        Some((intake.staged.take()?, proof))
    }
}
