//! The write side: Tier 2 first and authoritative, Tier 1 after it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::bad::BadBlobs;
use super::names::Names;
use super::pending::Pending;
use super::presence::Presence;
use super::repair::Repairs;
use super::session::{HangUp, Origin, Session};
use super::underway::{Batches, FailedUploads};
use super::upload::Upload;
use super::uploads::Contests;
use super::write_batch::BATCHES_MAX;
use super::{CallError, status};
use crate::blob::{ByteRange, Verifier};
use crate::call::{BlobKey, Call};
use crate::digest::Digest;
use crate::metrics::UploadMetrics;
use crate::task::TaskGroup;
use crate::tier1::Tier1;
use crate::tier2::{Tier2, Tier2Error};

pub use super::status::WriteStatus;

/// Uploads that are open or being committed at once. Each may hold 512 KiB, so this bounds their memory to 1 GiB; a Bazel
/// client has at most some hundred of them. What comes on top takes the places of those whose clients are silent.
const UPLOADS_MAX: usize = 2048;

/// How the write side behaves.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Whether an acknowledgement waits for Tier 1.
    pub publish: Publish,
    /// How long the bytes of a broken upload are kept for its client to come back.
    pub resume_window: Duration,
    /// Whether what Tier 2 lost and Tier 1 holds is uploaded again.
    pub repair: bool,
}

/// Whether an acknowledgement waits until Tier 1 has the blob as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publish {
    /// It does, for as long as the disk is quick. What Tier 1 says does not matter.
    Sync,
    /// It does not: Tier 1 is filled behind it.
    Async,
}

/// Writes through both tiers. Cheap to clone; clones share their uploads.
#[derive(Clone)]
pub struct Writes(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) tier1: Tier1,
    pub(super) tier2: Arc<dyn Tier2>,
    pub(super) presence: Presence,
    pub(super) pending: Arc<Pending>,
    pub(super) bad: Arc<BadBlobs>,
    pub(super) options: WriteOptions,
    pub(super) tasks: TaskGroup,
    pub(super) metrics: UploadMetrics,
    pub(super) contests: Contests,
    pub(super) batches: Arc<Batches>,
    pub(super) failed: Arc<FailedUploads>,
    pub(super) repairs: Repairs,
    /// Rights to have a batch on its way.
    pub(super) batch_places: Arc<Semaphore>,
    open: Arc<Semaphore>,
    /// Locked before the contests where both are.
    names: Mutex<Names>,
}

impl Writes {
    /// A write side over `tier1` and the Tier 2 that `presence` is about. Uploads to Tier 2 and publications in Tier 1 are tasks of `tasks`.
    pub fn new(
        tier1: Tier1,
        presence: Presence,
        pending: Arc<Pending>,
        options: WriteOptions,
        tasks: TaskGroup,
        metrics: UploadMetrics,
    ) -> Writes {
        let failed = Arc::new(FailedUploads::default());
        Writes(Arc::new(Inner {
            tier1,
            tier2: presence.tier2(),
            bad: presence.0.bad.clone(),
            presence,
            pending,
            tasks,
            contests: Contests::new(failed.clone()),
            batches: Arc::default(),
            failed,
            repairs: Repairs::new(options.repair),
            options,
            batch_places: Arc::new(Semaphore::new(BATCHES_MAX)),
            open: Arc::new(Semaphore::new(UPLOADS_MAX)),
            names: Mutex::new(Names::new(metrics.kept_for_resume.clone())),
            metrics,
        }))
    }

    /// Begins a client's upload, or goes on with one that broke. `name` is the whole resource name that the client
    /// writes to, its identity for resuming; `offset` the offset of its first bytes. The newest stream of a name owns it.
    ///
    /// # Errors
    /// [`CallError::ResumeOffset`] if nothing was left off at `offset`; [`CallError::Overloaded`].
    pub async fn begin(
        &self,
        call: &Call,
        digest: &Digest,
        name: &str,
        offset: u64,
    ) -> Result<Upload, CallError> {
        let nothing_left_off = CallError::ResumeOffset {
            expected: 0,
            found: offset,
        };
        if digest.is_empty() {
            return match offset {
                0 => Ok(Upload::of_nothing(*digest)),
                _ => Err(nothing_left_off),
            };
        }
        if offset == 0 && self.0.is_in_tier2(call, digest).await {
            self.0.metrics.early.inc();
            return Ok(Upload::of_present());
        }
        let permit = self.0.admit()?;
        let name = (call.scope.clone(), name.into());
        if offset == 0 {
            let staging = self.0.tier1.keeps(digest);
            let session = Session::new(
                name,
                call.blob(digest),
                call.clone(),
                Origin::Client,
                staging,
                permit,
            );
            return Ok(self.0.start(Arc::new(session)));
        }
        let session = self.0.names.lock().find(&name).cloned();
        match session.filter(|session| session.key.digest == *digest) {
            Some(session) => self.0.resume(session, offset, permit).await,
            None => Err(nothing_left_off),
        }
    }

