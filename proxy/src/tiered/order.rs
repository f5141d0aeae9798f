//! Blobs before the action result that names them (P1, R16).

use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::CallError;
use super::action::Actions;
use super::closure::References;
use super::writes::Inner;
use crate::call::{BlobKey, Call};
use crate::digest::{Digest, Function};
use crate::tier2::RawActionResult;

/// Digests that are looked at in one turn, before other calls get theirs.
const TURN_DIGESTS: usize = 4096;

/// Waits, until the moment given, for uploads through this node of blobs that `result` refers to, but for those that are known
/// to be in Tier 2. About those whose upload failed, Tier 2 is asked once.
///
/// What is in its Trees counts as far as it can be told here: a Tree that came through this node is still at hand.
///
/// # Errors
/// [`CallError::MissingBlobs`] if it has not; [`CallError::Busy`] if an upload takes too long; what Tier 2 says when it is
/// asked.
pub(super) async fn uploads_first(
    actions: &Actions,
    call: &Call,
    function: Function,
    result: &RawActionResult,
    until: Instant,
) -> Result<(), CallError> {
    let inner = &actions.0.writes.0;
    // One that cannot be read names nothing: Tier 2 is the judge of that.
    let Ok(references) = References::of(function, result) else {
        return Ok(());
    };
    let mut doubtful = Vec::new();
    wait(inner, call, references.named(), until, &mut doubtful).await?;
    for directory in &references.directories {
        if let Some(closure) = actions.closure_at_hand(call, *directory).await {
            let below = closure.directories.iter().chain(&closure.files).copied();
            wait(inner, call, below, until, &mut doubtful).await?;
        }
    }
    if doubtful.is_empty() {
        return Ok(());
    }
    let missing = inner.presence.missing(call, &doubtful, Duration::ZERO).await?;
    let missing = actions.0.writes.repair(call, missing).await;
    if !missing.is_empty() {
        return Err(CallError::MissingBlobs(missing.into()));
    }
    for digest in &doubtful {
        inner.failed.forget(&call.blob(digest));
    }
    Ok(())
}

/// Waits for the uploads of these blobs, but for those that are known to be in Tier 2. Adds to `doubtful` those of which
/// nothing better was heard by then, though an upload of them ended or had failed before.
async fn wait(
    inner: &Inner,
    call: &Call,
    digests: impl Iterator<Item = Digest>,
    until: Instant,
    doubtful: &mut Vec<Digest>,
) -> Result<(), CallError> {
    let lease = inner.presence.options().lease;
    for (number, digest) in digests.enumerate() {
        if number % TURN_DIGESTS == TURN_DIGESTS - 1 {
            yield_now().await;
        }
        let key = call.blob(&digest);
        // Tier 2 has it, whoever uploads it once more.
        if is_known(inner, &key, lease) {
            continue;
        }
        let under_way = [inner.contests.over(&key), inner.batches.over(&key)];
        let was_under_way = under_way.iter().any(Option::is_some);
        for over in under_way.into_iter().flatten() {
            if timeout_at(until, over.cancelled()).await.is_err() {
                return Err(CallError::Busy(
                    "a blob that the action result names is being uploaded for too long",
                ));
            }
        }
        let is_in_doubt = was_under_way || inner.failed.since(&key).is_some();
        if is_in_doubt && !is_known(inner, &key, lease) {
            doubtful.push(digest);
        }
    }
    Ok(())
}

/// Whether there is live evidence that Tier 2 has a blob, younger than its last failed upload.
fn is_known(inner: &Inner, key: &BlobKey, lease: Duration) -> bool {
    let evidence = inner.presence.evidence(key);
    let live = evidence.filter(|sent_at| sent_at.elapsed() < lease);
    live.is_some_and(|sent_at| inner.failed.since(key).is_none_or(|failed| failed < sent_at))
}
