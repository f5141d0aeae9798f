//! Whether all is there that an action result refers to (P3, R6).

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{spawn_blocking, yield_now};

use super::CallError;
use super::action::Actions;
use super::action_table::ActionCopy;
use super::closure::{
    Closure, Flaw, OutputDirectory, REFERENCES_MAX, References, WALK_BYTES_MAX, Walk, of_tree,
};
use super::recent::Recent;
use crate::call::{Call, Scope};
use crate::digest::Digest;
use crate::tier2::Tier2Error;

/// Bytes of Trees and Directories that are held at once to look into them. Who wants more waits for others to be done.
const READ_ROOM_BYTES: u32 = 128 << 20;

/// Directories that are read at once, and their bytes: a batch stays below what servers accept in one message.
const BATCH_DIRECTORIES: usize = 256;
const BATCH_BYTES_MAX: u64 = 2 << 20;

/// Bytes of a Tree from which a thread of its own looks into it, and references that are gone through in one turn: each a
/// few milliseconds that other calls should not have to wait.
const TREE_BYTES_IN_PLACE: usize = 256 << 10;
const TURN_REFERENCES: usize = 4096;

/// What is known of trees. What a digest leads to never changes; but a scope does not learn from another.
pub(super) struct Closures {
    known: Mutex<Recent<(Scope, OutputDirectory), Arc<Closure>>>,
    /// In bytes.
    room: Semaphore,
}

impl Closures {
    /// Nothing known, and `bytes_max` to remember it in.
    pub(super) fn new(bytes_max: usize) -> Closures {
        Closures {
            known: Mutex::new(Recent::new(bytes_max)),
            room: Semaphore::new(READ_ROOM_BYTES as usize),
        }
    }
}

impl Actions {
    /// Returns if Tier 2 has every blob that the result refers to, and that is known well enough.
    ///
    /// # Errors
    /// [`CallError::Incomplete`] if it is certain that one is not there or that the result is of no use; anything else if
    /// it could not be found out.
    pub(super) async fn complete(&self, call: &Call, copy: &ActionCopy) -> Result<(), CallError> {
        let references = copy.references.as_ref().map_err(|flaw| flaw.clone())?;
        let all = self.all_references(call, references).await?;
        let writes = &self.0.writes.0;
        let mut held = HashSet::new();
        for part in all.chunks(TURN_REFERENCES) {
            if let Some(bad) = part.iter().find(|digest| writes.bad.is_bad(&call.blob(digest))) {
                return Err(Flaw::Bad(*bad).into());
            }
            let is_held = self.held_here(call, part);
            held.extend(
                part.iter()
                    .zip(is_held)
                    .filter(|(_, held)| *held)
                    .map(|(digest, _)| *digest),
            );
            yield_now().await;
        }
        // What is not here has to be fetched by whoever uses the hit: for that, older evidence is too little (R6).
        let lease = writes.presence.options().lease;
        let without_copy = lease.min(self.0.lease);
        let freshness = |digest: &Digest| {
            if held.contains(digest) {
                lease
            } else {
                without_copy
            }
        };
        let missing = writes.presence.missing_by(call, &all, freshness).await;
        let missing = missing.map_err(never_a_miss)?;
        let missing = self.0.writes.repair(call, missing).await;
        if let Some(missing) = missing.first() {
            return Err(Flaw::Missing(*missing).into());
        }
        self.0.reads.0.touches.relied_on(call, &all).await;
        Ok(())
    }

    /// Whether this node holds everything that a result refers to, and nothing of it is known to be bad.
    pub(super) async fn holds_all(&self, call: &Call, copy: &ActionCopy) -> bool {
        let Ok(references) = &copy.references else {
            return false;
        };
        // What leads further has to be here before it can be read here.
        let named: Vec<Digest> = references.named().collect();
        if !self.holds(call, &named) {
            return false;
        }
        let Ok(all) = self.all_references(call, references).await else {
            return false;
        };
        let bad = &self.0.writes.0.bad;
        self.holds(call, &all) && !all.iter().any(|digest| bad.is_bad(&call.blob(digest)))
    }

    /// Whether all of these can be read without Tier 2.
    fn holds(&self, call: &Call, digests: &[Digest]) -> bool {
        self.held_here(call, digests).into_iter().all(|held| held)
    }

    /// Which of these can be read without Tier 2.
    fn held_here(&self, call: &Call, digests: &[Digest]) -> Vec<bool> {
        let writes = &self.0.writes.0;
        let held = writes.tier1.holds(&call.scope, digests).into_iter().zip(digests);
        held.map(|(held, digest)| {
            held || digest.is_empty() || writes.pending.find(&call.blob(digest)).is_some()
        })
        .collect()
    }

    /// Every blob that a result refers to, each once.
    async fn all_references(&self, call: &Call, references: &References) -> Result<Vec<Digest>, CallError> {
        let mut all: Vec<Digest> = references.named().collect();
        if !references.directories.is_empty() {
            let mut seen: HashSet<Digest> = all.iter().copied().collect();
            for directory in &references.directories {
                let closure = self.closure(call, *directory).await?;
                // The directories of a Tree are in it; only where a root is named are they blobs as well.
                let directories: &[Digest] = match directory {
                    OutputDirectory::Tree { root: None, .. } => &[],
                    OutputDirectory::Tree { .. } | OutputDirectory::Root(_) => &closure.directories,
                };
                for digest in directories.iter().chain(&closure.files) {
                    if seen.insert(*digest) {
                        all.push(*digest);
                    }
                }
                if all.len() > REFERENCES_MAX {
                    return Err(Flaw::TooMany.into());
                }
                yield_now().await;
            }
        }
        Ok(all)
    }

