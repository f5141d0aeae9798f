//! P3 and P5 of GetActionResult.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::Digest;
use prost::Message as _;
use proto::reapi;
use proto::wire;
use tonic::{Code, Status};

use crate::oracle::evidence::Evidence;
use crate::oracle::reads::foreign;
use crate::oracle::{Finding, Promise, Truth};
use crate::site::Answer;

pub(super) fn action(
    evidence: &Evidence<'_>,
    key: &Digest,
    answer: &Result<Answer, Status>,
    completeness: bool,
) -> Vec<Finding> {
    let result = match answer {
        Ok(Answer::Action(result)) => result,
        Ok(other) => return vec![foreign(other)],
        Err(status) if status.code() == Code::NotFound => {
            let given = evidence.given(key, evidence.times.action_lease);
            let unusable = || given.iter().any(|raw| is_unusable(evidence, raw));
            let kept = evidence.said_missing(key) || unusable() || evidence.is_bypassed(key);
            return vec![Finding::of(Promise::P5, kept, || {
                format!("{:?} was NOT_FOUND, and tier 2 did not say so", evidence.seen.ask)
            })];
        }
        Err(status) => return vec![evidence.failure(key, status)],
    };
    let current = evidence.is_current(key, result, evidence.times.action_lease);
    let mut findings = vec![
        Finding::of(Promise::P3, current, || {
            let digest = Digest::of(result);
            format!(
                "{:?} got {digest}, which tier 2 did not give, or gave too long ago",
                evidence.seen.ask
            )
        })
        .beyond_the_protocol(evidence.is_current(key, result, Duration::MAX)),
    ];
    if completeness {
        let lacking = references(evidence.truth, result)
            .unwrap_or_default()
            .into_iter()
            .find(|digest| !evidence.said_present(digest, evidence.times.lease));
        findings.push(Finding::of(Promise::P3, lacking.is_none(), || {
            format!(
                "{:?} got a result whose {lacking:?} is not there",
                evidence.seen.ask
            )
        }));
    }
    findings
}

/// Whether a hit with this result would have been one that cannot be used, so that NOT_FOUND is right.
fn is_unusable(evidence: &Evidence<'_>, raw: &Bytes) -> bool {
    references(evidence.truth, raw)
        .is_none_or(|references| references.iter().any(|digest| evidence.may_be_missing(digest)))
}

/// All blobs that a result refers to, trees as far as their bytes are known; `None` if it cannot be understood.
fn references(truth: &Truth, raw: &Bytes) -> Option<BTreeSet<Digest>> {
    let result = reapi::ActionResult::decode(raw.clone()).ok()?;
    let mut named: Vec<reapi::Digest> = Vec::new();
    named.extend(result.stdout_digest);
    named.extend(result.stderr_digest);
    for file in result.output_files {
        named.push(file.digest?);
    }
    for directory in result.output_directories {
        let tree = directory.tree_digest?;
        let bytes = truth.blobs.get(&Digest::from_wire(Some(&tree)).ok()?);
        let tree_message = bytes.map_or_else(
            || Some(wire::Tree::default()),
            |bytes| wire::Tree::decode(bytes.clone()).ok(),
        )?;
        for bytes in tree_message.root.into_iter().chain(tree_message.children) {
            let files = reapi::Directory::decode(bytes).ok()?.files;
            named.extend(files.into_iter().filter_map(|file| file.digest));
        }
        named.push(tree);
        named.extend(directory.root_directory_digest);
    }
    named
        .iter()
        .map(|digest| Digest::from_wire(Some(digest)).ok())
        .collect()
}
