//! BatchReadBlobs.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-BRB-01", one_answer_per_digest),
    check!("CAS-BRB-02", absence_leaves_the_call_ok),
    check!("CAS-BRB-03", absent_is_not_found),
    check!("CAS-BRB-05", over_the_limit),
    check!("CAS-BRB-07", plain_unless_asked),
    check!("CAS-BRB-08", unknown_compressors),
    check!("CAS-BRB-09", whole_and_right),
    check!("CAS-BRB-10", empty_blob),
    check!("CAS-BRB-11", asked_twice),
    check!("CAS-BRB-12", malformed_digest),
    check!("CAS-BRB-14", no_data_with_an_error),
    check!("CAS-BRB-15", four_thousand, heavy),
    check!("CAS-BRB-16", empty_read),
];

async fn one_answer_per_digest(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..10).map(|_| t.random(64)).collect();
    t.update(blobs.iter().map(Blob::entry).collect())
        .await
        .due("BatchUpdateBlobs")?;
    let asked = blobs.iter().map(|blob| blob.digest.clone()).collect();
    let answers = t.data_of(asked).await.due("BatchReadBlobs")?;
    let without = answers.iter().filter(|(code, _)| *code == Code::Unknown).count();
    expect(without == 0, || {
        format!("{without} of 10 digests have no response")
    })
}

async fn absence_leaves_the_call_ok(t: Arc<Target>) -> Verdict {
    let there = t.stored(64).await?;
    let asked = vec![t.random(64).digest, there.digest];
    let answers = t.data_of(asked).await.due("BatchReadBlobs with an absent blob")?;
    expect(answers[1].1 == there.bytes, || {
        "the blob that is there did not come".into()
    })
}

async fn absent_is_not_found(t: Arc<Target>) -> Verdict {
    let answers = t.data_of(vec![t.random(64).digest]).await.due("BatchReadBlobs")?;
    expect_eq("an absent blob", &answers[0].0, &Code::NotFound)
}

async fn over_the_limit(t: Arc<Target>) -> Verdict {
    let half = i64::try_from(t.batch_limit().await?).unwrap_or(i64::MAX) / 2 + 1;
    let digests = vec![t.random(8).sized(half), t.random(8).sized(half)];
    t.data_of(digests)
        .await
        .denied("BatchReadBlobs over the limit", INVALID)
}

async fn plain_unless_asked(t: Arc<Target>) -> Verdict {
    let blob = t.stored(2000).await?;
    let responses = t
        .batch_read(t.read_request_of(vec![blob.digest]))
        .await
        .due("BatchReadBlobs")?;
    expect(responses.iter().all(|response| response.compressor == 0), || {
        format!("compressor {} came unasked", responses[0].compressor)
    })
}

async fn unknown_compressors(t: Arc<Target>) -> Verdict {
    let blob = t.stored(50).await?;
    let request = reapi::BatchReadBlobsRequest {
        acceptable_compressors: vec![99, 98],
        ..t.read_request_of(vec![blob.digest])
    };
    let responses = t
        .batch_read(request)
        .await
        .due("BatchReadBlobs with unknown compressors")?;
    let right = responses.len() == 1 && responses[0].data == blob.bytes;
    expect(right, || {
        format!("{} responses came, or other bytes", responses.len())
    })
}

async fn whole_and_right(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = [1, 1000, 70_000, 200_000]
        .into_iter()
        .map(|len| t.random(len))
        .collect();
    t.update(blobs.iter().map(Blob::entry).collect())
        .await
        .due("BatchUpdateBlobs")?;
    let asked = blobs.iter().map(|blob| blob.digest.clone()).collect();
    let answers = t.data_of(asked).await.due("BatchReadBlobs")?;
    for (blob, (code, data)) in blobs.iter().zip(answers) {
        expect(data == blob.bytes, || {
            format!(
                "{code:?} with {} other bytes for {}",
                data.len(),
                blob.bytes.len()
            )
        })?;
    }
    Ok(())
}

async fn empty_blob(t: Arc<Target>) -> Verdict {
    let answers = t.data_of(vec![t.blob("").digest]).await.due("BatchReadBlobs")?;
    expect_eq("the empty blob", &answers, &vec![(Code::Ok, Bytes::new())])
}

async fn asked_twice(t: Arc<Target>) -> Verdict {
    let blob = t.stored(64).await?;
    let asked = vec![blob.digest.clone(), blob.digest.clone()];
    let responses = t
        .batch_read(t.read_request_of(asked))
        .await
        .due("BatchReadBlobs")?;
    let right = responses
        .iter()
        .filter(|response| response.data == blob.bytes)
        .count();
    expect(right >= 1 && right == responses.len(), || {
        format!("{right} of {} are right", responses.len())
    })
}

async fn malformed_digest(t: Arc<Target>) -> Verdict {
    let bad = t.random(8).sized(-8);
    match t.data_of(vec![bad]).await {
        Ok(answers) => expect_eq("a size of -8", &answers[0].0, &Code::InvalidArgument),
        answer => answer.denied("BatchReadBlobs of a size of -8", INVALID),
    }
}

async fn no_data_with_an_error(t: Arc<Target>) -> Verdict {
    let answers = t.data_of(vec![t.random(64).digest]).await.due("BatchReadBlobs")?;
    expect(answers[0].1.is_empty(), || {
        format!("{} bytes of an absent blob", answers[0].1.len())
    })
}

async fn four_thousand(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..4000).map(|_| t.random(24)).collect();
    let limit = t.cache().await?.max_batch_total_size_bytes;
    if (1..4000 * 24).contains(&limit) {
        return Err(Stop::NotOffered(format!("the limit of batches is {limit}")));
    }
    for part in blobs.chunks(1000) {
        t.update(part.iter().map(Blob::entry).collect())
            .await
            .due("BatchUpdateBlobs")?;
    }
    let asked: Vec<Digest> = blobs.iter().map(|blob| blob.digest.clone()).collect();
    let responses = t
        .batch_read(t.read_request_of(asked))
        .await
        .due("BatchReadBlobs of 4,000 blobs")?;
    expect_eq("BatchReadBlobs of 4,000 blobs", &responses.len(), &4000)
}

async fn empty_read(t: Arc<Target>) -> Verdict {
    let answers = t.data_of(Vec::new()).await.due("BatchReadBlobs of nothing")?;
    expect_eq("BatchReadBlobs of nothing", &answers.len(), &0)
}
