//! BatchUpdateBlobs.

use proto::reapi::batch_update_blobs_request::Request;

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-BUB-01", entries_are_independent),
    check!("CAS-BUB-02", one_response_per_entry),
    check!("CAS-BUB-03", order),
    check!("CAS-BUB-04", wrong_bytes),
    check!("CAS-BUB-05", wrong_size),
    check!("CAS-BUB-07", malformed_digest),
    check!("CAS-BUB-08", over_the_limit),
    check!("CAS-BUB-10", compressor_not_announced),
    check!("CAS-BUB-13", twice),
    check!("CAS-BUB-14", there_already),
    check!("CAS-BUB-15", empty_batch),
    check!("CAS-BUB-16", empty_blob),
    check!("CAS-BUB-18", final_code),
    check!("CAS-BUB-19", ok_means_present),
];

async fn entries_are_independent(t: Arc<Target>) -> Verdict {
    let (first, bad, last) = (t.random(100), t.random(100), t.random(100));
    let entries = vec![first.entry(), (bad.digest, t.random(100).bytes), last.entry()];
    let codes = t
        .update(entries)
        .await
        .due("BatchUpdateBlobs with a bad entry in the middle")?;
    let good = codes.len() == 3 && codes[0] == Code::Ok && codes[2] == Code::Ok;
    expect(good, || format!("the good neighbours of a bad entry: {codes:?}"))?;
    t.is_present(&last.digest).await
}

async fn one_response_per_entry(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..20).map(|_| t.random(50)).collect();
    let request = t.update_request(blobs.iter().map(Blob::entry).collect());
    let responses = t.batch_update(request).await.due("BatchUpdateBlobs")?;
    let answered = blobs
        .iter()
        .filter(|blob| {
            responses
                .iter()
                .any(|response| response.digest.as_ref() == Some(&blob.digest))
        })
        .count();
    expect(answered == 20 && responses.len() == 20, || {
        format!(
            "{} responses, {answered} with a digest asked for",
            responses.len()
        )
    })
}

async fn order(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..12).map(|_| t.random(60)).collect();
    let request = t.update_request(blobs.iter().map(Blob::entry).collect());
    let responses = t.batch_update(request).await.due("BatchUpdateBlobs")?;
    let due = blobs.iter().map(|blob| Some(&blob.digest));
    expect(
        responses.iter().map(|response| response.digest.as_ref()).eq(due),
        || "the responses are in another order".into(),
    )
}

/// The codes of entries, or that of the whole call.
async fn codes(t: &Target, entries: Vec<(Digest, Bytes)>) -> Vec<Code> {
    let answer = t.update(entries).await;
    answer.unwrap_or_else(|status| vec![status.code()])
}

async fn wrong_bytes(t: Arc<Target>) -> Verdict {
    let entries = vec![(t.random(100).digest, t.random(100).bytes)];
    let codes = t.update(entries).await.due("BatchUpdateBlobs of wrong bytes")?;
    expect_eq("an entry with wrong bytes", &codes, &vec![Code::InvalidArgument])
}

async fn wrong_size(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let codes = t
        .update(vec![(blob.sized(99), blob.bytes)])
        .await
        .due("BatchUpdateBlobs of a wrong size")?;
    expect_eq(
        "an entry of 100 bytes said to be 99",
        &codes,
        &vec![Code::InvalidArgument],
    )
}

async fn malformed_digest(t: Arc<Target>) -> Verdict {
    let blob = t.blob([b"malformed", &uuid::Uuid::new_v4().as_bytes()[..]].concat());
    let digest = Digest {
        hash: blob.digest.hash.to_uppercase(),
        ..blob.digest
    };
    let codes = codes(&t, vec![(digest, blob.bytes)]).await;
    expect_eq(
        "an entry with its hash in upper case",
        &codes,
        &vec![Code::InvalidArgument],
    )
}

async fn over_the_limit(t: Arc<Target>) -> Verdict {
    let half = t.batch_limit().await? / 2 + 1;
    let entries = vec![t.random(half).entry(), t.random(half).entry()];
    t.update(entries)
        .await
        .denied("BatchUpdateBlobs over the limit", INVALID)
}

async fn compressor_not_announced(t: Arc<Target>) -> Verdict {
    let announced = t.cache().await?.supported_batch_update_compressors;
    let Some(compressor) = [2, 3].into_iter().find(|number| !announced.contains(number)) else {
        return Err(Stop::NotOffered("all compressors are announced".into()));
    };
    let blob = t.random(100);
    let mut request = t.update_request(Vec::new());
    request.requests.push(Request {
        digest: Some(blob.digest.clone()),
        data: blob.bytes,
        compressor,
    });
    // Its code is judged with what is announced.
    let _ = t.batch_update(request).await;
    t.is_absent(&blob.digest).await
}

async fn twice(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let codes = t
        .update(vec![blob.entry(), blob.entry()])
        .await
        .due("BatchUpdateBlobs")?;
    expect_eq("the same entry twice", &codes, &vec![Code::Ok; 2])
}

async fn there_already(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let codes = t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    expect_eq("an entry that is there", &codes, &vec![Code::Ok])
}

async fn empty_batch(t: Arc<Target>) -> Verdict {
    let codes = t.update(Vec::new()).await.due("BatchUpdateBlobs of nothing")?;
    expect_eq("BatchUpdateBlobs of nothing", &codes, &Vec::new())
}

async fn empty_blob(t: Arc<Target>) -> Verdict {
    let codes = t.update(vec![t.blob("").entry()]).await.due("BatchUpdateBlobs")?;
    expect_eq("an entry of the empty blob", &codes, &vec![Code::Ok])
}

async fn final_code(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let codes = codes(&t, vec![(blob.digest, blob.bytes.slice(..60))]).await;
    expect(
        codes
            .iter()
            .all(|code| *code != Code::Ok && !RETRIED.contains(code)),
        || format!("an entry of 60 of 100 bytes: {codes:?}"),
    )
}

async fn ok_means_present(t: Arc<Target>) -> Verdict {
    let blob = t.random(300);
    t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    t.is_present(&blob.digest).await
}
