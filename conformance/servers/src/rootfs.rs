//! What a program needs of this machine's file system to run alone in a container: nothing is pulled, nothing installed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::{Child, Command};

use crate::make::{self, CONTAINER_PORT, Make};

/// Of a Python installation, what no server loads.
const SPARED: [&str; 5] = ["*/test", "*/idlelib", "*/config-3.*", "*.a", "*/ensurepip"];

/// A container's file system and what runs in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rootfs {
    /// Files and directories, each at the path that it has on this machine.
    paths: BTreeSet<PathBuf>,
    /// Files of the container alone, by path.
    extra: Vec<(&'static str, String)>,
    /// The program.
    pub(crate) entrypoint: String,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Its environment.
    pub(crate) environment: Vec<(&'static str, String)>,
}

impl Rootfs {
    /// For `program`, which was installed on this machine.
    ///
    /// # Errors
    /// If it cannot be found out what it needs.
    pub(crate) async fn of(make: Make, program: &Path) -> Result<Rootfs> {
        match make {
            Make::Casd | Make::BazelRemote => Rootfs::of_binary(program, arguments(make)).await,
            Make::BuildGrid => Rootfs::of_buildgrid(program).await,
        }
    }

    async fn of_binary(program: &Path, arguments: Vec<String>) -> Result<Rootfs> {
        let mut paths = libraries(&[program.to_owned()]).await?;
        paths.insert(program.to_owned());
        Ok(Rootfs {
            paths,
            extra: Vec::new(),
            entrypoint: program.display().to_string(),
            arguments,
            environment: Vec::new(),
        })
    }

    /// The whole Python, and the libraries that it and the packages' own extensions name.
    async fn of_buildgrid(program: &Path) -> Result<Rootfs> {
        let python = make::python_of(program)?;
        let asked = "import sys, sysconfig; print(sys.base_prefix); print(sys.prefix); \
                     print(sysconfig.get_path('platlib')); print(sysconfig.get_path('platstdlib'))";
        let printed = said(Command::new(&python).args(["-c", asked])).await?;
        let [base, prefix, packages, standard] = printed.lines().collect::<Vec<_>>()[..] else {
            anyhow::bail!("{} printed {printed:?}", python.display());
        };
        let mut loaded = vec![fs_err::canonicalize(&python)?];
        for dir in [
            Path::new(packages),
            &Path::new(base).join("lib"),
            Path::new(standard),
        ] {
            extensions(dir, &mut loaded)?;
        }
        let whole = [PathBuf::from(base), PathBuf::from(prefix)];
        let mut paths = libraries(&loaded).await?;
        paths.retain(|path| !whole.iter().any(|dir| path.starts_with(dir))); // nothing twice
        paths.extend(whole);
        let configuration = make::buildgrid_configuration(&everywhere());
        Ok(Rootfs {
            paths,
            extra: vec![("buildgrid.yml", configuration)],
            entrypoint: python.display().to_string(),
            arguments: arguments(Make::BuildGrid),
            environment: vec![("LD_LIBRARY_PATH", format!("{base}/lib"))],
        })
    }

    /// Starts a `tar` that writes the file system to its standard output. `stage` is an empty directory for what exists
    /// only in the container.
    ///
    /// # Errors
    /// If `stage` cannot be written, or `tar` not started.
    pub(crate) fn tar(&self, stage: &Path) -> Result<Child> {
        for dir in ["tmp", "cache"] {
            fs_err::create_dir_all(stage.join(dir))?;
        }
        for (path, text) in &self.extra {
            fs_err::write(stage.join(path), text)?;
        }
        let mut tar = Command::new("tar");
        // Files instead of links to them: what they link to may lie outside.
        tar.args([
            "--create",
            "--dereference",
            "--file=-",
            "--numeric-owner",
            "--owner=0",
            "--group=0",
        ]);
        tar.args(SPARED.map(|pattern| format!("--exclude={pattern}")));
        tar.arg("--directory=/");
        tar.args(
            self.paths
                .iter()
                .map(|path| path.strip_prefix("/").unwrap_or(path)),
        );
        tar.arg("--directory").arg(stage).arg(".");
        tar.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        tar.spawn().context("starting tar")
    }
}

/// Where a server listens in its container.
fn everywhere() -> String {
    format!("0.0.0.0:{CONTAINER_PORT}")
}

/// A server's in its container. Those of a program hold for its makers' image too: its entry point is the program.
pub(crate) fn arguments(make: Make) -> Vec<String> {
    match make {
        Make::Casd => make::casd_arguments(&everywhere(), Path::new("/cache/store")),
        Make::BuildGrid => {
            let run = "from buildgrid.server.app import cli; cli()";
            ["-c", run, "server", "start", "/buildgrid.yml"]
                .map(str::to_owned)
                .into()
        }
        Make::BazelRemote => {
            make::bazel_remote_arguments(&everywhere(), "0.0.0.0:8080", Path::new("/tmp/store"))
        }
    }
}

/// The shared libraries that the dynamic linker finds for `programs`; none for a static one.
async fn libraries(programs: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .args(programs)
        .stdin(Stdio::null())
        .output()
        .await;
    let output = output.context("starting ldd")?;
    Ok(named_by_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// `name => /path (0x…)`, and for the loader `/path (0x…)`.
fn named_by_ldd(printed: &str) -> BTreeSet<PathBuf> {
    let paths = printed.lines().filter_map(|line| {
        let found = line.split_once("=> ").map_or(line, |(_, found)| found);
        let (path, _) = found.trim().split_once(" (0x")?;
        path.starts_with('/').then(|| PathBuf::from(path))
    });
    paths.collect()
}

/// Adds the shared objects below `dir`.
fn extensions(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs_err::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            extensions(&path, found)?;
        } else if path.to_string_lossy().contains(".so") {
            found.push(path);
        }
    }
    Ok(())
}

async fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().await?;
    ensure!(
        output.status.success(),
        "{:?} ended with {}: {}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let printed = "\
/bin/a:
\tlinux-vdso.so.1 (0x00007f968f38b000)
\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f968f28b000)
\tlibnone.so => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f968f38d000)
/bin/b:
\tlibm.so.6 => /lib/x/libm.so.6 (0x00007f968f28b000)
/bin/c:
\tnot a dynamic executable
";
        let paths: Vec<_> = named_by_ldd(printed).into_iter().collect();
        assert_eq!(
            paths,
            [
                Path::new("/lib/x/libm.so.6"),
                Path::new("/lib64/ld-linux-x86-64.so.2")
            ]
        );
    }

    #[tokio::test]
    async fn a_program_comes_with_its_loader_and_at_its_own_path() {
        let dir = tempfile::tempdir().unwrap();
        let program = Path::new("/bin/sh");
        let rootfs = Rootfs::of(Make::Casd, program).await.unwrap();
        assert!(rootfs.paths.contains(program), "{rootfs:?}");
        assert!(rootfs.paths.len() > 1, "{rootfs:?}");
        let mut tar = rootfs.tar(dir.path()).unwrap();
        let mut bytes = Vec::new();
        tar.stdout.take().unwrap().read_to_end(&mut bytes).await.unwrap();
        assert!(tar.wait().await.unwrap().success());
        let has = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
        assert!(has(b"bin/sh\0") && has(b"./cache/\0"));
    }
}