    /// What an output directory leads to, if that is known, or if this node holds the Tree. Asks nobody, unless a copy in
    /// Tier 1 turns out to be rotten.
    pub(super) async fn closure_at_hand(
        &self,
        call: &Call,
        directory: OutputDirectory,
    ) -> Option<Arc<Closure>> {
        let key = (call.scope.clone(), directory.content());
        let is_known = self.0.closures.known.lock().peek(&key).is_some();
        let is_held = match directory {
            OutputDirectory::Tree { tree, .. } => self.holds(call, &[tree]),
            // Its directories are read one after another, and any of them may be elsewhere.
            OutputDirectory::Root(_) => false,
        };
        if is_known || is_held {
            self.closure(call, directory).await.ok()
        } else {
            None
        }
    }

    /// What an output directory leads to.
    pub(super) async fn closure(
        &self,
        call: &Call,
        directory: OutputDirectory,
    ) -> Result<Arc<Closure>, CallError> {
        let of = directory.content();
        let key = (call.scope.clone(), of);
        let known = self.0.closures.known.lock().get(&key).cloned();
        let closure = match known {
            Some(closure) => closure,
            None => {
                let closure = Arc::new(match of {
                    OutputDirectory::Tree { tree, .. } => self.look_into_tree(call, tree).await?,
                    OutputDirectory::Root(root) => self.walk(call, root).await?,
                });
                let bytes = closure.bytes();
                self.0.closures.known.lock().insert(key, closure.clone(), bytes);
                closure
            }
        };
        match directory {
            OutputDirectory::Tree {
                tree,
                root: Some(root),
            } if closure.root != root => Err(Flaw::OtherRoot { tree, root }.into()),
            OutputDirectory::Tree { .. } | OutputDirectory::Root(_) => Ok(closure),
        }
    }

    async fn look_into_tree(&self, call: &Call, tree: Digest) -> Result<Closure, CallError> {
        let Some(room_bytes) = u32::try_from(tree.size_bytes())
            .ok()
            .filter(|bytes| u64::from(*bytes) <= WALK_BYTES_MAX)
        else {
            return Err(Flaw::TreeTooLarge(tree).into());
        };
        let _room = self.room(room_bytes).await?;
        let mut answers = self.0.reads.batch(call, &[tree]).await;
        let bytes = answers.pop().unwrap_or(Err(CallError::ShuttingDown));
        let bytes = bytes.map_err(|error| certain(error, tree))?;
        let closure = if bytes.len() < TREE_BYTES_IN_PLACE {
            of_tree(tree, bytes)
        } else {
            let looked = spawn_blocking(move || of_tree(tree, bytes)).await;
            looked.map_err(|_gone| CallError::ShuttingDown)?
        };
        Ok(closure?)
    }

    /// Reads directory after directory, level by level.
    async fn walk(&self, call: &Call, root: Digest) -> Result<Closure, CallError> {
        let mut walk = Walk::new(root, root);
        let mut carried = None;
        loop {
            let mut batch: Vec<Digest> = Vec::new();
            let mut batch_bytes = 0;
            while let Some(next) = carried.take().or_else(|| walk.next()) {
                if next.size_bytes() > WALK_BYTES_MAX {
                    return Err(Flaw::TreeTooLarge(root).into());
                }
                batch_bytes += next.size_bytes();
                if batch.len() == BATCH_DIRECTORIES || (batch_bytes > BATCH_BYTES_MAX && !batch.is_empty()) {
                    carried = Some(next);
                    break;
                }
                batch.push(next);
            }
            if batch.is_empty() {
                return Ok(walk.finish());
            }
            let room_bytes = batch.iter().map(Digest::size_bytes).sum::<u64>();
            let _room = self.room(u32::try_from(room_bytes).unwrap_or(u32::MAX)).await?;
            let answers = self.0.reads.batch(call, &batch).await;
            for (digest, bytes) in batch.into_iter().zip(answers) {
                walk.take(&bytes.map_err(|error| certain(error, digest))?)?;
            }
        }
    }

    async fn room(&self, bytes: u32) -> Result<tokio::sync::SemaphorePermit<'_>, CallError> {
        let room = self
            .0
            .closures
            .room
            .acquire_many(bytes.min(READ_ROOM_BYTES))
            .await;
        room.map_err(|_closed| CallError::ShuttingDown)
    }
}

/// That a blob is not there, or is bad, is certain; other failures pass.
fn certain(error: CallError, digest: Digest) -> CallError {
    if let CallError::Tier2(Tier2Error::NotFound) = error {
        return Flaw::Missing(digest).into();
    }
    if let CallError::BadBlob = error {
        return Flaw::Bad(digest).into();
    }
    error
}

/// A question about many blobs that Tier 2 refuses with NOT_FOUND says nothing about the action result (P5).
fn never_a_miss(error: CallError) -> CallError {
    if let CallError::Tier2(Tier2Error::Answered(status)) = error {
        return Tier2Error::Answered(status.never_a_miss()).into();
    }
    error
}
