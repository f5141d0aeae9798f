//! The scenarios: builds of the sample workspace through real nodes, each judged by Bazel's own execution log.

mod eviction;
mod modes;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use real_servers::Node;
use real_servers::node::LOG;
use real_servers::process::last_lines;

use crate::bazel::{Bazel, Build};
use crate::execlog::ExecutionLog;
use crate::snapshot::Snapshot;
use crate::table::{Row, Table};
use crate::upstream::{Upstream, Watched};

/// All of the sample but what is kept for the outage.
const WHOLE: &[&str] = &["//...", "-//outage/..."];
/// The part of it that has most shapes of output in few actions.
const SMOKE: &[&str] = &["//smoke/..."];
/// What is left to build when Tier 2 goes away.
const OUTAGE: &[&str] = &["//outage/..."];
const EVERYTHING: &[&str] = &["//..."];

/// Fewer cacheable actions would mean that the sample has lost its purpose.
const WHOLE_ACTIONS_MIN: usize = 100;
const SMOKE_ACTIONS_MIN: usize = 20;
/// Each costs Bazel six seconds of retries while Tier 2 is down.
const OUTAGE_ACTIONS_MAX: usize = 8;
/// More than processors: actions that wait for a retry need none.
const OUTAGE_JOBS: usize = OUTAGE_ACTIONS_MAX;

const DOWNLOAD_ALL: &str = "--remote_download_outputs=all";
const DOWNLOAD_MINIMAL: &str = "--remote_download_outputs=minimal";

/// Builds one scenario after the other and remembers their rows.
#[derive(Debug)]
pub struct Scenarios {
    bazel: Bazel,
    gorego: PathBuf,
    dir: PathBuf,
    node_dirs: BTreeSet<PathBuf>,
    /// One row per build so far.
    pub table: Table,
}

/// What every later build is compared with: the first one, which found the cache empty.
struct Reference {
    log: ExecutionLog,
    snapshot: Snapshot,
    root: PathBuf,
}

impl Scenarios {
    /// `dir` takes the nodes' directories; `gorego` is the node's program.
    #[must_use]
    pub fn new(bazel: Bazel, gorego: &Path, dir: &Path) -> Scenarios {
        Scenarios {
            bazel,
            gorego: gorego.to_owned(),
            dir: dir.to_owned(),
            node_dirs: BTreeSet::new(),
            table: Table::default(),
        }
    }

    /// The whole sample without any cache: what the other rows are to be compared with.
    ///
    /// # Errors
    /// If Bazel fails.
    pub async fn without_cache(&mut self) -> Result<()> {
        say("-", "no cache");
        self.bazel.expunge().await?;
        let build = self.bazel.run("no-cache", "test", &[], WHOLE).await?;
        self.table.push(Row::of("no cache", "-", &build, None));
        Ok(())
    }

    /// Cold, warm, and a second node, over a small part of the sample.
    ///
    /// # Errors
    /// The first claim that did not hold.
    pub async fn smoke(&mut self, upstream: &Upstream) -> Result<()> {
        let node = self.node(upstream, "a", upstream.url().as_deref(), &[]).await?;
        let reference = self.cold(upstream, &node, SMOKE, SMOKE_ACTIONS_MIN).await?;
        self.fetched("warm", upstream, &node, SMOKE, &reference, false)
            .await?;
        self.second_node(upstream, &node, SMOKE, &reference).await?;
        node.stop().await
    }

    /// All scenarios, over the whole sample.
    ///
    /// # Errors
    /// The first claim that did not hold.
    pub async fn matrix(&mut self, upstream: &Upstream) -> Result<()> {
        let Upstream::Mock(mock) = upstream else {
            bail!("the matrix needs a Tier 2 that can be suspended and tells what it was asked");
        };
        let node = self.node(upstream, "a", Some(&mock.url()), &[]).await?;
        let reference = self.cold(upstream, &node, WHOLE, WHOLE_ACTIONS_MIN).await?;

        let mark = mock.mark();
        self.fetched("warm", upstream, &node, WHOLE, &reference, false)
            .await?;
        let reads = mock.blob_reads_since(mark);
        ensure!(
            reads.is_empty(),
            "{} blobs that Tier 1 has were read from Tier 2: {reads:?}",
            reads.len()
        );

        let mark = mock.mark();
        self.second_node(upstream, &node, WHOLE, &reference).await?;
        let repeated: Vec<_> = mock
            .blob_reads_since(mark)
            .into_iter()
            .filter(|(_, times)| *times > 1)
            .collect();
        ensure!(
            repeated.is_empty(),
            "blobs that a node read from Tier 2 more than once: {repeated:?}"
        );

        node.stop_and_wipe_tier1().await?;
        let mut node = self.node(upstream, "a", Some(&mock.url()), &[]).await?;
        self.fetched("tier 1 wiped", upstream, &node, WHOLE, &reference, false)
            .await?;
        self.minimal_then_full(upstream, &node, &reference).await?;
        self.outage(upstream, mock, &mut node, &reference).await?;
        node.stop().await?;
        self.evictions(upstream, mock).await.context("evictions")?;
        self.modes(upstream, mock).await.context("tier 2 lost midway")
    }

