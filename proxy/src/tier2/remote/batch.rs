//! Answers to batches, matched by digest: servers may reorder, omit and invent. Pure.

use std::collections::HashMap;

use bytes::Bytes;
use proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_response, compressor};
use proto::rpc;
use tonic::{Code, Status};

use super::failure::{absent, answered, tier2_error};
use crate::blob::Verified;
use crate::call::Call;
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;

pub(super) fn to_wire(digest: &Digest) -> reapi::Digest {
    reapi::Digest {
        hash: digest.hash().to_hex(),
        // A digest whose size does not fit comes from nowhere: sizes enter as i64.
        size_bytes: i64::try_from(digest.size_bytes()).unwrap_or(i64::MAX),
    }
}

pub(super) fn from_wire(digest: Option<&reapi::Digest>, function: Function) -> Option<Digest> {
    let digest = digest?;
    Digest::parse(function, &digest.hash, digest.size_bytes).ok()
}

pub(super) fn wire_function(function: Function) -> i32 {
    match function {
        Function::Sha256 => reapi::digest_function::Value::Sha256.into(),
    }
}

/// Bytes by digest, for those of `asked` that Tier 2 answered for. What comes twice counts once, the good one first: bytes
/// that fit cannot be wrong.
pub(super) fn blobs_read(
    responses: Vec<batch_read_blobs_response::Response>,
    asked: &[Digest],
    call: &Call,
) -> Vec<Result<Bytes, Tier2Error>> {
    let mut answers: HashMap<Digest, Result<Bytes, Tier2Error>> = HashMap::new();
    let Some(function) = asked.first().map(Digest::function) else {
        return Vec::new();
    };
    for response in responses {
        let Some(digest) = from_wire(response.digest.as_ref(), function) else {
            continue;
        };
        if !matches!(answers.get(&digest), Some(Ok(_))) {
            answers.insert(digest, blob_read(response, &digest, call));
        }
    }
    by_question(&answers, asked)
}

fn blob_read(
    response: batch_read_blobs_response::Response,
    digest: &Digest,
    call: &Call,
) -> Result<Bytes, Tier2Error> {
    outcome(response.status.as_ref(), call).map_err(absent)?;
    if response.compressor != i32::from(compressor::Value::Identity) {
        let message = "tier 2 answered with a compression that was not asked for";
        return Err(answered(Code::Internal, message, b""));
    }
    let _proof = Verified::of(*digest, &response.data).map_err(Tier2Error::Corrupt)?;
    Ok(response.data)
}

/// Acknowledgements by digest. What comes twice counts once, the bad one first: an acknowledgement has no proof.
pub(super) fn blobs_written(
    responses: &[batch_update_blobs_response::Response],
    sent: &[Digest],
    call: &Call,
) -> Vec<Result<(), Tier2Error>> {
    let mut answers: HashMap<Digest, Result<(), Tier2Error>> = HashMap::new();
    let Some(function) = sent.first().map(Digest::function) else {
        return Vec::new();
    };
    for response in responses {
        let Some(digest) = from_wire(response.digest.as_ref(), function) else {
            continue;
        };
        if !matches!(answers.get(&digest), Some(Err(_))) {
            answers.insert(digest, outcome(response.status.as_ref(), call));
        }
    }
    by_question(&answers, sent)
}

/// No status, and a status with code 0, are success.
fn outcome(status: Option<&rpc::Status>, call: &Call) -> Result<(), Tier2Error> {
    match status {
        None | Some(rpc::Status { code: 0, .. }) => Ok(()),
        Some(status) => Err(tier2_error(
            Status::new(Code::from_i32(status.code), status.message.clone()),
            call,
        )),
    }
}

