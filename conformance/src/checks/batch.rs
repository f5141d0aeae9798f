//! BatchUpdateBlobs and BatchReadBlobs.

use std::sync::Arc;

use bytes::Bytes;
use proto::reapi::{
    self, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
};
use tonic::{Code, Status};

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-BUB-01", entries_are_independent),
    check!("CAS-BUB-02", one_response_per_entry),
    check!("CAS-BUB-05", wrong_size_is_refused),
    check!("CAS-BUB-08", batch_over_the_limit),
    check!("CAS-BUB-13", twice_in_a_batch),
    check!("CAS-BUB-14", existing_blob_is_ok),
    check!("CAS-BUB-15", empty_batch),
    check!("CAS-BUB-16", empty_blob),
    check!("CAS-BUB-19", ok_means_present),
    check!("CAS-BRB-01", one_answer_per_digest),
    check!("CAS-BRB-03", absent_is_not_found),
    check!("CAS-BRB-05", read_over_the_limit),
    check!("CAS-BRB-10", empty_blob_reads),
    check!("CAS-BRB-11", asked_twice),
    check!("CAS-BRB-16", empty_read),
];

async fn update(
    target: &Target,
    entries: Vec<(reapi::Digest, Bytes)>,
) -> Result<Vec<batch_update_blobs_response::Response>, Status> {
    let requests = entries
        .into_iter()
        .map(|(digest, data)| batch_update_blobs_request::Request {
            digest: Some(digest),
            data,
            ..Default::default()
        })
        .collect();
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: target.instance().into(),
        requests,
        ..Default::default()
    };
    Ok(target
        .cas()
        .batch_update_blobs(request)
        .await?
        .into_inner()
        .responses)
}

async fn read(
    target: &Target,
    digests: Vec<reapi::Digest>,
) -> Result<Vec<batch_read_blobs_response::Response>, Status> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: target.instance().into(),
        digests,
        ..Default::default()
    };
    Ok(target
        .cas()
        .batch_read_blobs(request)
        .await?
        .into_inner()
        .responses)
}

fn code(status: Option<&proto::rpc::Status>) -> Code {
    Code::from_i32(status.map_or(0, |status| status.code))
}

fn code_of(responses: &[batch_update_blobs_response::Response], digest: &reapi::Digest) -> Option<Code> {
    let found = responses
        .iter()
        .find(|response| response.digest.as_ref() == Some(digest))?;
    Some(code(found.status.as_ref()))
}

fn entry(blob: &Blob) -> (reapi::Digest, Bytes) {
    (blob.digest.clone(), blob.bytes.clone())
}

async fn entries_are_independent(target: Arc<Target>) -> Verdict {
    let (good, bad) = (Blob::random(100), Blob::random(100));
    let entries = vec![entry(&good), (bad.digest.clone(), Blob::random(100).bytes)];
    let responses = update(&target, entries)
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let codes = (
        code_of(&responses, &good.digest),
        code_of(&responses, &bad.digest),
    );
    expect(codes == (Some(Code::Ok), Some(Code::InvalidArgument)), || {
        format!("codes are {codes:?}")
    })
}

async fn one_response_per_entry(target: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..20).map(|_| Blob::random(50)).collect();
    let responses = update(&target, blobs.iter().map(entry).collect())
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let answered = blobs
        .iter()
        .filter(|blob| code_of(&responses, &blob.digest) == Some(Code::Ok))
        .count();
    expect(answered == 20 && responses.len() == 20, || {
        format!(
            "{} responses, {answered} with a digest asked for",
            responses.len()
        )
    })
}

async fn wrong_size_is_refused(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let wrong = reapi::Digest {
        size_bytes: 101,
        ..blob.digest.clone()
    };
    let responses = update(&target, vec![(wrong.clone(), blob.bytes)])
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let code = code_of(&responses, &wrong);
    expect(code == Some(Code::InvalidArgument), || {
        format!("its code is {code:?}")
    })
}

/// The announced limit, or nothing where none is announced.
async fn limit(target: &Target) -> Result<usize, check::Stop> {
    let all = target
        .server_capabilities()
        .await
        .map_err(refused("GetCapabilities"))?;
    let limit = all
        .cache_capabilities
        .map_or(0, |cache| cache.max_batch_total_size_bytes);
    usize::try_from(limit)
        .ok()
        .filter(|limit| (1..=64 * 1024 * 1024).contains(limit))
        .ok_or_else(|| check::Stop::NotOffered(format!("max_batch_total_size_bytes is {limit}")))
}

