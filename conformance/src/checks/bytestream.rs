//! ByteStream.Read.

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("BS-READ-01", bytes_from_the_offset),
    check!("BS-READ-02", offset_at_the_end),
    check!("BS-READ-03", offset_at_the_end_with_a_limit),
    check!("BS-READ-04", offset_behind_the_end),
    check!("BS-READ-05", negative_offset),
    check!("BS-READ-06", no_limit, heavy),
    check!("BS-READ-07", limit_bounds),
    check!("BS-READ-08", negative_limit),
    check!("BS-READ-09", offset_and_limit),
    check!("BS-READ-10", absent_blob),
    check!("BS-READ-12", other_size),
    check!("BS-READ-13", message_sizes, heavy),
    check!("BS-READ-15", whole),
    check!("BS-READ-16", resumed),
    check!("BS-READ-18", empty_blob),
    check!("BS-READ-24", hang_ups),
    check!("BS-READ-26", many_readers),
    check!("BS-READ-27", small_reads, heavy),
];

const CODES_OF_ABSENCE: &[Code] = &[Code::NotFound, Code::InvalidArgument];

async fn stored(target: &Target, len: usize) -> Result<(Blob, String), Stop> {
    let blob = target.random(len);
    target.put(&blob).await?;
    let name = target.read_name(&blob.digest);
    Ok((blob, name))
}

async fn bytes_from_the_offset(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 200_000).await?;
    for offset in [0, 1, 65_536, 199_999] {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = target.read(&name, offset, 0).await.due("Read")?;
        expect(bytes == blob.bytes[from..], || {
            format!("offset {offset}: {} other bytes", bytes.len())
        })?;
    }
    Ok(())
}

async fn offset_at_the_end(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    let bytes = target.read(&name, 1000, 0).await.due("Read at the end")?;
    expect(bytes.is_empty(), || format!("{} bytes came", bytes.len()))
}

async fn offset_behind_the_end(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    target
        .read(&name, 1001, 0)
        .await
        .denied("Read at 1001 of 1000", &[Code::OutOfRange])
}

async fn negative_offset(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    target
        .read(&name, -1, 0)
        .await
        .denied("Read at -1", &[Code::OutOfRange])
}

async fn limit_bounds(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 10_000).await?;
    for (offset, limit, end) in [(0, 1, 1), (100, 200, 300), (9_000, 5_000, 10_000)] {
        let bytes = target.read(&name, offset, limit).await.due("Read")?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        expect(bytes == blob.bytes[from..end], || {
            format!("offset {offset}, limit {limit}: {} bytes came", bytes.len())
        })?;
    }
    Ok(())
}

async fn negative_limit(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    target
        .read(&name, 0, -1)
        .await
        .denied("Read", &[Code::InvalidArgument, Code::OutOfRange])
}

async fn absent_blob(target: Arc<Target>) -> Verdict {
    let name = target.read_name(&target.random(100).digest);
    target
        .read(&name, 0, 0)
        .await
        .denied("Read of an absent blob", &[Code::NotFound])
}

async fn other_size(target: Arc<Target>) -> Verdict {
    let (blob, _) = stored(&target, 1000).await?;
    let other = Digest {
        size_bytes: 999,
        ..blob.digest
    };
    target
        .read(&target.read_name(&other), 0, 0)
        .await
        .denied("Read", CODES_OF_ABSENCE)
}

async fn message_sizes(target: Arc<Target>) -> Verdict {
    // This client refuses larger messages as clients do, so a server that sends one fails the read.
    let (blob, name) = stored(&target, 9 * 1024 * 1024).await?;
    let messages = target.read_messages(&name, 0, 0).await.due("Read")?;
    expect(messages.concat() == blob.bytes, || "other bytes came".into())
}

async fn empty_blob(target: Arc<Target>) -> Verdict {
    let name = target.read_name(&target.blob("").digest);
    let bytes = target.read(&name, 0, 0).await.due("Read of the empty blob")?;
    expect(bytes.is_empty(), || format!("{} bytes came", bytes.len()))?;
    target
        .read(&name, 1, 0)
        .await
        .denied("Read of the empty blob at 1", &[Code::OutOfRange])
}

async fn many_readers(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 510_000).await?;
    let reads = (0..50_i64).map(|i| target.read(&name, i * 1000, 0));
    for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
        let bytes = bytes.due("Read")?;
        expect(bytes == blob.bytes[i * 1000..], || {
            format!("reader {i}: {} other bytes", bytes.len())
        })?;
    }
    Ok(())
}

async fn offset_at_the_end_with_a_limit(t: Arc<Target>) -> Verdict {
    let (_, name) = stored(&t, 300_000).await?;
    let bytes = t
        .read(&name, 300_000, 10)
        .await
        .due("Read at the end with a limit")?;
    expect(bytes.is_empty(), || format!("{} bytes came", bytes.len()))
}

async fn no_limit(t: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&t, 5_000_000).await?;
    t.reads_as(&name, &blob.bytes).await
}

async fn offset_and_limit(t: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&t, 100_000).await?;
    let bytes = t
        .read(&name, 70_000, 1000)
        .await
        .due("Read at 70,000 of 1000 bytes")?;
    expect(bytes == blob.bytes[70_000..71_000], || {
        format!("{} bytes came, or others", bytes.len())
    })
}

async fn whole(t: Arc<Target>) -> Verdict {
    let (_, name) = stored(&t, 1_500_000).await?;
    let bytes = t.read(&name, 0, 0).await.due("Read")?;
    expect(bytes.len() == 1_500_000, || {
        format!("OK came after {} of 1500000 bytes", bytes.len())
    })
}

async fn resumed(t: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&t, 250_000).await?;
    let mut bytes = Vec::new();
    for limit in [10_001, 99_990, 40_000, 0] {
        let from = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        bytes.extend(t.read(&name, from, limit).await.due("Read")?);
    }
    expect(bytes == blob.bytes, || {
        format!("the parts make {} other bytes", bytes.len())
    })
}

async fn hang_ups(t: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&t, 500_000).await?;
    for _ in 0..100 {
        let request = proto::bytestream::ReadRequest {
            resource_name: name.clone(),
            ..Default::default()
        };
        let stream = t.byte_stream().read(t.request(request)).await;
        drop(stream.due("a Read to be dropped at once")?);
    }
    t.reads_as(&name, &blob.bytes).await
}

async fn small_reads(t: Arc<Target>) -> Verdict {
    let blobs: Vec<Blob> = (0..100).map(|_| t.random(1024)).collect();
    t.update(blobs.iter().map(Blob::entry).collect())
        .await
        .due("BatchUpdateBlobs")?;
    let names: Vec<String> = blobs.iter().map(|blob| t.read_name(&blob.digest)).collect();
    let reads = (0..1000).map(|i| t.read(&names[i % 100], 0, 0));
    for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
        let bytes = bytes.due("one of 1000 Reads")?;
        expect(bytes == blobs[i % 100].bytes, || {
            format!("reader {i} got other bytes")
        })?;
    }
    Ok(())
}
