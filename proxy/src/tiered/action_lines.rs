//! Updates of one key go to Tier 2 one after another (R7).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::CallError;
use crate::call::ActionKey;

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
pub(super) struct Place {
    /// Fires when the one before is done; `None` for the first.
    before: Option<oneshot::Receiver<()>>,
    done: oneshot::Sender<()>,
}

impl Place {
    /// Waits for this one's turn.
    pub(super) async fn turn(&mut self) {
        if let Some(before) = self.before.take() {
            // Dropped or fired: either way it is done.
            let _done = before.await;
        }
    }
}

impl UpdateLines {
    /// Takes the last place, in the order of the calls.
    pub(super) fn queue(&self, key: &ActionKey) -> Result<Place, CallError> {
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

    /// Leaves the line, for the next one's turn.
    pub(super) fn leave(&self, key: &ActionKey, place: Place) {
        let mut lines = self.0.lock();
        lines.updates -= 1;
        if let Entry::Occupied(mut line) = lines.by_key.entry(key.clone()) {
            line.get_mut().len -= 1;
            if line.get().len == 0 {
                line.remove();
            }
        }
        drop(lines);
        let _last = place.done.send(());
    }
}
