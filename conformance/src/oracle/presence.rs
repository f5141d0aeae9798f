//! P2 and P5 of calls that ask whether something is there.

use mock_upstream::Digest;
use tonic::{Code, Status};

use crate::oracle::evidence::Evidence;
use crate::oracle::reads::foreign;
use crate::oracle::{Finding, Promise};
use crate::site::Answer;

pub(super) fn missing(
    evidence: &Evidence<'_>,
    digests: &[Digest],
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    let missing = match answer {
        Ok(Answer::Missing(missing)) => missing,
        Ok(other) => return vec![foreign(other)],
        // That a blob is missing is an answer, not a failure.
        Err(status) => {
            let what = || format!("{:?}: {status}", evidence.seen.ask);
            return vec![evidence.failed_with(status.code(), false, what)];
        }
    };
    let judge = |digest: &Digest| {
        if missing.contains(digest) {
            Finding::of(Promise::P5, evidence.may_be_missing(digest), || {
                format!("{digest} is called missing, and tier 2 did not say so")
            })
        } else {
            let kept = evidence.said_present(digest, evidence.times.lease);
            Finding::of(Promise::P2, kept, || {
                format!("{digest} is called present without tier 2's word")
            })
            .beyond_the_protocol(evidence.ever_said_present(digest))
        }
    };
    digests.iter().map(judge).collect()
}

/// R11: `{size, true}`, or where the upload can go on; never `{size, false}`, never NOT_FOUND.
pub(super) fn write_status(
    evidence: &Evidence<'_>,
    digest: &Digest,
    answer: &Result<Answer, Status>,
) -> Vec<Finding> {
    let (committed, complete) = match answer {
        Ok(Answer::Status { committed, complete }) => (*committed, *complete),
        Ok(other) => return vec![foreign(other)],
        Err(status) => {
            let what = || format!("{:?}: {status}", evidence.seen.ask);
            let given = evidence.failed_with(status.code(), false, what);
            let unknown = Finding::of(Promise::P10, status.code() != Code::NotFound, || {
                "QueryWriteStatus said NOT_FOUND, and a client gives up".to_owned()
            });
            // ByteStream allows it.
            let unknown = unknown.beyond_the_protocol(true);
            return vec![given, unknown];
        }
    };
    let committed = u64::try_from(committed).ok();
    let size = digest.size_bytes();
    let said = || format!("QueryWriteStatus of {digest} said {committed:?}, complete: {complete}");
    if complete {
        let acknowledged = evidence.said_present(digest, evidence.times.lease);
        vec![
            Finding::of(Promise::P1, acknowledged, || {
                format!("{} without tier 2's word", said())
            })
            .beyond_the_protocol(evidence.ever_said_present(digest)),
            Finding::of(Promise::P4, committed == Some(size), said),
        ]
    } else {
        let kept = committed.is_some_and(|committed| committed < size.max(1));
        vec![Finding::of(Promise::P10, kept, said)]
    }
}
