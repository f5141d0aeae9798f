//! SplitBlob and SpliceBlob.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CDC-01", unannounced_is_unimplemented),
    check!("CDC-02", chunks_are_the_blob),
    check!("CDC-03", chunks_are_there),
    check!("CDC-04", chunks_can_be_read),
    check!("CDC-06", absent_blob),
    check!("CDC-07", never_without_chunks),
    check!("CDC-10", function_unsaid),
    check!("CDC-11", function_of_the_answer),
    check!("CDC-12", function_of_nobody),
    check!("CDC-13", within_bounds),
    check!("CDC-14", small_blob),
    check!("CDC-18", one_layout),
    check!("CDC-19", splice_without_digest),
    check!("CDC-20", splice_of_an_absent_chunk),
    check!("CDC-21", splice_is_verified),
    check!("CDC-22", sizes_do_not_add_up),
    check!("CDC-23", order_and_repeats),
    check!("CDC-24", spliced_blob_is_a_blob),
    check!("CDC-26", there_is_borne),
    check!("CDC-28", there_is_ok),
    check!("CDC-30", over_the_limit),
    check!("CDC-31", repeated),
    check!("CDC-32", chunks_of_the_instance),
    check!("CDC-33", odd_chunks),
    check!("CDC-34", overflow),
    check!("CDC-35", wish_for_rep_max_cdc),
    check!("CDC-40", rep_max_cdc_bounds),
    check!("CDC-43", chunks_are_blobs),
    check!("CAP-19", cut_as_announced),
];

async fn split_offered(t: &Target) -> Verdict {
    let offers = t.cache().await?.split_blob_support;
    if offers {
        Ok(())
    } else {
        Err(Stop::NotOffered("SplitBlob is not announced".into()))
    }
}

async fn splice_offered(t: &Target) -> Verdict {
    let offers = t.cache().await?.splice_blob_support;
    if offers {
        Ok(())
    } else {
        Err(Stop::NotOffered("SpliceBlob is not announced".into()))
    }
}

/// A split that wishes for FastCDC; what cannot be split is read whole, and says nothing here.
async fn split(t: &Target, len: usize) -> Result<(Blob, reapi::SplitBlobResponse), Stop> {
    split_offered(t).await?;
    let blob = t.stored(len).await?;
    let answer = split_again(t, &blob).await?;
    Ok((blob, answer))
}

async fn split_again(t: &Target, blob: &Blob) -> Result<reapi::SplitBlobResponse, Stop> {
    let request = reapi::SplitBlobRequest {
        chunking_function: 1,
        ..t.split_request(&blob.digest)
    };
    match t.split(request).await {
        Err(status) if status.code() == Code::NotFound => Err(Stop::NotOffered(
            "a blob that was uploaded whole is not split".into(),
        )),
        answer => answer.due("SplitBlob"),
    }
}

async fn unannounced_is_unimplemented(t: Arc<Target>) -> Verdict {
    if t.cache().await?.split_blob_support {
        return Err(Stop::NotOffered("SplitBlob is announced".into()));
    }
    let answer = t.split(t.split_request(&t.random(20).digest)).await;
    answer.denied("SplitBlob that is not announced", &[Code::Unimplemented])
}

async fn chunks_are_the_blob(t: Arc<Target>) -> Verdict {
    let (blob, answer) = split(&t, 100_000).await?;
    let mut came = Vec::new();
    for chunk in &answer.chunk_digests {
        came.extend(t.read(&t.read_name(chunk), 0, 0).await.due("Read of a chunk")?);
    }
    expect(came == blob.bytes, || {
        format!("the chunks make {} other bytes", came.len())
    })
}

async fn chunks_are_there(t: Arc<Target>) -> Verdict {
    let (_, answer) = split(&t, 110_000).await?;
    let missing = t
        .missing(answer.chunk_digests)
        .await
        .due("FindMissingBlobs of chunks")?;
    expect(missing.is_empty(), || {
        format!("{} chunks are missing", missing.len())
    })
}

async fn chunks_can_be_read(t: Arc<Target>) -> Verdict {
    let (_, answer) = split(&t, 120_000).await?;
    let names: Vec<String> = answer
        .chunk_digests
        .iter()
        .map(|chunk| t.read_name(chunk))
        .collect();
    for came in futures::future::join_all(names.iter().map(|name| t.read(name, 0, 0))).await {
        came.due("Read of a chunk, all at once")?;
    }
    Ok(())
}

