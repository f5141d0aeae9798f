//! Resource names.

use std::sync::Arc;

use tonic::Code;

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("RN-04", metadata_segments),
    check!("RN-12", plain_decimal),
    check!("RN-14", malformed_names),
    check!("RN-15", empty_name),
];

async fn metadata_segments(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    let name = format!("{}/uploads/x/blobs/y", target.write_name(&blob.digest));
    let size = target
        .write(&name, &blob.bytes, 100)
        .await
        .map_err(refused("Write with metadata segments"))?;
    expect(size == 100, || format!("committed_size is {size}"))
}

async fn plain_decimal(target: Arc<Target>) -> Verdict {
    let blob = Blob::random(100);
    target.put(&blob).await?;
    let name = target.read_name(&blob.digest);
    let stem = name.trim_end_matches("100");
    for size in ["+100", "-100", "0100", "1e2", "", "99999999999999999999"] {
        let name = format!("{stem}{size}");
        refused_with(&name, target.read(&name, 0, 0).await, &[Code::InvalidArgument])?;
    }
    Ok(())
}

async fn malformed_names(target: Arc<Target>) -> Verdict {
    let hash = Blob::random(1).digest.hash;
    let names = [
        "blobs".to_owned(),
        format!("blobs/{hash}"),
        format!("blobs/{}/1", &hash[1..]),
        format!("blobs/{}/1", hash.to_uppercase().replace(char::is_numeric, "A")),
        format!("compressed-blobs/{hash}/1"),
        format!("uploads/{hash}/1"),
        "nothing/known/here".to_owned(),
        "../../etc/passwd".to_owned(),
    ];
    for name in names {
        refused_with(&name, target.read(&name, 0, 0).await, &[Code::InvalidArgument])?;
    }
    Ok(())
}

async fn empty_name(target: Arc<Target>) -> Verdict {
    refused_with("Read", target.read("", 0, 0).await, &[Code::InvalidArgument])?;
    refused_with(
        "QueryWriteStatus",
        target.query("").await,
        &[Code::InvalidArgument],
    )
}
