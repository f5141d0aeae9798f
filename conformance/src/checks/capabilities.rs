//! What a server says of itself, and that it keeps to it.

use std::time::Duration;

use proto::reapi::{batch_update_blobs_request, digest_function, symlink_absolute_path_strategy};
use proto::semver::SemVer;

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CAP-01", answers),
    check!("CAP-02", fills_cache_capabilities),
    check!("CAP-03", lists_sha256),
    check!("CAP-04", range_holds_2_0),
    check!("CAP-05", deprecated_is_low),
    check!("CAP-06", numbers_or_prerelease),
    check!("CAP-07", range_is_in_order),
    check!("CAP-08", updates_as_announced),
    check!("CAP-09", priorities_in_order),
    check!("CAP-10", one_blob_of_the_limit, heavy),
    check!("CAP-11", batch_limit_is_positive),
    check!("CAP-12", many_small_blobs, heavy),
    check!("CAP-13", symlink_strategy_is_set),
    check!("CAP-14", identity),
    check!("CAP-15", compressors_as_listed),
    check!("CAP-16", batch_compressors_as_listed),
    check!("CAP-17", blob_limit_is_kept),
    check!("CAP-18", split_and_splice_as_announced),
    check!("CAP-20", chunking_is_whole),
    check!("CAP-21", average_chunk_in_bounds),
    check!("CAP-22", average_chunk_is_a_power_of_two),
    check!("CAP-23", least_chunk_in_bounds),
    check!("CAP-24", stable),
    check!("CAP-25", within_a_second),
    check!("CAP-26", execution_names_a_function),
    check!("CAP-27", numbers_of_fields),
];

async fn answers(target: Arc<Target>) -> Verdict {
    target
        .server_capabilities()
        .await
        .due("GetCapabilities")
        .map(|_| ())
}

async fn fills_cache_capabilities(target: Arc<Target>) -> Verdict {
    let all = target.server_capabilities().await.due("GetCapabilities")?;
    expect(all.cache_capabilities.is_some(), || {
        "cache_capabilities is absent".into()
    })
}

async fn lists_sha256(target: Arc<Target>) -> Verdict {
    let functions = target.cache().await?.digest_functions;
    let sha256 = i32::from(digest_function::Value::Sha256);
    expect(functions.contains(&sha256), || {
        format!("digest_functions is {functions:?}")
    })
}

async fn range_holds_2_0(target: Arc<Target>) -> Verdict {
    let all = target.server_capabilities().await.due("GetCapabilities")?;
    let number = |version: &SemVer| (version.major, version.minor, version.patch);
    let (low, high) = (
        all.low_api_version.unwrap_or_default(),
        all.high_api_version.unwrap_or_default(),
    );
    expect(number(&low) <= (2, 0, 0) && number(&high) >= (2, 0, 0), || {
        format!("the range is {:?} to {:?}", number(&low), number(&high))
    })
}

async fn batch_limit_is_positive(target: Arc<Target>) -> Verdict {
    let limit = target.cache().await?.max_batch_total_size_bytes;
    expect(limit > 0, || format!("max_batch_total_size_bytes is {limit}"))
}

async fn symlink_strategy_is_set(target: Arc<Target>) -> Verdict {
    let strategy = target.cache().await?.symlink_absolute_path_strategy;
    expect(
        strategy != i32::from(symlink_absolute_path_strategy::Value::Unknown),
        || "it is UNKNOWN".into(),
    )
}

async fn identity(target: Arc<Target>) -> Verdict {
    let plain = Blob::random(123);
    let name = target.write_name(&plain.digest);
    target
        .write(&name, &plain.bytes, 1024)
        .await
        .due("a plain Write")?;
    let bytes = target
        .read(&target.read_name(&plain.digest), 0, 0)
        .await
        .due("a plain Read")?;
    expect(bytes == plain.bytes, || {
        format!("read {} other bytes", bytes.len())
    })
}

type Number = (i32, i32, i32);

fn number(version: Option<&SemVer>) -> Option<Number> {
    version.map(|version| (version.major, version.minor, version.patch))
}

async fn versions(t: &Target) -> Result<[Option<SemVer>; 3], Stop> {
    let all = t.server_capabilities().await.due("GetCapabilities")?;
    Ok([
        all.deprecated_api_version,
        all.low_api_version,
        all.high_api_version,
    ])
}

async fn deprecated_is_low(t: Arc<Target>) -> Verdict {
    let [deprecated, low, _] = versions(&t).await?;
    let holds = deprecated.is_none() || number(deprecated.as_ref()) <= number(low.as_ref());
    expect(holds, || format!("deprecated is {deprecated:?}, low is {low:?}"))
}

async fn numbers_or_prerelease(t: Arc<Target>) -> Verdict {
    for version in versions(&t).await?.into_iter().flatten() {
        let both = !version.prerelease.is_empty() && number(Some(&version)) != Some((0, 0, 0));
        expect(!both, || format!("{version:?} has both"))?;
    }
    Ok(())
}