async fn batch_over_the_limit(target: Arc<Target>) -> Verdict {
    let half = limit(&target).await? / 2 + 1;
    let entries = vec![entry(&Blob::random(half)), entry(&Blob::random(half))];
    refused_with(
        "BatchUpdateBlobs",
        update(&target, entries).await,
        &[Code::InvalidArgument],
    )
}

async fn twice_in_a_batch(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let responses = update(&target, vec![entry(&blob), entry(&blob)])
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let oks = responses
        .iter()
        .filter(|response| code(response.status.as_ref()) == Code::Ok)
        .count();
    expect(responses.len() == 2 && oks == 2, || {
        format!("{} responses, {oks} OK", responses.len())
    })
}

async fn existing_blob_is_ok(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    target.put(&blob).await?;
    let responses = update(&target, vec![entry(&blob)])
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let code = code_of(&responses, &blob.digest);
    expect(code == Some(Code::Ok), || format!("its code is {code:?}"))
}

async fn empty_batch(target: Arc<Target>) -> Verdict {
    let responses = update(&target, Vec::new())
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    expect(responses.is_empty(), || format!("{} responses", responses.len()))
}

async fn empty_blob(target: Arc<Target>) -> Verdict {
    let blob = Blob::of("");
    let responses = update(&target, vec![entry(&blob)])
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let code = responses.first().map(|response| code(response.status.as_ref()));
    expect(code == Some(Code::Ok), || format!("its code is {code:?}"))
}

async fn ok_means_present(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(300);
    update(&target, vec![entry(&blob)])
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let missing = target
        .missing(vec![blob.digest.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing.is_empty(), || format!("{:?} is missing", blob.digest))
}

async fn one_answer_per_digest(target: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..10).map(|_| Blob::random(64)).collect();
    update(&target, blobs.iter().map(entry).collect())
        .await
        .map_err(refused("BatchUpdateBlobs"))?;
    let asked = blobs.iter().map(|blob| blob.digest.clone()).collect();
    let answers = read(&target, asked).await.map_err(refused("BatchReadBlobs"))?;
    let right = |blob: &&Blob| {
        let mut mine = answers
            .iter()
            .filter(|answer| answer.digest.as_ref() == Some(&blob.digest));
        mine.any(|answer| code(answer.status.as_ref()) == Code::Ok && answer.data == blob.bytes)
    };
    let answered = blobs.iter().filter(right).count();
    expect(answered == 10, || format!("{answered} of 10 came right"))
}

async fn absent_is_not_found(target: Arc<Target>) -> Verdict {
    let (there, absent) = (Blob::random(64), Blob::random(64));
    target.put(&there).await?;
    let answers = read(&target, vec![there.digest.clone(), absent.digest.clone()])
        .await
        .map_err(refused("BatchReadBlobs"))?;
    let code_of = |digest| {
        let mut mine = answers
            .iter()
            .filter(|answer| answer.digest.as_ref() == Some(digest));
        mine.next().map(|answer| code(answer.status.as_ref()))
    };
    let codes = (code_of(&there.digest), code_of(&absent.digest));
    expect(codes == (Some(Code::Ok), Some(Code::NotFound)), || {
        format!("codes are {codes:?}")
    })
}

async fn read_over_the_limit(target: Arc<Target>) -> Verdict {
    let size_bytes = i64::try_from(limit(&target).await?).unwrap_or(i64::MAX) / 2 + 1;
    let digest = || reapi::Digest {
        size_bytes,
        ..Blob::random(8).digest
    };
    refused_with(
        "BatchReadBlobs",
        read(&target, vec![digest(), digest()]).await,
        &[Code::InvalidArgument],
    )
}

async fn empty_blob_reads(target: Arc<Target>) -> Verdict {
    let answers = read(&target, vec![Blob::of("").digest])
        .await
        .map_err(refused("BatchReadBlobs"))?;
    let codes: Vec<Code> = answers
        .iter()
        .map(|answer| code(answer.status.as_ref()))
        .collect();
    expect(codes == [Code::Ok] && answers[0].data.is_empty(), || {
        format!("codes are {codes:?}")
    })
}

async fn asked_twice(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(64);
    target.put(&blob).await?;
    let asked = vec![blob.digest.clone(), blob.digest.clone()];
    let answers = read(&target, asked).await.map_err(refused("BatchReadBlobs"))?;
    let right = answers.iter().filter(|answer| answer.data == blob.bytes).count();
    expect(right >= 1 && right == answers.len(), || {
        format!("{right} of {} are right", answers.len())
    })
}

async fn empty_read(target: Arc<Target>) -> Verdict {
    let answers = read(&target, Vec::new())
        .await
        .map_err(refused("BatchReadBlobs"))?;
    expect(answers.is_empty(), || format!("{} answers", answers.len()))
}
