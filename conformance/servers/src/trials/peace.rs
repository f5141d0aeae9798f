//! Good times.

use anyhow::{Context as _, Result, ensure};
use conformance::target::Blob;
use futures::future::try_join_all;

use crate::client::{action, output};
use crate::rig::Rig;

/// Large enough to be under way while the other readers arrive.
const COLD_BYTES: usize = 8 * 1024 * 1024;
const READERS: usize = 16;

/// What the node acknowledged can be had from Tier 2 in the moment after, past the node; and what it calls present or a
/// hit is there.
pub(super) async fn authority(rig: &Rig) -> Result<String> {
    let (streamed, batched, key) = (Blob::random(300_000), Blob::random(3000), action());
    rig.through.write(&streamed).await.context("Write")?;
    let read = rig.direct.read(&streamed.digest).await;
    ensure!(read? == streamed.bytes, "a written blob is another in Tier 2");
    rig.through
        .batch_update(&batched)
        .await
        .context("BatchUpdateBlobs")?;
    let read = rig.direct.read(&batched.digest).await;
    ensure!(read? == batched.bytes, "a blob of a batch is another in Tier 2");
    rig.through.batch_update(&key).await.context("BatchUpdateBlobs")?;
    rig.through
        .put_action(&key.digest, &streamed.digest)
        .await
        .context("UpdateActionResult")?;
    let result = rig
        .direct
        .action(&key.digest)
        .await
        .context("the result, in Tier 2")?;
    ensure!(
        output(&result) == Some(&streamed.digest),
        "the result is another in Tier 2"
    );

    // What came to Tier 2 by another way.
    let other = Blob::random(5000);
    ensure!(
        !rig.through.presence(&other.digest).await?,
        "a blob that nobody has is called present"
    );
    rig.direct.write(&other).await.context("Write, to Tier 2")?;
    ensure!(
        rig.through.presence(&other.digest).await?,
        "absence was remembered"
    );
    ensure!(
        rig.through.batch_read(&other.digest).await? == other.bytes,
        "wrong bytes in a batch"
    );
    ensure!(
        rig.through.read(&other.digest).await? == other.bytes,
        "wrong bytes"
    );
    Ok(String::new())
}

/// However many clients want a blob at once, it crosses the network to Tier 2 once.
pub(super) async fn one_fetch(rig: &Rig) -> Result<String> {
    let blob = Blob::random(COLD_BYTES);
    rig.direct.write(&blob).await.context("Write, to Tier 2")?;
    let before = rig.forwarder.carried().down_bytes;
    let readers = (0..READERS).map(|_| rig.through.read(&blob.digest));
    for bytes in try_join_all(readers).await.context("one of many readers")? {
        ensure!(bytes == blob.bytes, "wrong bytes");
    }
    let carried = rig.forwarder.carried().down_bytes - before;
    let size = blob.bytes.len() as u64;
    ensure!(
        carried >= size,
        "{carried} bytes came from Tier 2, fewer than the blob has"
    );
    ensure!(
        carried < size * 3 / 2,
        "{carried} bytes came from Tier 2 for a blob of {size}"
    );
    Ok(format!("{carried} bytes for a blob of {size}"))
}
