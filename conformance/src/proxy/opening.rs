//! Before anything is judged: the proxy answers, and its Tier 2 is this mock. And in between: all is well again.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, bail};
use mock_upstream::{Digest, Remote};
use tokio::time::{Instant, timeout};
use tonic::Code;

use crate::faults::Call;
use crate::proxy::Run;
use crate::site::{Answer, Ask, Attached, Client, Site as _, fresh_name};
use crate::target::{Blob, Target};
use crate::upstream::{Upstream, UpstreamError};

/// How long a call takes while nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much longer than it may take a call is waited for.
const GRACE: Duration = Duration::from_secs(2);

/// How long what was written may take to reach Tier 2: a proxy that acknowledges too early is to be judged too.
const REACHES_WITHIN: Duration = Duration::from_secs(10);

/// How long the proxy may take until all works again, after the worst that was done to it.
const WELL_WITHIN: Duration = Duration::from_secs(60);

/// A reconnect takes about so long.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long each of these calls takes.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of what is written to look whether all works.
const PROBE_BYTES: usize = 100;

/// A proxy that can be judged.
pub(super) struct Opened {
    pub(super) site: Attached,
    /// Mixed into all contents.
    pub(super) salt: u64,
    /// Calls that the proxy does not offer, by its own word.
    pub(super) lacking: BTreeSet<Call>,
    /// Why nothing more can be judged.
    given_up: OnceLock<String>,
}

/// Looks who is there.
pub(super) async fn open(run: &Run, remote: Remote) -> anyhow::Result<Opened> {
    let (endpoint, control) = (&run.proxy.endpoint, remote.address().to_owned());
    let target = Target::connect_with(run.proxy.clone(), &run.instance)
        .await
        .with_context(|| format!("connecting to the proxy at {endpoint}"))?;
    let blob = Blob::random(PROBE_BYTES);
    let refused = |status| {
        anyhow::anyhow!("the proxy at {endpoint} refused a write before anything was broken: {status}")
    };
    let name = target.write_name(&blob.digest);
    let write = target.write(&name, &blob.bytes, PROBE_BYTES);
    let written = timeout(PATIENCE, write).await;
    written
        .with_context(|| format!("the proxy at {endpoint} did not answer a write within {PATIENCE:?}"))?
        .map_err(refused)?;
    let digest = Digest::of(&blob.bytes);
    let Some(instance) = reached(&remote, &digest).await? else {
        bail!(
            "what was written through the proxy at {endpoint} did not reach the mock at {control}: its Tier 2 is another server"
        );
    };
    let stranger = format!("conformance-{:08x}", rand::random::<u32>());
    let any_instance = target.at(&stranger).server_capabilities().await.is_ok();
    let salt = rand::random();
    let site = Attached::with(
        run.proxy.clone(),
        &run.instance,
        Upstream::there(remote, &instance),
    )?
    .when_down(run.arguments.when_down)
    .any_instance(any_instance)
    .patient(run.arguments.oracle().times.longest_call + GRACE)
    .salted(salt);
    let lacking = lacking(&site, &digest).await?;
    Ok(Opened {
        site,
        salt,
        lacking,
        given_up: OnceLock::new(),
    })
}

/// The instance name under which the mock has heard of the blob.
async fn reached(remote: &Remote, digest: &Digest) -> Result<Option<String>, UpstreamError> {
    let until = Instant::now() + REACHES_WITHIN;
    loop {
        let calls = remote.log(0).await?.calls.digest(digest);
        if let Some(call) = calls.first() {
            return Ok(Some(call.instance.clone()));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn lacking(site: &Attached, digest: &Digest) -> Result<BTreeSet<Call>, UpstreamError> {
    let probes = [
        (Call::Tree, Ask::GetTree { root: *digest }),
        (
            Call::Status,
            Ask::QueryWriteStatus {
                name: fresh_name(digest),
                digest: *digest,
            },
        ),
    ];
    let mut lacking = BTreeSet::new();
    for (call, ask) in probes {
        let seen = Client::of(site).ask(site, ask, PATIENCE).await?;
        if seen.code() == Some(Code::Unimplemented) {
            lacking.insert(call);
        }
    }
    Ok(lacking)
}

impl Opened {
    /// Resets the mock and waits until the proxy does all that it should again. If it does not, what is wrong; and the same
    /// at once from then on.
    pub(super) async fn made_well(&self) -> Result<Option<String>, UpstreamError> {
        if let Some(why) = self.given_up.get() {
            return Ok(Some(why.clone()));
        }
        self.site.upstream().reset().await?;
        let until = Instant::now() + WELL_WITHIN;
        loop {
            let Some(wrong) = self.wrong().await? else {
                return Ok(None);
            };
            if Instant::now() > until {
                let why =
                    format!("{WELL_WITHIN:?} after all faults were over the proxy is not well: {wrong}");
                return Ok(Some(self.given_up.get_or_init(|| why).clone()));
            }
            // A connection that was starved stays so, and may be the only one that the proxy has.
            self.site.upstream().reset_connections().await?;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn wrong(&self) -> Result<Option<String>, UpstreamError> {
        let client = Client::of(&self.site);
        let blob = Blob::random(PROBE_BYTES).bytes;
        let digest = Digest::of(&blob);
        let asks = [
            Ask::FindMissing {
                digests: vec![digest],
            },
            Ask::write(&blob),
            Ask::read(&digest),
            Ask::GetAction { key: digest },
        ];
        for ask in asks {
            let seen = client.ask(&self.site, ask, PROBE_PATIENCE).await?;
            let well = match (&seen.ask, &seen.answer) {
                (Ask::GetAction { .. }, Some(Err(status))) => status.code() == Code::NotFound,
                (Ask::Read { .. }, Some(Ok(Answer::Bytes(bytes)))) => *bytes == blob,
                (_, Some(Ok(_))) => true,
                (_, Some(Err(_)) | None) => false,
            };
            if !well {
                return Ok(Some(seen.to_string()));
            }
        }
        Ok(None)
    }
}
