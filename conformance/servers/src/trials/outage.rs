//! Tier 2 goes away and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conformance::target::Blob;
use mock_upstream::Link;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::action;
use crate::rig::Rig;
use crate::trials::Outage;

/// What was acknowledged before the outage.
struct Before {
    blob: Blob,
    key: Blob,
}

/// What was refused during the outage.
struct Refused {
    streamed: Blob,
    batched: Blob,
}

/// No write is acknowledged without Tier 2, no failure is told as a miss, and what is said afterwards is true.
pub(super) async fn trial(rig: &mut Rig, outage: Outage) -> Result<String> {
    let before = Before::put(rig).await.context("before the outage")?;
    begin(rig, outage).await?;
    let during = during(rig, &before).await.context("during the outage");
    // Also after a failure, so that the next trial finds a server.
    let began = Instant::now();
    let ended = end(rig, outage).await.context("Tier 2 does not come back");
    let started = began.elapsed();
    let again = rig.recovered().await;
    let (refused, noticed, slowest) = during?;
    ended?;
    let again = again?;
    after(rig, outage, &before, &refused)
        .await
        .context("after the outage")?;
    Ok(format!(
        "noticed in {noticed:.0?}, then refused within {slowest:.0?}; Tier 2 back in {started:.0?}, the node {again:.0?} later"
    ))
}

async fn begin(rig: &mut Rig, outage: Outage) -> Result<()> {
    match outage {
        Outage::Kill => rig.server.kill().await,
        Outage::Stop => rig.server.stop().await,
        Outage::Pause => rig.server.pause().await,
        Outage::Silence => {
            rig.forwarder.set(Link {
                black_hole: true,
                ..Link::default()
            });
            Ok(())
        }
    }
}

async fn end(rig: &mut Rig, outage: Outage) -> Result<()> {
    match outage {
        Outage::Kill | Outage::Stop => rig.server.start().await,
        Outage::Pause => {
            rig.server.resume().await?;
            rig.server.wait_ready().await
        }
        Outage::Silence => {
            rig.forwarder.set(Link::default());
            Ok(())
        }
    }
}

impl Before {
    async fn put(rig: &Rig) -> Result<Before> {
        let (blob, key) = (Blob::random(20_000), action());
        rig.through.write(&blob).await.context("Write")?;
        rig.through.batch_update(&key).await.context("BatchUpdateBlobs")?;
        let put = rig.through.put_action(&key.digest, &blob.digest).await;
        put.context("UpdateActionResult")?;
        rig.through.action(&key.digest).await.context("GetActionResult")?;
        Ok(Before { blob, key })
    }
}

/// Also how long it took until the node knew, and the slowest answer from then on.
async fn during(rig: &Rig, before: &Before) -> Result<(Refused, Duration, Duration)> {
    // Nobody can know the answers to these without Tier 2.
    let unknown = Blob::random(64);
    refused(
        "the first FindMissingBlobs",
        rig.through.presence(&unknown.digest).await,
    )?;
    refused(
        "the first GetActionResult",
        rig.through.action(&unknown.digest).await,
    )?;
    let noticed = rig.noticed(&before.blob.digest, &before.key.digest).await?;

    let new = Refused {
        streamed: Blob::random(40_000),
        batched: Blob::random(900),
    };
    let (known, key, client) = (&before.blob.digest, &before.key.digest, &rig.through);
    let mut slowest = Duration::ZERO;
    let mut timed = |began: Instant| slowest = slowest.max(began.elapsed());
    macro_rules! refuses {
        ($what:literal, $call:expr) => {
            let began = Instant::now();
            refused($what, $call.await)?;
            timed(began);
        };
    }
    refuses!("FindMissingBlobs of a blob in Tier 1", client.presence(known));
    refuses!("FindMissingBlobs", client.presence(&unknown.digest));
    refuses!("Read", client.read(&unknown.digest));
    refuses!("BatchReadBlobs", client.batch_read(&unknown.digest));
    refuses!("GetActionResult of a result in Tier 1", client.action(key));
    refuses!("GetActionResult", client.action(&unknown.digest));
    refuses!("Write", client.write(&new.streamed));
    refuses!("BatchUpdateBlobs", client.batch_update(&new.batched));
    refuses!("UpdateActionResult", client.put_action(key, known));
    client.capabilities().await.context("GetCapabilities")?;
    // Tier 1's own bytes may be served or refused: never others, never a miss.
    let tier1 = [
        client.read(known).await,
        client.batch_read(known).await.map(Vec::from),
    ];
    for answer in tier1 {
        match answer {
            Ok(bytes) => ensure!(bytes == before.blob.bytes, "wrong bytes from Tier 1"),
            Err(status) => refused::<()>("a read of a blob in Tier 1", Err(status))?,
        }
    }
    Ok((new, noticed, slowest))
}

async fn after(rig: &Rig, outage: Outage, before: &Before, new: &Refused) -> Result<()> {
    let keeps = match outage {
        Outage::Kill | Outage::Stop => rig.server.make().keeps(),
        Outage::Pause | Outage::Silence => true,
    };
    // A server that forgets may have its blob again from the node's repair; what counts is that present is true.
    let (known, key) = (&before.blob, &before.key);
    let present = rig.through.presence(&known.digest).await?;
    ensure!(present || !keeps, "an acknowledged blob is called missing");
    if present {
        let there = rig.direct.presence(&known.digest).await?;
        ensure!(there, "a blob is called present that Tier 2 lost");
        let read = rig.through.read(&known.digest).await;
        ensure!(read? == known.bytes, "wrong bytes of a blob of before");
    }
    match rig.through.action(&key.digest).await {
        Ok(_) => {
            let there = rig.direct.presence(&known.digest).await?;
            ensure!(there, "a hit whose output Tier 2 lost");
        }
        Err(status) if status.code() == Code::NotFound => ensure!(!keeps, "an acknowledged result is a miss"),
        Err(status) => bail!("GetActionResult: {status:?}"),
    }
    // What was refused can be done again, and is then in Tier 2.
    rig.through
        .write(&new.streamed)
        .await
        .context("Write, once more")?;
    let batch = rig.through.batch_update(&new.batched).await;
    batch.context("BatchUpdateBlobs, once more")?;
    for blob in [&new.streamed, &new.batched] {
        let read = rig.direct.read(&blob.digest).await;
        ensure!(
            read? == blob.bytes,
            "a blob written after the outage is another in Tier 2"
        );
    }
    Ok(())
}

fn refused<T>(what: &str, answer: Result<T, Status>) -> Result<()> {
    match answer {
        Err(status) if status.code() == Code::Unavailable => Ok(()),
        Err(status) => bail!("{what}: expected UNAVAILABLE, came {status:?}"),
        Ok(_) => bail!("{what}: expected UNAVAILABLE, came OK"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unavailable_counts_as_refused() {
        assert!(refused::<()>("x", Err(Status::unavailable(""))).is_ok());
        for lie in [
            Status::not_found(""),
            Status::deadline_exceeded(""),
            Status::internal(""),
        ] {
            assert!(refused::<()>("x", Err(lie)).is_err());
        }
        assert!(refused("x", Ok(())).is_err());
    }
}
