//! One gorego node in a process of its own, with a directory of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use crate::process::{Service, free_address, http_get};

/// Calls that store something, by the end of their method's name.
const WRITES: [&str; 3] = ["/Write", "/BatchUpdateBlobs", "/UpdateActionResult"];

/// The node's log, in its directory.
pub const LOG: &str = "log";

/// A running node.
#[derive(Debug)]
pub struct Node {
    service: Service,
    grpc: SocketAddr,
    http: SocketAddr,
    dir: PathBuf,
}

impl Node {
    /// Starts `program` and returns when the node is ready. `dir` takes its configuration, its log and its tiers; what
    /// is there already is used. Without `tier2_url` the node keeps an embedded Tier 2 in `dir`. `fields` are set beside
    /// what a scenario always needs, as `("tier2.when_down", "bypass")`.
    ///
    /// # Errors
    /// If the node does not get ready.
    pub async fn start(
        program: &Path,
        dir: &Path,
        tier2_url: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<Node> {
        fs_err::create_dir_all(dir)?;
        let (grpc, http) = (free_address()?, free_address()?);
        let file = dir.join("gorego.yaml");
        fs_err::write(&file, configuration(grpc, dir, tier2_url)?)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GOREGO_"))
        {
            command.env_remove(name);
        }
        command.arg("serve").arg("--config").arg(&file);
        command
            .env("GOREGO_HTTP_ADDR", http.to_string())
            .env("GOREGO_LOG_FORMAT", "json")
            .envs(fields.iter().map(|(field, value)| (variable(field), *value)));
        let name = format!("the node in {}", dir.display());
        let mut service = Service::start(&name, &mut command, &dir.join(LOG))?;
        service
            .wait_until(async |_| {
                Ok(http_get(http, "/readyz")
                    .await?
                    .is_some_and(|(code, _)| code == 200))
            })
            .await?;
        Ok(Node {
            service,
            grpc,
            http,
            dir: dir.to_owned(),
        })
    }

    /// What Bazel's `--remote_cache` and another node's `tier2.url` take.
    #[must_use]
    pub fn url(&self) -> String {
        format!("grpc://{}", self.grpc)
    }

    /// Returns when the node says again that it is ready.
    ///
    /// # Errors
    /// If it does not within a minute.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let http = self.http;
        let ready = async |_: &Service| {
            Ok(http_get(http, "/readyz")
                .await?
                .is_some_and(|(code, _)| code == 200))
        };
        self.service.wait_until(ready).await
    }

    /// How many calls the node has made to its Tier 2 so far.
    ///
    /// # Errors
    /// If the node's metrics cannot be had.
    pub async fn tier2_calls(&self) -> Result<u64> {
        Ok(sum(&self.metrics().await?, "gorego_tier2_calls_total", |_| true))
    }

    /// How many of Tier 2's services the node takes to be up; at most two.
    ///
    /// # Errors
    /// If the node's metrics cannot be had.
    pub async fn tier2_services_up(&self) -> Result<u64> {
        Ok(sum(&self.metrics().await?, "gorego_tier2_up", |_| true))
    }

    /// How many calls that store something the node has answered with OK so far.
    ///
    /// # Errors
    /// If the node's metrics cannot be had.
    pub async fn acknowledged_writes(&self) -> Result<u64> {
        let is_write = |labels: &str| {
            let ok = labels.contains("code=\"OK\"") || labels.contains("code=\"Ok\"");
            ok && WRITES
                .iter()
                .any(|method| labels.contains(&format!("{method}\"")))
        };
        Ok(sum(&self.metrics().await?, "gorego_calls_total", is_write))
    }

    /// The sum of a counter over those of its labels that `choose` takes.
    ///
    /// # Errors
    /// If the node's metrics cannot be had, or have no counter of this name: a scenario that counts nothing proves nothing.
    pub async fn counter(&self, name: &str, choose: impl Fn(&str) -> bool) -> Result<u64> {
        let metrics = self.metrics().await?;
        let declared = format!("# TYPE {name} counter");
        ensure!(
            metrics.lines().any(|line| line == declared),
            "the node has no counter {name}"
        );
        Ok(sum(&metrics, name, choose))
    }