async fn absent_blob(t: Arc<Target>) -> Verdict {
    split_offered(&t).await?;
    let digest = t.random(8).sized(130_000);
    t.split(t.split_request(&digest))
        .await
        .denied("SplitBlob of an absent blob", &[Code::NotFound])
}

async fn never_without_chunks(t: Arc<Target>) -> Verdict {
    split_offered(&t).await?;
    let answer = t.split(t.split_request(&t.random(8).sized(140_000))).await;
    let empty = answer.is_ok_and(|answer| answer.chunk_digests.is_empty());
    expect(!empty, || "OK without chunks".into())
}

/// Demands that a wish for this function is borne.
async fn borne(t: &Target, chunking_function: i32, also: &[Code]) -> Verdict {
    split_offered(t).await?;
    let blob = t.stored(50_000).await?;
    let request = reapi::SplitBlobRequest {
        chunking_function,
        ..t.split_request(&blob.digest)
    };
    match t.split(request).await {
        Ok(_) => Ok(()),
        answer => {
            let codes = [&[Code::NotFound], also].concat();
            answer.denied(&format!("SplitBlob with function {chunking_function}"), &codes)
        }
    }
}

async fn function_unsaid(t: Arc<Target>) -> Verdict {
    borne(&t, 0, &[]).await
}

async fn function_of_nobody(t: Arc<Target>) -> Verdict {
    borne(&t, 99, INVALID).await
}

async fn wish_for_rep_max_cdc(t: Arc<Target>) -> Verdict {
    borne(&t, 2, &[]).await
}

async fn rep_max_cdc_bounds(t: Arc<Target>) -> Verdict {
    /// Of a larger least chunk a blob of several is a load.
    const LEAST_MAX: usize = 1024 * 1024;
    split_offered(&t).await?;
    let params = t.cache().await?.rep_max_cdc_params;
    let params = params.ok_or_else(|| Stop::NotOffered("RepMaxCDC is not announced".into()))?;
    let least = usize::try_from(params.min_chunk_size_bytes).ok();
    let least = least.filter(|least| (64..=LEAST_MAX).contains(least));
    let least = least.ok_or_else(|| {
        Stop::NotOffered(format!(
            "the least chunk has {} bytes",
            params.min_chunk_size_bytes
        ))
    })?;
    let blob = t.stored(5 * least + least / 2).await?;
    let request = reapi::SplitBlobRequest {
        chunking_function: 2,
        ..t.split_request(&blob.digest)
    };
    let answer = match t.split(request).await {
        Err(status) if status.code() == Code::NotFound => {
            return Err(Stop::NotOffered(
                "a blob that was uploaded whole is not split".into(),
            ));
        }
        answer => answer.due("SplitBlob")?,
    };
    if answer.chunking_function != 2 {
        return Err(Stop::NotOffered("the wish for RepMaxCDC is not followed".into()));
    }
    let sizes: Vec<_> = answer
        .chunk_digests
        .iter()
        .map(|chunk| chunk.size_bytes)
        .collect();
    let fits = |size: &i64| usize::try_from(*size).is_ok_and(|size| (least..2 * least).contains(&size));
    expect(sizes.iter().all(fits), || {
        format!("chunks of {sizes:?}, where the least is {least}")
    })
}

async fn function_of_the_answer(t: Arc<Target>) -> Verdict {
    let (_, answer) = split(&t, 150_000).await?;
    expect((0..=2).contains(&answer.chunking_function), || {
        format!("the function is {}", answer.chunking_function)
    })
}

async fn cut_as_announced(t: Arc<Target>) -> Verdict {
    if t.cache().await?.fast_cdc_2020_params.is_none() {
        return Err(Stop::NotOffered("FastCDC is not announced".into()));
    }
    let (_, answer) = split(&t, 160_000).await?;
    expect_eq(
        "the function of a split where FastCDC is announced",
        &answer.chunking_function,
        &1,
    )
}

/// The largest chunk that clients of the announced function accept.
async fn largest(t: &Target) -> Result<i64, Stop> {
    let params = t.cache().await?.fast_cdc_2020_params;
    let average = params.map_or(512 * 1024, |params| params.avg_chunk_size_bytes);
    Ok(i64::try_from(average.saturating_mul(4)).unwrap_or(i64::MAX))
}

