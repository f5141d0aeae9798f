//! ByteStream.Read.

use std::sync::Arc;

use tonic::Code;

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("BS-READ-01", bytes_from_the_offset),
    check!("BS-READ-02", offset_at_the_end),
    check!("BS-READ-04", offset_behind_the_end),
    check!("BS-READ-05", negative_offset),
    check!("BS-READ-07", limit_bounds),
    check!("BS-READ-08", negative_limit),
    check!("BS-READ-10", absent_blob),
    check!("BS-READ-12", other_size),
    check!("BS-READ-13", message_sizes),
    check!("BS-READ-18", empty_blob),
    check!("BS-READ-26", many_readers),
];

const CODES_OF_ABSENCE: &[Code] = &[Code::NotFound, Code::InvalidArgument];

async fn stored(target: &Target, len: usize) -> Result<(Blob, String), check::Stop> {
    let blob = Blob::random(len);
    target.put(&blob).await?;
    let name = target.read_name(&blob.digest);
    Ok((blob, name))
}

async fn bytes_from_the_offset(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 200_000).await?;
    for offset in [0, 1, 65_536, 199_999] {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = target.read(&name, offset, 0).await.map_err(refused("Read"))?;
        expect(bytes == blob.bytes[from..], || {
            format!("offset {offset}: {} other bytes", bytes.len())
        })?;
    }
    Ok(())
}

async fn offset_at_the_end(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    let bytes = target
        .read(&name, 1000, 0)
        .await
        .map_err(refused("Read at the end"))?;
    expect(bytes.is_empty(), || format!("{} bytes came", bytes.len()))
}

async fn offset_behind_the_end(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    refused_with(
        "Read at 1001 of 1000",
        target.read(&name, 1001, 0).await,
        &[Code::OutOfRange],
    )
}

async fn negative_offset(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    refused_with("Read at -1", target.read(&name, -1, 0).await, &[Code::OutOfRange])
}

async fn limit_bounds(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 10_000).await?;
    for (offset, limit, end) in [(0, 1, 1), (100, 200, 300), (9_000, 5_000, 10_000)] {
        let bytes = target.read(&name, offset, limit).await.map_err(refused("Read"))?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        expect(bytes == blob.bytes[from..end], || {
            format!("offset {offset}, limit {limit}: {} bytes came", bytes.len())
        })?;
    }
    Ok(())
}

async fn negative_limit(target: Arc<Target>) -> Verdict {
    let (_, name) = stored(&target, 1000).await?;
    refused_with(
        "Read",
        target.read(&name, 0, -1).await,
        &[Code::InvalidArgument, Code::OutOfRange],
    )
}

async fn absent_blob(target: Arc<Target>) -> Verdict {
    let name = target.read_name(&Blob::random(100).digest);
    refused_with(
        "Read of an absent blob",
        target.read(&name, 0, 0).await,
        &[Code::NotFound],
    )
}

async fn other_size(target: Arc<Target>) -> Verdict {
    let (blob, _) = stored(&target, 1000).await?;
    let other = proto::reapi::Digest {
        size_bytes: 999,
        ..blob.digest
    };
    refused_with(
        "Read",
        target.read(&target.read_name(&other), 0, 0).await,
        CODES_OF_ABSENCE,
    )
}

async fn message_sizes(target: Arc<Target>) -> Verdict {
    // This client refuses larger messages as clients do, so a server that sends one fails the read.
    let (blob, name) = stored(&target, 9 * 1024 * 1024).await?;
    let messages = target.read_messages(&name, 0, 0).await.map_err(refused("Read"))?;
    expect(messages.concat() == blob.bytes, || "other bytes came".into())
}

async fn empty_blob(target: Arc<Target>) -> Verdict {
    let name = target.read_name(&Blob::of("").digest);
    let bytes = target
        .read(&name, 0, 0)
        .await
        .map_err(refused("Read of the empty blob"))?;
    expect(bytes.is_empty(), || format!("{} bytes came", bytes.len()))?;
    refused_with(
        "Read of the empty blob at 1",
        target.read(&name, 1, 0).await,
        &[Code::OutOfRange],
    )
}

async fn many_readers(target: Arc<Target>) -> Verdict {
    let (blob, name) = stored(&target, 500_000).await?;
    let reads = (0..50_i64).map(|i| target.read(&name, i * 1000, 0));
    for (i, bytes) in futures::future::join_all(reads).await.into_iter().enumerate() {
        let bytes = bytes.map_err(refused("Read"))?;
        expect(bytes == blob.bytes[i * 1000..], || {
            format!("reader {i}: {} other bytes", bytes.len())
        })?;
    }
    Ok(())
}
