//! The one table from what went wrong to gRPC's codes. There is no `_` arm: a new variant has to choose here.
//!
//! Two rules stand behind it. A failure that would repeat itself never has a code that clients retry, and a temporary one
//! never a code that they do not. And an outage is never reported as a miss.

use std::error::Error;
use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use proto::rpc::{self, precondition_failure::Violation};
use tonic::{Code, Status};

use crate::digest::{Digest, Function};
use crate::tier2::{Tier2Error, UpstreamStatus};
use crate::tiered::{CallError, TreeError};

/// Longest message in bytes: trailers stay far below the 8 KiB that HTTP/2 peers accept.
const MESSAGE_BYTES_MAX: usize = 900;

/// Longest details in bytes that are passed on from Tier 2, before base64.
const DETAILS_BYTES_MAX: usize = 4 * 1024;

/// Missing blobs that are named: some 110 bytes each, and base64 in a trailer after that.
const VIOLATIONS_MAX: usize = 32;

/// What a client is told about a call that failed.
pub(super) fn status(error: &CallError) -> Status {
    let verdict = verdict(error);
    Status::with_details(verdict.code, bounded(verdict.message), verdict.details)
}

/// Likewise, with the blob, action or resource name that the call was about at the end of the message.
pub(super) fn status_of(error: &CallError, subject: impl fmt::Display) -> Status {
    let verdict = verdict(error);
    let message = format!("{}: {subject}", verdict.message);
    Status::with_details(verdict.code, bounded(message), verdict.details)
}

/// What a client is told about a tree that could not be walked.
pub(super) fn tree_status(error: &TreeError, root: Digest) -> Status {
    match error {
        TreeError::Call(error) => status_of(error, root),
        // It is healed by an upload of the directory, or by Tier 2 itself: another try may find it so (TREE-04).
        TreeError::BadDirectory(_) => Status::unavailable(bounded(format!("{error}: {root}"))),
        TreeError::NotADirectory | TreeError::Token => invalid(format_args!("{error}: {root}")),
        // No retry makes a tree or a directory smaller; for the latter the requirements leave no choice of code (TREE-16).
        TreeError::TooLarge(_) => Status::failed_precondition(bounded(format!("{error}: {root}"))),
        TreeError::DirectoryTooLarge(_) => Status::resource_exhausted(bounded(error.to_string())),
    }
}

/// The client's own mistake, in the words of the error that found it.
pub(super) fn invalid(error: impl fmt::Display) -> Status {
    Status::invalid_argument(bounded(error.to_string()))
}

struct Verdict {
    code: Code,
    message: String,
    details: Bytes,
}

impl Verdict {
    fn new(code: Code, message: impl Into<String>) -> Verdict {
        Verdict {
            code,
            message: message.into(),
            details: Bytes::new(),
        }
    }
}

fn verdict(error: &CallError) -> Verdict {
    match error {
        // The client's business: say everything.
        CallError::BadUpload(mismatch) => Verdict::new(Code::InvalidArgument, format!("{error}: {mismatch}")),
        CallError::ResumeOffset { .. } => Verdict::new(Code::InvalidArgument, error.to_string()),
        CallError::Superseded => Verdict::new(Code::Aborted, error.to_string()),
        CallError::Tier2(error) => tier2(error),
        CallError::DataLoss => {
            tracing::error!("a blob of tier 2 is bad and part of it was already sent");
            Verdict::new(Code::DataLoss, error.to_string())
        }
        // For a reader that is an absence: the next upload heals it (CAS-GEN-13).
        CallError::BadBlob => Verdict::new(Code::NotFound, error.to_string()),
        // Likewise for who asks for a result (AC-GET-02, AC-GET-07).
        CallError::Incomplete(_) => Verdict::new(Code::NotFound, error.to_string()),
        CallError::MissingBlobs(missing) => Verdict {
            details: missing_blobs(error, missing),
            ..Verdict::new(Code::FailedPrecondition, error.to_string())
        },
        CallError::DoneWithout => Verdict::new(Code::FailedPrecondition, error.to_string()),
        CallError::Overloaded(bound) => Verdict::new(Code::ResourceExhausted, *bound),
        CallError::Busy(wait) => Verdict::new(Code::Unavailable, *wait),
        CallError::Quiet | CallError::DeadlineExceeded => {
            Verdict::new(Code::DeadlineExceeded, error.to_string())
        }
        CallError::ShuttingDown => Verdict::new(Code::Unavailable, error.to_string()),
    }
}

