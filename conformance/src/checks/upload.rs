//! ByteStream.Write and QueryWriteStatus.

use std::sync::Arc;

use bytes::Bytes;
use proto::bytestream::WriteRequest;
use tonic::Code;

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with, write_requests};

pub(super) const CHECKS: &[Check] = &[
    check!("BS-WRITE-02", names_of_later_requests),
    check!("BS-WRITE-05", wrong_offset),
    check!("BS-WRITE-06", bare_finish),
    check!("BS-WRITE-08", no_finish),
    check!("BS-WRITE-09", too_few),
    check!("BS-WRITE-10", too_many),
    check!("BS-WRITE-11", wrong_bytes),
    check!("BS-WRITE-13", committed_size),
    check!("BS-WRITE-14", there_already),
    check!("BS-WRITE-19", empty_requests),
    check!("BS-WRITE-20", empty_blob),
    check!("BS-WRITE-21", one_byte_messages),
    check!("BS-WRITE-28", ok_means_present),
    check!("CAS-GEN-08", many_writers),
    check!("BS-QWS-03", complete_when_there),
    check!("BS-QWS-04", never_seen),
    check!("BS-QWS-15", empty_is_complete),
];

async fn absent(target: &Target, blob: &Blob) -> Verdict {
    let missing = target
        .missing(vec![blob.digest.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing.len() == 1, || {
        format!("{:?} is there afterwards", blob.digest)
    })
}

async fn names_of_later_requests(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(3000);
    let name = target.write_name(&blob.digest);
    let mut requests = write_requests(&name, &blob.bytes, 1000);
    requests
        .iter_mut()
        .for_each(|request| request.resource_name.clone_from(&name));
    let size = target
        .write_requests(requests)
        .await
        .map_err(refused("Write with the name in every request"))?;
    expect(size == 3000, || format!("committed_size is {size}"))?;
    let blob = Blob::random(3000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].resource_name = target.write_name(&blob.digest);
    refused_with(
        "Write with two names",
        target.write_requests(requests).await,
        &[Code::InvalidArgument],
    )?;
    absent(&target, &blob).await
}

async fn wrong_offset(target: Arc<Target>) -> Verdict {
    for (i, offset) in [(1, 999), (1, 1001), (1, 0)] {
        let blob = Blob::random(3000);
        let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
        requests[i].write_offset = offset;
        let codes = &[Code::InvalidArgument, Code::OutOfRange, Code::FailedPrecondition];
        refused_with(
            &format!("offset {offset}"),
            target.write_requests(requests).await,
            codes,
        )?;
        absent(&target, &blob).await?;
    }
    Ok(())
}

async fn bare_finish(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].finish_write = false;
    requests.push(WriteRequest {
        write_offset: 2000,
        finish_write: true,
        ..Default::default()
    });
    let size = target.write_requests(requests).await.map_err(refused("Write"))?;
    expect(size == 2000, || format!("committed_size is {size}"))
}

async fn no_finish(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests[1].finish_write = false;
    let answer = target.write_requests(requests).await;
    expect(!matches!(answer, Ok(2000)), || {
        "committed_size is the full size".into()
    })?;
    absent(&target, &blob).await
}

async fn too_few(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let name = target.write_name(&blob.digest);
    let answer = target.write(&name, &blob.bytes.slice(..1500), 1000).await;
    refused_with("Write of 1500 of 2000 bytes", answer, &[Code::InvalidArgument])?;
    absent(&target, &blob).await
}

async fn too_many(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let longer = Bytes::from([blob.bytes.as_ref(), b"!"].concat());
    let answer = target
        .write(&target.write_name(&blob.digest), &longer, 1000)
        .await;
    refused_with("Write of 2001 of 2000 bytes", answer, &[Code::InvalidArgument])?;
    absent(&target, &blob).await
}

