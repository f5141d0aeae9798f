//! Action results: Tier 2's word, every time. Updates of one key go to Tier 2 one after another (R7).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::CallError;
use super::order::uploads_first;
use super::writes::{Inner, Writes};
use crate::call::{ActionKey, Call};
use crate::digest::ActionDigest;
use crate::tier2::RawActionResult;

/// Updates of one key that wait or are under way. More than a few clients that write the same key at once are not what a
/// build does.
const LINE_MAX: usize = 32;

/// Updates that wait or are under way at once, whatever their keys. Each holds its result, whoever still waits for it.
pub(super) const UPDATES_MAX: usize = 1024;

/// The updates that are under way, in a line per key.
#[derive(Default)]
pub(super) struct UpdateLines(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    by_key: HashMap<ActionKey, Line>,
    /// Of all lines.
    updates: usize,
}

struct Line {
    /// Fires when the last in line is done.
    last: oneshot::Receiver<()>,
    len: usize,
}

/// A place in a line.
struct Place {
    /// Fires when the one before is done; `None` for the first.
    before: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl UpdateLines {
    /// Takes the last place, in the order of the calls.
    fn queue(&self, key: &ActionKey) -> Result<Place, CallError> {
        let (done, last) = oneshot::channel();
        let mut lines = self.0.lock();
        if lines.updates == UPDATES_MAX {
            return Err(CallError::Overloaded("too many updates at once"));
        }
        let before = match lines.by_key.entry(key.clone()) {
            Entry::Vacant(free) => {
                free.insert(Line { last, len: 1 });
                None
            }
            Entry::Occupied(mut line) => {
                let line = line.get_mut();
                if line.len == LINE_MAX {
                    return Err(CallError::Overloaded("too many updates of one action result"));
                }
                line.len += 1;
                Some(std::mem::replace(&mut line.last, last))
            }
        };
        lines.updates += 1;
        Ok(Place { before, done })
    }

    fn leave(&self, key: &ActionKey) {
        let mut lines = self.0.lock();
        lines.updates -= 1;
        if let Entry::Occupied(mut line) = lines.by_key.entry(key.clone()) {
            line.get_mut().len -= 1;
            if line.get().len == 0 {
                line.remove();
            }
        }
    }
}

impl Writes {
    /// Reads an action result, as the bytes that Tier 2 has.
    ///
    /// # Errors
    /// [`crate::tier2::Tier2Error::NotFound`] is the only one that says that there is none.
    pub async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, CallError> {
        Ok(self.0.tier2.action(call, key).await?)
    }

    /// Writes an action result, as the bytes that the client sent, after the updates of the same key that came before and
    /// after the uploads of the blobs that it names, if they come through this node.
    /// Goes on when the future is dropped, so that a later update cannot overtake it.
    ///
    /// # Errors
    /// What Tier 2 says; [`CallError::Overloaded`] if too many updates wait, of the key or altogether;
    /// [`CallError::DeadlineExceeded`] if the caller's time was up before this one's turn, and nothing was sent;
    /// [`crate::tier2::Tier2Error::Aborted`] if a blob that it names is being uploaded for too long;
    /// [`CallError::MissingBlobs`] if the upload of one failed.
    pub async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<(), CallError> {
        if self.0.tasks.stopping().is_cancelled() {
            return Err(CallError::ShuttingDown);
        }
        let place = self.0.lines.queue(&call.action(key))?;
        let update = update(self.0.clone(), call.clone(), *key, result, place);
        // The task ends early only if it panics, which nothing in it does.
        self.0
            .tasks
            .spawn(update)
            .await
            .unwrap_or(Err(CallError::ShuttingDown))
    }
}

async fn update(
    inner: Arc<Inner>,
    call: Call,
    key: ActionDigest,
    result: RawActionResult,
    place: Place,
) -> Result<(), CallError> {
    if let Some(before) = place.before {
        // Dropped or fired: either way it is done.
        let _done = before.await;
    }
    let outcome = send(&inner, &call, &key, result).await;
    inner.lines.leave(&call.action(&key));
    let _last = place.done.send(());
    outcome
}

async fn send(
    inner: &Inner,
    call: &Call,
    key: &ActionDigest,
    result: RawActionResult,
) -> Result<(), CallError> {
    uploads_first(inner, call, key.0.function(), &result).await?;
    if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Err(CallError::DeadlineExceeded);
    }
    let _ack = inner.tier2.put_action(call, key, result).await?;
    Ok(())
}
