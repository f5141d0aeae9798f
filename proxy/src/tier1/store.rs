//! What the parts of Tier 1 share.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::breaker::{Breaker, Turn, Word};
use super::disk::Disk;
use super::faults::{Faults, Op};
use super::format;
use super::index::{Account, Index};
use super::layout::{Layout, Place, ScopeTag};
use super::leaving::Leaving;
use super::pinned::OpenBlob;
use super::policy::{EntryId, Lru};
use super::{Tier1Error, Tier1Options};
use crate::call::{BlobKey, Scope};
use crate::digest::Digest;
use crate::metrics::Tier1Metrics;
use crate::task::TaskGroup;
use crate::watermarks::Watermarks;

/// Locks that put renames and removals of one path in an order. So many that two blobs seldom share one.
const PATH_LOCKS: usize = 64;

/// Steps on the disk at a time. A disk that hangs must leave threads to those who want something else of them: the runtime
/// has 512 that may block.
const DISK_STEPS_MAX: usize = 128;

/// How long somebody who has Tier 2 to turn to waits for a step, its turn included. Far beyond what a busy disk takes; one
/// that hangs must not hold up its callers, nor what they hold meanwhile, for longer.
const STEP_PATIENCE: Duration = Duration::from_secs(5);

/// How long a stage waits for the directory to be opened, before it goes without.
const OPEN_PATIENCE: Duration = Duration::from_secs(1);

/// What the parts of Tier 1 share. A path lock is taken before the index's, never after it.
pub(super) struct Store {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) tasks: TaskGroup,
    pub(super) metrics: Tier1Metrics,
    pub(super) faults: Faults,
    pub(super) watermarks: Watermarks,
    pub(super) index: Mutex<Index>,
    blob_bytes_max: u64,
    phase: watch::Sender<Phase>,
    opened_at: Instant,
    /// Begins the names of this process's staging files; what else is in the directory was left by dead ones.
    process: String,
    staging_files: AtomicU64,
    steps: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    path_locks: [Mutex<()>; PATH_LOCKS],
    leaving: Mutex<Vec<Leaving>>,
    /// Set when something was refused for want of room: the janitor makes some even below the high mark.
    starved: AtomicBool,
    /// Set when the disk had no room though the account says there is some: others use it too.
    disk_full: AtomicBool,
    wishes: AtomicU64,
    granted: watch::Sender<u64>,
    wake: Notify,
}

/// How far the start has come.
pub(super) enum Phase {
    /// The directory is being opened: nothing may be written yet.
    Opening,
    /// It is this node's, and being scanned. The lock is held for as long as the store lives.
    Loading(Lock),
    /// All that it holds is in the index.
    Loaded(#[expect(dead_code, reason = "held, not used")] Lock),
    /// It cannot be used.
    Off,
}

/// The directory's lock.
pub(super) struct Lock(#[expect(dead_code, reason = "held, not used")] pub(super) Box<dyn Send + Sync>);

impl Store {
    pub(super) fn new(
        options: Tier1Options,
        disk: Arc<dyn Disk>,
        tasks: TaskGroup,
        metrics: Tier1Metrics,
    ) -> Store {
        let watermarks = options.watermarks;
        metrics
            .max_bytes
            .set(i64::try_from(watermarks.max_bytes()).unwrap_or(i64::MAX));
        metrics.loaded.set(0);
        Store {
            layout: Layout::new(options.dir),
            disk,
            tasks,
            faults: Faults::new(metrics.clone()),
            watermarks,
            index: Mutex::new(Index::new(Box::new(Lru::default()), metrics.clone())),
            metrics,
            blob_bytes_max: options
                .blob_bytes_max
                .min(watermarks.low_bytes())
                .min(format::BLOB_BYTES_MAX),
            phase: watch::Sender::new(Phase::Opening),
            opened_at: Instant::now(),
            process: uuid::Uuid::new_v4().simple().to_string(),
            staging_files: AtomicU64::new(0),
            steps: Arc::new(Semaphore::new(DISK_STEPS_MAX)),
            breaker: Mutex::default(),
            path_locks: std::array::from_fn(|_| Mutex::default()),
            leaving: Mutex::default(),
            starved: AtomicBool::new(false),
            disk_full: AtomicBool::new(false),
            wishes: AtomicU64::new(0),
            granted: watch::Sender::new(0),
            wake: Notify::new(),
        }
    }

    /// Runs a step that blocks on a thread that may. The step goes on to its end if the caller stops waiting.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Store>,
        step: impl FnOnce(&Arc<Store>) -> Result<T, Tier1Error> + Send + 'static,
    ) -> Result<T, Tier1Error> {
        let store = Arc::clone(self);
        let permit = Arc::clone(&self.steps).acquire_owned().await;
        let step = move || {
            let done = step(&store);
            drop(permit);
            done
        };
        match tokio::task::spawn_blocking(step).await {
            Ok(done) => done,
            // The runtime is shutting down, or the step panicked, which its own thread has told of.
            Err(error) => Err(Tier1Error::Io(io::Error::other(error))),
        }
    }

    /// As [`Store::blocking`], for as long as patience lasts. A step that waits for its turn is not taken after that.
    pub(super) async fn in_time<T: Send + 'static>(
        self: &Arc<Store>,
        step: impl FnOnce(&Arc<Store>) -> Result<T, Tier1Error> + Send + 'static,
    ) -> Result<T, Tier1Error> {
        match timeout(STEP_PATIENCE, self.blocking(step)).await {
            Ok(done) => done,
            Err(elapsed) => {
                self.faults.note(Op::Wait, &self.layout.dir().display(), &elapsed);
                Err(Tier1Error::Slow)
            }
        }
    }

