//! What holds for every method: names, deadlines, sizes of messages, fields and frames.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("GEN-01", methods_are_there),
    check!("GEN-02", unknown_method),
    check!("GEN-05", full_batch_goes_in, heavy),
    check!("GEN-06", full_batch_comes_out, heavy),
    check!("GEN-07", errors_are_no_empty_answers),
    check!("GEN-08", deadlines_are_borne),
    check!("GEN-09", a_hang_up_disturbs_nobody),
    check!("GEN-10", absent_digests),
    check!("GEN-11", unknown_fields),
    check!("GEN-12", no_compression),
    check!("GEN-16", many_reads_at_once, heavy),
    check!("GEN-17", seen_on_another_connection),
    check!("GEN-18", errors_stay_small),
];

const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage";
const AC: &str = "/build.bazel.remote.execution.v2.ActionCache";
const FIND: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";

async fn methods_are_there(t: Arc<Target>) -> Verdict {
    let methods = [
        "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities".to_owned(),
        FIND.to_owned(),
        format!("{CAS}/BatchUpdateBlobs"),
        format!("{CAS}/BatchReadBlobs"),
        format!("{AC}/GetActionResult"),
        "/google.bytestream.ByteStream/Read".to_owned(),
        "/google.bytestream.ByteStream/Write".to_owned(),
    ];
    for method in methods {
        let code = t.post_message(&method, &[]).await?.code();
        expect(code != Code::Unimplemented, || {
            format!("{method} is UNIMPLEMENTED")
        })?;
    }
    Ok(())
}

async fn unknown_method(t: Arc<Target>) -> Verdict {
    let answer = t.post_message(&format!("{CAS}/DoNothingOfTheKind"), &[]).await?;
    expect_eq(
        "a method that does not exist",
        &answer.code(),
        &Code::Unimplemented,
    )
}

/// Blobs that fill the limit, framing left aside.
fn full_batch(limit: usize) -> Vec<Blob> {
    const EACH: usize = 64 * 1024;
    (0..(limit / EACH).max(1))
        .map(|_| Blob::random(EACH.min(limit)))
        .collect()
}

async fn full_batch_goes_in(t: Arc<Target>) -> Verdict {
    let blobs = full_batch(t.batch_limit().await?);
    let codes = t.update(blobs.iter().map(Blob::entry).collect()).await;
    let codes = codes.due("a BatchUpdateBlobs that fills the limit")?;
    expect(codes.iter().all(|code| *code == Code::Ok), || {
        format!("codes are {codes:?}")
    })
}

async fn full_batch_comes_out(t: Arc<Target>) -> Verdict {
    // More than fits a message of default clients, where the server allows it.
    let blobs = full_batch(t.batch_limit().await?.min(8 * 1024 * 1024));
    for part in blobs.chunks(32) {
        t.update(part.iter().map(Blob::entry).collect())
            .await
            .due("BatchUpdateBlobs")?;
    }
    let asked = blobs.iter().map(|blob| blob.digest.clone()).collect();
    match t.data_of(asked).await {
        Err(status) if status.code() == Code::InvalidArgument => Ok(()),
        answer => answer.due("a BatchReadBlobs that fills the limit").map(|_| ()),
    }
}

async fn errors_are_no_empty_answers(t: Arc<Target>) -> Verdict {
    let digest = Digest {
        hash: "nothing".into(),
        size_bytes: 5,
    };
    let answer = t.action(t.action_request(&digest)).await;
    expect(answer.is_err(), || "OK came for a malformed digest".into())
}

async fn deadlines_are_borne(t: Arc<Target>) -> Verdict {
    let blob = t.stored(1000).await?;
    let t = t.with_headers(|headers| {
        headers.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static("60S"));
    });
    t.server_capabilities().await.due("GetCapabilities")?;
    t.is_present(&blob.digest).await?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await?;
    t.stored(1000).await.map(|_| ())
}