fn by_question<A: Clone>(
    answers: &HashMap<Digest, Result<A, Tier2Error>>,
    asked: &[Digest],
) -> Vec<Result<A, Tier2Error>> {
    let unanswered = || {
        let message = "tier 2 left a part of a batch unanswered";
        Err(answered(Code::Internal, message, b""))
    };
    asked
        .iter()
        .map(|digest| answers.get(digest).cloned().unwrap_or_else(unanswered))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::InstanceName;

    fn call() -> Call {
        Call::of_node(InstanceName::default())
    }

    fn digest(bytes: &[u8]) -> Digest {
        Digest::of(Function::Sha256, bytes)
    }

    fn status(code: Code) -> Option<rpc::Status> {
        Some(rpc::Status {
            code: code.into(),
            ..rpc::Status::default()
        })
    }

    fn blob(named: &[u8], data: &'static [u8], code: Code) -> batch_read_blobs_response::Response {
        batch_read_blobs_response::Response {
            digest: Some(to_wire(&digest(named))),
            data: Bytes::from_static(data),
            status: status(code),
            compressor: 0,
        }
    }

    fn is_code(result: &Result<impl Sized, Tier2Error>, code: Code) -> bool {
        matches!(result, Err(Tier2Error::Answered(status)) if status.code == code)
    }

    #[test]
    fn answers_are_matched_by_digest_whatever_their_order() {
        let responses = vec![
            blob(b"stranger", b"stranger", Code::Ok),
            blob(b"b", b"b", Code::Ok),
            batch_read_blobs_response::Response::default(),
            blob(b"gone", b"", Code::NotFound),
            blob(b"a", b"a", Code::Ok),
            blob(b"rotten", b"rotteN", Code::Ok),
            blob(b"down", b"", Code::Unavailable),
        ];
        let asked: [&[u8]; 7] = [b"a", b"b", b"gone", b"absent", b"rotten", b"a", b"down"];
        let found = blobs_read(responses, &asked.map(digest), &call()); // PXY-64
        assert_eq!(found[0].as_ref().unwrap(), "a");
        assert_eq!(found[1].as_ref().unwrap(), "b");
        assert!(matches!(found[2], Err(Tier2Error::NotFound)));
        assert!(is_code(&found[3], Code::Internal), "neither OK nor NOT_FOUND");
        assert!(matches!(found[4], Err(Tier2Error::Corrupt(_))));
        assert_eq!(found[5].as_ref().unwrap(), "a");
        assert!(is_code(&found[6], Code::Unavailable)); // PXY-01
    }

    #[test]
    fn bytes_that_came_twice_count_if_one_copy_is_right() {
        let responses = vec![blob(b"a", b"x", Code::Ok), blob(b"a", b"a", Code::Ok)];
        let found = blobs_read(responses, &[digest(b"a")], &call());
        assert_eq!(found[0].as_ref().unwrap(), "a");
    }

    #[test]
    fn compressed_bytes_that_nobody_asked_for_are_an_error() {
        let response = batch_read_blobs_response::Response {
            compressor: compressor::Value::Zstd.into(),
            ..blob(b"a", b"a", Code::Ok)
        };
        let found = blobs_read(vec![response], &[digest(b"a")], &call());
        assert!(is_code(&found[0], Code::Internal));
    }

    #[test]
    fn an_acknowledgement_is_needed_for_each_blob() {
        let response = |named: &[u8], status| batch_update_blobs_response::Response {
            digest: Some(to_wire(&digest(named))),
            status,
        };
        let responses = [
            response(b"twice", status(Code::ResourceExhausted)),
            response(b"b", None), // CAS-BUB-17
            response(b"twice", status(Code::Ok)),
            response(b"a", status(Code::Ok)),
        ];
        let sent: [&[u8]; 4] = [b"a", b"b", b"twice", b"absent"];
        let acks = blobs_written(&responses, &sent.map(digest), &call());
        assert!(acks[0].is_ok() && acks[1].is_ok());
        assert!(is_code(&acks[2], Code::ResourceExhausted));
        assert!(is_code(&acks[3], Code::Internal));
    }
}
