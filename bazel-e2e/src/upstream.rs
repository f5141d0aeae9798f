//! What stands behind a node as Tier 2.

use std::collections::BTreeMap;

use anyhow::Result;
use mock_upstream::{Counts, Digest, Match, Mock, method};
use real_servers::{Make, Node, Server};

/// The instance name that Bazel uses when it is told none.
const INSTANCE: &str = "";
/// Calls of the mock that carry blobs out.
const READS: [&str; 2] = ["ByteStream.Read", "ContentAddressableStorage.BatchReadBlobs"];

/// One kind of Tier 2.
#[derive(Debug)]
pub enum Upstream {
    /// Our REAPI server in memory, in this process.
    Mock(Watched),
    /// The node's own.
    Embedded,
    /// A server of another make.
    Real(Box<Server>),
    /// One that runs already, at this address.
    Given(Make, String),
}

/// A mock with the questions that scenarios ask of it.
#[derive(Debug)]
pub struct Watched(Mock);

/// What a mock stores: nothing was written between two equal ones.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents {
    counts: Counts,
    blobs: Vec<Digest>,
    actions: Vec<Digest>,
}

impl Upstream {
    /// For the table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Upstream::Mock(_) => "mock-upstream",
            Upstream::Embedded => "embedded",
            Upstream::Real(server) => server.make().name(),
            Upstream::Given(make, _) => make.name(),
        }
    }

    /// Targets whose actions this server never gives back, however it is asked. A scenario fails when one of them has become a
    /// hit for a node that has seen nothing of it, so that the list stays true.
    #[must_use]
    pub fn forgets(&self) -> &'static [&'static str] {
        match self {
            Upstream::Mock(_) | Upstream::Embedded => &[],
            Upstream::Real(server) => server.make().forgets(),
            Upstream::Given(make, _) => make.forgets(),
        }
    }

    /// What the node's `tier2.url` is set to; nothing for the embedded one.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        match self {
            Upstream::Mock(mock) => Some(mock.url()),
            Upstream::Embedded => None,
            Upstream::Real(server) => Some(server.url()),
            Upstream::Given(_, url) => Some(url.clone()),
        }
    }

    /// Calls received from `node` so far: counted here if this server counts, else by the node.
    ///
    /// # Errors
    /// If the node cannot be asked.
    pub async fn calls(&self, node: &Node) -> Result<u64> {
        match self {
            Upstream::Mock(mock) => Ok(mock.mark()),
            Upstream::Embedded | Upstream::Real(_) | Upstream::Given(..) => node.tier2_calls().await,
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// If it does not end cleanly.
    pub async fn stop(self) -> Result<()> {
        match self {
            Upstream::Mock(mock) => mock.0.stop().await,
            Upstream::Embedded | Upstream::Given(..) => {}
            Upstream::Real(server) => server.end().await?,
        }
        Ok(())
    }
}

impl Contents {
    /// How many action results.
    #[must_use]
    pub fn actions(&self) -> usize {
        self.actions.len()
    }
}

impl Watched {
    /// Starts a mock on a free loopback port.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start() -> Result<Watched> {
        Ok(Watched(Mock::builder().start_tcp("127.0.0.1:0").await?))
    }

    /// What a node's `tier2.url` takes.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Calls received so far; a point in time for [`Watched::blob_reads_since`].
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.0.mark()
    }

    /// How often each blob was asked for since `mark`.
    #[must_use]
    pub fn blob_reads_since(&self, mark: u64) -> BTreeMap<Digest, usize> {
        let mut reads = BTreeMap::new();
        for call in self
            .0
            .calls()
            .since(mark)
            .iter()
            .filter(|call| READS.contains(&call.method.as_str()))
        {
            for digest in &call.digests {
                *reads.entry(*digest).or_default() += 1;
            }
        }
        reads
    }

    /// What it stores.
    #[must_use]
    pub fn contents(&self) -> Contents {
        Contents {
            counts: self.0.counts(),
            blobs: self.0.blobs(INSTANCE),
            actions: self.0.actions(INSTANCE),
        }
    }

    /// Loses about half of its blobs and no action result. Returns how many went. They are chosen by the hexadecimal digit
    /// `by` of their hashes (from 0), so that another digit chooses another half.
    #[must_use]
    pub fn evict_half(&self, by: usize) -> usize {
        let blobs = self.0.blobs(INSTANCE).into_iter();
        blobs
            .filter(|digest| digest.hash_hex().as_bytes()[by] < b'8')
            .filter(|digest| self.0.evict(INSTANCE, digest))
            .count()
    }

    /// Loses everything.
    pub fn clear(&self) {
        self.0.clear();
    }

    /// Returns when so many action results were written since the mock began or [`Watched::clear_log`] was called.
    pub async fn updated(&self, count: usize) {
        self.0.finished(Match::method(method::UPDATE_ACTION), count).await;
    }

    /// Forgets what it was asked so far.
    pub fn clear_log(&self) {
        self.0.clear_log();
    }

    /// Closes its sockets and keeps what it stores.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn suspend(&self) -> Result<()> {
        Ok(self.0.suspend().await?)
    }

    /// Accepts connections again.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn resume(&self) -> Result<()> {
        Ok(self.0.resume().await?)
    }
}