async fn range_is_in_order(t: Arc<Target>) -> Verdict {
    let [_, low, high] = versions(&t).await?;
    expect(number(low.as_ref()) <= number(high.as_ref()), || {
        format!("low is {low:?}, high is {high:?}")
    })
}

async fn updates_as_announced(t: Arc<Target>) -> Verdict {
    let enabled = t.updates_enabled().await?;
    let request = t.put_action_request(&Blob::random(30).digest, ActionResult::default().encode_to_vec());
    let came = t.put_action(request).await;
    expect(came.is_ok() == enabled, || {
        format!(
            "update_enabled is {enabled}, and UpdateActionResult is OK: {}",
            came.is_ok()
        )
    })
}

async fn priorities_in_order(t: Arc<Target>) -> Verdict {
    let cache = t.cache().await?;
    let ranges = cache.cache_priority_capabilities.unwrap_or_default().priorities;
    let holds = ranges
        .iter()
        .all(|range| range.min_priority <= range.max_priority);
    expect(holds, || format!("{ranges:?}"))
}

async fn one_blob_of_the_limit(t: Arc<Target>) -> Verdict {
    let blob = Blob::random(t.batch_limit().await?);
    let codes = t
        .update(vec![blob.entry()])
        .await
        .due("BatchUpdateBlobs of one blob as large as the limit")?;
    expect_eq("BatchUpdateBlobs", &codes, &vec![Code::Ok])
}

async fn many_small_blobs(t: Arc<Target>) -> Verdict {
    const COUNT: usize = 4000;
    let each = (t.batch_limit().await? / COUNT).min(1024);
    let blobs: Vec<Blob> = (0..COUNT).map(|_| Blob::random(each.max(16))).collect();
    let codes = t.update(blobs.iter().map(Blob::entry).collect()).await;
    let codes = codes.due("BatchUpdateBlobs of 4,000 blobs within the limit")?;
    let wrong = codes.iter().filter(|code| **code != Code::Ok).count();
    expect(wrong == 0 && codes.len() == COUNT, || {
        format!("{wrong} of {} are not OK", codes.len())
    })
}

/// Compressors by number and name, IDENTITY left out.
const COMPRESSORS: &[(i32, &str)] = &[(1, "zstd"), (2, "deflate"), (3, "brotli")];

async fn compressors_as_listed(t: Arc<Target>) -> Verdict {
    let listed = t.cache().await?.supported_compressors;
    let absent = Blob::random(20).digest;
    for (number, name) in COMPRESSORS {
        let resource = t.named(&format!(
            "compressed-blobs/{name}/{}/{}",
            absent.hash, absent.size_bytes
        ));
        let answer = t.read(&resource, 0, 0).await;
        if listed.contains(number) {
            answer.denied(
                &format!("Read of an absent blob in {name}, which is listed"),
                &[Code::NotFound],
            )?;
        } else {
            let codes = &[Code::InvalidArgument, Code::Unimplemented];
            answer.denied(&format!("Read in {name}, which is not listed"), codes)?;
        }
    }
    Ok(())
}

async fn batch_compressors_as_listed(t: Arc<Target>) -> Verdict {
    let listed = t.cache().await?.supported_batch_update_compressors;
    for (compressor, name) in COMPRESSORS {
        let blob = Blob::random(50);
        let data = if *compressor == 1 {
            crate::codec::zstd(&blob.bytes)
        } else {
            blob.bytes.clone()
        };
        let mut request = t.update_request(vec![]);
        request.requests.push(batch_update_blobs_request::Request {
            digest: Some(blob.digest),
            data,
            compressor: *compressor,
        });
        let answer = t.batch_update(request).await;
        let codes = match answer {
            Ok(responses) => responses
                .iter()
                .map(|r| crate::calls::code(r.status.as_ref()))
                .collect(),
            Err(status) => vec![status.code()],
        };
        let due = match (listed.contains(compressor), compressor) {
            (true, 1) => Code::Ok,
            (true, _) => continue,
            (false, _) => Code::InvalidArgument,
        };
        expect_eq(&format!("an entry in {name}"), &codes, &vec![due])?;
    }
    Ok(())
}

/// The announced limit of blobs. The largest number there is stands for none.
pub(super) async fn blob_limit(t: &Target) -> Result<i64, Stop> {
    match t.cache().await?.max_cas_blob_size_bytes {
        limit if (1..i64::MAX).contains(&limit) => Ok(limit),
        _none => Err(Stop::NotOffered("no limit of blobs is announced".into())),
    }
}

