//! QueryWriteStatus.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("BS-QWS-01", start_of_the_next_write),
    check!("BS-QWS-02", unfinished_is_not_complete),
    check!("BS-QWS-03", complete_when_there),
    check!("BS-QWS-04", never_seen),
    check!("BS-QWS-05", never_seen_stands_at_0),
    check!("BS-QWS-06", full_size_is_complete),
    check!("BS-QWS-07", does_not_shrink),
    check!("BS-QWS-09", by_the_whole_name),
    check!("BS-QWS-11", nothing_left_of_bad_bytes),
    check!("BS-QWS-12", name_to_read),
    check!("BS-QWS-15", empty_is_complete),
];

/// Status of an upload; without the method there is nothing to judge.
async fn status(t: &Target, name: &str) -> Result<proto::bytestream::QueryWriteStatusResponse, Stop> {
    match t.query(name).await {
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Stop::NotOffered("QueryWriteStatus is not implemented".into()))
        }
        // The letter of the specification for uploads that left nothing.
        Err(status) if status.code() == Code::NotFound => Ok(Default::default()),
        answer => answer.due("QueryWriteStatus"),
    }
}

/// Sends bytes without `finish_write`, and half-closes.
async fn send(t: &Target, blob: &Blob, name: &str, len: usize) {
    let mut requests = write_requests(name, &blob.bytes.slice(..len), len);
    requests[0].finish_write = false;
    // Whether it is an error is left to the server.
    let _ = t.write_requests(requests).await;
}

async fn start_of_the_next_write(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    send(&t, &blob, &name, 1200).await;
    let status = status(&t, &name).await?;
    let from = usize::try_from(status.committed_size).unwrap_or(usize::MAX);
    expect(from <= 1200, || {
        format!("{from} bytes of 1200 are said to be committed")
    })?;
    let request = proto::bytestream::WriteRequest {
        resource_name: name,
        write_offset: status.committed_size,
        finish_write: true,
        data: blob.bytes.slice(from..),
    };
    t.write_requests(vec![request])
        .await
        .due("Write at the committed_size")?;
    t.is_present(&blob.digest).await
}

async fn unfinished_is_not_complete(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    send(&t, &blob, &name, 2000).await;
    let status = status(&t, &name).await?;
    expect(!status.complete, || format!("it says {status:?}"))
}

async fn never_seen_stands_at_0(t: Arc<Target>) -> Verdict {
    let name = t.write_name(&t.random(1000).digest);
    match t.query(&name).await {
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Stop::NotOffered("QueryWriteStatus is not implemented".into()))
        }
        answer => answer.due("QueryWriteStatus of an upload never seen").map(|_| ()),
    }
}

async fn full_size_is_complete(t: Arc<Target>) -> Verdict {
    let blob = t.random(1500);
    let name = t.write_name(&blob.digest);
    send(&t, &blob, &name, 1500).await;
    let status = status(&t, &name).await?;
    expect(status.complete || status.committed_size < 1500, || {
        format!("it says {status:?}")
    })
}

async fn does_not_shrink(t: Arc<Target>) -> Verdict {
    let blob = t.random(4000);
    let name = t.write_name(&blob.digest);
    let mut first = write_requests(&name, &blob.bytes, 1000);
    let rest = first.split_off(2);
    let look = async {
        t.has_begun(&name).await;
        let mut sizes = Vec::new();
        for _ in 0..6 {
            sizes.push(status(&t, &name).await?.committed_size);
        }
        expect(sizes.is_sorted(), || format!("committed_size went {sizes:?}"))
    };
    let (seen, _) = t.during_upload(first, rest, look).await;
    seen
}

async fn by_the_whole_name(t: Arc<Target>) -> Verdict {
    let (blob, other) = (t.random(2000), t.random(2000));
    let uuid = uuid::Uuid::new_v4();
    let name = |blob: &Blob| t.named(&format!("uploads/{uuid}/blobs/{}", t.tail(&blob.digest)));
    send(&t, &blob, &name(&blob), 900).await;
    let status = status(&t, &name(&other)).await?;
    expect_eq(
        "the status of another blob under the same uuid",
        &status.committed_size,
        &0,
    )
}

async fn nothing_left_of_bad_bytes(t: Arc<Target>) -> Verdict {
    let blob = t.random(2000);
    let name = t.write_name(&blob.digest);
    t.write(&name, &t.random(2000).bytes, 500)
        .await
        .denied("Write of wrong bytes", INVALID)?;
    let status = status(&t, &name).await?;
    expect(status.committed_size == 0 && !status.complete, || {
        format!("it says {status:?}")
    })
}

async fn name_to_read(t: Arc<Target>) -> Verdict {
    let name = t.read_name(&t.random(100).digest);
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.query(&name)
        .await
        .denied("QueryWriteStatus of a name to read", codes)
}

async fn complete_when_there(target: Arc<Target>) -> Verdict {
    let blob = target.random(1000);
    target.put(&blob).await?;
    let status = status(&target, &target.write_name(&blob.digest)).await?;
    expect(status.complete && status.committed_size == 1000, || {
        format!("it says {status:?}")
    })
}

async fn never_seen(target: Arc<Target>) -> Verdict {
    let name = target.write_name(&target.random(1000).digest);
    match target.query(&name).await {
        Ok(status) => expect(!status.complete && status.committed_size == 0, || {
            format!("it says {status:?}")
        }),
        answer => answer.denied("QueryWriteStatus", &[Code::NotFound, Code::Unimplemented]),
    }
}

async fn empty_is_complete(target: Arc<Target>) -> Verdict {
    let name = target.write_name(&target.blob("").digest);
    let status = status(&target, &name).await?;
    expect(status.complete && status.committed_size == 0, || {
        format!("it says {status:?}")
    })
}
