//! The calls of one connection, as tasks of the server's group.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::task::TaskGroup;

/// How long after its deadline a call may take to tell its client about it. A client that does not read is not told.
const FAREWELL: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// When the call that this task answers is over, if it said so.
    static DEADLINE: Cell<Option<Instant>>;
}

/// Has the call of this task reset some time after `deadline`, if it is not over by itself. A body is polled only while its
/// client takes bytes, so that a deadline of the body's own would not meet a client that stalls.
pub(in crate::grpc) fn reset_after(deadline: Instant) {
    // Outside of a listener there is no stream to reset, and nothing to be done.
    let _outside = DEADLINE.try_with(|cell| cell.set(Some(deadline)));
}

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
        drop(
            self.tasks
                .spawn(DEADLINE.scope(Cell::new(None), until_reset(call))),
        );
    }
}

/// Runs a call; dropped before its end, its stream is reset.
async fn until_reset(call: impl Future<Output = ()>) {
    let mut call = pin!(call);
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        if call.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if timer.is_none() {
            let deadline = DEADLINE.with(Cell::get);
            timer = deadline.map(|deadline| Box::pin(sleep_until(deadline + FAREWELL)));
        }
        timer
            .as_mut()
            .map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    })
    .await;
}
