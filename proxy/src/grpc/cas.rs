//! ContentAddressableStorage: many small blobs in one call.

mod hashing;

use std::collections::HashMap;

use bytes::Bytes;
use proto::reapi;
use proto::reapi::{batch_read_blobs_response, batch_update_blobs_response};
use proto::rpc;
use tonic::{Code, Status};

use self::hashing::Hashing;
use super::caller::Caller;
use super::chunk::MESSAGE_BYTES_MAX;
use super::digests;
use super::messages::PREFIX_BYTES;
use super::services::Services;
use super::status::{invalid, status, status_of};
use crate::blob::Verified;
use crate::digest::Digest;

/// Digests in one question: an answer that lists them all stays within a message. Bazel sends up to 14 000.
const FIND_MISSING_DIGESTS_MAX: usize = 50_000;

/// Bytes that an answer takes for each blob beside the blob: its digest of a 64-digit hash, keys and lengths.
const FRAMING_BYTES_PER_BLOB: u64 = 96;

/// Bytes of the status of a blob that could not be read, so that an answer of errors alone stays within a message too.
const STATUS_BYTES: u64 = 192;

/// Answers FindMissingBlobs.
pub(super) async fn find_missing(
    services: &Services,
    caller: &Caller,
    request: reapi::FindMissingBlobsRequest,
) -> Result<reapi::FindMissingBlobsResponse, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    if request.blob_digests.len() > FIND_MISSING_DIGESTS_MAX {
        return Err(invalid(format_args!(
            "{} digests are asked for, more than {FIND_MISSING_DIGESTS_MAX}",
            request.blob_digests.len()
        )));
    }
    let asked = digests::all(function, &request.blob_digests)?;
    let missing = services
        .tiered
        .find_missing(&call, &asked)
        .await
        .map_err(|error| status(&error))?;
    Ok(reapi::FindMissingBlobsResponse {
        missing_blob_digests: missing.iter().map(digests::message).collect(),
    })
}

/// Answers BatchUpdateBlobs: each blob succeeds or fails on its own.
pub(super) async fn batch_update(
    services: &Services,
    caller: &Caller,
    request: reapi::BatchUpdateBlobsRequest,
) -> Result<reapi::BatchUpdateBlobsResponse, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    let sizes = request.requests.iter().map(|entry| entry.data.len() as u64);
    check_total(services, sizes)?;
    if request.requests.iter().any(|entry| entry.digest.is_none()) {
        // It could not be told which blob such an answer is about.
        return Err(Status::invalid_argument("an entry has no digest"));
    }

    let mut hashing = Hashing::default();
    let mut blobs: Vec<(Verified, Bytes)> = Vec::new();
    let mut position_of: HashMap<Digest, usize> = HashMap::new();
    let mut entries: Vec<(reapi::Digest, Result<Digest, Status>)> = Vec::new();
    for entry in request.requests {
        let named = entry.digest.unwrap_or_default();
        let checked = check_entry(services, &call, function, &named, entry.compressor);
        let outcome = match checked {
            Err(status) => Err(status),
            Ok(digest) => hashing
                .verify(digest, &entry.data)
                .await
                .map_err(|error| status_of(&error, digest)),
        };
        let outcome = outcome.map(|proof| {
            let digest = *proof.digest();
            services.calls.received_bytes.inc_by(entry.data.len() as u64);
            // The same blob twice is one write with two answers (CAS-BUB-13).
            position_of.entry(digest).or_insert_with(|| {
                blobs.push((proof, entry.data));
                blobs.len() - 1
            });
            digest
        });
        entries.push((named, outcome));
    }

    let written = if blobs.is_empty() {
        Vec::new()
    } else {
        services.tiered.write_batch(&call, blobs).await
    };
    let responses = entries
        .into_iter()
        .map(|(named, outcome)| {
            let outcome = outcome.and_then(|digest| {
                let written = position_of
                    .get(&digest)
                    .and_then(|position| written.get(*position));
                match written {
                    Some(Ok(())) => Ok(()),
                    Some(Err(error)) => Err(status_of(error, digest)),
                    None => Err(Status::internal("an entry of the batch has no outcome")),
                }
            });
            batch_update_blobs_response::Response {
                digest: Some(named),
                status: Some(
                    outcome
                        .err()
                        .map_or_else(rpc::Status::default, |status| entry_status(&status)),
                ),
            }
        })
        .collect();
    Ok(reapi::BatchUpdateBlobsResponse { responses })
}

