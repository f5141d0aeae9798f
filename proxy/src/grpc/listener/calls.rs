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

/// How long a client may take nothing of what is at hand for it. Clients have deadlines of a minute or so; this one is for
/// those that have none, so that no reader holds its blob, its memory and its stream for ever.
const UNREAD_MAX: Duration = Duration::from_secs(300);

tokio::task_local! {
    /// What the call that this task answers said about its end.
    static LIMITS: Cell<Limits>;
}

#[derive(Clone, Copy, Default)]
struct Limits {
    deadline: Option<Instant>,
    /// Since when the client could have taken what is at hand.
    unread_since: Option<Instant>,
}

impl Limits {
    fn over_at(self) -> Option<Instant> {
        let deadline = self.deadline.map(|deadline| deadline + FAREWELL);
        let unread = self.unread_since.map(|since| since + UNREAD_MAX);
        deadline.into_iter().chain(unread).min()
    }
}

fn change(change: impl FnOnce(&mut Limits)) {
    // Outside of a listener there is no stream to reset, and nothing to be done.
    let _outside = LIMITS.try_with(|cell| {
        let mut limits = cell.get();
        change(&mut limits);
        cell.set(limits);
    });
}

/// Has the call of this task reset some time after `deadline`, if it is not over by itself. A body is polled only while its
/// client takes bytes, so that a deadline of the body's own would not meet a client that stalls.
pub(in crate::grpc) fn reset_after(deadline: Instant) {
    change(|limits| limits.deadline = Some(deadline));
}

/// Something was handed on for the client of this task's call: from here its patience counts that takes nothing.
pub(in crate::grpc) fn handed_on() {
    change(|limits| limits.unread_since = Some(Instant::now()));
}

/// The client of this task's call has taken everything and waits for more.
pub(in crate::grpc) fn taken() {
    change(|limits| limits.unread_since = None);
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
        drop(self.tasks.spawn(LIMITS.scope(Cell::default(), until_reset(call))));
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
        let Some(over_at) = LIMITS.with(Cell::get).over_at() else {
            timer = None;
            return Poll::Pending;
        };
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(over_at)));
        if timer.deadline() != over_at {
            timer.as_mut().reset(over_at);
        }
        timer.as_mut().poll(cx)
    })
    .await;
}
