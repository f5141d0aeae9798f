//! Resource names.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("RN-01", name_to_write_is_not_read),
    check!("RN-02", name_to_read_is_not_written),
    check!("RN-03", first_reserved_word),
    check!("RN-04", metadata_segments),
    check!("RN-05", no_function),
    check!("RN-06", redundant_function),
    check!("RN-08", unknown_function),
    check!("RN-09", any_uuid),
    check!("RN-10", one_uuid_two_blobs),
    check!("RN-11", identity_is_no_compressor),
    check!("RN-12", plain_decimal),
    check!("RN-13", nothing_behind_the_size),
    check!("RN-14", malformed_names),
    check!("RN-15", empty_name),
    check!("RN-16", literal),
    check!("RN-19", log_streams),
];

/// `hash/size` of a blob that is stored.
async fn stored(t: &Target) -> Result<(Blob, String), Stop> {
    let blob = t.stored(100).await?;
    let tail = format!("{}/100", blob.digest.hash);
    Ok((blob, tail))
}

async fn name_to_write_is_not_read(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    let name = t.named(&format!("uploads/{}/blobs/{tail}", uuid::Uuid::new_v4()));
    t.read(&name, 0, 0)
        .await
        .denied("Read of a name to write", INVALID)
}

async fn name_to_read_is_not_written(t: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let name = t.read_name(&blob.digest);
    t.write(&name, &blob.bytes, 1000)
        .await
        .denied("Write of a name to read", INVALID)
}

async fn first_reserved_word(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    for name in [format!("actions/blobs/{tail}"), format!("blobs/blobs/{tail}")] {
        let name = t.named(&name);
        t.read(&name, 0, 0)
            .await
            .denied(&format!("Read of {name}"), INVALID)?;
    }
    Ok(())
}

async fn metadata_segments(t: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let name = format!("{}/uploads/x/blobs/y", t.write_name(&blob.digest));
    let size = t
        .write(&name, &blob.bytes, 100)
        .await
        .due("Write with metadata segments")?;
    expect(size == 100, || format!("committed_size is {size}"))
}

async fn no_function(t: Arc<Target>) -> Verdict {
    let (blob, tail) = stored(&t).await?;
    t.reads_as(&t.named(&format!("blobs/{tail}")), &blob.bytes).await
}

async fn redundant_function(t: Arc<Target>) -> Verdict {
    let (blob, tail) = stored(&t).await?;
    match t.read(&t.named(&format!("blobs/sha256/{tail}")), 0, 0).await {
        Ok(bytes) => expect(bytes == blob.bytes, || {
            format!("{} other bytes came", bytes.len())
        }),
        answer => answer.denied("Read of a name with sha256 in it", INVALID),
    }
}

async fn unknown_function(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    for function in ["SHA256", "sha-256", "md17"] {
        let name = t.named(&format!("blobs/{function}/{tail}"));
        t.read(&name, 0, 0)
            .await
            .denied(&format!("Read with function {function}"), INVALID)?;
    }
    Ok(())
}

async fn any_uuid(t: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let name = t.named(&format!(
        "uploads/not-a-uuid-at-all/blobs/{}/100",
        blob.digest.hash
    ));
    match t.write(&name, &blob.bytes, 1000).await {
        Ok(size) => expect_eq("Write with a malformed uuid", &size, &100),
        answer => answer.denied("Write with a malformed uuid", INVALID),
    }
}

async fn one_uuid_two_blobs(t: Arc<Target>) -> Verdict {
    let (broken, whole) = (Blob::random(2000), Blob::random(2000));
    let uuid = uuid::Uuid::new_v4();
    let name = |blob: &Blob| t.named(&format!("uploads/{uuid}/blobs/{}/2000", blob.digest.hash));
    let mut half = write_requests(&name(&broken), &broken.bytes, 1000);
    half.truncate(1);
    // Whether a half-close is an error is left to the server.
    let _ = t.write_requests(half).await;
    t.write(&name(&whole), &whole.bytes, 1000)
        .await
        .due("Write of another blob under the same uuid")?;
    t.reads_as(&t.read_name(&whole.digest), &whole.bytes).await?;
    t.is_absent(&broken.digest).await
}

async fn identity_is_no_compressor(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    let answer = t
        .read(&t.named(&format!("compressed-blobs/identity/{tail}")), 0, 0)
        .await;
    answer.denied("Read with compressor identity", codes)
}

async fn plain_decimal(t: Arc<Target>) -> Verdict {
    let (blob, _) = stored(&t).await?;
    for size in ["+100", "-100", "0100", "1e2", "", "99999999999999999999"] {
        let name = t.named(&format!("blobs/{}/{size}", blob.digest.hash));
        t.read(&name, 0, 0)
            .await
            .denied(&format!("Read of size {size:?}"), INVALID)?;
    }
    Ok(())
}

async fn nothing_behind_the_size(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    let name = t.named(&format!("blobs/{tail}/more"));
    t.read(&name, 0, 0)
        .await
        .denied("Read of a name that goes on", INVALID)
}

async fn malformed_names(t: Arc<Target>) -> Verdict {
    let hash = "abcdef".repeat(11)[..64].to_owned();
    let names = [
        "blobs".to_owned(),
        format!("blobs/{hash}"),
        format!("blobs/{}/1", &hash[1..]),
        format!("blobs/{}/1", hash.to_uppercase()),
        format!("compressed-blobs/{hash}/1"),
        format!("uploads/{hash}/1"),
        "nothing/known/here".to_owned(),
        "../../etc/passwd".to_owned(),
    ];
    for name in names {
        t.read(&name, 0, 0)
            .await
            .denied(&format!("Read of {name}"), INVALID)?;
    }
    Ok(())
}

async fn empty_name(t: Arc<Target>) -> Verdict {
    t.read("", 0, 0).await.denied("Read without a name", INVALID)?;
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.query("").await.denied("QueryWriteStatus without a name", codes)
}

async fn literal(t: Arc<Target>) -> Verdict {
    let (_, tail) = stored(&t).await?;
    let codes = &[Code::InvalidArgument, Code::NotFound];
    for name in [
        format!("x/../{}", t.named(&format!("blobs/{tail}"))),
        t.named(&format!("%62lobs/{tail}")),
    ] {
        t.read(&name, 0, 0)
            .await
            .denied(&format!("Read of {name}"), codes)?;
    }
    Ok(())
}

async fn log_streams(t: Arc<Target>) -> Verdict {
    let codes = &[Code::InvalidArgument, Code::NotFound, Code::Unimplemented];
    let name = t.named(&format!("logstreams/{}", uuid::Uuid::new_v4()));
    t.read(&name, 0, 0).await.denied("Read of a log stream", codes)
}
