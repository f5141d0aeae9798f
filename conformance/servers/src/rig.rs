//! A node of ours in front of a real server, with a network between them that can be spoilt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use conformance::target::Blob;
use mock_upstream::{Forwarder, Link};
use proto::reapi::Digest;
use tokio::time::{Instant, interval, timeout};
use tonic::Code;

use crate::client::Client;
use crate::process::LOOK_EVERY;
use crate::{Node, Server};

/// Shorter than by default, so that an outage by silence costs seconds.
const FIELDS: [(&str, &str); 2] = [("tier2.first_byte_timeout", "2s"), ("tier2.stall_timeout", "2s")];
/// What a node does not do by then it does not do.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Everything that a trial works with.
#[derive(Debug)]
pub struct Rig {
    /// Tier 2.
    pub server: Server,
    pub(crate) forwarder: Forwarder,
    node: Node,
    program: PathBuf,
    dir: PathBuf,
    /// To Tier 2, past the node and the forwarder.
    pub(crate) direct: Client,
    /// To the node.
    pub(crate) through: Client,
}

impl Rig {
    /// Starts a node (`program`, with its files in `dir`) over `server`, by way of a forwarder.
    ///
    /// # Errors
    /// If any part does not get ready.
    pub async fn start(server: Server, program: &Path, dir: &Path) -> Result<Rig> {
        let target = server.address().to_string();
        let forwarder = Forwarder::start("127.0.0.1:0", target, Link::default()).await?;
        let node = Rig::node(program, dir, &forwarder).await?;
        Ok(Rig {
            direct: Client::connect(&server.url()).await?,
            through: Client::connect(&node.url()).await?,
            server,
            forwarder,
            node,
            program: program.to_owned(),
            dir: dir.to_owned(),
        })
    }

    async fn node(program: &Path, dir: &Path, forwarder: &Forwarder) -> Result<Node> {
        let url = format!("grpc://{}", forwarder.addr());
        Node::start(program, dir, Some(&url), &FIELDS).await
    }

    /// The node's address.
    #[must_use]
    pub fn node_url(&self) -> String {
        self.node.url()
    }

    /// Kills the node and starts it again in the same directory.
    pub(crate) async fn crash_node(self) -> Result<Rig> {
        self.node.kill().await?;
        let node = Rig::node(&self.program, &self.dir, &self.forwarder).await?;
        Ok(Rig {
            through: Client::connect(&node.url()).await?,
            node,
            ..self
        })
    }

    /// Returns when the node reaches Tier 2 again, and how long that took.
    pub(crate) async fn recovered(&self) -> Result<Duration> {
        let began = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        let again = async {
            loop {
                looks.tick().await;
                let nothing = Blob::random(16);
                let cas = self.through.presence(&nothing.digest).await;
                let ac = self.through.action(&nothing.digest).await;
                match (cas, ac) {
                    (Ok(false), Err(status)) if status.code() == Code::NotFound => return Ok(()),
                    (Ok(true), _) => bail!("a blob that nobody has is called present"),
                    (_, Ok(_)) => bail!("an action that nobody has is a hit"),
                    (Err(status), _) | (_, Err(status)) if status.code() == Code::Unavailable => {}
                    (cas, ac) => bail!("after an outage: FindMissing {cas:?}, GetActionResult {ac:?}"),
                }
            }
        };
        timeout(SETTLE_MAX, again)
            .await
            .with_context(|| format!("not again within {SETTLE_MAX:?}"))??;
        Ok(began.elapsed())
    }

    /// Returns when the node knows that Tier 2 is down, and how long that took: when it refuses to say what it could
    /// remember. `known` is a blob, and `key` an action with a result, that were acknowledged before.
    pub(crate) async fn noticed(&self, known: &Digest, key: &Digest) -> Result<Duration> {
        let began = Instant::now();
        let mut looks = interval(LOOK_EVERY);
        let refused = async {
            loop {
                looks.tick().await;
                let (presence, action) = (self.through.presence(known).await, self.through.action(key).await);
                let failures = [presence.as_ref().err(), action.as_ref().err()];
                for status in failures.into_iter().flatten() {
                    ensure!(
                        status.code() == Code::Unavailable,
                        "a failure is told as {status:?}"
                    );
                }
                ensure!(
                    presence.as_ref().ok() != Some(&false),
                    "a failure is told as a miss"
                );
                if presence.is_err() && action.is_err() {
                    return Ok(());
                }
            }
        };
        timeout(SETTLE_MAX, refused)
            .await
            .with_context(|| format!("an outage was not noticed within {SETTLE_MAX:?}"))??;
        Ok(began.elapsed())
    }

    /// Ends all parts; what they printed stays in their directories.
    ///
    /// # Errors
    /// If the node's end is not clean, or the server does not end.
    pub async fn end(self) -> Result<()> {
        let node = self.node.stop().await;
        self.forwarder.stop().await;
        let server = self.server.end().await;
        node.and(server)
    }
}