async fn wrong_bytes(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let answer = target
        .write(&target.write_name(&blob.digest), &Blob::random(2000).bytes, 1000)
        .await;
    refused_with("Write of other bytes", answer, &[Code::InvalidArgument])?;
    absent(&target, &blob).await
}

async fn committed_size(target: Arc<Target>) -> Verdict {
    for len in [1, 16_384, 16_385, 3_000_000] {
        let blob = Blob::random(len);
        let name = target.write_name(&blob.digest);
        let size = target
            .write(&name, &blob.bytes, 16_384)
            .await
            .map_err(refused("Write"))?;
        expect(size == blob.digest.size_bytes, || {
            format!("committed_size of {len} bytes is {size}")
        })?;
    }
    Ok(())
}

async fn there_already(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(300_000);
    target.put(&blob).await?;
    let name = target.write_name(&blob.digest);
    let size = target
        .write(&name, &blob.bytes, 16_384)
        .await
        .map_err(refused("the second Write"))?;
    expect(size == 300_000, || format!("committed_size is {size}"))
}

async fn empty_requests(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(2000);
    let mut requests = write_requests(&target.write_name(&blob.digest), &blob.bytes, 1000);
    requests.insert(
        1,
        WriteRequest {
            write_offset: 1000,
            ..Default::default()
        },
    );
    let size = target.write_requests(requests).await.map_err(refused("Write"))?;
    expect(size == 2000, || format!("committed_size is {size}"))
}

async fn empty_blob(target: Arc<Target>) -> Verdict {
    let blob = Blob::of("");
    let size = target
        .write(&target.write_name(&blob.digest), &blob.bytes, 1)
        .await
        .map_err(refused("Write"))?;
    expect(size == 0, || format!("committed_size is {size}"))
}

async fn one_byte_messages(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(300);
    let size = target
        .write(&target.write_name(&blob.digest), &blob.bytes, 1)
        .await
        .map_err(refused("Write"))?;
    expect(size == 300, || format!("committed_size is {size}"))
}

async fn ok_means_present(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100_000);
    let name = target.write_name(&blob.digest);
    target
        .write(&name, &blob.bytes, 16_384)
        .await
        .map_err(refused("Write"))?;
    let missing = target
        .missing(vec![blob.digest.clone()])
        .await
        .map_err(refused("FindMissingBlobs"))?;
    expect(missing.is_empty(), || "the blob is missing".into())?;
    let bytes = target
        .read(&target.read_name(&blob.digest), 0, 0)
        .await
        .map_err(refused("Read"))?;
    expect(bytes == blob.bytes, || format!("{} other bytes", bytes.len()))
}

async fn many_writers(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(200_000);
    let names: Vec<String> = (0..20).map(|_| target.write_name(&blob.digest)).collect();
    let writes = names.iter().map(|name| target.write(name, &blob.bytes, 16_384));
    for size in futures::future::join_all(writes).await {
        let size = size.map_err(refused("one of 20 Writes"))?;
        expect(size == 200_000, || format!("committed_size is {size}"))?;
    }
    Ok(())
}

async fn complete_when_there(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(1000);
    target.put(&blob).await?;
    let status = target
        .query(&target.write_name(&blob.digest))
        .await
        .map_err(refused("QueryWriteStatus"))?;
    expect(status.complete && status.committed_size == 1000, || {
        format!("it says {status:?}")
    })
}

async fn never_seen(target: Arc<Target>) -> Verdict {
    let name = target.write_name(&Blob::random(1000).digest);
    match target.query(&name).await {
        Ok(status) => expect(!status.complete && status.committed_size == 0, || {
            format!("it says {status:?}")
        }),
        answer => refused_with("QueryWriteStatus", answer, &[Code::NotFound]),
    }
}

async fn empty_is_complete(target: Arc<Target>) -> Verdict {
    let name = target.write_name(&Blob::of("").digest);
    let status = target.query(&name).await.map_err(refused("QueryWriteStatus"))?;
    expect(status.complete && status.committed_size == 0, || {
        format!("it says {status:?}")
    })
}