async fn a_hang_up_disturbs_nobody(t: Arc<Target>) -> Verdict {
    let blob = t.stored(1_000_000).await?;
    let name = t.read_name(&blob.digest);
    for _ in 0..5 {
        let request = proto::bytestream::ReadRequest {
            resource_name: name.clone(),
            ..Default::default()
        };
        let stream = t.byte_stream().read(t.request(request)).await;
        let mut stream = stream.due("a Read to be broken off")?.into_inner();
        stream.message().await.due("the first message of it")?;
        drop(stream);
    }
    t.reads_as(&name, &blob.bytes).await
}

async fn absent_digests(t: Arc<Target>) -> Verdict {
    let request = reapi::GetActionResultRequest {
        action_digest: None,
        ..t.action_request(&Digest::default())
    };
    t.action(request)
        .await
        .denied("GetActionResult without a digest", INVALID)?;
    let mut request = t.update_request(vec![Blob::random(8).entry()]);
    request.requests[0].digest = None;
    t.batch_update(request)
        .await
        .denied("BatchUpdateBlobs without a digest", INVALID)?;
    let request = reapi::GetTreeRequest {
        root_digest: None,
        ..t.tree_request(&Digest::default())
    };
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.tree(request).await.denied("GetTree without a digest", codes)
}

async fn unknown_fields(t: Arc<Target>) -> Verdict {
    let absent = Blob::random(20).digest;
    let request = reapi::FindMissingBlobsRequest {
        instance_name: t.instance().into(),
        blob_digests: vec![absent.clone()],
        ..Default::default()
    };
    let mut message = request.encode_to_vec();
    message.extend_from_slice(&[0xc2, 0x3e, 0x01, 0x2a]); // field 1000, length-delimited, one byte
    let answer = t.post_message(FIND, &message).await?;
    expect_eq("FindMissingBlobs with a field 1000", &answer.code(), &Code::Ok)?;
    let came = answer.messages().into_iter().next().unwrap_or_default();
    let came = reapi::FindMissingBlobsResponse::decode(came).unwrap_or_default();
    expect_eq(
        "FindMissingBlobs with a field 1000",
        &came.missing_blob_digests,
        &vec![absent],
    )
}

async fn no_compression(t: Arc<Target>) -> Verdict {
    let request = reapi::FindMissingBlobsRequest {
        instance_name: t.instance().into(),
        blob_digests: vec![Blob::random(20).digest],
        ..Default::default()
    };
    let body = crate::raw::framed(&request.encode_to_vec());
    let answer = t.post(FIND, body, &[("grpc-encoding", "identity")]).await;
    let answer = answer.due("FindMissingBlobs, uncompressed")?;
    expect_eq("FindMissingBlobs, uncompressed", &answer.code(), &Code::Ok)?;
    expect(answer.body.first() == Some(&0), || {
        "the answer is compressed".into()
    })
}

async fn many_reads_at_once(t: Arc<Target>) -> Verdict {
    let blob = t.stored(1000).await?;
    let name = t.read_name(&blob.digest);
    let reads = (0..500).map(|_| t.read(&name, 0, 0));
    for bytes in futures::future::join_all(reads).await {
        let bytes = bytes.due("one of 500 Reads")?;
        expect(bytes == blob.bytes, || format!("{} other bytes", bytes.len()))?;
    }
    Ok(())
}

async fn seen_on_another_connection(t: Arc<Target>) -> Verdict {
    let elsewhere = t.elsewhere().await?;
    let blob = Blob::random(500);
    let codes = t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    expect_eq("BatchUpdateBlobs", &codes, &vec![Code::Ok])?;
    elsewhere.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

async fn errors_stay_small(t: Arc<Target>) -> Verdict {
    let name = format!("{}/blobs/nothing", "a".repeat(6000));
    let answer = t.read(&name, 0, 0).await;
    let length = answer
        .as_ref()
        .map_or_else(|status| status.message().len(), |_| 0);
    answer.denied("Read of a malformed name of 6,000 letters", INVALID)?;
    expect(length < 8000, || format!("the text has {length} bytes"))
}