    /// Ends the node as an operator does, and insists on a clean end.
    ///
    /// # Errors
    /// If the node does not end, or says that its end was not clean.
    pub async fn stop(self) -> Result<()> {
        self.service.stop().await
    }

    /// Ends the node as a crash does. What is in its directory stays.
    ///
    /// # Errors
    /// If it has ended already.
    pub async fn kill(self) -> Result<()> {
        self.service.kill().await
    }

    /// Ends the node and removes its Tier 1.
    ///
    /// # Errors
    /// As [`Node::stop`].
    pub async fn stop_and_wipe_tier1(self) -> Result<()> {
        let tier1 = tier1_dir(&self.dir);
        self.stop().await?;
        Ok(fs_err::remove_dir_all(tier1)?)
    }

    async fn metrics(&self) -> Result<String> {
        let (code, body) = http_get(self.http, "/metrics")
            .await?
            .context("the node does not listen")?;
        ensure!(code == 200, "/metrics answered {code}");
        Ok(body)
    }
}

fn tier1_dir(dir: &Path) -> PathBuf {
    dir.join("tier1")
}

/// The environment variable of a field.
fn variable(field: &str) -> String {
    format!("GOREGO_{}", field.to_uppercase().replace('.', "_"))
}

/// The node's YAML file: as JSON, which is YAML with safe quoting.
fn configuration(grpc: SocketAddr, dir: &Path, tier2_url: Option<&str>) -> Result<String> {
    let tier2 = match tier2_url {
        Some(url) => serde_json::json!({ "url": url }),
        None => serde_json::json!({ "dir": dir.join("tier2") }),
    };
    let settings = serde_json::json!({
        "listen_addr": grpc.to_string(),
        "tier1": { "dir": tier1_dir(dir), "max_size": "1GiB" },
        "tier2": tier2,
    });
    Ok(serde_json::to_string_pretty(&settings)?)
}

/// Adds up the counters called `name` whose labels `choose` takes, in Prometheus' text format.
fn sum(metrics: &str, name: &str, choose: impl Fn(&str) -> bool) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        // What follows the name is its labels or nothing: not the rest of a longer name.
        let ours = labels.is_empty() || labels.starts_with('{');
        if ours && choose(labels) {
            value.parse::<u64>().ok()
        } else {
            None
        }
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_added_up_by_name_and_labels() {
        let metrics = "\
# HELP calls Calls.
# TYPE calls counter
calls{method=\"CAS/Write\",code=\"OK\"} 3
calls{method=\"CAS/Read\",code=\"OK\"} 4
calls_other{method=\"CAS/Write\"} 100
plain 5
";
        assert_eq!(sum(metrics, "calls", |_| true), 7);
        assert_eq!(sum(metrics, "calls", |labels| labels.contains("/Write\"")), 3);
        assert_eq!(sum(metrics, "plain", |_| true), 5);
        assert_eq!(sum(metrics, "none", |_| true), 0);
    }

    #[test]
    fn a_field_has_a_variable() {
        assert_eq!(variable("tier2.when_down"), "GOREGO_TIER2_WHEN_DOWN");
    }

    #[test]
    fn the_configuration_names_a_url_or_a_directory_for_tier_2() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8980));
        let remote = configuration(address, Path::new("/n"), Some("grpc://127.0.0.1:1")).unwrap();
        assert!(
            remote.contains("\"url\": \"grpc://127.0.0.1:1\"") && !remote.contains("/n/tier2"),
            "{remote}"
        );
        let embedded = configuration(address, Path::new("/n"), None).unwrap();
        assert!(
            embedded.contains("\"dir\": \"/n/tier2\"") && !embedded.contains("url"),
            "{embedded}"
        );
    }
}
