//! What a build left on disk, so that two builds can be compared byte by byte.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::execlog::ExecutionLog;

/// Differences named in an error.
const NAMED_MAX: usize = 8;

/// Dependency files of C++ actions: Bazel reads those that come from a cache in memory and does not write them. (The
/// execution log has their digests.)
const DEPENDENCIES: &str = ".d";

/// All outputs of a build, by path below the execution root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    outputs: BTreeMap<String, Content>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// SHA-256 of a file, or of the file that a link leads to: a cache may put a copy in a link's place.
    Bytes(String),
    /// A link that leads nowhere.
    DanglingLink(PathBuf),
    Absent,
}

impl Snapshot {
    /// Reads every output that `log` names (but dependency files), and the logs of tests, from disk.
    ///
    /// # Errors
    /// If an output exists and cannot be read.
    pub fn take(execution_root: &Path, log: &ExecutionLog) -> Result<Snapshot> {
        let mut outputs = BTreeMap::new();
        let all = log.spawns().iter().flat_map(|spawn| &spawn.actual_outputs);
        for output in all.filter(|output| !output.path.ends_with(DEPENDENCIES)) {
            outputs.insert(output.path.clone(), read(&execution_root.join(&output.path))?);
            // What a test printed is no output by name: it is the standard output of its action.
            if let Some(directory) = output.path.strip_suffix("/test.xml") {
                let path = format!("{directory}/test.log");
                let content = read(&execution_root.join(&path))?;
                outputs.insert(path, content);
            }
        }
        Ok(Snapshot { outputs })
    }

    /// Only outputs whose path `choose` takes.
    #[must_use]
    pub fn only(&self, choose: impl Fn(&str) -> bool) -> Snapshot {
        let outputs = self.outputs.iter().filter(|(path, _)| choose(path));
        Snapshot {
            outputs: outputs
                .map(|(path, content)| (path.clone(), content.clone()))
                .collect(),
        }
    }

    /// # Errors
    /// If an output is absent here, or there is not the same as here.
    pub fn require_equal(&self, there: &Snapshot) -> Result<()> {
        let paths = self.outputs.keys().chain(
            there
                .outputs
                .keys()
                .filter(|path| !self.outputs.contains_key(*path)),
        );
        let differing: Vec<_> = paths
            .filter(|path| {
                let here = self.outputs.get(*path);
                here == Some(&Content::Absent) || here != there.outputs.get(*path)
            })
            .collect();
        ensure!(
            differing.is_empty(),
            "{} of {} outputs on disk are absent or differ: {:?}",
            differing.len(),
            self.outputs.len(),
            &differing[..differing.len().min(NAMED_MAX)]
        );
        Ok(())
    }
}

fn read(path: &Path) -> Result<Content> {
    let Ok(metadata) = fs_err::symlink_metadata(path) else {
        return Ok(Content::Absent);
    };
    if metadata.is_symlink() && !path.exists() {
        return Ok(Content::DanglingLink(fs_err::read_link(path)?));
    }
    Ok(Content::Bytes(hex::encode(Sha256::digest(fs_err::read(path)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(paths: &[&str]) -> ExecutionLog {
        let outputs: Vec<_> = paths
            .iter()
            .map(|path| format!(r#"{{"path": "{path}"}}"#))
            .collect();
        ExecutionLog::parse(&format!(r#"{{"actualOutputs": [{}]}}"#, outputs.join(","))).unwrap()
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs_err::write(dir.path().join(name), content).unwrap();
        }
        dir
    }

    #[track_caller]
    fn differ(cold: &tempfile::TempDir, warm: &tempfile::TempDir, paths: &[&str]) -> bool {
        let take = |dir: &tempfile::TempDir| Snapshot::take(dir.path(), &log(paths)).unwrap();
        take(cold).require_equal(&take(warm)).is_err()
    }

    #[test]
    fn equal_bytes_are_equal_and_one_changed_byte_is_not() {
        let (cold, warm) = (
            tree(&[("a", "one"), ("b", "two")]),
            tree(&[("a", "one"), ("b", "twO")]),
        );
        assert!(!differ(&cold, &warm, &["a"]));
        assert!(differ(&cold, &warm, &["a", "b"]));
    }

    #[test]
    fn an_output_that_is_absent_is_reported_also_if_it_is_absent_in_both() {
        let (cold, warm) = (tree(&[("a", "one")]), tree(&[]));
        assert!(differ(&cold, &warm, &["a"]));
        assert!(differ(&cold, &cold, &["a", "none"]));
    }

    #[test]
    fn a_link_equals_a_copy_of_what_it_leads_to_and_a_dangling_one_its_target() {
        let (cold, warm) = (tree(&[("a", "one")]), tree(&[("a", "one"), ("link", "one")]));
        fs_err::os::unix::fs::symlink("a", cold.path().join("link")).unwrap();
        fs_err::os::unix::fs::symlink("no/such", cold.path().join("dangling")).unwrap();
        fs_err::os::unix::fs::symlink("no/other", warm.path().join("dangling")).unwrap();
        assert!(!differ(&cold, &warm, &["a", "link"]));
        assert!(!differ(&cold, &cold, &["dangling"]));
        assert!(differ(&cold, &warm, &["dangling"]));
    }

    #[test]
    fn a_part_of_the_outputs_is_chosen_by_path() {
        let (cold, warm) = (tree(&[("a", "one"), ("b", "two")]), tree(&[("a", "one")]));
        let take = |dir: &tempfile::TempDir| Snapshot::take(dir.path(), &log(&["a", "b"])).unwrap();
        let only_a = |snapshot: Snapshot| snapshot.only(|path| path == "a");
        only_a(take(&cold)).require_equal(&only_a(take(&warm))).unwrap();
    }

    #[test]
    fn dependency_files_are_not_looked_for() {
        let empty = tree(&[]);
        assert!(!differ(&empty, &empty, &["a.pic.d"]));
    }

    #[test]
    fn the_log_of_a_test_is_compared_too() {
        let dir = |log| {
            let dir = tempfile::tempdir().unwrap();
            fs_err::create_dir(dir.path().join("t")).unwrap();
            fs_err::write(dir.path().join("t/test.xml"), "xml").unwrap();
            fs_err::write(dir.path().join("t/test.log"), log).unwrap();
            dir
        };
        assert!(differ(&dir("printed"), &dir("other"), &["t/test.xml"]));
        assert!(!differ(&dir("printed"), &dir("printed"), &["t/test.xml"]));
    }
}