fn tier2(error: &Tier2Error) -> Verdict {
    match error {
        Tier2Error::NotFound => Verdict::new(Code::NotFound, "not found"),
        // Paths and addresses are for the log.
        Tier2Error::Down(_) => {
            tracing::debug!(error = chain(error), "a call failed, tier 2 is down");
            Verdict::new(Code::Unavailable, "tier 2 cannot be reached")
        }
        Tier2Error::Answered(upstream) => answered(upstream),
        // Not the client's fault, and another try may meet a better copy.
        Tier2Error::Corrupt(_) => {
            tracing::warn!(
                error = chain(error),
                "a call failed, tier 2 sent bytes that do not fit"
            );
            Verdict::new(Code::Internal, error.to_string())
        }
        Tier2Error::Short | Tier2Error::Stalled | Tier2Error::Aborted => {
            Verdict::new(Code::Unavailable, error.to_string())
        }
        Tier2Error::DeadlineExceeded => Verdict::new(Code::DeadlineExceeded, error.to_string()),
    }
}

/// The details that name missing blobs (RN-18). A client that heals what is named comes again for the rest.
fn missing_blobs(error: &CallError, missing: &[Digest]) -> Bytes {
    let violation = |digest: &Digest| Violation {
        r#type: "MISSING".to_owned(),
        subject: match digest.function() {
            // Functions as old as REAPI have no segment of their own.
            Function::Sha256 => format!("blobs/{}/{}", digest.hash(), digest.size_bytes()),
        },
        description: String::new(),
    };
    let failure = rpc::PreconditionFailure {
        violations: missing.iter().take(VIOLATIONS_MAX).map(violation).collect(),
    };
    let status = rpc::Status {
        code: Code::FailedPrecondition.into(),
        message: error.to_string(),
        details: prost_types::Any::from_msg(&failure).into_iter().collect(),
    };
    status.encode_to_vec().into()
}

/// Tier 2's own code, where it means to the client what it meant to us.
fn answered(upstream: &UpstreamStatus) -> Verdict {
    tracing::debug!(code = ?upstream.code, message = upstream.message, "tier 2 answered with an error");
    match upstream.code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => {
            let mut verdict = Verdict::new(
                upstream.code,
                format!("tier 2 answered: {}", upstream.code.description()),
            );
            if upstream.details.len() <= DETAILS_BYTES_MAX {
                verdict.details = upstream.details.clone();
            }
            verdict
        }
        // About the credentials of this node; a client would refresh its own in vain (PXY-06).
        Code::PermissionDenied | Code::Unauthenticated => {
            Verdict::new(Code::Unavailable, "tier 2 refuses this node's credentials")
        }
        // A timeout of Tier 2's own inside a live call, a cancel that no client asked for, an error without a code, and
        // an OK where there was none: all of them may pass.
        Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Ok => Verdict::new(
            Code::Unavailable,
            format!("tier 2 failed: {}", upstream.code.description()),
        ),
        // Offsets are checked here and no client may learn that a write was refused because the blob exists: what is
        // left of these codes is a misunderstanding between this node and Tier 2.
        Code::OutOfRange | Code::AlreadyExists => Verdict::new(
            Code::Internal,
            format!(
                "tier 2 did not understand this node: {}",
                upstream.code.description()
            ),
        ),
    }
}

/// An error with its causes, for the log.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn bounded(mut message: String) -> String {
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests;
