//! The one place that spawns: every task has a group, and every group an owner who stops and joins it.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks with one owner. Clones name the same group.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl TaskGroup {
    /// An empty group.
    pub fn new() -> TaskGroup {
        TaskGroup::default()
    }

    /// Starts a task of the group. It runs to its end whatever becomes of the returned handle.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Fires when the group is told to stop; tasks that would run for ever end then.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tasks that have not ended.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether every task has ended.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells the tasks to stop and waits for them, at most for `grace`. Returns how many were left running.
    pub async fn stop(&self, grace: Duration) -> usize {
        self.stop.cancel();
        self.tracker.close();
        match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tracker.len(),
        }
    }

    /// Waits until the tasks that run have ended, without telling them to stop. At most for `grace`.
    pub async fn settle(&self, grace: Duration) -> usize {
        self.tracker.close();
        let left = match tokio::time::timeout(grace, self.tracker.wait()).await {
            Ok(()) => 0,
            Err(_elapsed) => self.tracker.len(),
        };
        self.tracker.reopen();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stop_joins_what_obeys_and_counts_what_does_not() {
        let group = TaskGroup::new();
        let stop = group.stopping();
        drop(group.spawn(async move { stop.cancelled().await }));
        drop(group.spawn(std::future::pending::<()>()));
        assert_eq!(group.stop(Duration::from_secs(1)).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn settle_leaves_the_group_open() {
        let group = TaskGroup::new();
        drop(group.spawn(async {}));
        assert_eq!(group.settle(Duration::from_secs(1)).await, 0);
        assert!(!group.stopping().is_cancelled());
        group.spawn(async {}).await.unwrap();
    }
}
