//! P1: acknowledged means authoritative.

use bytes::Bytes;
use mock_upstream::Digest;
use tonic::{Code, Status};

use crate::oracle::evidence::Evidence;
use crate::oracle::reads::{answers_all, foreign};
use crate::oracle::{Finding, Promise};
use crate::site::Answer;

pub(super) fn write(evidence: &Evidence<'_>, blob: &Bytes, answer: &Result<Answer, Status>) -> Vec<Finding> {
    let digest = Digest::of(blob);
    match answer {
        Ok(Answer::Committed(committed)) => {
            let all = u64::try_from(*committed) == Ok(digest.size_bytes());
            let size = Finding::of(Promise::P1, all, || {
                format!("{:?} was OK with committed_size {committed}", evidence.seen.ask)
            });
            vec![acknowledged(evidence, &digest), size]
        }
        Ok(other) => vec![foreign(other)],
        Err(status) => refused(evidence, status.code(), || {
            format!("{:?}: {status}", evidence.seen.ask)
        }),
    }
}

pub(super) fn batch(
    evidence: &Evidence<'_>,
    blobs: &[Bytes],
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    let entries = match answer {
        Ok(Answer::Entries(entries)) => entries,
        Ok(other) => return vec![foreign(other)],
        Err(status) => {
            return refused(evidence, status.code(), || {
                format!("{:?}: {status}", evidence.seen.ask)
            });
        }
    };
    let digests: Vec<_> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    let mut findings = vec![answers_all(&digests, entries)];
    for entry in entries {
        let Some(digest) = &entry.digest else { continue };
        if entry.code == Code::Ok {
            findings.push(acknowledged(evidence, digest));
        } else {
            findings.extend(refused(evidence, entry.code, || {
                format!("{digest} in {:?}", evidence.seen.ask)
            }));
        }
    }
    findings
}

pub(super) fn action(
    evidence: &Evidence<'_>,
    key: &Digest,
    result: &Bytes,
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    match answer {
        Ok(_) => {
            let kept = evidence.was_stored(key, result);
            vec![Finding::of(Promise::P1, kept, || {
                format!(
                    "{:?} was OK, and tier 2 did not acknowledge it",
                    evidence.seen.ask
                )
            })]
        }
        Err(status) => refused(evidence, status.code(), || {
            format!("{:?}: {status}", evidence.seen.ask)
        }),
    }
}

/// Tier 2's own word, fresh enough to stand for an acknowledgement (R2).
fn acknowledged(evidence: &Evidence<'_>, digest: &Digest) -> Finding {
    let kept = evidence.said_present(digest, evidence.times.write_lease);
    Finding::of(Promise::P1, kept, || {
        let words = evidence.words(digest);
        format!(
            "{digest} was acknowledged without tier 2's word, in {}; it said {words}",
            evidence.seen
        )
    })
    .beyond_the_protocol(evidence.ever_said_present(digest))
}

/// A refusal keeps P1, where an OK would have broken it or not; its code is judged as any other.
fn refused(evidence: &Evidence<'_>, code: Code, what: impl FnOnce() -> String) -> Vec<Finding> {
    vec![evidence.failed_with(code, false, what)]
}
