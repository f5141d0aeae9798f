//! Tier 2 goes away in the middle of a cold build: what `tier2.when_down` costs that build.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::{DOWNLOAD_ALL, Scenarios, say};
use crate::bazel::Build;
use crate::grpclog::GrpcLog;
use crate::table::Row;
use crate::upstream::{Upstream, Watched};

/// Many equal actions, so that it matters little which of them are left.
const TARGETS: &[&str] = &["//lib/..."];
/// Left to build when Tier 2 goes away.
const LEFT: usize = 30;
/// More than processors, as people who use a remote cache have it.
const JOBS: &str = "--jobs=8";

impl Scenarios {
    /// With `bypass` no call of Bazel's is repeated. The times stand in the table, beside the same build without a cache and
    /// beside `fail`.
    ///
    /// # Errors
    /// The first claim that did not hold.
    pub async fn modes(&mut self, upstream: &Upstream, mock: &Watched) -> Result<()> {
        self.bazel.expunge().await?;
        say("-", "no cache, for comparison");
        let flags = [JOBS.to_owned()];
        let alone = self.bazel.run("no-cache-lib", "build", &flags, TARGETS).await?;
        self.table.push(Row::of("lib, no cache", "-", &alone, None));
        let actions = alone.log.cacheable();
        ensure!(
            actions > LEFT,
            "only {actions} actions: none are done before the outage"
        );

        let (bypassed, log) = self.cut(upstream, mock, "bypass", actions - LEFT).await?;
        let repeated = log.repeated();
        ensure!(
            repeated.is_empty(),
            "{} calls of Bazel's were made again after they failed: {repeated:?}",
            repeated.values().sum::<usize>()
        );
        ensure!(
            log.failed() > 0,
            "no call of Bazel's failed: the outage was not noticed"
        );
        let (failed, _) = self.cut(upstream, mock, "fail", actions - LEFT).await?;
        let ratio = |build: &Build| build.took.as_secs_f64() / alone.took.as_secs_f64();
        say(
            upstream.name(),
            &format!(
                "with {LEFT} actions left: bypass took {:.2} and fail {:.2} times as long as a build without a cache",
                ratio(&bypassed),
                ratio(&failed)
            ),
        );
        Ok(())
    }

    /// A cold build, during which Tier 2 goes away for good after `updates` action results.
    async fn cut(
        &mut self,
        upstream: &Upstream,
        mock: &Watched,
        mode: &str,
        updates: usize,
    ) -> Result<(Build, GrpcLog)> {
        mock.clear();
        mock.clear_log();
        let fields = [("tier2.when_down", mode)];
        let node = self.node(upstream, mode, Some(&mock.url()), &fields).await?;
        self.bazel.expunge().await?;
        let grpc_log: PathBuf = self.dir.join(format!("{mode}.grpc.log"));
        let log_flag = format!("--remote_grpc_log={}", grpc_log.display());
        let flags = [DOWNLOAD_ALL, JOBS, &log_flag];
        let scenario = format!("lib, tier 2 lost midway, {mode}");
        let build = self.build(&scenario, "build", upstream, &node, &flags, TARGETS);
        let cut = async {
            mock.updated(updates).await;
            mock.suspend().await
        };
        let (build, ()) = tokio::try_join!(build, cut)?;
        let done = mock.contents().actions();
        mock.resume().await?;
        node.stop().await?;
        build.log.require_no_hits()?;
        ensure!(
            (updates..build.log.cacheable()).contains(&done),
            "{done} action results were stored, though tier 2 went away after {updates}"
        );
        Ok((build, GrpcLog::read(&grpc_log)?))
    }
}