    /// Tells how far the upload that its client calls `name` is (R11). While its commit is under way, waits for it.
    ///
    /// # Errors
    /// What Tier 2 says when it is asked for the blob.
    pub async fn status(&self, call: &Call, digest: &Digest, name: &str) -> Result<WriteStatus, CallError> {
        if digest.is_empty() {
            return Ok(WriteStatus::of_nothing());
        }
        let find = {
            let name = (call.scope.clone(), name.into());
            let digest = *digest;
            move || {
                let session = self.0.names.lock().find(&name).cloned();
                session.filter(|session| session.key.digest == digest)
            }
        };
        status::tell(&self.0, call, digest, find).await
    }
}

impl Inner {
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, CallError> {
        if self.tasks.stopping().is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let admit = || self.open.clone().try_acquire_owned();
        admit()
            .or_else(|_full| {
                self.make_way();
                admit()
            })
            .map_err(|_| CallError::Overloaded("too many uploads at once"))
    }

    /// Ends uploads whose clients are silent. Their bytes are kept as if the clients had hung up.
    fn make_way(&self) {
        let mut names = self.names.lock();
        for session in names.giving_way(Instant::now()) {
            session.conclude(Err(CallError::Overloaded(
                "the upload was silent, and gave way to others",
            )));
            self.contests.leave(&session);
            self.metrics.gave_way.inc();
        }
    }

    /// Begins a new upload, whatever had its name before.
    fn start(self: &Arc<Inner>, session: Arc<Session>) -> Upload {
        let mut names = self.names.lock();
        if let Some(older) = names.claim(&session) {
            // An older one that only waits for its commit is left to it; this one is then acknowledged with it.
            if older.supersede() {
                self.contests.leave(&older);
            }
        }
        self.join(session.clone());
        drop(names);
        Upload::new(self.clone(), session, 0)
    }

    /// Goes on with an upload that broke, or whose older stream only seems to live.
    async fn resume(
        self: &Arc<Inner>,
        session: Arc<Session>,
        offset: u64,
        permit: OwnedSemaphorePermit,
    ) -> Result<Upload, CallError> {
        let intake = session.intake().await;
        let mut names = self.names.lock();
        if !names.holds(&session) {
            return Err(CallError::ResumeOffset {
                expected: 0,
                found: offset,
            });
        }
        let owner = intake.take_over(offset, permit)?;
        names.reopen(&session);
        self.join(session.clone());
        drop(names);
        drop(intake);
        Ok(Upload::new(self.clone(), session, owner))
    }

    /// An upload's own client made it fail.
    pub(super) fn fail(&self, session: &Arc<Session>, error: CallError) {
        let mut names = self.names.lock();
        session.conclude(Err(error));
        self.contests.leave(session);
        names.forget(session);
    }

    /// The stream of `owner` is gone; decides what becomes of its upload.
    pub(super) fn hang_up(self: &Arc<Inner>, session: &Arc<Session>, owner: u64) {
        let mut names = self.names.lock();
        match session.hang_up(owner) {
            None => {}
            Some(HangUp::Commit) => self.contests.stir(&session.key),
            Some(HangUp::Keep) => {
                self.contests.leave(session);
                names.keep(session, Instant::now() + self.options.resume_window);
                if !names.swept {
                    names.swept = true;
                    drop(self.tasks.spawn(sweep(self.clone())));
                }
            }
            Some(HangUp::Forget) => {
                self.contests.leave(session);
                names.forget(session);
            }
        }
    }

    /// An upload ended. Its name is forgotten unless its client may still go on with it.
    pub(super) fn ended(&self, session: &Arc<Session>, outcome: Result<(), CallError>) {
        let mut names = self.names.lock();
        let stored = outcome.is_ok();
        session.conclude(outcome);
        if stored || session.is_finished() {
            names.forget(session);
        }
    }

    /// An acknowledgement of a blob whose copy in Tier 2 was bad counts only after a verified read back (R10).
    pub(super) async fn confirm(&self, call: &Call, key: &BlobKey) -> Result<(), CallError> {
        if !self.bad.is_bad(key) {
            return Ok(());
        }
        let digest = &key.digest;
        let mut stream = self.tier2.read(call, digest, ByteRange::whole(digest)).await?;
        let mut verifier = Verifier::new(*digest);
        while let Some(bytes) = futures::StreamExt::next(&mut stream).await {
            verifier.update(&bytes?).map_err(Tier2Error::Corrupt)?;
        }
        let _proof = verifier.finish().map_err(Tier2Error::Corrupt)?;
        self.bad.forgive(key);
        Ok(())
    }
}

/// Ends what is kept for resuming when its time is up. Runs while something is kept.
async fn sweep(inner: Arc<Inner>) {
    let stop = inner.tasks.stopping();
    loop {
        let next = {
            let mut names = inner.names.lock();
            let next = names.sweep(Instant::now());
            names.swept = next.is_some();
            next
        };
        let Some(next) = next else {
            return;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

#[cfg(test)]
mod tests;
