//! One Bazel with an output tree of its own, and what a run of it left behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use real_servers::process::last_lines;
use tokio::process::Command;

use crate::execlog::ExecutionLog;

/// After so long without a command the server ends by itself, should we be killed before we can end it.
const IDLE_SECONDS: u32 = 300;

/// A Bazel that touches nothing but `dir`: neither the user's rc files nor their output trees.
#[derive(Debug)]
pub struct Bazel {
    program: PathBuf,
    workspace: PathBuf,
    dir: PathBuf,
}

/// A build that succeeded.
#[derive(Debug)]
pub struct Build {
    /// What it executed and what it fetched.
    pub log: ExecutionLog,
    /// What it printed.
    pub printed: String,
    /// From start to exit, the server's start included.
    pub took: Duration,
}

impl Bazel {
    /// `dir` takes the output trees and, per run, a log.
    #[must_use]
    pub fn new(program: &Path, workspace: &Path, dir: &Path) -> Bazel {
        Bazel {
            program: program.to_owned(),
            workspace: workspace.to_owned(),
            dir: dir.to_owned(),
        }
    }

    /// Runs `verb` (`build` or `test`) on `targets`. `name` names the run's files.
    ///
    /// # Errors
    /// If Bazel fails. The end of what it printed is part of the error.
    pub async fn run(&self, name: &str, verb: &str, flags: &[String], targets: &[&str]) -> Result<Build> {
        let log_path = self.dir.join(format!("{name}.execution.json"));
        let mut arguments = vec![
            verb.to_owned(),
            format!("--execution_log_json_file={}", log_path.display()),
        ];
        arguments.extend(["--color=no", "--curses=no", "--noshow_progress"].map(str::to_owned));
        arguments.extend_from_slice(flags);
        arguments.push("--".to_owned());
        arguments.extend(targets.iter().map(|&target| target.to_owned()));
        let (printed, took) = self.call(name, &arguments).await?;
        Ok(Build {
            log: ExecutionLog::read(&log_path)?,
            printed,
            took,
        })
    }

    /// Forgets everything built so far, and ends the server.
    ///
    /// # Errors
    /// If Bazel fails.
    pub async fn expunge(&self) -> Result<()> {
        self.call("expunge", &["clean".to_owned(), "--expunge".to_owned()])
            .await
            .map(|_| ())
    }

    /// Where the paths of the execution log begin.
    ///
    /// # Errors
    /// If Bazel fails.
    pub async fn execution_root(&self) -> Result<PathBuf> {
        let (printed, _) = self
            .call("info", &["info".to_owned(), "execution_root".to_owned()])
            .await?;
        let line = printed.lines().rev().find(|line| line.starts_with('/'));
        Ok(PathBuf::from(line.context("bazel info printed no path")?))
    }

    async fn call(&self, name: &str, arguments: &[String]) -> Result<(String, Duration)> {
        let path = self.dir.join(format!("{name}.log"));
        let file = fs_err::File::create(&path)?.into_parts().0;
        let began = Instant::now();
        let status = Command::new(&self.program)
            .args(["--nosystem_rc", "--nohome_rc"])
            .arg(format!(
                "--output_user_root={}",
                self.dir.join("output").display()
            ))
            .arg(format!("--max_idle_secs={IDLE_SECONDS}"))
            .args(arguments)
            .current_dir(&self.workspace)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .status()
            .await
            .with_context(|| format!("starting {}", self.program.display()))?;
        let took = began.elapsed();
        let printed = String::from_utf8_lossy(&fs_err::read(&path)?).into_owned();
        ensure!(
            status.success(),
            "`bazel {}` ended with {status} ({}):\n{}",
            arguments.join(" "),
            path.display(),
            last_lines(&printed)
        );
        Ok((printed, took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAND_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/bazel");

    /// A stand-in for Bazel that does what `script` says.
    fn stand_in(dir: &Path, script: &str) -> Bazel {
        fs_err::write(dir.join("stand_in.sh"), script).unwrap();
        Bazel::new(Path::new(STAND_IN), dir, dir)
    }

    #[tokio::test]
    async fn a_run_returns_the_execution_log_and_what_was_printed() {
        let dir = tempfile::tempdir().unwrap();
        let write_log = r#"for a; do case $a in --execution_log_json_file=*) echo '{"runner": "local"}' > "${a#*=}";; esac; done"#;
        let bazel = stand_in(dir.path(), &format!("{write_log}\necho \"$@\"\necho warned >&2"));
        let build = bazel
            .run("cold", "test", &["--flag".to_owned()], &["//...", "-//a:b"])
            .await
            .unwrap();
        assert_eq!(build.log.spawns()[0].runner, "local");
        assert!(
            build.printed.contains("--flag -- //... -//a:b\nwarned\n"),
            "{}",
            build.printed
        );
        assert!(
            build
                .printed
                .starts_with("--nosystem_rc --nohome_rc --output_user_root="),
            "{}",
            build.printed
        );
    }

    #[tokio::test]
    async fn a_failed_run_is_an_error_with_the_end_of_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let bazel = stand_in(dir.path(), "seq 100; echo ERROR: no such target; exit 1");
        let error = bazel
            .run("cold", "build", &[], &["//none"])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("ended with exit status: 1"), "{error}");
        assert!(error.ends_with("99\n100\nERROR: no such target"), "{error}");
        assert!(!error.contains("\n50\n"), "{error}");
    }

    #[tokio::test]
    async fn the_execution_root_is_the_path_that_info_prints() {
        let dir = tempfile::tempdir().unwrap();
        let bazel = stand_in(
            dir.path(),
            "echo 'Starting local Bazel server' >&2; echo /some/execroot/_main",
        );
        assert_eq!(
            bazel.execution_root().await.unwrap(),
            Path::new("/some/execroot/_main")
        );
    }
}
