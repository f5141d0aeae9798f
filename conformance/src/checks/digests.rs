//! Digests and digest functions.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("DIG-01", upper_case),
    check!("DIG-02", length),
    check!("DIG-03", hexadecimal),
    check!("DIG-04", negative_size),
    check!("DIG-05", wrong_size),
    check!("DIG-06", empty_hash),
    check!("DIG-07", half_empty),
    check!("DIG-08", overflow),
    check!("DIG-09", sha256_by_number),
    check!("DIG-10", unsaid),
    check!("DIG-11", unsaid_means_sha256),
    check!("DIG-13", said_and_unsaid),
    check!("DIG-15", not_announced),
    check!("DIG-16", function_and_length),
    check!("DIG-17", two_lengths),
    check!("DIG-19", unknown_is_not_announced),
    check!("DIG-20", empty_blobs),
    check!("DIG-23", bytes_stay),
];

/// A digest whose hash has letters, which not every hash has.
fn lettered() -> Blob {
    loop {
        let blob = Blob::random(40);
        if blob.digest.hash.bytes().any(|c| c.is_ascii_lowercase()) {
            return blob;
        }
    }
}

async fn upper_case(t: Arc<Target>) -> Verdict {
    let action = lettered().digest;
    t.store_result(&action, &ActionResult::default()).await?;
    let upper = Digest {
        hash: action.hash.to_uppercase(),
        ..action
    };
    t.action(t.action_request(&upper))
        .await
        .denied("GetActionResult in upper case", INVALID)
}

async fn length(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    for hash in [&blob.digest.hash[1..], &format!("{}0", blob.digest.hash)] {
        let digest = Digest {
            hash: hash.to_owned(),
            size_bytes: 100,
        };
        let step = format!("FindMissingBlobs of a hash of {} digits", hash.len());
        t.missing(vec![digest]).await.denied(&step, INVALID)?;
    }
    Ok(())
}

/// Demands that the digest is refused, in its own status or for the whole call.
async fn refused_in_batch(t: &Target, digest: Digest) -> Verdict {
    match t.data_of(vec![digest]).await {
        Ok(answers) => {
            let codes: Vec<Code> = answers.into_iter().map(|(code, _)| code).collect();
            expect_eq(
                "BatchReadBlobs of a malformed digest",
                &codes,
                &vec![Code::InvalidArgument],
            )
        }
        answer => answer.denied("BatchReadBlobs of a malformed digest", INVALID),
    }
}

async fn hexadecimal(t: Arc<Target>) -> Verdict {
    let digest = Digest {
        hash: "g".repeat(64),
        size_bytes: 5,
    };
    refused_in_batch(&t, digest).await
}

async fn negative_size(t: Arc<Target>) -> Verdict {
    let answer = t.missing(vec![Blob::random(5).sized(-5)]).await;
    answer.denied("FindMissingBlobs of size -5", INVALID)
}

async fn wrong_size(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let answers = t.data_of(vec![blob.sized(101)]).await.due("BatchReadBlobs")?;
    let codes = [Code::NotFound, Code::InvalidArgument];
    let right = |(code, data): &(Code, Bytes)| codes.contains(code) && data.is_empty();
    expect(answers.iter().all(right), || format!("{:?} came", answers[0].0))
}

async fn empty_hash(t: Arc<Target>) -> Verdict {
    let request = t.put_action_request(&Digest::default(), Bytes::new());
    if !t.updates_enabled().await? {
        return Err(Stop::NotOffered(
            "updates of the action cache are not enabled".into(),
        ));
    }
    t.put_action(request)
        .await
        .denied("UpdateActionResult of an empty hash", INVALID)
}

async fn half_empty(t: Arc<Target>) -> Verdict {
    for digest in [Blob::random(5).sized(0), Blob::of("").sized(5)] {
        match t.missing(vec![digest.clone()]).await {
            Ok(missing) => expect_eq(
                "FindMissingBlobs of an impossible digest",
                &missing,
                &vec![digest],
            )?,
            answer => answer.denied("FindMissingBlobs of an impossible digest", INVALID)?,
        }
    }
    Ok(())
}

async fn overflow(t: Arc<Target>) -> Verdict {
    t.batch_limit().await?;
    let digests = (0..3).map(|_| Blob::random(5).sized(i64::MAX)).collect();
    t.data_of(digests)
        .await
        .denied("BatchReadBlobs of three times 2^63 - 1 bytes", INVALID)
}

async fn sha256_by_number(t: Arc<Target>) -> Verdict {
    let request = reapi::BatchUpdateBlobsRequest {
        digest_function: SHA256,
        ..t.update_request(vec![Blob::random(100).entry()])
    };
    let responses = t
        .batch_update(request)
        .await
        .due("BatchUpdateBlobs with function 1")?;
    let codes: Vec<Code> = responses
        .iter()
        .map(|response| crate::calls::code(response.status.as_ref()))
        .collect();
    expect_eq("BatchUpdateBlobs with function 1", &codes, &vec![Code::Ok])
}