async fn within_bounds(t: Arc<Target>) -> Verdict {
    let largest = largest(&t).await?;
    let (_, answer) = split(&t, 170_000).await?;
    let sizes: Vec<i64> = answer
        .chunk_digests
        .iter()
        .map(|chunk| chunk.size_bytes)
        .collect();
    let sound = sizes.iter().all(|size| (1..=largest).contains(size)) && sizes.iter().sum::<i64>() == 170_000;
    expect(sound, || {
        format!("chunks of {sizes:?} bytes, {largest} is the most")
    })
}

async fn small_blob(t: Arc<Target>) -> Verdict {
    let (blob, answer) = split(&t, 100).await?;
    let sum: i64 = answer.chunk_digests.iter().map(|chunk| chunk.size_bytes).sum();
    expect_eq("the chunks of a small blob", &sum, &blob.digest.size_bytes)
}

async fn one_layout(t: Arc<Target>) -> Verdict {
    let (blob, first) = split(&t, 180_000).await?;
    let second = split_again(&t, &blob).await?;
    expect(first.chunk_digests == second.chunk_digests, || {
        format!(
            "{} chunks, then {}",
            first.chunk_digests.len(),
            second.chunk_digests.len()
        )
    })
}

/// Two stored chunks of given sizes, and the blob that they make.
async fn parts(t: &Target, sizes: [usize; 2]) -> Result<([Blob; 2], Blob), Stop> {
    splice_offered(t).await?;
    let (a, b) = (t.stored(sizes[0]).await?, t.stored(sizes[1]).await?);
    let whole = t.blob([&a.bytes[..], &b.bytes].concat());
    Ok(([a, b], whole))
}

async fn splice(
    t: &Target,
    blob: &Digest,
    chunks: &[&Blob],
) -> Result<reapi::SpliceBlobResponse, tonic::Status> {
    let chunks: Vec<Digest> = chunks.iter().map(|chunk| chunk.digest.clone()).collect();
    t.splice(t.splice_request(blob, &chunks)).await
}

async fn splice_without_digest(t: Arc<Target>) -> Verdict {
    splice_offered(&t).await?;
    let request = reapi::SpliceBlobRequest {
        blob_digest: None,
        ..t.splice_request(&Digest::default(), &[])
    };
    t.splice(request)
        .await
        .denied("SpliceBlob without a digest", INVALID)
}

async fn splice_of_an_absent_chunk(t: Arc<Target>) -> Verdict {
    splice_offered(&t).await?;
    let (here, lost) = (t.stored(120).await?, t.random(80));
    let whole = t.blob([&here.bytes[..], &lost.bytes].concat());
    let answer = splice(&t, &whole.digest, &[&here, &lost]).await;
    answer.denied("SpliceBlob of an absent chunk", &[Code::NotFound])?;
    t.is_absent(&whole.digest).await
}

async fn splice_is_verified(t: Arc<Target>) -> Verdict {
    let ([a, b], whole) = parts(&t, [140, 160]).await?;
    let answer = splice(&t, &whole.digest, &[&b, &a]).await;
    answer.denied("SpliceBlob of chunks in the wrong order", INVALID)?;
    t.is_absent(&whole.digest).await
}

async fn sizes_do_not_add_up(t: Arc<Target>) -> Verdict {
    let ([a, _], whole) = parts(&t, [140, 170]).await?;
    splice(&t, &whole.digest, &[&a])
        .await
        .denied("SpliceBlob of too few bytes", INVALID)?;
    splice(&t, &whole.digest, &[])
        .await
        .denied("SpliceBlob of nothing", INVALID)
}

async fn order_and_repeats(t: Arc<Target>) -> Verdict {
    let ([a, b], _) = parts(&t, [150, 90]).await?;
    let whole = t.blob([&a.bytes[..], &b.bytes, &a.bytes].concat());
    let empty = t.blob("");
    splice(&t, &whole.digest, &[&a, &empty, &b, &a])
        .await
        .due("SpliceBlob of A, nothing, B, A")?;
    t.reads_as(&t.read_name(&whole.digest), &whole.bytes).await
}

async fn spliced_blob_is_a_blob(t: Arc<Target>) -> Verdict {
    let ([a, b], whole) = parts(&t, [210, 290]).await?;
    let answer = splice(&t, &whole.digest, &[&a, &b]).await.due("SpliceBlob")?;
    expect_eq(
        "blob_digest of the answer",
        &answer.blob_digest,
        &Some(whole.digest.clone()),
    )?;
    t.is_present(&whole.digest).await?;
    let came = t
        .read(&t.read_name(&whole.digest), 200, 0)
        .await
        .due("Read from inside a chunk")?;
    expect(came == whole.bytes[200..], || {
        format!("{} other bytes came", came.len())
    })
}

