//! What a client is told that asks how far its upload is (R11).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::CallError;
use super::session::{Progress, Session};
use super::writes::Inner;
use crate::call::Call;
use crate::digest::Digest;

/// How long the question waits for a commit under way. Longer than most commits take, and well within the 60 s that
/// Bazel gives a call.
const COMMIT_PATIENCE: Duration = Duration::from_secs(20);

/// Where an upload can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteStatus {
    /// Where the next write of the upload may begin.
    pub committed_bytes: u64,
    /// The blob is stored; nothing needs to be sent.
    pub complete: bool,
}

impl WriteStatus {
    /// The empty blob is always there.
    pub(super) fn of_nothing() -> WriteStatus {
        WriteStatus {
            committed_bytes: 0,
            complete: true,
        }
    }

    fn stored(digest: &Digest) -> WriteStatus {
        WriteStatus {
            committed_bytes: digest.size_bytes(),
            complete: true,
        }
    }

    fn left_off_at(committed_bytes: u64) -> WriteStatus {
        WriteStatus {
            committed_bytes,
            complete: false,
        }
    }
}

/// What is known about a blob when its upload is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InTier2 {
    Unasked,
    Present,
    Missing,
}

/// The next step towards an answer.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Wait for the commit.
    Wait,
    /// Ask Tier 2 for the blob.
    Ask,
    Answer(WriteStatus),
}

/// Decides. A client that is told "all bytes, not complete" has nothing left to send and no way to finish, so that is
/// never said; and a part is offered only when Tier 2 does not have the blob by another way.
fn step(digest: &Digest, progress: Option<&Progress>, in_tier2: InTier2) -> Step {
    match (progress, in_tier2) {
        (_, InTier2::Present) | (Some(Progress::Stored), _) => Step::Answer(WriteStatus::stored(digest)),
        (Some(Progress::Committing), _) => Step::Wait,
        (_, InTier2::Unasked) => Step::Ask,
        (Some(Progress::Partial(bytes)), InTier2::Missing) => Step::Answer(WriteStatus::left_off_at(*bytes)),
        (Some(Progress::Failed) | None, InTier2::Missing) => Step::Answer(WriteStatus::left_off_at(0)),
    }
}

/// Finds the answer. `find` looks for the upload anew, since it may come, go and change meanwhile.
pub(super) async fn tell(
    inner: &Inner,
    call: &Call,
    digest: &Digest,
    find: impl Fn() -> Option<Arc<Session>>,
) -> Result<WriteStatus, CallError> {
    let mut in_tier2 = InTier2::Unasked;
    loop {
        let session = find();
        let progress = session.as_ref().map(|session| session.progress());
        match (step(digest, progress.as_ref(), in_tier2), session) {
            (Step::Answer(status), _) => return Ok(status),
            (Step::Wait, Some(session)) => {
                let patience = call.time_left(COMMIT_PATIENCE);
                match timeout(patience, session.committed()).await {
                    Ok(Progress::Stored) => return Ok(WriteStatus::stored(digest)),
                    Ok(Progress::Partial(_) | Progress::Committing | Progress::Failed) | Err(_) => {
                        return Ok(WriteStatus::left_off_at(0));
                    }
                }
            }
            (Step::Ask | Step::Wait, _) => {
                let write_lease = inner.presence.options().write_lease;
                let missing = inner
                    .presence
                    .missing(call, std::slice::from_ref(digest), write_lease)
                    .await?;
                let present = missing.is_empty();
                in_tier2 = if present {
                    InTier2::Present
                } else {
                    InTier2::Missing
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;

    #[track_caller]
    fn check(progress: Option<Progress>, in_tier2: InTier2, expected: Step) {
        let digest = Digest::of(Function::Sha256, b"hello");
        assert_eq!(step(&digest, progress.as_ref(), in_tier2), expected);
    }

    fn answer(committed_bytes: u64, complete: bool) -> Step {
        Step::Answer(WriteStatus {
            committed_bytes,
            complete,
        })
    }

    #[test]
    fn a_commit_under_way_is_waited_for() {
        check(Some(Progress::Committing), InTier2::Unasked, Step::Wait);
        check(Some(Progress::Committing), InTier2::Missing, Step::Wait);
        check(Some(Progress::Stored), InTier2::Unasked, answer(5, true));
    }

    #[test]
    fn tier_2_is_asked_before_anything_else_is_said() {
        check(None, InTier2::Unasked, Step::Ask);
        check(Some(Progress::Partial(3)), InTier2::Unasked, Step::Ask);
        check(Some(Progress::Failed), InTier2::Unasked, Step::Ask);
    }

    #[test]
    fn a_blob_in_tier_2_is_complete_whatever_was_left_off() {
        // BS-QWS-03
        check(None, InTier2::Present, answer(5, true));
        check(Some(Progress::Partial(3)), InTier2::Present, answer(5, true));
        check(Some(Progress::Committing), InTier2::Present, answer(5, true));
    }

    #[test]
    fn what_was_left_off_is_told_only_while_it_can_be_resumed() {
        check(Some(Progress::Partial(3)), InTier2::Missing, answer(3, false)); // BS-QWS-01
        check(Some(Progress::Failed), InTier2::Missing, answer(0, false)); // BS-QWS-11
        check(None, InTier2::Missing, answer(0, false)); // BS-QWS-05
    }
}
