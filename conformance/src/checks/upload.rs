//! ByteStream.Write.

use std::time::Duration;

use proto::bytestream::WriteRequest;

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("BS-WRITE-01", no_name),
    check!("BS-WRITE-02", names_of_later_requests),
    check!("BS-WRITE-03", begins_at_0),
    check!("BS-WRITE-04", begins_again),
    check!("BS-WRITE-05", wrong_offset),
    check!("BS-WRITE-06", bare_finish),
    check!("BS-WRITE-07", nothing_after_finish),
    check!("BS-WRITE-08", no_finish),
    check!("BS-WRITE-09", too_few),
    check!("BS-WRITE-10", too_many),
    check!("BS-WRITE-11", wrong_bytes),
    check!("BS-WRITE-12", wrong_bytes_are_final),
    check!("BS-WRITE-13", committed_size),
    check!("BS-WRITE-14", there_already),
    check!("BS-WRITE-15", early_answer),
    check!("BS-WRITE-16", early_answers),
    check!("BS-WRITE-18", small_blob_again),
    check!("BS-WRITE-19", empty_requests),
    check!("BS-WRITE-20", empty_blob),
    check!("BS-WRITE-21", one_byte_messages),
    check!("BS-WRITE-22", resumed),
    check!("BS-WRITE-23", takes_over),
    check!("BS-WRITE-25", uuids_are_apart),
    check!("BS-WRITE-26", over_the_limit),
    check!("BS-WRITE-28", ok_means_present),
    check!("BS-WRITE-31", refused_by_name),
    check!("BS-WRITE-32", huge_size),
];

/// How long a check waits for an answer that may come early, and for one that has to.
const EARLY: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(10);

/// The codes of a first offset that does not fit; the specification gives none.
const OFFSET: &[Code] = &[Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition];

async fn absent(target: &Target, blob: &Blob) -> Verdict {
    let missing = target
        .missing(vec![blob.digest.clone()])
        .await
        .due("FindMissingBlobs")?;
    expect(missing.len() == 1, || {
        format!("{:?} is there afterwards", blob.digest)
    })
}

async fn names_of_later_requests(target: Arc<Target>) -> Verdict {
    let blob = target.random(3000);
    let name = target.write_name(&blob.digest);
    let mut requests = write_requests(&name, &blob.bytes, 1000);
    requests
        .iter_mut()
        .for_each(|request| request.resource_name.clone_from(&name));
    let size = target
        .write_requests(requests)
        .await
        .due("Write with the name in every request")?;
    expect(size == 3000, || format!("committed_size is {size}"))?;
    let blob = target.random(3000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].resource_name = target.write_name(&blob.digest);
    crate::target::refused_with(
        "Write with two names",
        target.write_requests(requests).await,
        INVALID,
    )?;
    absent(&target, &blob).await
}

async fn wrong_offset(target: Arc<Target>) -> Verdict {
    for (i, offset) in [(1, 999), (1, 1001), (1, 0)] {
        let blob = target.random(3000);
        let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
        requests[i].write_offset = offset;
        let codes = &[Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition];
        crate::target::refused_with(
            &format!("offset {offset}"),
            target.write_requests(requests).await,
            codes,
        )?;
        absent(&target, &blob).await?;
    }
    Ok(())
}

async fn bare_finish(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].finish_write = false;
    requests.push(WriteRequest {
        write_offset: 2000,
        finish_write: true,
        ..Default::default()
    });
    let size = target.write_requests(requests).await.due("Write")?;
    expect(size == 2000, || format!("committed_size is {size}"))
}

async fn no_finish(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].finish_write = false;
    let answer = target.write_requests(requests).await;
    expect(!matches!(answer, Ok(2000)), || {
        "committed_size is the full size".into()
    })?;
    absent(&target, &blob).await
}

async fn too_few(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let name = target.write_name(&blob.digest);
    let answer = target.write(&name, &blob.bytes.slice(..1500), 1000).await;
    crate::target::refused_with("Write of 1500 of 2000 bytes", answer, INVALID)?;
    absent(&target, &blob).await
}

async fn too_many(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let longer = Bytes::from([blob.bytes.as_ref(), b"!"].concat());
    let answer = target
        .write(&target.write_name(&blob.digest), &longer, 1000)
        .await;
    crate::target::refused_with("Write of 2001 of 2000 bytes", answer, INVALID)?;
    absent(&target, &blob).await
}

