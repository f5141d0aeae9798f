//! Troubles of the disk: each is counted, and so many logged as somebody can read.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::metrics::Tier1Metrics;

/// Between two log lines about the same step: a disk that fails every write would fill itself with the news.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Where the trouble was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// Opening the store or a blob's file.
    Open,
    /// Reading a blob.
    Read,
    /// Making or writing a staging file.
    Write,
    /// Making a staged blob visible.
    Publish,
    /// Removing a file.
    Remove,
    /// Looking for blobs at the start.
    Scan,
    /// Waiting for a step of any kind.
    Wait,
}

impl Op {
    const ALL: [Op; 7] = [
        Op::Open,
        Op::Read,
        Op::Write,
        Op::Publish,
        Op::Remove,
        Op::Scan,
        Op::Wait,
    ];

    fn label(self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Read => "read",
            Op::Write => "write",
            Op::Publish => "publish",
            Op::Remove => "remove",
            Op::Scan => "scan",
            Op::Wait => "wait",
        }
    }
}

/// Counts and logs.
pub(super) struct Faults {
    metrics: Tier1Metrics,
    logs: Mutex<[Log; Op::ALL.len()]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Log {
    last: Option<Instant>,
    unlogged: u64,
}

impl Faults {
    pub(super) fn new(metrics: Tier1Metrics) -> Faults {
        Faults {
            metrics,
            logs: Mutex::default(),
        }
    }

    /// Counts a trouble that the caller logs in words of its own.
    pub(super) fn count(&self, op: Op) {
        self.metrics.errors.with_label_values(&[op.label()]).inc();
    }

    /// Takes note of a trouble with `what`: a digest or a path.
    pub(super) fn note(&self, op: Op, what: &dyn fmt::Display, error: &dyn fmt::Display) {
        self.count(op);
        if let Some(unlogged) = self.may_log(op, Instant::now()) {
            tracing::warn!(op = op.label(), %what, %error, unlogged, "trouble with the disk of tier 1");
        }
    }

    /// How many were not logged since the last that was, if this one may be.
    fn may_log(&self, op: Op, now: Instant) -> Option<u64> {
        let log = &mut self.logs.lock()[op as usize];
        if log
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < LOG_PAUSE)
        {
            log.unlogged += 1;
            return None;
        }
        log.last = Some(now);
        Some(std::mem::take(&mut log.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_counted_in_full_and_logged_once_a_second() {
        let metrics = Metrics::new().tier1;
        let faults = Faults::new(metrics.clone());
        let start = Instant::now();
        assert_eq!(faults.may_log(Op::Write, start), Some(0));
        assert_eq!(faults.may_log(Op::Write, start), None);
        assert_eq!(faults.may_log(Op::Write, start + LOG_PAUSE / 2), None);
        assert_eq!(faults.may_log(Op::Read, start), Some(0));
        assert_eq!(faults.may_log(Op::Write, start + LOG_PAUSE), Some(2));
        for _ in 0..3 {
            faults.note(Op::Scan, &"a file", &"EIO");
        }
        assert_eq!(metrics.errors.with_label_values(&["scan"]).get(), 3);
    }

    #[test]
    fn every_op_has_a_log_of_its_own() {
        for (at, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, at);
        }
    }
}
