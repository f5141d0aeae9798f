//! A node without sockets: its clients and its Tier 2 are at the other ends of pipes, its Tier 1 is a directory that goes
//! with the test. With paused time a second passes only when nothing else is left to happen, disks included.

use std::fmt::Display;
use std::future::{Ready, ready};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use gorego::assemble::{Ground, Node};
use gorego::config::{self, Config};
use gorego::life::{self, Ended};
use mock_upstream::{Call, Digest, Mock, Settings, method};
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::client::Client;
use crate::pipes::{Pipes, channel_to, pipe_to};

pub(crate) const MIB: usize = 1 << 20;

/// Given to calls in flight when a node is taken down.
const GRACE: Duration = Duration::from_secs(30);

/// Begins a [`Site`].
pub(crate) struct Harness {
    fields: Vec<(&'static str, String)>,
    settings: Settings,
    embedded: bool,
}

impl Harness {
    /// A node with defaults over a mock with defaults.
    pub(crate) fn new() -> Harness {
        Harness {
            fields: Vec::new(),
            settings: Settings::default(),
            embedded: false,
        }
    }

    /// Sets a field of the configuration.
    pub(crate) fn set(mut self, field: &'static str, value: impl Display) -> Harness {
        self.fields.push((field, value.to_string()));
        self
    }

    /// Changes what the mock allows.
    pub(crate) fn mock(mut self, change: impl FnOnce(&mut Settings)) -> Harness {
        change(&mut self.settings);
        self
    }

    /// Uses the embedded Tier 2; the mock is there and never asked.
    pub(crate) fn embedded_tier2(mut self) -> Harness {
        self.embedded = true;
        self
    }

    pub(crate) async fn start(self) -> Site {
        let mock = Mock::builder()
            .settings(|settings| *settings = self.settings.clone())
            .start();
        self.start_over(mock).await
    }

    /// A node over a mock that others may be over as well. What was said of the mock is for one that is made here.
    pub(crate) async fn start_over(self, mock: Mock) -> Site {
        let dir = tempfile::tempdir().unwrap();
        let mut fields = Vec::new();
        if self.fields.iter().all(|(field, _)| *field != "tier1.dir") {
            fields.push(("tier1.dir", path_text(&dir.path().join("tier1"))));
        }
        if self.embedded {
            fields.push(("tier2.dir", path_text(&dir.path().join("tier2"))));
        } else {
            fields.push(("tier2.url", "grpc://mock:1".to_owned()));
        }
        fields.extend(self.fields);
        let config = config::load(None, std::iter::empty(), &fields).unwrap().config;
        let node = node(&config, &mock).await;
        Site {
            node,
            mock,
            config,
            dir,
        }
    }
}

async fn node(config: &Config, mock: &Mock) -> Node {
    let ground = Ground {
        connector: Some(Box::new(Pipes(mock.clone()))),
        ..Ground::default()
    };
    let node = Node::new(config, ground).await.unwrap();
    node.tier1.loaded().await;
    node
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A node with what stands around it.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) mock: Mock,
    config: Config,
    dir: TempDir,
}

impl Site {
    /// A client with a connection of its own, which uses the instance without a name.
    pub(crate) fn client(&self) -> Client {
        self.client_of("")
    }

    /// The same for an instance.
    pub(crate) fn client_of(&self, instance: &str) -> Client {
        Client::new(self.channel(), instance)
    }

    /// The client's end of a connection on which nothing was said.
    pub(crate) fn pipe(&self) -> DuplexStream {
        pipe_to(&self.node.server)
    }

    /// A connection, made when it is first used.
    pub(crate) fn channel(&self) -> Channel {
        channel_to(self.node.server.clone())
    }

    /// Makes connections to it.
    pub(crate) fn dial(&self) -> impl Fn() -> Ready<io::Result<DuplexStream>> + use<> {
        let server = self.node.server.clone();
        move || ready(Ok(pipe_to(&server)))
    }

    /// Waits until what was fetched or acknowledged is in Tier 1. Needs paused time.
    pub(crate) async fn landed(&self) {
        idle().await;
        assert!(
            self.node.running.flights.is_empty(),
            "a fetch waits for something"
        );
    }

    /// Waits until Tier 2 is known to be there.
    pub(crate) async fn tier2_is_up(&self) {
        let mut outlook = self.node.outlook.clone();
        while outlook.down_since().is_some() {
            outlook.changed().await;
        }
    }

