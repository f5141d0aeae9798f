//! Bazel's execution log (`--execution_log_json_file`): what ran, where its result came from, what it made.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer};

/// How Bazel calls the runner of a spawn whose result came from the remote cache.
const REMOTE_CACHE_HIT: &str = "remote cache hit";
/// Spawns named in an error: enough to see a pattern, short enough to read.
const NAMED_MAX: usize = 8;

/// All spawns of one invocation, in the order in which they ended.
#[derive(Clone, Debug, Default)]
pub struct ExecutionLog {
    spawns: Vec<Spawn>,
}

/// One action that a build executed, or fetched instead.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
pub struct Spawn {
    /// What kind of action: `CppCompile`, `Genrule`, ...
    pub mnemonic: String,
    /// The target it belongs to.
    pub target_label: String,
    /// What executed it: `remote cache hit`, `linux-sandbox`, ...
    pub runner: String,
    /// Whether a remote cache may answer for it.
    pub remote_cacheable: bool,
    /// Its exit code.
    pub exit_code: i32,
    /// What it made, trees file by file.
    pub actual_outputs: Vec<Output>,
}

/// One file or link that a spawn made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Output {
    /// Below the execution root.
    pub path: String,
    /// Absent for links.
    pub digest: Option<OutputDigest>,
    /// Where it points, if it is a link that was not followed.
    pub symlink_target_path: String,
}

/// Hash and size as Bazel computed them.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputDigest {
    /// Hexadecimal.
    pub hash: String,
    /// Written as text, as proto's JSON mapping asks for 64-bit numbers.
    #[serde(deserialize_with = "number_or_text")]
    pub size_bytes: u64,
}

impl ExecutionLog {
    /// Reads the file that Bazel wrote: JSON objects one after another, without a list around them.
    ///
    /// # Errors
    /// If the file cannot be read, or an object in it is not a spawn.
    pub fn read(path: &Path) -> Result<ExecutionLog> {
        ExecutionLog::parse(&fs_err::read_to_string(path)?)
            .with_context(|| format!("reading Bazel's execution log {}", path.display()))
    }

    /// See [`ExecutionLog::read`].
    ///
    /// # Errors
    /// If an object is not a spawn, or the last one is cut short.
    pub fn parse(text: &str) -> Result<ExecutionLog> {
        let spawns = serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()?;
        Ok(ExecutionLog { spawns })
    }

    /// Every spawn.
    #[must_use]
    pub fn spawns(&self) -> &[Spawn] {
        &self.spawns
    }

    /// How many spawns could have come from the cache.
    #[must_use]
    pub fn cacheable(&self) -> usize {
        self.spawns.iter().filter(|spawn| spawn.remote_cacheable).count()
    }

    /// How many spawns came from the cache.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.spawns.iter().filter(|spawn| spawn.is_hit()).count()
    }

    /// Bytes of all outputs, whether or not they were downloaded.
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        let outputs = self.spawns.iter().flat_map(|spawn| &spawn.actual_outputs);
        outputs
            .filter_map(|output| output.digest.as_ref())
            .map(|digest| digest.size_bytes)
            .sum()
    }

    /// # Errors
    /// If a cacheable spawn was executed.
    pub fn require_all_hits(&self) -> Result<()> {
        let missed = self
            .spawns
            .iter()
            .filter(|spawn| spawn.remote_cacheable && !spawn.is_hit());
        let missed: Vec<_> = missed.collect();
        ensure!(
            missed.is_empty(),
            "{} of {} cacheable actions were executed instead of fetched: {}",
            missed.len(),
            self.cacheable(),
            named(&missed)
        );
        Ok(())
    }

    /// # Errors
    /// If every cacheable spawn came from the cache.
    pub fn require_some_executed(&self) -> Result<()> {
        let all = self.cacheable();
        ensure!(
            self.hits() < all,
            "all of {all} actions came from a cache that cannot have had them"
        );
        Ok(())
    }

    /// # Errors
    /// If a spawn came from the cache.
    pub fn require_no_hits(&self) -> Result<()> {
        let hits: Vec<_> = self.spawns.iter().filter(|spawn| spawn.is_hit()).collect();
        ensure!(
            hits.is_empty(),
            "{} of {} actions came from a cache that cannot have had them: {}",
            hits.len(),
            self.spawns.len(),
            named(&hits)
        );
        Ok(())
    }

    /// # Errors
    /// If this build did not have the same cacheable actions as `other`, or one of them made something else there.
    pub fn require_same_outputs(&self, other: &ExecutionLog) -> Result<()> {
        let (ours, theirs) = (self.cacheable(), other.cacheable());
        ensure!(
            ours == theirs,
            "{ours} cacheable actions, where {theirs} were expected"
        );
        let (ours, theirs) = (self.outputs(), other.outputs());
        let paths = ours.keys().chain(theirs.keys());
        let mut differing: Vec<_> = paths
            .filter(|path| ours.get(*path) != theirs.get(*path))
            .collect();
        differing.sort();
        differing.dedup();
        ensure!(differing.is_empty(), "outputs differ: {differing:?}");
        Ok(())
    }

    /// Only spawns of targets that `choose` takes.
    #[must_use]
    pub fn only(&self, choose: impl Fn(&str) -> bool) -> ExecutionLog {
        let spawns = self.spawns.iter().filter(|spawn| choose(&spawn.target_label));
        ExecutionLog {
            spawns: spawns.cloned().collect(),
        }
    }

    fn outputs(&self) -> BTreeMap<&str, (Option<&OutputDigest>, &str)> {
        let outputs = self
            .spawns
            .iter()
            .filter(|spawn| spawn.remote_cacheable)
            .flat_map(|spawn| &spawn.actual_outputs);
        outputs
            .map(|output| {
                (
                    output.path.as_str(),
                    (output.digest.as_ref(), output.symlink_target_path.as_str()),
                )
            })
            .collect()
    }
}