async fn blob_limit_is_kept(t: Arc<Target>) -> Verdict {
    /// A larger blob is a load test.
    const LIMIT_MAX: usize = 32 * 1024 * 1024;
    let limit = blob_limit(&t).await?;
    if let Some(len) = usize::try_from(limit).ok().filter(|limit| *limit <= LIMIT_MAX) {
        let blob = Blob::random(len);
        let name = t.write_name(&blob.digest);
        t.write(&name, &blob.bytes, 1024 * 1024)
            .await
            .due("Write of a blob as large as the limit")?;
    }
    let digest = Blob::random(20).sized(limit + 1);
    let request = proto::bytestream::WriteRequest {
        resource_name: t.write_name(&digest),
        data: Bytes::from_static(b"the first bytes"),
        ..Default::default()
    };
    t.write_requests(vec![request])
        .await
        .denied("Write of a blob over the limit", INVALID)
}

async fn split_and_splice_as_announced(t: Arc<Target>) -> Verdict {
    let cache = t.cache().await?;
    let split = t.split(t.split_request(&Blob::random(20).digest)).await;
    let splice = t.splice(t.splice_request(&Blob::random(20).digest, &[])).await;
    let works = |code: Option<Code>| code != Some(Code::Unimplemented);
    let works = (
        works(split.err().map(|s| s.code())),
        works(splice.err().map(|s| s.code())),
    );
    let announced = (cache.split_blob_support, cache.splice_blob_support);
    expect_eq(
        "SplitBlob and SpliceBlob, as they work and as announced",
        &works,
        &announced,
    )
}

async fn chunking_is_whole(t: Arc<Target>) -> Verdict {
    let cache = t.cache().await?;
    let parts = [
        cache.split_blob_support,
        cache.splice_blob_support,
        cache.fast_cdc_2020_params.is_some(),
    ];
    if parts == [false; 3] {
        return Err(Stop::NotOffered("no chunking is announced".into()));
    }
    expect(parts == [true; 3], || {
        format!("split, splice, FastCDC are {parts:?}")
    })
}

async fn average_chunk(t: &Target) -> Result<u64, Stop> {
    let params = t.cache().await?.fast_cdc_2020_params;
    let params = params.ok_or_else(|| Stop::NotOffered("FastCDC is not announced".into()))?;
    Ok(params.avg_chunk_size_bytes)
}

async fn average_chunk_in_bounds(t: Arc<Target>) -> Verdict {
    let average = average_chunk(&t).await?;
    expect((1024..=1024 * 1024).contains(&average), || {
        format!("the average is {average}")
    })
}

async fn average_chunk_is_a_power_of_two(t: Arc<Target>) -> Verdict {
    let average = average_chunk(&t).await?;
    expect(average.is_power_of_two(), || format!("the average is {average}"))
}

async fn least_chunk_in_bounds(t: Arc<Target>) -> Verdict {
    let params = t.cache().await?.rep_max_cdc_params;
    let params = params.ok_or_else(|| Stop::NotOffered("RepMaxCDC is not announced".into()))?;
    expect(params.min_chunk_size_bytes >= 64, || {
        format!("the least is {}", params.min_chunk_size_bytes)
    })
}

async fn within_a_second(t: Arc<Target>) -> Verdict {
    /// The fastest counts: a busy machine delays some.
    const QUESTIONS: usize = 5;
    let mut fastest = Duration::MAX;
    for _ in 0..QUESTIONS {
        let asked = tokio::time::Instant::now();
        t.server_capabilities().await.due("GetCapabilities")?;
        fastest = fastest.min(asked.elapsed());
    }
    expect(fastest < Duration::from_secs(1), || {
        format!("the fastest of {QUESTIONS} answers took {fastest:?}")
    })
}

async fn stable(t: Arc<Target>) -> Verdict {
    let first = t.server_capabilities().await.due("GetCapabilities")?;
    let second = t.server_capabilities().await.due("GetCapabilities again")?;
    expect(first == second, || "the second answer differs".into())
}

async fn execution_names_a_function(t: Arc<Target>) -> Verdict {
    let all = t.server_capabilities().await.due("GetCapabilities")?;
    let Some(execution) = all.execution_capabilities else {
        return Err(Stop::NotOffered("no execution is announced".into()));
    };
    let (one, list) = (execution.digest_function, execution.digest_functions);
    let holds = one != 0 && (list.is_empty() || list.contains(&one));
    expect(holds, || format!("the function is {one}, the list is {list:?}"))
}

async fn numbers_of_fields(t: Arc<Target>) -> Verdict {
    let request = reapi::GetCapabilitiesRequest {
        instance_name: t.instance().into(),
    };
    let path = "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities";
    let answer = t.post_message(path, &request.encode_to_vec()).await?;
    let message = answer.messages().into_iter().next().unwrap_or_default();
    let typed = reapi::ServerCapabilities::decode(message.clone());
    let typed = typed.map_err(|error| Stop::Failed(format!("undecodable: {error}").into()))?;
    // Fields of other numbers are dropped in between.
    expect(
        typed.encoded_len() == message.len() && typed.cache_capabilities.is_some(),
        || {
            format!(
                "{} of {} bytes are in fields that are known",
                typed.encoded_len(),
                message.len()
            )
        },
    )
}