async fn unsaid(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let answers = t
        .data_of(vec![blob.digest.clone()])
        .await
        .due("BatchReadBlobs without a function")?;
    expect(answers[0].1 == blob.bytes, || format!("{:?} came", answers[0].0))
}

async fn unsaid_means_sha256(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let request = reapi::FindMissingBlobsRequest {
        instance_name: t.instance().into(),
        blob_digests: vec![blob.digest],
        digest_function: SHA256,
    };
    let missing = t
        .find_missing(request)
        .await
        .due("FindMissingBlobs with function 1")?;
    expect_eq("FindMissingBlobs with function 1", &missing, &Vec::new())
}

async fn said_and_unsaid(t: Arc<Target>) -> Verdict {
    let action = Blob::random(30).digest;
    let result = ActionResult {
        exit_code: 5,
        ..Default::default()
    };
    let mut request = t.put_action_request(&action, result.encode_to_vec());
    request.digest_function = SHA256;
    if !t.updates_enabled().await? {
        return Err(Stop::NotOffered(
            "updates of the action cache are not enabled".into(),
        ));
    }
    t.put_action(request)
        .await
        .due("UpdateActionResult with function 1")?;
    let came = t.result_of(&action).await?;
    expect_eq("GetActionResult without a function", &came.exit_code, &5)
}

async fn not_announced(t: Arc<Target>) -> Verdict {
    let announced = t.cache().await?.digest_functions;
    // Those of 64 digits are the ones that might be taken for SHA-256.
    let function = [9, 8].into_iter().find(|function| !announced.contains(function));
    let Some(digest_function) = function else {
        return Err(Stop::NotOffered(
            "all functions of 64 digits are announced".into(),
        ));
    };
    let request = reapi::FindMissingBlobsRequest {
        instance_name: t.instance().into(),
        blob_digests: vec![Blob::random(10).digest],
        digest_function,
    };
    let step = format!("FindMissingBlobs with function {digest_function}");
    t.find_missing(request).await.denied(&step, INVALID)
}

async fn function_and_length(t: Arc<Target>) -> Verdict {
    let request = reapi::GetActionResultRequest {
        digest_function: SHA256,
        ..t.action_request(&Digest {
            hash: "a".repeat(40),
            size_bytes: 5,
        })
    };
    t.action(request)
        .await
        .denied("GetActionResult of SHA256 with 40 digits", INVALID)
}

async fn two_lengths(t: Arc<Target>) -> Verdict {
    let short = Digest {
        hash: "a".repeat(40),
        size_bytes: 5,
    };
    let answer = t.missing(vec![Blob::random(5).digest, short]).await;
    answer.denied("FindMissingBlobs of 64 and of 40 digits", INVALID)
}

async fn unknown_is_not_announced(t: Arc<Target>) -> Verdict {
    let functions = t.cache().await?.digest_functions;
    expect(!functions.contains(&0), || {
        format!("digest_functions is {functions:?}")
    })
}

/// The empty blob under the functions that an operating system's tools know.
const EMPTY: &[(i32, &str)] = &[
    (
        1,
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (2, "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (3, "d41d8cd98f00b204e9800998ecf8427e"),
    (
        5,
        "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
    ),
    (
        9,
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ),
];

async fn empty_blobs(t: Arc<Target>) -> Verdict {
    let announced = t.cache().await?.digest_functions;
    for (digest_function, hash) in EMPTY.iter().filter(|(function, _)| announced.contains(function)) {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: t.instance().into(),
            blob_digests: vec![Digest {
                hash: (*hash).to_owned(),
                size_bytes: 0,
            }],
            digest_function: *digest_function,
        };
        let missing = t
            .find_missing(request)
            .await
            .due("FindMissingBlobs of the empty blob")?;
        expect(missing.is_empty(), || {
            format!("the empty blob of function {digest_function} is missing")
        })?;
    }
    Ok(())
}

async fn bytes_stay(t: Arc<Target>) -> Verdict {
    // A Directory whose one file has its fields in reverse order, and a number in more bytes than it takes.
    let name = uuid::Uuid::new_v4().simple().to_string();
    let node = [&[0x20, 0x81, 0x00][..], &[0x0a, 0x20], name.as_bytes()].concat();
    let length = u8::try_from(node.len()).unwrap_or(u8::MAX);
    let blob = Blob::of([&[0x0a, length][..], &node].concat());
    t.put(&blob).await?;
    let answers = t.data_of(vec![blob.digest.clone()]).await.due("BatchReadBlobs")?;
    expect(answers[0].1 == blob.bytes, || {
        format!("{} other bytes came", answers[0].1.len())
    })
}