async fn wrong_bytes(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let answer = target
        .write(&target.write_name(&blob.digest), &target.random(2000).bytes, 1000)
        .await;
    crate::target::refused_with("Write of other bytes", answer, INVALID)?;
    absent(&target, &blob).await
}

async fn committed_size(target: Arc<Target>) -> Verdict {
    for len in [1, 16_384, 16_385, 3_000_000] {
        let blob = target.random(len);
        let name = target.write_name(&blob.digest);
        let size = target.write(&name, &blob.bytes, 16_384).await.due("Write")?;
        expect(size == blob.digest.size_bytes, || {
            format!("committed_size of {len} bytes is {size}")
        })?;
    }
    Ok(())
}

async fn there_already(target: Arc<Target>) -> Verdict {
    let blob = target.random(300_000);
    target.put(&blob).await?;
    let name = target.write_name(&blob.digest);
    let size = target
        .write(&name, &blob.bytes, 16_384)
        .await
        .due("the second Write")?;
    expect(size == 300_000, || format!("committed_size is {size}"))
}

async fn empty_requests(target: Arc<Target>) -> Verdict {
    let blob = target.random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests.insert(
        1,
        WriteRequest {
            write_offset: 1000,
            ..Default::default()
        },
    );
    let size = target.write_requests(requests).await.due("Write")?;
    expect(size == 2000, || format!("committed_size is {size}"))
}

async fn empty_blob(target: Arc<Target>) -> Verdict {
    let blob = target.blob("");
    let size = target
        .write(&target.write_name(&blob.digest), &blob.bytes, 1)
        .await
        .due("Write")?;
    expect(size == 0, || format!("committed_size is {size}"))
}

async fn one_byte_messages(target: Arc<Target>) -> Verdict {
    let blob = target.random(300);
    let size = target
        .write(&target.write_name(&blob.digest), &blob.bytes, 1)
        .await
        .due("Write")?;
    expect(size == 300, || format!("committed_size is {size}"))
}

async fn ok_means_present(target: Arc<Target>) -> Verdict {
    let blob = target.random(100_000);
    let name = target.write_name(&blob.digest);
    target.write(&name, &blob.bytes, 16_384).await.due("Write")?;
    let missing = target
        .missing(vec![blob.digest.clone()])
        .await
        .due("FindMissingBlobs")?;
    expect(missing.is_empty(), || "the blob is missing".into())?;
    let bytes = target
        .read(&target.read_name(&blob.digest), 0, 0)
        .await
        .due("Read")?;
    expect(bytes == blob.bytes, || format!("{} other bytes", bytes.len()))
}

async fn no_name(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let answer = t.write("", &blob.bytes, 1000).await;
    answer.denied("Write without a name", INVALID)
}

async fn begins_at_0(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let request = WriteRequest {
        resource_name: t.write_name(&blob.digest),
        write_offset: 50,
        finish_write: true,
        data: blob.bytes,
    };
    t.write_requests(vec![request])
        .await
        .denied("Write of a new upload at 50", OFFSET)?;
    t.is_absent(&blob.digest).await
}

/// Sends the first half of a blob and half-closes.
async fn half(t: &Target, blob: &Blob, name: &str) {
    let mut requests = write_requests(name, &blob.bytes, blob.bytes.len().div_ceil(2));
    requests.truncate(1);
    // Whether it is an error is left to the server.
    let _ = t.write_requests(requests).await;
}

async fn begins_again(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    half(&t, &blob, &name).await;
    let size = t
        .write(&name, &blob.bytes, 700)
        .await
        .due("Write from 0 after a broken one")?;
    expect_eq("Write from 0 after a broken one", &size, &2000)
}

async fn nothing_after_finish(t: Arc<Target>) -> Verdict {
    let blob = t.random(500);
    let mut requests = write_requests(&t.write_name(&blob.digest), &blob.bytes, 1000);
    requests.push(WriteRequest {
        write_offset: 500,
        data: Bytes::from_static(b"more"),
        ..Default::default()
    });
    // OK, if it was sent before the extra request was seen.
    match t.write_requests(requests).await {
        Ok(size) => expect_eq("Write with a request behind its end", &size, &500),
        answer => answer.denied("Write with a request behind its end", INVALID),
    }
}

