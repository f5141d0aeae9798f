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
    last: Before,
    len: usize,
}

/// Fires when the one before has left; with whom that one still waited for, if it left before its turn.
struct Before(oneshot::Receiver<Option<Before>>);

/// A place in a line.
pub(super) struct Place {
    /// `None` once it is this one's turn.
    before: Option<Before>,
    left: oneshot::Sender<Option<Before>>,
}

impl Place {
    /// Waits for this one's turn. Cancel safe.
    pub(super) async fn turn(&mut self) {
        while let Some(before) = &mut self.before {
            // Dropped without a word, it has left.
            self.before = (&mut before.0).await.ok().flatten();
        }
    }
}

impl UpdateLines {
    /// Takes the last place, in the order of the calls.
    pub(super) fn queue(&self, key: &ActionKey) -> Result<Place, CallError> {
        let (left, last) = oneshot::channel();
        let last = Before(last);
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
        Ok(Place { before, left })
    }

    /// Leaves the line: done, which makes it the next one's turn, or before this one's own turn, which does not.
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
        let _last = place.left.send(place.before);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::call::Scope;
    use crate::digest::{ActionDigest, Digest, Function};

    fn key() -> ActionKey {
        ActionKey {
            scope: Scope::new("main"),
            action: ActionDigest(Digest::of(Function::Sha256, b"action")),
        }
    }

    fn is_next(place: &mut Place) -> bool {
        place.turn().now_or_never().is_some()
    }

    #[test]
    fn whoever_leaves_before_its_turn_lets_nobody_pass_and_frees_its_place() {
        let (lines, key) = (UpdateLines::default(), key());
        let mut places: Vec<Place> = (0..LINE_MAX).map(|_| lines.queue(&key).unwrap()).collect();
        assert!(lines.queue(&key).is_err());
        let mut last = places.pop().unwrap();
        let mut first = places.remove(0);
        assert!(is_next(&mut first) && !is_next(&mut last));
        for place in places {
            lines.leave(&key, place);
        }
        assert!(!is_next(&mut last), "the first is not done");
        let mut newest = lines.queue(&key).unwrap();
        lines.leave(&key, first);
        assert!(is_next(&mut last) && !is_next(&mut newest));
        lines.leave(&key, last);
        assert!(is_next(&mut newest));
        lines.leave(&key, newest);
        let lines = lines.0.lock();
        assert_eq!((lines.updates, lines.by_key.len()), (0, 0));
    }
}