/// The answer to a splice of a blob that is there.
async fn again(
    t: &Target,
    sizes: [usize; 2],
) -> Result<Result<reapi::SpliceBlobResponse, tonic::Status>, Stop> {
    let ([a, b], whole) = parts(t, sizes).await?;
    t.put(&whole).await?;
    Ok(splice(t, &whole.digest, &[&a, &b]).await)
}

async fn there_is_borne(t: Arc<Target>) -> Verdict {
    match again(&t, [250, 350]).await? {
        Ok(_) => Ok(()),
        answer => answer.denied("SpliceBlob of what is there", &[Code::AlreadyExists]),
    }
}

async fn there_is_ok(t: Arc<Target>) -> Verdict {
    again(&t, [300, 400])
        .await?
        .due("SpliceBlob of what is there")
        .map(|_| ())
}

async fn over_the_limit(t: Arc<Target>) -> Verdict {
    let limit = super::capabilities::blob_limit(&t).await?;
    let ([a, _], _) = parts(&t, [310, 10]).await?;
    let count = usize::try_from(limit / 310 + 2).unwrap_or(usize::MAX);
    if count > 60_000 {
        return Err(Stop::NotOffered(format!("the limit of blobs is {limit}")));
    }
    let size = i64::try_from(count * 310).unwrap_or(i64::MAX);
    let answer = splice(&t, &t.random(8).sized(size), &vec![&a; count]).await;
    answer.denied("SpliceBlob over the limit of blobs", INVALID)
}

async fn repeated(t: Arc<Target>) -> Verdict {
    let ([a, b], whole) = parts(&t, [370, 430]).await?;
    for _ in 0..2 {
        match splice(&t, &whole.digest, &[&a, &b]).await {
            Err(status) if status.code() == Code::AlreadyExists => {}
            answer => answer.due("SpliceBlob, twice the same").map(|_| ())?,
        }
    }
    Ok(())
}

async fn chunks_of_the_instance(t: Arc<Target>) -> Verdict {
    let ([a, b], whole) = parts(&t, [380, 440]).await?;
    let other = t.other_instance("").await?;
    let missing = other
        .missing(vec![a.digest.clone()])
        .await
        .due("FindMissingBlobs")?;
    if missing.is_empty() {
        return Err(Stop::NotOffered("instances share their blobs".into()));
    }
    let answer = splice(&other, &whole.digest, &[&a, &b]).await;
    answer.denied("SpliceBlob of another instance's chunks", &[Code::NotFound])
}

async fn odd_chunks(t: Arc<Target>) -> Verdict {
    split_offered(&t).await?;
    let largest = largest(&t).await?;
    let len = usize::try_from(largest)
        .unwrap_or(usize::MAX)
        .saturating_add(1000);
    if len > 8 * 1024 * 1024 {
        return Err(Stop::NotOffered(format!("chunks of {largest} bytes are allowed")));
    }
    let ([a, b], whole) = parts(&t, [len, 500]).await?;
    splice(&t, &whole.digest, &[&a, &b])
        .await
        .due("SpliceBlob of a chunk over the bound")?;
    let answer = split_again(&t, &whole).await?;
    let over = answer
        .chunk_digests
        .iter()
        .filter(|chunk| chunk.size_bytes > largest)
        .count();
    expect(over == 0, || {
        format!("{over} chunks are over the bound of {largest}")
    })
}

async fn overflow(t: Arc<Target>) -> Verdict {
    splice_offered(&t).await?;
    let chunks: Vec<Digest> = (0..3).map(|_| t.random(8).sized(i64::MAX)).collect();
    let answer = t.splice(t.splice_request(&t.random(8).sized(500), &chunks)).await;
    answer.denied("SpliceBlob of chunks whose sizes overflow", INVALID)
}

async fn chunks_are_blobs(t: Arc<Target>) -> Verdict {
    let (_, answer) = split(&t, 60_000).await?;
    let chunk = answer.chunk_digests.into_iter().take(1).collect::<Vec<_>>();
    let came = t.data_of(chunk).await.due("BatchReadBlobs of a chunk")?;
    expect(came.iter().all(|(code, _)| *code == Code::Ok), || {
        format!("{:?} came", came[0].0)
    })
}