    /// As [`Store::in_time`], for reading a copy. While the disk is passed over this is [`Tier1Error::Slow`] at once.
    pub(super) async fn read_in_time<T: Send + 'static>(
        self: &Arc<Store>,
        step: impl FnOnce(&Arc<Store>) -> Result<T, Tier1Error> + Send + 'static,
    ) -> Result<T, Tier1Error> {
        if self.breaker.lock().ask(Instant::now()) == Word::PassOver {
            return Err(Tier1Error::Slow);
        }
        let read = self.in_time(step).await;
        let turn = match &read {
            // A file that is damaged or gone was read, or looked for.
            Ok(_) | Err(Tier1Error::Damaged | Tier1Error::Gone | Tier1Error::Full) => {
                self.breaker.lock().succeeded()
            }
            Err(Tier1Error::Slow | Tier1Error::Io(_)) => self.breaker.lock().failed(Instant::now()),
        };
        match turn {
            None => {}
            Some(Turn::Opened) => {
                self.metrics.passed_over.set(1);
                tracing::error!(dir = %self.layout.dir().display(), "the disk of tier 1 hangs or fails, and is passed over");
            }
            Some(Turn::Closed) => {
                self.metrics.passed_over.set(0);
                tracing::info!(dir = %self.layout.dir().display(), "the disk of tier 1 is in use again");
            }
        }
        read
    }

    /// Whether the disk is passed over.
    pub(super) fn is_passed_over(&self) -> bool {
        self.breaker.lock().is_open()
    }

    /// Milliseconds since the store was opened.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.opened_at.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn holds(&self, scope: &Scope, digests: &[Digest]) -> Vec<bool> {
        let scope = ScopeTag::of(scope);
        let index = self.index.lock();
        let holds = digests.iter().map(|digest| index.holds(&scope, digest));
        holds.collect()
    }

    pub(super) fn keeps(&self, digest: &Digest) -> bool {
        digest.size_bytes() <= self.blob_bytes_max
    }

    /// Holds off other renames and removals of this blob's path. For threads that may block.
    pub(super) fn lock_path(&self, digest: &Digest) -> MutexGuard<'_, ()> {
        let shard = digest.hash().as_bytes().first().copied().unwrap_or(0);
        self.path_locks[usize::from(shard) % PATH_LOCKS].lock()
    }

    /// A path for a new staging file.
    pub(super) fn staging_path(&self) -> PathBuf {
        let number = self.staging_files.fetch_add(1, Ordering::Relaxed);
        self.layout.staging().join(format!("{}-{number}", self.process))
    }

    /// Whether a staging file is one of this process.
    pub(super) fn is_own_staging(&self, name: &str) -> bool {
        name.starts_with(&self.process)
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.metrics
            .loaded
            .set(i64::from(matches!(phase, Phase::Loaded(_))));
        self.phase.send_replace(phase);
        self.call_janitor();
    }

    /// Moves from loading to loaded.
    pub(super) fn end_loading(&self) {
        self.phase.send_modify(|phase| {
            *phase = match std::mem::replace(phase, Phase::Off) {
                Phase::Loading(lock) => Phase::Loaded(lock),
                other @ (Phase::Opening | Phase::Loaded(_) | Phase::Off) => other,
            };
        });
        self.metrics.loaded.set(1);
        self.call_janitor();
    }

    pub(super) fn is_loaded(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Loaded(_))
    }

    pub(super) async fn loaded(&self) {
        let mut phase = self.phase.subscribe();
        let ended = |phase: &Phase| matches!(phase, Phase::Loaded(_) | Phase::Off);
        // The sender is in `self`: this cannot fail.
        drop(phase.wait_for(ended).await);
    }

    /// Waits until files may be written.
    pub(super) async fn opened(&self) -> Result<(), Tier1Error> {
        let mut phase = self.phase.subscribe();
        let known = phase.wait_for(|phase| !matches!(phase, Phase::Opening));
        let usable = timeout(OPEN_PATIENCE, known).await.is_ok_and(|known| {
            known.is_ok_and(|phase| matches!(*phase, Phase::Loading(_) | Phase::Loaded(_)))
        });
        if usable {
            return Ok(());
        }
        Err(Tier1Error::Io(io::Error::other("the directory is not in use")))
    }

    /// Notes bytes that are about to be written.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), Tier1Error> {
        let mut index = self.index.lock();
        if !self.watermarks.leaves_room(index.account().used_bytes(), bytes) {
            drop(index);
            self.starved.store(true, Ordering::SeqCst);
            self.call_janitor();
            return Err(Tier1Error::Full);
        }
        index.staged(bytes);
        let account = index.account();
        drop(index);
        self.call_janitor_if_high(account);
        Ok(())
    }

    /// Takes a blob out of the index and has its file removed.
    pub(super) fn discard(&self, key: &BlobKey, id: EntryId) {
        let removed = self.index.lock().remove(id);
        if let Some(entry) = removed {
            self.metrics.dropped.inc();
            tracing::warn!(digest = %key.digest, "a copy in tier 1 was missing or damaged, and is dropped");
            self.leave(Leaving::Blob(entry));
        }
    }

    /// Keeps a blob's file open for its next reader. Returns what gives way; dropped here, on a thread that may block.
    pub(super) fn keep_open(&self, id: EntryId, open: &Arc<OpenBlob>) -> Option<Arc<OpenBlob>> {
        self.index.lock().keep_open(id, open)
    }

    /// Hands a file to the janitor for removal.
    pub(super) fn leave(&self, leaving: Leaving) {
        // Bounded by what there are files for: each was made by a step of the disk, and those wait for the disk too.
        self.leaving.lock().push(leaving);
        self.call_janitor();
    }

    /// Takes the files to remove.
    pub(super) fn take_leaving(&self) -> Vec<Leaving> {
        std::mem::take(&mut self.leaving.lock())
    }

    /// Counts and logs an error of a step with a blob, and says what the caller can do about it.
    pub(super) fn trouble(&self, op: Op, place: &Place, error: io::Error) -> Tier1Error {
        self.faults.note(op, &place.digest, &error);
        if is_full(&error) {
            self.disk_full.store(true, Ordering::SeqCst);
            self.call_janitor();
        }
        Tier1Error::Io(error)
    }

    pub(super) fn call_janitor_if_high(&self, account: Account) {
        if self.watermarks.above_high(account.used_bytes()) {
            self.call_janitor();
        }
    }

    /// Whether the janitor shall evict a little whatever the marks say.
    pub(super) fn disk_was_full(&self) -> bool {
        self.disk_full.swap(false, Ordering::SeqCst)
    }

    /// Whether the janitor shall evict down to the low mark.
    pub(super) fn needs_room(&self) -> bool {
        let starved = self.starved.swap(false, Ordering::SeqCst);
        let used_bytes = self.index.lock().account().used_bytes();
        starved || self.watermarks.above_high(used_bytes)
    }

    /// Has the janitor look around.
    pub(super) fn call_janitor(&self) {
        self.wishes.fetch_add(1, Ordering::SeqCst);
        self.wake.notify_one();
    }

    /// How often the janitor was called.
    pub(super) fn wishes(&self) -> u64 {
        self.wishes.load(Ordering::SeqCst)
    }

    /// The janitor has done all that was to do for so many calls.
    pub(super) fn grant(&self, wishes: u64) {
        self.granted.send_replace(wishes);
    }

    /// Waits for a call of the janitor.
    pub(super) async fn called(&self) {
        self.wake.notified().await;
    }

    pub(super) async fn settled(&self) {
        self.call_janitor();
        let wishes = self.wishes();
        let mut granted = self.granted.subscribe();
        // The sender is in `self`: this cannot fail.
        drop(granted.wait_for(|granted| *granted >= wishes).await);
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