    /// Once clients have left or fallen silent for good, no call, no upload, no fetch and no file of theirs is left. Needs
    /// paused time.
    pub(crate) async fn nothing_is_left(&self) {
        // Longer than a fetch, a commit, a resume window, and the patience with who takes nothing.
        tokio::time::sleep(Duration::from_secs(400)).await;
        self.node.tier1.settled().await;
        let metrics = &self.node.metrics;
        let calls = &metrics.calls.in_flight;
        let calls = |method| calls.with_label_values(&[method]).get();
        let left = [
            ("flights", metrics.reads.flights.get()),
            ("bad blobs", metrics.reads.bad_blobs.get()),
            ("uploads", metrics.uploads.open.get()),
            ("broken uploads", metrics.uploads.kept_for_resume.get()),
            ("staged bytes", metrics.tier1.staged_bytes.get()),
            ("writes", calls("ByteStream/Write")),
            ("reads", calls("ByteStream/Read")),
            ("batches", calls("ContentAddressableStorage/BatchUpdateBlobs")),
            ("batch reads", calls("ContentAddressableStorage/BatchReadBlobs")),
        ];
        assert!(left.iter().all(|(_, count)| *count == 0), "{left:?}");
        assert!(self.node.running.commits.is_empty() && self.node.running.flights.is_empty());
        assert_eq!(
            files_below(&self.dir.path().join("tier1/staging")),
            [""; 0].map(PathBuf::from)
        );
    }

    /// Blobs in Tier 1.
    pub(crate) fn kept(&self) -> i64 {
        self.node.metrics.tier1.blobs.get()
    }

    /// What Tier 2 was asked since [`Mock::mark`], but for its capabilities: when those are asked for is the node's affair.
    pub(crate) fn asked_since(&self, mark: u64) -> Vec<Call> {
        let calls = self.mock.calls().since(mark).into_iter();
        calls.filter(|call| call.method != method::CAPABILITIES).collect()
    }

    /// How often Tier 2 was asked for the bytes of a blob, alone or in a batch.
    pub(crate) fn upstream_reads(&self, digest: &Digest) -> usize {
        let calls = self.mock.calls().digest(digest);
        calls.clone().method(method::READ).count() + calls.method(method::BATCH_READ).count()
    }

    /// Tier 1's directory, where no other was set.
    pub(crate) fn tier1_dir(&self) -> PathBuf {
        self.dir.path().join("tier1")
    }

    /// The file of a blob in Tier 1.
    pub(crate) fn tier1_file(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.hash_hex(), digest.size_bytes());
        let files = files_below(&self.dir.path().join("tier1"));
        files.into_iter().find(|path| path.ends_with(&name)).unwrap()
    }

    /// Takes the node down as the first signal does.
    pub(crate) async fn stop(self) -> (Stopped, Ended) {
        let (signals, mut received) = mpsc::channel(1);
        signals.send(()).await.unwrap();
        let (server, stop) = (self.node.server, self.node.running.stop_edge.clone());
        let edge = async {
            stop.cancelled().await;
            server.drain(GRACE).await.cut
        };
        let ended = life::run(self.node.running, edge, &mut received, GRACE).await;
        let stopped = Stopped {
            mock: self.mock,
            config: self.config,
            dir: self.dir,
        };
        (stopped, ended)
    }
}

/// What outlives a node.
pub(crate) struct Stopped {
    mock: Mock,
    config: Config,
    dir: TempDir,
}

impl Stopped {
    /// Another node on the same directory and the same Tier 2.
    pub(crate) async fn start(self) -> Site {
        let node = node(&self.config, &self.mock).await;
        Site {
            node,
            mock: self.mock,
            config: self.config,
            dir: self.dir,
        }
    }
}

/// All files below a directory, which need not be there.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs_err::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files
}

/// Bytes without a pattern, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0; len];
    StdRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes.into()
}

/// Returns when, with paused time, nothing is left to happen but by the clock.
pub(crate) async fn idle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Whether the future is still pending after that much virtual time.
pub(crate) async fn is_pending<F: Future>(future: &mut std::pin::Pin<&mut F>, after: Duration) -> bool {
    tokio::time::timeout(after, future).await.is_err()
}
