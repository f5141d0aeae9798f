//! The node's own end.

use anyhow::{Context as _, Result, ensure};
use conformance::target::Blob;

use crate::rig::Rig;

/// A node that was killed has no wrong byte when it starts again, and nothing that it acknowledged is lost.
pub(super) async fn node_killed(rig: Rig) -> Result<(Rig, Result<String>)> {
    let blobs: Vec<_> = [10, 5000, 70_000, 2_000_000].map(Blob::random).into();
    for blob in &blobs {
        if let Err(status) = rig.through.write(blob).await {
            return Ok((rig, Err(status).context("Write")));
        }
    }
    let rig = rig.crash_node().await?;
    let found = all_there(&rig, &blobs).await;
    Ok((rig, found.map(|()| String::new())))
}

async fn all_there(rig: &Rig, blobs: &[Blob]) -> Result<()> {
    for blob in blobs {
        let size = blob.digest.size_bytes;
        ensure!(
            rig.through.presence(&blob.digest).await?,
            "an acknowledged blob of {size} bytes is called missing"
        );
        let read = rig.through.read(&blob.digest).await;
        ensure!(read? == blob.bytes, "wrong bytes of {size}");
    }
    Ok(())
}