fn check_entry(
    services: &Services,
    call: &crate::call::Call,
    function: crate::digest::Function,
    digest: &reapi::Digest,
    compressor: i32,
) -> Result<Digest, Status> {
    let digest = digests::parse(function, digest)?;
    if compressor != reapi::compressor::Value::Identity as i32 {
        return Err(invalid(format_args!(
            "compressor {compressor} is not offered: {digest}"
        )));
    }
    services.check_storable(call, &digest)?;
    Ok(digest)
}

/// Answers BatchReadBlobs: each blob is there or not on its own.
pub(super) async fn batch_read(
    services: &Services,
    caller: &Caller,
    request: reapi::BatchReadBlobsRequest,
) -> Result<reapi::BatchReadBlobsResponse, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    // Every occurrence counts; what is malformed has no size.
    let size = |digest: &reapi::Digest| u64::try_from(digest.size_bytes).unwrap_or(0);
    check_total(services, request.digests.iter().map(size))?;
    check_answer(&request.digests)?;

    let parsed: Vec<_> = request
        .digests
        .iter()
        .map(|digest| digests::parse(function, digest))
        .collect();
    let mut position_of: HashMap<Digest, usize> = HashMap::new();
    let mut wanted = Vec::new();
    for digest in parsed.iter().flatten() {
        position_of.entry(*digest).or_insert_with(|| {
            wanted.push(*digest);
            wanted.len() - 1
        });
    }
    let read = if wanted.is_empty() {
        Vec::new()
    } else {
        services.tiered.read_batch(&call, &wanted).await
    };
    let responses = request
        .digests
        .into_iter()
        .zip(parsed)
        .map(|(named, parsed)| {
            let outcome = parsed.and_then(|digest| {
                match position_of.get(&digest).and_then(|position| read.get(*position)) {
                    Some(Ok(bytes)) => Ok(bytes.clone()),
                    Some(Err(error)) => Err(status_of(error, digest)),
                    None => Err(Status::internal("a digest of the batch has no outcome")),
                }
            });
            let (data, status) = match outcome {
                Ok(data) => {
                    services.calls.sent_bytes.inc_by(data.len() as u64);
                    (data, rpc::Status::default())
                }
                Err(status) => (Bytes::new(), entry_status(&status)),
            };
            batch_read_blobs_response::Response {
                digest: Some(named),
                data,
                status: Some(status),
                compressor: reapi::compressor::Value::Identity.into(),
            }
        })
        .collect();
    Ok(reapi::BatchReadBlobsResponse { responses })
}

/// Holds a batch against the limit that is announced, before anything is read or written.
fn check_total(services: &Services, sizes: impl Iterator<Item = u64>) -> Result<(), Status> {
    let max = services.limits.batch_bytes_max;
    let total = sizes.fold(0, u64::saturating_add);
    if total > max {
        return Err(invalid(format_args!(
            "the batch has {total} bytes, more than the limit of {max}"
        )));
    }
    Ok(())
}

/// Whether the answer to these digests fits into a message (CAS-BRB-06).
fn check_answer(digests: &[reapi::Digest]) -> Result<(), Status> {
    let bytes = digests
        .iter()
        .map(|digest| {
            let size = u64::try_from(digest.size_bytes).unwrap_or(0).max(STATUS_BYTES);
            // A malformed hash is echoed, however long it is.
            let echo = digest.hash.len() as u64;
            size.saturating_add(FRAMING_BYTES_PER_BLOB)
                .saturating_add(echo.saturating_sub(64))
        })
        .fold(PREFIX_BYTES as u64, u64::saturating_add);
    if bytes > MESSAGE_BYTES_MAX as u64 {
        return Err(invalid(format_args!(
            "the answer would take {bytes} bytes, more than a message may have"
        )));
    }
    Ok(())
}

/// A status within an answer.
fn entry_status(status: &Status) -> rpc::Status {
    debug_assert_ne!(status.code(), Code::Ok);
    rpc::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    }
}
