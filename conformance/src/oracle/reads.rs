//! P4 and P5 of calls that bring bytes.

use bytes::Bytes;
use mock_upstream::Digest;
use tonic::{Code, Status};

use crate::oracle::evidence::Evidence;
use crate::oracle::{Finding, Promise};
use crate::site::{Answer, Entry};

/// `range` is offset and limit.
pub(super) fn read(
    evidence: &Evidence<'_>,
    digest: &Digest,
    range: (u64, u64),
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    let bytes = match answer {
        Ok(Answer::Bytes(bytes)) => bytes,
        Ok(other) => return vec![foreign(other)],
        Err(status) => return vec![evidence.failure(digest, status)],
    };
    let end = match range.1 {
        0 => digest.size_bytes(),
        limit => digest.size_bytes().min(range.0.saturating_add(limit)),
    };
    let is_part = range.0 > 0 || end < digest.size_bytes();
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let right = evidence.truth.blobs.get(digest);
    let right = right.and_then(|blob| blob.get(place(range.0)..place(end)));
    let kept = match right {
        // A part cannot be verified by anybody; its length can.
        Some(right) if is_part && evidence.met_wrong_bytes() => bytes.len() == right.len(),
        Some(right) => bytes == right,
        None => !is_part && digest.fits(bytes),
    };
    vec![Finding::of(Promise::P4, kept, || {
        let len = bytes.len();
        format!(
            "{:?} was OK with {len} bytes, and they are wrong",
            evidence.seen.ask
        )
    })]
}

pub(super) fn batch(
    evidence: &Evidence<'_>,
    digests: &[Digest],
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    let entries = match answer {
        Ok(Answer::Entries(entries)) => entries,
        Ok(other) => return vec![foreign(other)],
        // NOT_FOUND is said of a blob, never of a batch.
        Err(status) => {
            let what = || format!("{:?}: {status}", evidence.seen.ask);
            return vec![evidence.failed_with(status.code(), false, what)];
        }
    };
    let mut findings = vec![answers_all(digests, entries)];
    for entry in entries {
        let Some(digest) = &entry.digest else { continue };
        let what = || format!("{digest} in {:?}", evidence.seen.ask);
        findings.push(if entry.code == Code::Ok {
            let kept = digest.fits(&entry.data);
            Finding::of(Promise::P4, kept, || {
                format!("wrong bytes with OK for {}", what())
            })
        } else {
            evidence.failed_with(entry.code, evidence.may_be_missing(digest), what)
        });
    }
    findings
}

/// Each blob has an answer, however often it was asked for.
pub(super) fn answers_all(digests: &[Digest], entries: &[Entry]) -> Finding {
    let answered = |digest: &Digest| entries.iter().any(|entry| entry.digest.as_ref() == Some(digest));
    let kept = digests.iter().all(answered)
        && entries
            .iter()
            .all(|entry| entry.digest.is_some_and(|digest| digests.contains(&digest)));
    Finding::of(Promise::P4, kept, || {
        format!("a batch of {digests:?} was answered with {entries:?}")
    })
}

pub(super) fn tree(evidence: &Evidence<'_>, root: &Digest, answer: &Result<Answer, Status>) -> Vec<Finding> {
    let directories = match answer {
        Ok(Answer::Tree(directories)) => directories,
        Ok(other) => return vec![foreign(other)],
        Err(status) => return vec![evidence.failure(root, status)],
    };
    let Some(right) = evidence.truth.trees.get(root) else {
        return Vec::new();
    };
    let strange = directories.iter().filter(|bytes| !right.contains(*bytes)).count();
    let lacking = |bytes: &&Bytes| !directories.contains(bytes);
    // What Tier 2 does not have is left out, with what only it leads to.
    let excused = right
        .iter()
        .any(|bytes| evidence.may_be_missing(&Digest::of(bytes)));
    let lacking = right.iter().filter(lacking).count();
    let what = |count, how| format!("{:?} was OK with {count} directories {how}", evidence.seen.ask);
    vec![
        Finding::of(Promise::P4, strange == 0, || what(strange, "that are none of it")),
        Finding::of(Promise::P5, lacking == 0 || excused, || {
            what(lacking, "too few, and none was missing")
        }),
    ]
}

/// An answer to something else: the harness's own mistake, made visible.
pub(super) fn foreign(answer: &Answer) -> Finding {
    Finding::of(Promise::P4, false, || {
        format!("an answer to another question: {answer:?}")
    })
}
