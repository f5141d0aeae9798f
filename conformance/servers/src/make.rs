//! The servers that can be had, and what is particular about each: how to start it, what it keeps, what it is called.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::process::free_address;

/// The port that a server listens on in its container.
pub const CONTAINER_PORT: u16 = 8980;

/// A REAPI server of another make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Make {
    /// BuildBox's CAS daemon.
    #[value(name = "buildbox-casd")]
    Casd,
    /// The remote execution service of the BuildGrid project, set up as a cache.
    #[value(name = "buildgrid")]
    BuildGrid,
    /// The cache that many run behind Bazel.
    #[value(name = "bazel-remote")]
    BazelRemote,
}

impl Make {
    /// All of them, in the order of the table.
    pub const ALL: [Make; 3] = [Make::Casd, Make::BuildGrid, Make::BazelRemote];

    /// As it is called in the table and in the names of files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Make::Casd => "buildbox-casd",
            Make::BuildGrid => "buildgrid",
            Make::BazelRemote => "bazel-remote",
        }
    }

    /// The environment variable that names its program.
    #[must_use]
    pub fn variable(self) -> &'static str {
        match self {
            Make::Casd => "CASD",
            Make::BuildGrid => "BUILDGRID",
            Make::BazelRemote => "BAZEL_REMOTE",
        }
    }

    /// Name and tag of the image that its makers publish.
    #[must_use]
    pub fn public_image(self) -> Option<(&'static str, &'static str)> {
        match self {
            Make::BazelRemote => Some(("buchgr/bazel-remote-cache", "v2.6.2")),
            Make::Casd | Make::BuildGrid => None, // none that is a cache and no more
        }
    }

    /// Whether it has its blobs and action results again after it was killed and started.
    #[must_use]
    pub fn keeps(self) -> bool {
        match self {
            Make::Casd | Make::BazelRemote => true,
            Make::BuildGrid => false, // its storage is memory
        }
    }

    /// Bazel targets whose actions this server never gives back, however it is asked.
    #[must_use]
    pub fn forgets(self) -> &'static [&'static str] {
        match self {
            // It calls a result with a tree incomplete until each Directory in the tree is a blob of its own. Nothing asks
            // clients for that (AC-GET-05), and Bazel uploads only the tree.
            Make::Casd => &["//smoke:tree"],
            Make::BuildGrid | Make::BazelRemote => &[],
        }
    }

    /// What starts `program` as a server at `address` with everything it stores in `dir`.
    ///
    /// # Errors
    /// If its configuration cannot be written.
    pub fn command(self, program: &Path, address: SocketAddr, dir: &Path) -> Result<Command> {
        let mut command = Command::new(program);
        match self {
            Make::Casd => {
                command.args(casd_arguments(&address.to_string(), &dir.join("store")));
            }
            Make::BuildGrid => {
                let file = dir.join("buildgrid.yml");
                fs_err::write(&file, buildgrid_configuration(&address.to_string()))?;
                command.args(["server", "start"]).arg(file);
            }
            Make::BazelRemote => {
                // Its HTTP port cannot be switched off.
                let http = free_address()?;
                command.args(bazel_remote_arguments(
                    &address.to_string(),
                    &http.to_string(),
                    &dir.join("store"),
                ));
            }
        }
        Ok(command)
    }

    /// The version of `program`.
    ///
    /// # Errors
    /// If the program does not say.
    pub async fn version(self, program: &Path) -> Result<String> {
        let mut command = match self {
            Make::Casd => {
                let mut command = Command::new(program);
                command.arg("--version");
                command
            }
            Make::BuildGrid => {
                let mut command = Command::new(python_of(program)?);
                command.args([
                    "-c",
                    "import importlib.metadata as m; print(m.version('buildgrid'))",
                ]);
                command
            }
            Make::BazelRemote => return Ok("not told".to_owned()), // it has no such option
        };
        let output = command.output().await;
        let output = output.with_context(|| format!("starting {}", program.display()))?;
        ensure!(
            output.status.success(),
            "{} does not tell its version",
            program.display()
        );
        let printed =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let version = last_word(&printed);
        Ok(version.context("an empty version")?.to_owned())
    }
}

/// Of the first line that has one: programs say `NAME VERSION`, or the version alone.
fn last_word(printed: &str) -> Option<&str> {
    printed.lines().find_map(|line| line.split_whitespace().last())
}

impl fmt::Display for Make {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The Python that lies beside a program which pip installed.
pub(crate) fn python_of(program: &Path) -> Result<std::path::PathBuf> {
    let python = program.parent().map(|dir| dir.join("python"));
    let python = python.filter(|python| python.exists());
    python.with_context(|| format!("there is no python beside {}", program.display()))
}

pub(crate) fn casd_arguments(address: &str, store: &Path) -> Vec<String> {
    vec![
        format!("--bind={address}"),
        "--quota-high=4G".to_owned(),
        "--quota-low=50%".to_owned(),
        "--reserved=0".to_owned(),
        "--log-level=info".to_owned(),
        store.display().to_string(),
    ]
}

pub(crate) fn bazel_remote_arguments(grpc: &str, http: &str, store: &Path) -> Vec<String> {
    vec![
        format!("--grpc_address={grpc}"),
        format!("--http_address={http}"),
        format!("--dir={}", store.display()),
        "--max_size=4".to_owned(), // GiB
    ]
}

/// Calls that it takes at a time; it refuses more. The suite makes a thousand; its own default falls short of one build.
const BUILDGRID_CALLS_MAX: usize = 1200;

/// All in memory: what it forgets at its end is what makes it worth testing.
pub(crate) fn buildgrid_configuration(address: &str) -> String {
    format!(
        "\
server:
  - !channel
    address: \"{address}\"
    insecure-mode: true
thread-pool-size: {BUILDGRID_CALLS_MAX}
storages:
  - !lru-storage &cas
    size: 1024M
caches:
  - !lru-action-cache &ac
    storage: *cas
    max-cached-refs: 100000
    allow-updates: true
    cache-failed-actions: true
instances:
  - name: \"\"
    services:
      - !action-cache
        cache: *ac
      - !cas
        storage: *cas
      - !bytestream
        storage: *cas
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(make: Make, dir: &Path) -> Vec<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let command = make.command(Path::new("/bin/server"), address, dir).unwrap();
        let arguments = command.as_std().get_args();
        arguments
            .map(|argument| argument.to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn every_server_listens_where_it_is_told_and_stores_where_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store").display().to_string();
        let casd = arguments(Make::Casd, dir.path());
        assert!(
            casd.contains(&"--bind=127.0.0.1:7".to_owned()) && casd.contains(&store),
            "{casd:?}"
        );
        let remote = arguments(Make::BazelRemote, dir.path());
        assert!(
            remote.contains(&"--grpc_address=127.0.0.1:7".to_owned()),
            "{remote:?}"
        );
        assert!(remote.contains(&format!("--dir={store}")), "{remote:?}");
        assert_eq!(arguments(Make::BuildGrid, dir.path())[..2], ["server", "start"]);
        let written = fs_err::read_to_string(dir.path().join("buildgrid.yml")).unwrap();
        assert!(written.contains("address: \"127.0.0.1:7\""), "{written}");
    }

    #[test]
    fn a_version_is_the_last_word_of_what_a_program_says_of_itself() {
        assert_eq!(last_word("\n/usr/bin/server 1.2.3\nmore\n"), Some("1.2.3"));
        assert_eq!(last_word("0.9.1\n"), Some("0.9.1"));
        assert_eq!(last_word("\n \n"), None);
    }
}
