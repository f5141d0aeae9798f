//! A network that resets connections.

use anyhow::{Context as _, Result, bail, ensure};
use conformance::target::Blob;
use futures::future::join_all;
use mock_upstream::Link;
use tonic::Code;

use crate::rig::Rig;

/// Large beside a message, which is up to 4 MiB: each read has had bytes when its connection breaks.
const BLOB_BYTES: usize = 16 * 1024 * 1024;
/// Of the connections that the reads share.
const RESET_AFTER_BYTES: u64 = 20 * 1024 * 1024;
const READERS: usize = 4;

/// Reads over connections that break end with the whole blob or with UNAVAILABLE, and afterwards with the blob.
pub(super) async fn resets(rig: &Rig) -> Result<String> {
    let mut blobs = Vec::new();
    for _ in 0..READERS {
        let blob = Blob::random(BLOB_BYTES);
        rig.direct.write(&blob).await.context("Write, to Tier 2")?;
        blobs.push(blob);
    }
    let before = rig.forwarder.carried().resets;
    rig.forwarder.set(Link {
        reset_after_down_bytes: Some(RESET_AFTER_BYTES),
        ..Link::default()
    });
    let read = join_all(blobs.iter().map(|blob| rig.through.read(&blob.digest))).await;
    rig.forwarder.set(Link::default());
    rig.forwarder.reset_connections(); // those that have little left to carry
    let mut whole = 0;
    for (read, blob) in read.into_iter().zip(&blobs) {
        match read {
            Ok(bytes) if bytes == blob.bytes => whole += 1,
            Ok(bytes) => bail!("OK with {} wrong bytes", bytes.len()),
            Err(status) if status.code() == Code::Unavailable => {}
            Err(status) => bail!("a reset is told as {status:?}"),
        }
    }
    let resets = rig.forwarder.carried().resets - before;
    ensure!(resets > 0, "no connection was reset");
    rig.recovered().await?;
    for blob in &blobs {
        ensure!(
            rig.through.read(&blob.digest).await? == blob.bytes,
            "wrong bytes after resets"
        );
    }
    Ok(format!(
        "{resets} resets, {whole} of {READERS} reads came whole all the same"
    ))
}
