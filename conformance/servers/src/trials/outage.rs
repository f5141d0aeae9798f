//! Tier 2 goes away and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conformance::target::Blob;
use mock_upstream::Link;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::{action, output};
use crate::rig::Rig;
use crate::trials::Outage;
use crate::trials::when_down::{Asked, WhenDown};

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
    let (refused, noticed, took) = during?;
    ended?;
    let again = again?;
    after(rig, outage, &before, &refused)
        .await
        .context("after the outage")?;
    Ok(format!(
        "noticed in {noticed:.0?}, then twelve answers in {took:.0?}; Tier 2 back in {started:.0?}, the node {again:.0?} later"
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

/// Every call has the answer that is due, the one that notices the outage included. Also how long it took until the node
/// knew, and the slowest answer from then on.
async fn during(rig: &Rig, before: &Before) -> Result<(Refused, Duration, Duration)> {
    let (client, mode) = (&rig.through, rig.when_down);
    let began = Instant::now();
    // Nobody can know the answers to these without Tier 2.
    let unknown = Blob::random(64).digest;
    let due = |asked| Due { mode, asked };
    due(Asked::UnknownBlob).refused(client.presence(&unknown).await)?;
    due(Asked::UnknownAction).refused(client.action(&unknown).await)?;
    rig.noticed().await?;
    let noticed = began.elapsed();

    let new = Refused {
        streamed: Blob::random(40_000),
        batched: Blob::random(900),
    };
    let (known, key) = (&before.blob.digest, &before.key.digest);
    let began = Instant::now();
    let present = client.presence(known).await;
    due(Asked::LeasedBlob).answered(present, |present| *present)?;
    due(Asked::UnknownBlob).refused(client.presence(&unknown).await)?;
    let right = |bytes: &Vec<u8>| *bytes == before.blob.bytes;
    due(Asked::KeptBytes).answered(client.read(known).await, right)?;
    let batched = client.batch_read(known).await.map(Vec::from);
    due(Asked::KeptBytes).answered(batched, right)?;
    due(Asked::OtherBytes).refused(client.read(&unknown).await)?;
    due(Asked::OtherBytes).refused(client.batch_read(&unknown).await)?;
    due(Asked::OtherBytes).refused(client.tree(&unknown).await)?;
    let result = client.action(key).await;
    due(Asked::KeptAction).answered(result, |result| output(result) == Some(known))?;
    due(Asked::UnknownAction).refused(client.action(&unknown).await)?;
    due(Asked::Write).refused(client.write(&new.streamed).await)?;
    due(Asked::Write).refused(client.batch_update(&new.batched).await)?;
    due(Asked::Write).refused(client.put_action(key, known).await)?;
    let took = began.elapsed();
    // What needs no Tier 2.
    client.capabilities().await.context("GetCapabilities")?;
    let empty = client.presence(&Blob::of("").digest).await;
    ensure!(empty?, "the empty blob is called missing");
    Ok((new, noticed, took))
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

/// What a node answers while it knows that Tier 2 is down.
struct Due {
    mode: WhenDown,
    asked: Asked,
}

impl Due {
    /// Where Tier 1 has no answer.
    fn refused<T>(self, answer: Result<T, Status>) -> Result<()> {
        self.answered(answer, |_| false)
    }

    fn answered<T>(self, answer: Result<T, Status>, is_right: impl Fn(&T) -> bool) -> Result<()> {
        let Due { mode, asked } = self;
        let due = mode.refusal(asked).unwrap_or(Code::Ok);
        match answer {
            Ok(answer) if due == Code::Ok => {
                ensure!(is_right(&answer), "{asked:?}: another answer than before");
            }
            Err(status) if due == status.code() => {}
            Ok(_) => bail!("{asked:?}: expected {due:?}, came OK"),
            Err(status) => bail!("{asked:?}: expected {due:?}, came {status:?}"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(mode: WhenDown, asked: Asked) -> Due {
        Due { mode, asked }
    }

    #[test]
    fn only_the_code_that_is_due_counts() {
        let fail = || due(WhenDown::Fail, Asked::KeptBytes);
        assert!(fail().refused::<()>(Err(Status::unavailable(""))).is_ok());
        for lie in [
            Status::not_found(""),
            Status::deadline_exceeded(""),
            Status::failed_precondition(""),
        ] {
            assert!(fail().refused::<()>(Err(lie)).is_err());
        }
        assert!(
            fail().answered(Ok(()), |()| true).is_err(),
            "a hit is refused too"
        );
        let bypass = || due(WhenDown::Bypass, Asked::Write);
        assert!(
            bypass()
                .refused::<()>(Err(Status::failed_precondition("")))
                .is_ok()
        );
        assert!(bypass().refused(Ok(())).is_err(), "acknowledged");
    }

    #[test]
    fn what_tier_1_answers_has_to_be_right() {
        let serving = || due(WhenDown::ServeTier1, Asked::LeasedBlob);
        assert!(serving().answered(Ok(true), |present| *present).is_ok());
        assert!(serving().answered(Ok(false), |present| *present).is_err());
        let refused = serving().answered::<bool>(Err(Status::unavailable("")), |_| true);
        assert!(refused.is_err());
    }
}