    /// Frees what Bazel holds: its server and its output trees.
    ///
    /// # Errors
    /// If Bazel fails.
    pub async fn clean_up(&self) -> Result<()> {
        self.bazel.expunge().await
    }

    /// The end of every node's log, for whoever reads the output of CI and cannot open the files.
    pub fn print_node_logs(&self) {
        for dir in &self.node_dirs {
            if let Ok(log) = fs_err::read_to_string(dir.join(LOG)) {
                eprintln!("--- {}\n{}", dir.join(LOG).display(), last_lines(&log));
            }
        }
    }

    async fn node(
        &mut self,
        upstream: &Upstream,
        name: &str,
        tier2_url: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<Node> {
        let dir = self.dir.join(format!("{}-{name}", upstream.name()));
        self.node_dirs.insert(dir.clone());
        Node::start(&self.gorego, &dir, tier2_url, fields).await
    }

    /// The first build through fresh nodes: nothing can be a hit, everything is uploaded.
    async fn cold(
        &mut self,
        upstream: &Upstream,
        node: &Node,
        targets: &[&str],
        at_least: usize,
    ) -> Result<Reference> {
        self.bazel.expunge().await?;
        let build = self
            .build("cold", "test", upstream, node, &[DOWNLOAD_ALL], targets)
            .await?;
        build.log.require_no_hits()?;
        let cacheable = build.log.cacheable();
        ensure!(
            cacheable >= at_least,
            "only {cacheable} cacheable actions, {at_least} or more were expected"
        );
        ensure!(
            node.acknowledged_writes().await? > 0,
            "the node counted no write of a cold build"
        );
        let root = self.bazel.execution_root().await?;
        let snapshot = Snapshot::take(&root, &build.log)?;
        Ok(Reference {
            log: build.log,
            snapshot,
            root,
        })
    }

    /// After an expunge, every action that Tier 2 can give back is a hit, and every output arrives as it was. What Tier 2
    /// never gives back, a node that has seen it may: a copy of its own counts for a while. A `fresh` one cannot.
    async fn fetched(
        &mut self,
        scenario: &str,
        upstream: &Upstream,
        node: &Node,
        targets: &[&str],
        reference: &Reference,
        fresh: bool,
    ) -> Result<()> {
        self.bazel.expunge().await?;
        let build = self
            .build(scenario, "test", upstream, node, &[DOWNLOAD_ALL], targets)
            .await?;
        let forgotten = |label: &str| upstream.forgets().contains(&label);
        build.log.only(|label| !forgotten(label)).require_all_hits()?;
        if fresh {
            build.log.only(forgotten).require_no_hits()?;
        }
        build.log.require_same_outputs(&reference.log)?;
        reference
            .require_on_disk()
            .with_context(|| format!("after `{scenario}`"))
    }

    /// A node with nothing on its disk serves what another one stored, through the Tier 2 that both have; where Tier 2
    /// is the first node's own, through that node.
    async fn second_node(
        &mut self,
        upstream: &Upstream,
        first: &Node,
        targets: &[&str],
        reference: &Reference,
    ) -> Result<()> {
        let url = upstream.url().unwrap_or_else(|| first.url());
        let second = self.node(upstream, "b", Some(&url), &[]).await?;
        self.fetched(
            "second node, empty tier 1",
            upstream,
            &second,
            targets,
            reference,
            true,
        )
        .await?;
        second.stop().await
    }

    /// Outputs that were left in the cache can be had later.
    async fn minimal_then_full(
        &mut self,
        upstream: &Upstream,
        node: &Node,
        reference: &Reference,
    ) -> Result<()> {
        self.bazel.expunge().await?;
        let build = self
            .build(
                "minimal download",
                "test",
                upstream,
                node,
                &[DOWNLOAD_MINIMAL],
                WHOLE,
            )
            .await?;
        build.log.require_all_hits()?;
        build.log.require_same_outputs(&reference.log)?;
        ensure!(
            reference.require_on_disk().is_err(),
            "a minimal download left all outputs on disk"
        );
        let build = self
            .build(
                "then full download",
                "build",
                upstream,
                node,
                &[DOWNLOAD_ALL],
                WHOLE,
            )
            .await?;
        build.log.require_all_hits()?;
        // A test that passed is not looked at again, whatever is to be downloaded.
        let built = |path: &str| !path.contains("/testlogs/");
        let now = Snapshot::take(&reference.root, &reference.log)?;
        let equal = reference.snapshot.only(built).require_equal(&now.only(built));
        equal.context("after minimal, then full download")
    }

    /// Tier 2 goes away with a few actions left to build, and comes back.
    async fn outage(
        &mut self,
        upstream: &Upstream,
        mock: &Watched,
        node: &mut Node,
        reference: &Reference,
    ) -> Result<()> {
        let (contents, acknowledged) = (mock.contents(), node.acknowledged_writes().await?);
        mock.suspend().await?;
        let jobs = format!("--jobs={OUTAGE_JOBS}");
        let build = self
            .build(
                "tier 2 suspended",
                "build",
                upstream,
                node,
                &[DOWNLOAD_ALL, &jobs],
                OUTAGE,
            )
            .await?;
        let actions = build.log.spawns().len();
        ensure!(
            (1..=OUTAGE_ACTIONS_MAX).contains(&actions),
            "{actions} actions were left for the outage"
        );
        build.log.require_no_hits()?;
        ensure!(
            build.printed.contains("Remote Cache"),
            "Bazel did not notice that the cache was down"
        );
        let during = node.acknowledged_writes().await? - acknowledged;
        ensure!(
            during == 0,
            "the node acknowledged {during} writes while Tier 2 was suspended"
        );
        ensure!(mock.contents() == contents, "a suspended Tier 2 changed");

        mock.resume().await?;
        node.wait_ready().await?;
        let of_outage = |label: &str| label.starts_with("//outage");
        self.bazel.expunge().await?;
        let build = self
            .build(
                "tier 2 resumed",
                "test",
                upstream,
                node,
                &[DOWNLOAD_ALL],
                EVERYTHING,
            )
            .await?;
        build
            .log
            .only(of_outage)
            .require_no_hits()
            .context("remembered from an outage")?;
        let before = build.log.only(|label| !of_outage(label));
        before.require_all_hits()?;
        before.require_same_outputs(&reference.log)?;
        let all = build.log;
        self.bazel.expunge().await?;
        let build = self
            .build("once more", "test", upstream, node, &[DOWNLOAD_ALL], EVERYTHING)
            .await?;
        build.log.require_all_hits()?;
        build.log.require_same_outputs(&all)
    }

    async fn build(
        &mut self,
        scenario: &str,
        verb: &str,
        upstream: &Upstream,
        node: &Node,
        flags: &[&str],
        targets: &[&str],
    ) -> Result<Build> {
        say(upstream.name(), scenario);
        let mut all_flags = vec![format!("--remote_cache={}", node.url())];
        all_flags.extend(flags.iter().map(|&flag| flag.to_owned()));
        let file = format!("{}-{}", upstream.name(), scenario.replace([' ', ','], "-"));
        let before = upstream.calls(node).await?;
        let build = self.bazel.run(&file, verb, &all_flags, targets).await?;
        let calls = upstream.calls(node).await? - before;
        self.table
            .push(Row::of(scenario, upstream.name(), &build, Some(calls)));
        Ok(build)
    }
}

impl Reference {
    fn require_on_disk(&self) -> Result<()> {
        self.snapshot
            .require_equal(&Snapshot::take(&self.root, &self.log)?)
    }
}

fn say(tier2: &str, scenario: &str) {
    eprintln!("e2e: {tier2}: {scenario}");
}
