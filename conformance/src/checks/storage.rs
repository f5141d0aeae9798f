//! What holds for blobs whichever way they came.

use super::capabilities::blob_limit;
use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("CAS-GEN-01", nothing_wrong_enters),
    check!("CAS-GEN-02", empty_blob_everywhere),
    check!("CAS-GEN-03", empty_stdout),
    check!("CAS-GEN-04", fresh_blobs_live),
    check!("CAS-GEN-06", present_is_readable),
    check!("CAS-GEN-07", unfinished_is_invisible),
    check!("CAS-GEN-08", many_writers),
    check!("CAS-GEN-09", again_in_another_form),
    check!("CAS-GEN-12", over_the_limit_in_a_batch),
    check!("CAS-GEN-14", sizes, heavy),
    check!("CAS-GEN-15", any_content),
];

async fn nothing_wrong_enters(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    // What becomes of the entry is for other checks; here counts what is stored.
    let _ = t.update(vec![(blob.digest.clone(), t.random(100).bytes)]).await;
    t.is_absent(&blob.digest).await
}

async fn empty_blob_everywhere(t: Arc<Target>) -> Verdict {
    let other = t.other_instance("").await?;
    let empty = t.blob("");
    other
        .reads_as(&other.read_name(&empty.digest), &empty.bytes)
        .await?;
    let answers = other
        .data_of(vec![empty.digest])
        .await
        .due("BatchReadBlobs of the empty blob")?;
    expect_eq("BatchReadBlobs of the empty blob", &answers[0].0, &Code::Ok)
}

async fn empty_stdout(t: Arc<Target>) -> Verdict {
    let action = t.random(30).digest;
    let result = ActionResult {
        stdout_digest: Some(t.blob("").digest),
        exit_code: 6,
        ..Default::default()
    };
    t.store_result(&action, &result).await?;
    expect_eq("GetActionResult", &t.result_of(&action).await?.exit_code, &6)
}

async fn fresh_blobs_live(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..200).map(|_| t.random(100)).collect();
    t.update(blobs.iter().map(Blob::entry).collect())
        .await
        .due("BatchUpdateBlobs")?;
    let asked = blobs.iter().map(|blob| blob.digest.clone()).collect();
    let missing = t.missing(asked).await.due("FindMissingBlobs")?;
    expect(missing.is_empty(), || {
        format!("{} of 200 fresh blobs are gone", missing.len())
    })
}

async fn present_is_readable(t: Arc<Target>) -> Verdict {
    let blob = t.random(300);
    t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    if t.missing(vec![blob.digest.clone()])
        .await
        .due("FindMissingBlobs")?
        .is_empty()
    {
        t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await?;
    }
    Ok(())
}

async fn unfinished_is_invisible(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    let mut requests = write_requests(&name, &blob.bytes, 1000);
    let rest = requests.split_off(1);
    let look = async {
        t.has_begun(&name).await;
        let whole = t.read(&t.read_name(&blob.digest), 0, 0).await;
        whole.denied("Read during the upload", &[Code::NotFound])?;
        let answers = t.data_of(vec![blob.digest.clone()]).await.due("BatchReadBlobs")?;
        expect_eq("BatchReadBlobs during the upload", &answers[0].0, &Code::NotFound)
    };
    let (seen, _) = t.during_upload(requests, rest, look).await;
    seen
}

async fn many_writers(t: Arc<Target>) -> Verdict {
    let blob = t.random(200_000);
    let names: Vec<String> = (0..20).map(|_| t.write_name(&blob.digest)).collect();
    let writes = names.iter().map(|name| t.write(name, &blob.bytes, 16_384));
    for size in futures::future::join_all(writes).await {
        let size = size.due("one of 20 Writes")?;
        expect(size == 200_000, || format!("committed_size is {size}"))?;
    }
    Ok(())
}

async fn again_in_another_form(t: Arc<Target>) -> Verdict {
    let blob = t.random(400);
    t.update(vec![blob.entry()]).await.due("BatchUpdateBlobs")?;
    let name = t.write_name(&blob.digest);
    let size = t
        .write(&name, &blob.bytes, 1000)
        .await
        .due("Write of what a batch brought")?;
    expect_eq("Write of what a batch brought", &size, &400)?;
    let answers = t.data_of(vec![blob.digest]).await.due("BatchReadBlobs")?;
    expect(answers[0].1 == blob.bytes, || "other bytes than before".into())
}

async fn over_the_limit_in_a_batch(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let digest = blob.sized(blob_limit(&t).await? + 1);
    let codes = match t.update(vec![(digest, blob.bytes)]).await {
        Ok(codes) => codes,
        Err(status) => vec![status.code()],
    };
    expect_eq(
        "an entry over the limit of blobs",
        &codes,
        &vec![Code::InvalidArgument],
    )
}

async fn sizes(t: Arc<Target>) -> Verdict {
    for len in [1, 2, 1023, 1024, 65_535, 65_536, 65_537, 1_048_576, 3_000_001] {
        let blob = t.random(len);
        let name = t.write_name(&blob.digest);
        t.write(&name, &blob.bytes, 262_144).await.due("Write")?;
        t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await?;
    }
    Ok(())
}

async fn any_content(t: Arc<Target>) -> Verdict {
    // Begins like a Directory whose first file is longer than the message.
    let blob = t.blob([b"\x0a\xff\xff\x7f", &uuid::Uuid::new_v4().as_bytes()[..]].concat());
    let name = t.write_name(&blob.digest);
    t.write(&name, &blob.bytes, 1000)
        .await
        .due("Write of a broken Directory")?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}
