//! Sizes, pieces, ranges, batches.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proto::bytestream::WriteRequest;
use proto::reapi::Digest;
use tonic::Code;

use super::Trial;
use crate::check::{Outcome, Verdict, expect, expect_eq};
use crate::target::{Blob, Due as _, Target};

pub(super) fn any_pieces(trial: &Trial<'_>) -> Outcome {
    let pieces = vec(prop_oneof![4 => 0..2000_usize, 1 => 16_000..70_000_usize], 1..8);
    trial.draw(&(pieces, any::<bool>()), |t, (pieces, bare_finish)| {
        pieces_are_a_blob(t, pieces, bare_finish)
    })
}

async fn pieces_are_a_blob(t: Target, pieces: Vec<usize>, bare_finish: bool) -> Verdict {
    let blob = Blob::random(pieces.iter().sum());
    let name = t.write_name(&blob.digest);
    let mut requests = Vec::new();
    let mut from = 0;
    for piece in pieces {
        requests.push(WriteRequest {
            resource_name: if from == 0 { name.clone() } else { String::new() },
            write_offset: i64::try_from(from).unwrap_or(i64::MAX),
            finish_write: false,
            data: blob.bytes.slice(from..from + piece),
        });
        from += piece;
    }
    if bare_finish {
        requests.push(WriteRequest {
            write_offset: blob.digest.size_bytes,
            ..WriteRequest::default()
        });
    }
    if let Some(last) = requests.last_mut() {
        last.finish_write = true;
        last.resource_name.clone_from(&name);
    }
    let size = t.write_requests(requests).await.due("Write")?;
    expect_eq("committed_size", &size, &blob.digest.size_bytes)?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

pub(super) fn any_range(trial: &Trial<'_>) -> Outcome {
    let place = || prop_oneof![6 => 0..5000_i64, 3 => 0..200_000_i64, 1 => -5..5_i64, 1 => any::<i64>()];
    let len = prop_oneof![1..5000_usize, 5000..150_000_usize];
    trial.draw(&(len, place(), place()), |t, (len, offset, limit)| {
        range_is_right(t, len, offset, limit)
    })
}

async fn range_is_right(t: Target, len: usize, offset: i64, limit: i64) -> Verdict {
    let blob = t.stored(len).await?;
    let answer = t.read(&t.read_name(&blob.digest), offset, limit).await;
    let from = usize::try_from(offset).ok().filter(|from| *from <= len);
    match (from, usize::try_from(limit)) {
        (Some(from), Ok(limit)) => {
            let end = if limit == 0 {
                len
            } else {
                len.min(from.saturating_add(limit))
            };
            let came = answer.due("Read")?;
            expect(came == blob.bytes[from..end], || {
                format!("{} bytes, or others, for {from}..{end} of {len}", came.len())
            })
        }
        (None, Ok(_)) => answer.denied("Read out of range", &[Code::OutOfRange]),
        // Which of two faults is told is left to the server.
        (_, Err(_)) => answer.denied(
            "Read with a negative limit",
            &[Code::InvalidArgument, Code::OutOfRange],
        ),
    }
}

/// What an entry of a batch is.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Good(usize),
    WrongBytes(usize),
    WrongSize(usize),
    Malformed,
    Empty,
    /// The same as the one before.
    Again,
}

pub(super) fn any_batch(trial: &Trial<'_>) -> Outcome {
    let entry = prop_oneof![
        4 => (1..3000_usize).prop_map(Entry::Good),
        1 => (1..3000_usize).prop_map(Entry::WrongBytes),
        1 => (1..3000_usize).prop_map(Entry::WrongSize),
        1 => Just(Entry::Malformed),
        1 => Just(Entry::Empty),
        2 => Just(Entry::Again),
    ];
    trial.draw(&vec(entry, 0..12), entries_are_answered)
}

async fn entries_are_answered(t: Target, entries: Vec<Entry>) -> Verdict {
    let mut batch: Vec<((Digest, Bytes), Code)> = Vec::new();
    for entry in entries {
        let made = match entry {
            Entry::Good(len) => (Blob::random(len).entry(), Code::Ok),
            Entry::WrongBytes(len) => {
                let blob = Blob::random(len);
                // Of one byte, every 256th is the same.
                let other = Blob::random(len + 8).bytes.slice(8..);
                let code = if other == blob.bytes {
                    Code::Ok
                } else {
                    Code::InvalidArgument
                };
                ((blob.digest, other), code)
            }
            Entry::WrongSize(len) => {
                let blob = Blob::random(len);
                (
                    (blob.sized(blob.digest.size_bytes + 1), blob.bytes),
                    Code::InvalidArgument,
                )
            }
            Entry::Malformed => {
                let blob = Blob::random(9);
                let digest = Digest {
                    hash: "no hash".to_owned(),
                    ..blob.digest
                };
                ((digest, blob.bytes), Code::InvalidArgument)
            }
            Entry::Empty => (Blob::of("").entry(), Code::Ok),
            Entry::Again => match batch.last() {
                Some(last) => last.clone(),
                None => continue,
            },
        };
        batch.push(made);
    }
    let due: Vec<Code> = batch.iter().map(|(_, code)| *code).collect();
    let answer = t
        .update(batch.iter().map(|(entry, _)| entry.clone()).collect())
        .await;
    let malformed = batch.iter().any(|((digest, _), _)| digest.hash.len() != 64);
    // One malformed digest may fail the call.
    if malformed
        && answer
            .as_ref()
            .is_err_and(|status| status.code() == Code::InvalidArgument)
    {
        return Ok(());
    }
    expect_eq("BatchUpdateBlobs", &answer.due("BatchUpdateBlobs")?, &due)?;
    let named: Vec<_> = batch
        .into_iter()
        .filter(|((digest, _), _)| digest.hash.len() == 64)
        .collect();
    let asked = named.iter().map(|((digest, _), _)| digest.clone()).collect();
    let missing = t.missing(asked).await.due("FindMissingBlobs")?;
    for ((digest, _), code) in named {
        let is_missing = missing.contains(&digest);
        let is_due = code == Code::Ok;
        expect(is_missing != is_due, || {
            format!(
                "an entry of {} bytes was {code:?}, and is missing: {is_missing}",
                digest.size_bytes
            )
        })?;
    }
    Ok(())
}
