//! Blobs before the action result that names them (P1, R16).

use std::time::Duration;

use prost::Message as _;
use proto::reapi;
use tokio::time::{Instant, timeout_at};

use super::CallError;
use super::writes::Inner;
use crate::call::Call;
use crate::digest::{Digest, Function};
use crate::tier2::{RawActionResult, Tier2Error};

/// How long an action result waits for uploads of blobs that it names. A client that works in order has them acknowledged
/// before it sends the result; another one should not hold a place in line for longer.
const UPLOADS_PATIENCE: Duration = Duration::from_secs(10);

/// Waits until none of the blobs that `result` names is being uploaded through this node. If there were some, or some whose
/// upload failed before, Tier 2 is asked whether it has them.
///
/// # Errors
/// [`CallError::MissingBlobs`] if it has not; [`Tier2Error::Aborted`] if an upload takes too long; what Tier 2 says when it
/// is asked.
pub(super) async fn uploads_first(
    inner: &Inner,
    call: &Call,
    function: Function,
    result: &RawActionResult,
) -> Result<(), CallError> {
    let mut doubtful = Vec::new();
    let until = Instant::now() + call.time_left(UPLOADS_PATIENCE);
    for digest in named(function, result) {
        let key = call.blob(&digest);
        let under_way = [inner.contests.over(&key), inner.batches.over(&key)];
        if inner.failed.contains(&key) || under_way.iter().any(Option::is_some) {
            doubtful.push(digest);
        }
        for over in under_way.into_iter().flatten() {
            if timeout_at(until, over.cancelled()).await.is_err() {
                return Err(Tier2Error::Aborted.into());
            }
        }
    }
    if doubtful.is_empty() {
        return Ok(());
    }
    let missing = inner.tier2.find_missing(call, &doubtful).await?;
    if !missing.is_empty() {
        return Err(CallError::MissingBlobs(missing.into()));
    }
    for digest in &doubtful {
        inner.failed.forget(&call.blob(digest));
    }
    Ok(())
}

/// The blobs that an action result names itself; not those that its trees name. None, if it cannot be read: Tier 2 is the
/// judge of that.
fn named(function: Function, result: &RawActionResult) -> Vec<Digest> {
    let Ok(result) = reapi::ActionResult::decode(result.0.clone()) else {
        return Vec::new();
    };
    let files = result.output_files.into_iter().map(|file| file.digest);
    let directories = result
        .output_directories
        .into_iter()
        .flat_map(|directory| [directory.tree_digest, directory.root_directory_digest]);
    files
        .chain(directories)
        .chain([result.stdout_digest, result.stderr_digest])
        .flatten()
        .filter_map(|digest| Digest::parse(function, &digest.hash, digest.size_bytes).ok())
        .filter(|digest| !digest.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(Function::Sha256, text.as_bytes())
    }

    fn wire(text: &str) -> Option<reapi::Digest> {
        let digest = digest(text);
        Some(reapi::Digest {
            hash: digest.hash().to_hex(),
            size_bytes: i64::try_from(digest.size_bytes()).unwrap(),
        })
    }

    #[test]
    fn every_blob_that_a_result_names_is_found() {
        let result = reapi::ActionResult {
            output_files: vec![
                reapi::OutputFile {
                    digest: wire("file"),
                    ..Default::default()
                },
                reapi::OutputFile {
                    digest: wire(""),
                    ..Default::default()
                },
                reapi::OutputFile::default(),
            ],
            output_directories: vec![reapi::OutputDirectory {
                tree_digest: wire("tree"),
                root_directory_digest: wire("root"),
                ..Default::default()
            }],
            stdout_digest: wire("stdout"),
            stderr_digest: wire("stderr"),
            ..Default::default()
        };
        let raw = RawActionResult(result.encode_to_vec().into());
        let expected = ["file", "tree", "root", "stdout", "stderr"].map(digest);
        assert_eq!(named(Function::Sha256, &raw), expected);
    }

    #[test]
    fn what_cannot_be_read_names_nothing() {
        let raw = RawActionResult(Bytes::from_static(b"\xff\xff"));
        assert_eq!(named(Function::Sha256, &raw), []);
    }
}
