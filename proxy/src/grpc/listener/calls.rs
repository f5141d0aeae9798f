//! The calls of one connection, as tasks of the server's group.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::task::TaskGroup;

/// Where hyper puts the calls of a connection.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    tasks: TaskGroup,
    made: Arc<AtomicBool>,
}

impl Calls {
    pub(super) fn new(tasks: TaskGroup) -> Calls {
        Calls {
            tasks,
            made: Arc::default(),
        }
    }

    /// Whether the connection was ever used.
    pub(super) fn were_made(&self) -> bool {
        self.made.load(Ordering::Relaxed)
    }
}

impl<F> hyper::rt::Executor<F> for Calls
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.made.store(true, Ordering::Relaxed);
        drop(self.tasks.spawn(call));
    }
}