impl Spawn {
    /// Whether the remote cache had it.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.runner == REMOTE_CACHE_HIT
    }
}

fn named(spawns: &[&Spawn]) -> String {
    let mut names: Vec<_> = spawns
        .iter()
        .take(NAMED_MAX)
        .map(|spawn| format!("{} {} ({})", spawn.mnemonic, spawn.target_label, spawn.runner))
        .collect();
    if spawns.len() > NAMED_MAX {
        names.push("...".to_owned());
    }
    names.join(", ")
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Bazel 7 writes it, fields that we do not read left in.
    fn spawn(label: &str, runner: &str, cacheable: bool, hash: &str) -> String {
        format!(
            r#"{{
              "commandArgs": ["/bin/bash", "-c", "echo {{}} > out"],
              "listedOutputs": ["bazel-out/bin/{label}"],
              "remotable": true,
              "mnemonic": "Genrule",
              "actualOutputs": [
                {{"path": "bazel-out/bin/{label}", "digest": {{"hash": "{hash}", "sizeBytes": "7", "hashFunctionName": "SHA-256"}}}},
                {{"path": "bazel-out/bin/{label}.link", "isTool": false, "symlinkTargetPath": "no/such"}}
              ],
              "runner": "{runner}",
              "cacheHit": true,
              "exitCode": 0,
              "remoteCacheable": {cacheable},
              "targetLabel": "//gen:{label}",
              "metrics": {{"totalTime": "0.046s"}}
            }}"#
        )
    }

    #[track_caller]
    fn log(spawns: &[String]) -> ExecutionLog {
        ExecutionLog::parse(&spawns.concat()).unwrap()
    }

    #[test]
    fn objects_that_follow_each_other_without_a_list_are_read() {
        let log = log(&[
            spawn("a", "remote cache hit", true, "aa"),
            spawn("b", "linux-sandbox", true, "bb"),
            spawn("c", "local", false, "cc"),
        ]);
        assert_eq!(
            (
                log.spawns().len(),
                log.cacheable(),
                log.hits(),
                log.output_bytes()
            ),
            (3, 2, 1, 21)
        );
        assert_eq!(log.spawns()[1].target_label, "//gen:b");
        assert_eq!(log.spawns()[1].actual_outputs[1].symlink_target_path, "no/such");
    }

    #[test]
    fn an_empty_log_has_no_spawns() {
        assert_eq!(log(&[]).spawns().len(), 0);
    }

    #[test]
    fn a_log_that_is_cut_short_is_an_error() {
        let text = spawn("a", "local", true, "aa");
        assert!(ExecutionLog::parse(&text[..text.len() - 3]).is_err());
    }

    #[test]
    fn sizes_may_be_numbers_too() {
        let log = log(&[spawn("a", "local", true, "aa").replace("\"7\"", "7")]);
        assert_eq!(log.output_bytes(), 7);
    }

    #[test]
    fn only_cacheable_spawns_have_to_be_hits() {
        let hit = spawn("a", "remote cache hit", true, "aa");
        assert!(
            log(&[hit.clone(), spawn("b", "local", false, "bb")])
                .require_all_hits()
                .is_ok()
        );
        let error = log(&[hit, spawn("b", "linux-sandbox", true, "bb")])
            .require_all_hits()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 of 2 cacheable actions were executed instead of fetched: Genrule //gen:b (linux-sandbox)"
        );
    }

    #[test]
    fn a_result_of_a_disk_cache_is_no_hit() {
        assert!(
            log(&[spawn("a", "disk cache hit", true, "aa")])
                .require_all_hits()
                .is_err()
        );
    }

    #[test]
    fn a_hit_on_an_empty_cache_is_reported() {
        assert!(log(&[spawn("a", "local", true, "aa")]).require_no_hits().is_ok());
        assert!(
            log(&[spawn("a", "remote cache hit", true, "aa")])
                .require_no_hits()
                .is_err()
        );
    }

    #[test]
    fn outputs_are_compared_by_path_digest_and_link_target() {
        let cold = log(&[spawn("a", "local", true, "aa")]);
        assert!(
            log(&[spawn("a", "remote cache hit", true, "aa")])
                .require_same_outputs(&cold)
                .is_ok()
        );
        for other in [
            spawn("a", "local", true, "ab"),
            spawn("b", "local", true, "aa"),
            spawn("a", "local", true, "aa").replace("no/such", "other"),
            spawn("a", "local", false, "aa"),
        ] {
            assert!(log(&[other]).require_same_outputs(&cold).is_err());
        }
    }

    #[test]
    fn a_part_of_a_log_is_chosen_by_target() {
        let log = log(&[spawn("a", "local", true, "aa"), spawn("b", "local", true, "bb")]);
        assert_eq!(log.only(|label| label.ends_with(":b")).spawns().len(), 1);
    }
}
