//! FindMissingBlobs.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-FMB-01", lists_exactly_the_absent),
    check!("CAS-FMB-02", lists_what_was_asked),
    check!("CAS-FMB-03", duplicates_are_legal),
    check!("CAS-FMB-04", empty_list),
    check!("CAS-FMB-07", empty_blob_is_present),
    check!("CAS-FMB-08", any_size),
    check!("CAS-FMB-10", malformed_digest),
    check!("CAS-FMB-11", other_size_is_missing),
    check!("CAS-FMB-12", large_question, heavy),
    check!("CAS-FMB-13", missing_until_whole),
    check!("CAS-FMB-14", stays_present),
    check!("CAS-FMB-16", within_the_deadline, heavy),
];

async fn lists_exactly_the_absent(target: Arc<Target>) -> Verdict {
    let (there, absent) = (target.random(1000), target.random(1000));
    target.put(&there).await?;
    let missing = target
        .missing(vec![there.digest, absent.digest.clone()])
        .await
        .due("FindMissingBlobs")?;
    expect(missing == [absent.digest], || format!("listed {missing:?}"))
}

async fn duplicates_are_legal(target: Arc<Target>) -> Verdict {
    let absent = target.random(10).digest;
    let missing = target
        .missing(vec![absent.clone(), absent.clone()])
        .await
        .due("FindMissingBlobs")?;
    expect(
        !missing.is_empty() && missing.iter().all(|digest| *digest == absent),
        || format!("listed {missing:?}"),
    )
}

async fn empty_list(target: Arc<Target>) -> Verdict {
    let missing = target
        .missing(Vec::new())
        .await
        .due("FindMissingBlobs of nothing")?;
    expect(missing.is_empty(), || format!("listed {missing:?}"))
}

async fn empty_blob_is_present(target: Arc<Target>) -> Verdict {
    let missing = target
        .missing(vec![target.blob("").digest])
        .await
        .due("FindMissingBlobs")?;
    expect(missing.is_empty(), || format!("listed {missing:?}"))
}

async fn malformed_digest(target: Arc<Target>) -> Verdict {
    let good = target.random(10).digest;
    let bad = [
        reapi::Digest {
            hash: good.hash.to_uppercase(),
            size_bytes: 10,
        },
        reapi::Digest {
            hash: "abc".into(),
            size_bytes: 10,
        },
        reapi::Digest {
            hash: String::new(),
            size_bytes: 0,
        },
        reapi::Digest {
            hash: good.hash.clone(),
            size_bytes: -1,
        },
    ];
    for digest in bad.into_iter().filter(|digest| *digest != good) {
        let step = format!("FindMissingBlobs of {digest:?}");
        target
            .missing(vec![good.clone(), digest])
            .await
            .denied(&step, INVALID)?;
    }
    Ok(())
}

async fn other_size_is_missing(target: Arc<Target>) -> Verdict {
    let there = target.random(1000);
    target.put(&there).await?;
    let other = reapi::Digest {
        size_bytes: 999,
        ..there.digest
    };
    let missing = target
        .missing(vec![other.clone()])
        .await
        .due("FindMissingBlobs")?;
    expect(missing == [other], || format!("listed {missing:?}"))
}

async fn large_question(target: Arc<Target>) -> Verdict {
    let asked: Vec<_> = (0..15_000).map(|_| target.random(8).digest).collect();
    let missing = target.missing(asked.clone()).await.due("FindMissingBlobs")?;
    let listed: std::collections::BTreeSet<_> = missing.iter().map(|digest| &digest.hash).collect();
    expect(asked.iter().all(|digest| listed.contains(&digest.hash)), || {
        format!("listed {}", missing.len())
    })
}

async fn lists_what_was_asked(t: Arc<Target>) -> Verdict {
    let there = t.stored(50).await?;
    let mut asked: Vec<Digest> = (0..10).map(|_| t.random(50).digest).collect();
    asked.push(there.digest);
    let missing = t.missing(asked.clone()).await.due("FindMissingBlobs")?;
    let strange = missing.iter().find(|digest| !asked.contains(digest));
    expect(strange.is_none(), || {
        format!("{strange:?} is listed, and was not asked for")
    })
}

async fn any_size(t: Arc<Target>) -> Verdict {
    let digests: Vec<Digest> = [1, 1 << 31, 1 << 40, i64::MAX]
        .into_iter()
        .map(|size| t.random(10).sized(size))
        .collect();
    let missing = t
        .missing(digests.clone())
        .await
        .due("FindMissingBlobs of huge blobs")?;
    expect_eq("FindMissingBlobs of huge blobs", &missing.len(), &digests.len())
}

async fn missing_until_whole(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    let mut requests = write_requests(&name, &blob.bytes, 1000);
    let rest = requests.split_off(1);
    let look = async {
        t.has_begun(&name).await;
        t.missing(vec![blob.digest.clone()])
            .await
            .due("FindMissingBlobs during the upload")
    };
    let (missing, size) = t.during_upload(requests, rest, look).await;
    expect_eq(
        "FindMissingBlobs during the upload",
        &missing?,
        &vec![blob.digest.clone()],
    )?;
    size.due("the upload")?;
    t.is_present(&blob.digest).await
}

async fn stays_present(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    for _ in 0..5 {
        t.is_present(&blob.digest).await?;
        t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await?;
    }
    Ok(())
}

async fn within_the_deadline(t: Arc<Target>) -> Verdict {
    let t = t.with_headers(|headers| {
        headers.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static("20S"));
    });
    let asked: Vec<_> = (0..10_000).map(|_| t.random(8).digest).collect();
    let missing = t
        .missing(asked)
        .await
        .due("FindMissingBlobs of 10,000 within 20 s")?;
    expect_eq("FindMissingBlobs of 10,000", &missing.len(), &10_000)
}
