//! A whole node between pipes: its clients and its Tier 2 at their other ends, its Tier 1 in a directory that goes with it.
//! In a runtime whose time is paused ten seconds cost nothing, and one that hangs is found out at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use conformance::Upstream;
use conformance::faults::Ground;
use conformance::site::{DiskTrouble, NotOffered, Site, Spoil, WhenDown};
use gorego::assemble::{self, Node};
use gorego::{config, life};
use mock_upstream::{Digest, Mock};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::disk::FailingDisk;
use crate::pipes::{Pipes, channel_to};

/// Given to calls in flight when a node is taken down.
const GRACE: Duration = Duration::from_secs(30);

/// Nodes with a configuration of defaults but for one field.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) when_down: WhenDown,
}

impl Nodes {
    pub(crate) async fn node(&self, mock: Mock) -> NodeSite {
        let dir = tempfile::tempdir().unwrap();
        let disk = FailingDisk::new();
        let node = self.on(dir.path(), &disk, &mock).await;
        NodeSite {
            nodes: *self,
            upstream: mock.into(),
            dir,
            disk,
            node: Mutex::new(Some(node)),
        }
    }

    async fn on(&self, dir: &Path, disk: &FailingDisk, mock: &Mock) -> Node {
        let fields = [
            ("tier1.dir", dir.join("tier1").to_str().unwrap().to_owned()),
            ("tier2.url", "grpc://mock:1".to_owned()),
            ("tier2.when_down", self.when_down.name().to_owned()),
        ];
        let config = config::load(None, std::iter::empty(), &fields).unwrap().config;
        let ground = assemble::Ground {
            disk: Arc::new(disk.clone()),
            connector: Some(Box::new(Pipes(mock.clone()))),
            ..assemble::Ground::default()
        };
        let node = Node::new(&config, ground).await.unwrap();
        node.tier1.loaded().await;
        node
    }
}

#[async_trait]
impl Ground for Nodes {
    async fn start(&self, upstream: Upstream, when_down: WhenDown) -> Box<dyn Site> {
        let mock = upstream.mock().unwrap().clone();
        Box::new(Nodes { when_down }.node(mock).await)
    }
}

/// A node with what stands around it.
pub(crate) struct NodeSite {
    nodes: Nodes,
    upstream: Upstream,
    dir: TempDir,
    disk: FailingDisk,
    /// `None` between two.
    node: Mutex<Option<Node>>,
}

impl NodeSite {
    fn with<T>(&self, look: impl FnOnce(&Node) -> T) -> T {
        look(self.node.lock().as_ref().unwrap())
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        let name = format!("{}-{}", digest.hash_hex(), digest.size_bytes());
        let found = files_below(self.dir.path())
            .into_iter()
            .find(|path| path.ends_with(&name));
        found.unwrap()
    }
}

#[async_trait]
impl Site for NodeSite {
    fn channel(&self) -> Channel {
        channel_to(self.with(|node| node.server.clone()))
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn takes_any_instance(&self) -> bool {
        true
    }

    fn when_down(&self) -> WhenDown {
        self.nodes.when_down
    }

    fn has_virtual_time(&self) -> bool {
        true
    }

    async fn settled(&self) -> Result<(), NotOffered> {
        // A moment of paused time passes only when nothing else is left to happen.
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.with(|node| node.tier1.clone()).settled().await;
        Ok(())
    }

    async fn restart(&self) -> Result<(), NotOffered> {
        let (signals, mut received) = mpsc::channel(1);
        signals.send(()).await.unwrap();
        let node = self.node.lock().take().unwrap();
        let (server, stop) = (node.server, node.running.stop_edge.clone());
        let edge = async {
            stop.cancelled().await;
            server.drain(GRACE).await.cut
        };
        life::run(node.running, edge, &mut received, GRACE).await;
        let node = self
            .nodes
            .on(self.dir.path(), &self.disk, self.upstream.mock().unwrap())
            .await;
        *self.node.lock() = Some(node);
        Ok(())
    }

    async fn spoil(&self, digest: &Digest, how: Spoil) -> Result<(), NotOffered> {
        let file = self.file(digest);
        let mut bytes = fs_err::read(&file).unwrap();
        let middle = bytes.len() / 2;
        match how {
            Spoil::FlipBit => {
                bytes[middle] ^= 1;
                fs_err::write(&file, bytes).unwrap();
            }
            Spoil::Truncate => fs_err::write(&file, &bytes[..middle]).unwrap(),
            Spoil::Lose => fs_err::remove_file(&file).unwrap(),
        }
        Ok(())
    }

    async fn trouble(&self, trouble: DiskTrouble) -> Result<(), NotOffered> {
        self.disk.trouble(trouble);
        Ok(())
    }

    fn metric(&self, name: &str) -> Result<f64, NotOffered> {
        let text = self.with(|node| node.metrics.render().unwrap());
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let named = lines.filter(|(found, _)| found.split('{').next() == Some(name));
        Ok(named.map(|(_, value)| value.parse::<f64>().unwrap()).sum())
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut files, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(&dir).unwrap() {
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
