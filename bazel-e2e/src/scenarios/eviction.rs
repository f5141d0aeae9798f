//! Tier 2 loses half of its blobs, and none of its action results, between two builds.

use anyhow::{Context, Result, ensure};

use super::{DOWNLOAD_ALL, DOWNLOAD_MINIMAL, Scenarios, say};
use crate::execlog::ExecutionLog;
use crate::upstream::{Upstream, Watched};
use real_servers::Node;

/// Chains of actions, trees, binaries that later actions run: what a client that downloads little has to fetch when an action
/// in the middle of it was lost.
const CHAINS: &[&str] = &["//smoke/...", "//gen/..."];
const CHAINS_ACTIONS_MIN: usize = 40;

const DOWNLOAD_TOPLEVEL: &str = "--remote_download_outputs=toplevel";

/// Blobs that Tier 2 had lost and that `node` gave back to it from Tier 1, so far.
async fn repaired(node: &Node) -> Result<u64> {
    let ok = |labels: &str| labels.contains("outcome=\"ok\"");
    node.counter("gorego_repairs_total", ok).await
}

/// What the node still knows and has when the second build comes.
struct Memory {
    says: &'static str,
    leases_live: bool,
    tier1_kept: bool,
}

const MEMORIES: [Memory; 3] = [
    Memory {
        says: "leases live, tier 1 kept",
        leases_live: true,
        tier1_kept: true,
    },
    Memory {
        says: "leases ended, tier 1 kept",
        leases_live: false,
        tier1_kept: true,
    },
    Memory {
        says: "leases ended, tier 1 wiped",
        leases_live: false,
        tier1_kept: false,
    },
];

impl Memory {
    /// The node's fields that make it so.
    fn fields(&self) -> [(&'static str, &'static str); 2] {
        let lease = if self.leases_live { "1h" } else { "0s" };
        [("cas.lease", lease), ("ac.lease", lease)]
    }
}

impl Scenarios {
    /// A build after the loss ends well: in every mode of downloads, whatever the node remembers. Where Bazel believes a hit
    /// whose outputs are gone, it ends with exit code 39 instead.
    ///
    /// # Errors
    /// The first claim that did not hold.
    pub async fn evictions(&mut self, upstream: &Upstream, mock: &Watched) -> Result<()> {
        mock.clear();
        let node = self.node(upstream, "cold", Some(&mock.url()), &[]).await?;
        self.bazel.expunge().await?;
        // Built and not tested: what a test leaves behind differs from run to run.
        let cold = self
            .build("cold", "build", upstream, &node, &[DOWNLOAD_ALL], CHAINS)
            .await?;
        let reference = cold.log;
        reference.require_no_hits()?;
        ensure!(
            reference.cacheable() >= CHAINS_ACTIONS_MIN,
            "only {} cacheable actions, {CHAINS_ACTIONS_MIN} or more were expected",
            reference.cacheable()
        );
        node.stop().await?;
        for memory in &MEMORIES {
            let node = self
                .node(upstream, "evicted", Some(&mock.url()), &memory.fields())
                .await?;
            let node = self.eviction(upstream, mock, node, memory, &reference).await;
            node.context(memory.says)?.stop_and_wipe_tier1().await?;
        }
        Ok(())
    }

    async fn eviction(
        &mut self,
        upstream: &Upstream,
        mock: &Watched,
        mut node: Node,
        memory: &Memory,
        reference: &ExecutionLog,
    ) -> Result<Node> {
        let says = memory.says;
        // Fills Tier 1, and makes Tier 2 whole again after the eviction before.
        self.bazel.expunge().await?;
        let scenario = format!("before, {says}");
        let _filled = self
            .build(&scenario, "build", upstream, &node, &[DOWNLOAD_ALL], CHAINS)
            .await?;
        for (half, mode) in [DOWNLOAD_MINIMAL, DOWNLOAD_TOPLEVEL].into_iter().enumerate() {
            let evicted = mock.evict_half(half);
            ensure!(evicted > 0, "nothing was evicted");
            if !memory.tier1_kept {
                node.stop_and_wipe_tier1().await?;
                let fields = memory.fields();
                node = self.node(upstream, "evicted", Some(&mock.url()), &fields).await?;
            }
            self.bazel.expunge().await?;
            let before = repaired(&node).await?;
            let (_, short) = mode.rsplit_once('=').unwrap_or_default();
            let scenario = format!("half evicted, {says}, {short}");
            let build = self
                .build(&scenario, "build", upstream, &node, &[mode], CHAINS)
                .await?;
            build.log.require_same_outputs(reference)?;
            let repaired = repaired(&node).await? - before;
            let hits = build.log.hits();
            say(
                upstream.name(),
                &format!(
                    "{evicted} blobs were evicted, {repaired} repaired from tier 1, {hits} actions were hits"
                ),
            );
            if memory.tier1_kept {
                // Tier 1 has all bytes: nothing has to be built again.
                build.log.require_all_hits()?;
                ensure!(
                    memory.leases_live || repaired > 0,
                    "nothing was repaired, though tier 1 has what tier 2 lost"
                );
            } else {
                ensure!(
                    repaired == 0,
                    "{repaired} blobs were repaired from an empty tier 1"
                );
                build.log.require_some_executed()?;
            }
        }
        Ok(node)
    }
}