async fn wrong_bytes_are_final(t: Arc<Target>) -> Verdict {
    let blob = t.random(5000);
    let answer = t
        .write(&t.write_name(&blob.digest), &t.random(5000).bytes, 1000)
        .await;
    let code = answer.err().map(|status| status.code());
    expect(code.is_some_and(|code| !RETRIED.contains(&code)), || {
        format!("the code is {code:?}")
    })
}

async fn early_answer(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100_000).await?;
    let mut first = write_requests(&t.write_name(&blob.digest), &blob.bytes, 10);
    let mut rest = first.split_off(1);
    rest.truncate(1);
    if let Some(last) = rest.first_mut() {
        last.data = blob.bytes.slice(10..);
        last.finish_write = true;
    }
    let (_, size) = t
        .write_held(first, rest, EARLY)
        .await
        .due("Write of what is there")?;
    expect_eq("committed_size of an early answer", &size, &100_000)
}

async fn early_answers(t: Arc<Target>) -> Verdict {
    let blob = t.stored(150_000).await?;
    for _ in 0..20 {
        let name = t.write_name(&blob.digest);
        t.write(&name, &blob.bytes, 4096)
            .await
            .due("one of 20 Writes of what is there")?;
    }
    Ok(())
}

async fn small_blob_again(t: Arc<Target>) -> Verdict {
    let blob = t.stored(300).await?;
    let answer = t.write(&t.write_name(&blob.digest), &blob.bytes, 1000).await;
    let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
    expect(code != Code::AlreadyExists, || "it is ALREADY_EXISTS".into())
}

async fn resumed(t: Arc<Target>) -> Verdict {
    let blob = t.random(3000);
    let name = t.write_name(&blob.digest);
    half(&t, &blob, &name).await;
    let from = match t.query(&name).await {
        Ok(status) => usize::try_from(status.committed_size).unwrap_or(usize::MAX),
        Err(_not_kept) => 0,
    };
    if !(1..3000).contains(&from) {
        return Err(Stop::NotOffered(format!("a broken upload stands at {from}")));
    }
    let request = WriteRequest {
        resource_name: name.clone(),
        write_offset: i64::try_from(from).unwrap_or(i64::MAX),
        finish_write: true,
        data: blob.bytes.slice(from..),
    };
    let size = t
        .write_requests(vec![request])
        .await
        .due("Write from where the status says")?;
    expect_eq("Write from where the status says", &size, &3000)?;
    t.reads_as(&t.read_name(&blob.digest), &blob.bytes).await
}

async fn takes_over(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    let mut first = write_requests(&name, &blob.bytes, 1000);
    first.truncate(1);
    let second = async {
        t.has_begun(&name).await;
        t.write(&name, &blob.bytes, 1000).await
    };
    let (size, _) = t.during_upload(first, Vec::new(), second).await;
    let size = size.due("a second Write of the name while the first is open")?;
    expect_eq("a second Write of the name while the first is open", &size, &2000)
}

async fn uuids_are_apart(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    half(&t, &blob, &t.write_name(&blob.digest)).await;
    match t.query(&t.write_name(&blob.digest)).await {
        Ok(status) => expect_eq("the status under another uuid", &status.committed_size, &0),
        answer => answer.denied(
            "the status under another uuid",
            &[Code::NotFound, Code::Unimplemented],
        ),
    }
}

async fn over_the_limit(t: Arc<Target>) -> Verdict {
    let digest = t.random(20).sized(super::capabilities::blob_limit(&t).await? + 7);
    let request = WriteRequest {
        resource_name: t.write_name(&digest),
        ..Default::default()
    };
    let answer = t.write_held(vec![request], Vec::new(), PATIENCE).await;
    answer.denied("the first request of a Write over the limit", INVALID)
}

async fn refused_by_name(t: Arc<Target>) -> Verdict {
    let request = WriteRequest {
        resource_name: t.named("uploads/x/blobs/nothing/5"),
        ..Default::default()
    };
    let answer = t.write_held(vec![request], Vec::new(), PATIENCE);
    match tokio::time::timeout(PATIENCE / 2, answer).await {
        Ok(answer) => answer.denied("the first request of a Write with a malformed name", INVALID),
        Err(_elapsed) => Err(Stop::Failed("no answer before more data".into())),
    }
}

async fn huge_size(t: Arc<Target>) -> Verdict {
    let blob = t.random(100);
    let name = t.write_name(&blob.sized(1 << 62));
    t.write(&name, &blob.bytes, 1000)
        .await
        .denied("Write of 100 of 2^62 bytes", INVALID)
}
