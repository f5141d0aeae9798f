//! Clients side by side.

use futures::future::join_all;
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_oneof};
use tonic::Code;

use super::Trial;
use crate::check::{Outcome, Verdict, expect};
use crate::target::{Blob, Due as _, Target, write_requests};

/// What a client does with one of a few blobs.
#[derive(Clone, Copy, Debug)]
enum Op {
    Write(usize),
    /// Half of it, and a half-close.
    Half(usize),
    /// All of it but wrong.
    Wrong(usize),
    Batch(usize),
    Read(usize),
    Find(usize),
}

impl Op {
    /// The blob that is whole when it has ended.
    fn stores(self) -> Option<usize> {
        match self {
            Op::Write(blob) | Op::Batch(blob) => Some(blob),
            Op::Half(_) | Op::Wrong(_) | Op::Read(_) | Op::Find(_) => None,
        }
    }
}

/// Blobs that they share.
const BLOBS: usize = 3;

pub(super) fn any_interleaving(trial: &Trial<'_>) -> Outcome {
    let blob = || 0..BLOBS;
    let op = prop_oneof![
        1 => blob().prop_map(Op::Write),
        1 => blob().prop_map(Op::Half),
        1 => blob().prop_map(Op::Wrong),
        1 => blob().prop_map(Op::Batch),
        2 => blob().prop_map(Op::Read),
        2 => blob().prop_map(Op::Find),
    ];
    // Those of one group run at once, the groups one after another.
    trial.draw(&vec(vec(op, 1..4), 1..6), groups_agree)
}

async fn groups_agree(t: Target, groups: Vec<Vec<Op>>) -> Verdict {
    let blobs: Vec<Blob> = (0..BLOBS).map(|i| Blob::random(5000 + i)).collect();
    let mut stored = [false; BLOBS];
    for group in groups {
        let mut may_be = stored;
        for blob in group.iter().filter_map(|op| op.stores()) {
            may_be[blob] = true;
        }
        let done = group.iter().map(|op| act(&t, *op, &blobs, stored, may_be));
        for verdict in join_all(done).await {
            verdict?;
        }
        stored = may_be;
    }
    Ok(())
}

/// Does it, and compares with what is stored for sure, and with what may be.
async fn act(t: &Target, op: Op, blobs: &[Blob], stored: [bool; BLOBS], may_be: [bool; BLOBS]) -> Verdict {
    match op {
        Op::Write(i) => {
            let name = t.write_name(&blobs[i].digest);
            t.write(&name, &blobs[i].bytes, 1700)
                .await
                .due("Write")
                .map(|_| ())
        }
        Op::Half(i) => {
            let mut requests = write_requests(&t.write_name(&blobs[i].digest), &blobs[i].bytes, 2500);
            requests.truncate(1);
            // What it is answered is left to the server.
            let _ = t.write_requests(requests).await;
            Ok(())
        }
        Op::Wrong(i) => {
            let name = t.write_name(&blobs[i].digest);
            let answer = t
                .write(&name, &Blob::random(blobs[i].bytes.len()).bytes, 1700)
                .await;
            // A blob that is there is answered early, whatever came.
            expect(answer.is_err() || may_be[i], || "wrong bytes are OK".into())
        }
        Op::Batch(i) => {
            let codes = t.update(vec![blobs[i].entry()]).await.due("BatchUpdateBlobs")?;
            expect(codes == [Code::Ok], || format!("the code is {codes:?}"))
        }
        Op::Read(i) => match t.read(&t.read_name(&blobs[i].digest), 0, 0).await {
            Ok(bytes) => expect(bytes == blobs[i].bytes && may_be[i], || {
                format!("{} bytes came, which may be there: {}", bytes.len(), may_be[i])
            }),
            answer => {
                answer.denied("Read", &[Code::NotFound])?;
                expect(!stored[i], || "a blob that was acknowledged is NOT_FOUND".into())
            }
        },
        Op::Find(i) => {
            let missing = t
                .missing(vec![blobs[i].digest.clone()])
                .await
                .due("FindMissingBlobs")?;
            let right = if missing.is_empty() { may_be[i] } else { !stored[i] };
            expect(right, || {
                format!("missing: {}, stored: {}", !missing.is_empty(), stored[i])
            })
        }
    }
}
