//! A node of ours in front of a real server, with a network between them that can be spoilt.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use conformance::target::Blob;
use mock_upstream::{Forwarder, Link};
use tokio::time::{Instant, interval, timeout};
use tonic::{Code, Status};

use crate::client::Client;
use crate::process::LOOK_EVERY;
use crate::trials::when_down::{Asked, WhenDown};
use crate::{Node, Server};

const FIELDS: [(&str, &str); 3] = [
    // Shorter than by default, so that an outage by silence costs seconds.
    ("tier2.first_byte_timeout", "2s"),
    ("tier2.stall_timeout", "2s"),
    // What was acknowledged before an outage is in Tier 1 when it begins.
    ("tier1.write", "sync"),
];
/// Blobs and action results, which fail apart.
const TIER2_SERVICES: u64 = 2;
/// What a node does not do by then it does not do.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Everything that a trial works with.
#[derive(Debug)]
pub struct Rig {
    /// Tier 2.
    pub server: Server,
    pub(crate) forwarder: Forwarder,
    node: Node,
    /// What the node was told.
    pub(crate) when_down: WhenDown,
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
        let when_down = WhenDown::Fail;
        let node = Rig::node(program, dir, &forwarder, when_down).await?;
        Ok(Rig {
            direct: Client::connect(&server.url()).await?,
            through: Client::connect(&node.url()).await?,
            server,
            forwarder,
            node,
            when_down,
            program: program.to_owned(),
            dir: dir.to_owned(),
        })
    }

    async fn node(program: &Path, dir: &Path, forwarder: &Forwarder, when_down: WhenDown) -> Result<Node> {
        let url = format!("grpc://{}", forwarder.addr());
        let mut fields = FIELDS.to_vec();
        fields.push(("tier2.when_down", when_down.name()));
        Node::start(program, dir, Some(&url), &fields).await
    }

    /// The node's address.
    #[must_use]
    pub fn node_url(&self) -> String {
        self.node.url()
    }

    /// Kills the node and starts it again in the same directory.
    pub(crate) async fn crash_node(self) -> Result<Rig> {
        let when_down = self.when_down;
        self.node.kill().await?;
        let node = Rig::node(&self.program, &self.dir, &self.forwarder, when_down).await?;
        Ok(Rig {
            through: Client::connect(&node.url()).await?,
            node,
            ..self
        })
    }

    /// Ends the node and starts it again in the same directory, told something else.
    pub(crate) async fn tell(self, when_down: WhenDown) -> Result<Rig> {
        self.node.stop().await?;
        let node = Rig::node(&self.program, &self.dir, &self.forwarder, when_down).await?;
        Ok(Rig {
            through: Client::connect(&node.url()).await?,
            node,
            when_down,
            ..self
        })
    }

    /// Returns when the node reaches Tier 2 again, and how long that took. Until then it answers as in an outage.
    pub(crate) async fn recovered(&self) -> Result<Duration> {
        let again = async || {
            let up = self.node.tier2_services_up().await? == TIER2_SERVICES;
            let nothing = Blob::random(16);
            let cas = self.through.presence(&nothing.digest).await;
            let ac = self.through.action(&nothing.digest).await;
            let refused = |asked, status: &Status| self.when_down.refusal(asked) == Some(status.code());
            let cas = match cas {
                Ok(false) => true,
                Err(status) if refused(Asked::UnknownBlob, &status) => false,
                answer => bail!("after an outage, FindMissingBlobs of a blob that nobody has: {answer:?}"),
            };
            let ac = match ac {
                Err(status) if status.code() == Code::NotFound => true,
                Err(status) if refused(Asked::UnknownAction, &status) => false,
                answer => bail!("after an outage, GetActionResult of an action of nobody's: {answer:?}"),
            };
            // In some modes an outage looks the same to these: only the node knows.
            Ok(up && cas && ac)
        };
        comes_true(again).await.context("the node is not itself again")
    }

    /// Returns when the node knows that Tier 2 is down.
    pub(crate) async fn noticed(&self) -> Result<()> {
        let noticed = comes_true(async || Ok(self.node.tier2_services_up().await? == 0)).await;
        noticed.context("an outage was not noticed").map(drop)
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

/// How long it takes until `so`.
async fn comes_true(so: impl AsyncFn() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    let mut looks = interval(LOOK_EVERY);
    let waited = async {
        loop {
            looks.tick().await;
            if so().await? {
                return anyhow::Ok(());
            }
        }
    };
    let waited = timeout(SETTLE_MAX, waited).await;
    waited.with_context(|| format!("not within {SETTLE_MAX:?}"))??;
    Ok(began.elapsed())
}
