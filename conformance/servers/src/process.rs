//! A server in a process of its own: started, waited for, paused, killed or asked to end, and never left behind.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, interval, timeout};

/// Lines of a server's output that an error shows.
const SHOWN_LINES: usize = 40;
/// A server that is not ready by then will not be. One in Python takes seconds by itself, and more on a busy machine.
pub(crate) const START_MAX: Duration = Duration::from_secs(60);
/// Longer than any grace period of a node that has nothing left to do.
const STOP_MAX: Duration = Duration::from_secs(40);
/// Between two looks at a server that is not ready yet.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Service {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command`; both its outputs go to the end of the file `log`.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Service> {
        let mut options = fs_err::OpenOptions::new();
        let file = options.create(true).append(true).open(log)?.into_parts().0;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name}: {:?}", command.as_std().get_program()))?;
        Ok(Service {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Everything it has printed so far.
    ///
    /// # Errors
    /// If its log cannot be read.
    pub fn printed(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs_err::read(&self.log)?).into_owned())
    }

    /// Returns once `ready` says so. Gives up if the process ends, or after a minute.
    ///
    /// # Errors
    /// If the server gives up, or `ready` does.
    pub async fn wait_until(&mut self, ready: impl AsyncFn(&Service) -> Result<bool>) -> Result<()> {
        let until = Instant::now() + START_MAX;
        let mut looks = interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} instead of getting ready:\n{}",
                    self.name,
                    last_lines(&self.printed()?)
                );
            }
            if ready(self).await? {
                return Ok(());
            }
            ensure!(
                Instant::now() < until,
                "{} was not ready after {START_MAX:?}:\n{}",
                self.name,
                last_lines(&self.printed()?)
            );
        }
    }

    /// Whether it has not ended.
    ///
    /// # Errors
    /// If the system does not know.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends SIGSTOP, and returns when all of its threads stand still, which takes a moment: its connections stay, and it
    /// says nothing until [`Service::resume`].
    ///
    /// # Errors
    /// If it has ended, or does not stand still.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let stopped = async {
            let mut looks = interval(LOOK_EVERY);
            let wanted = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
            while waitid(WaitId::Pid(self.pid()?), wanted)?.is_none() {
                looks.tick().await;
            }
            Ok(())
        };
        let stopped = timeout(STOP_MAX, stopped).await;
        stopped.with_context(|| format!("{} ignored SIGSTOP for {STOP_MAX:?}", self.name))?
    }

    /// Sends SIGCONT.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends SIGKILL, and returns when it is gone.
    ///
    /// # Errors
    /// If it had ended before.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    fn pid(&self) -> Result<Pid> {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        pid.ok_or_else(|| anyhow!("{} has ended already", self.name))
    }

    /// Sends SIGTERM and returns how it ended.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = timeout(STOP_MAX, self.child.wait()).await;
        Ok(status.with_context(|| format!("{} ignored SIGTERM for {STOP_MAX:?}", self.name))??)
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    /// If it does not end, or not with exit code 0.
    pub async fn stop(mut self) -> Result<()> {
        let status = self.terminate().await?;
        ensure!(
            status.success(),
            "{} did not end cleanly ({status}) after SIGTERM:\n{}",
            self.name,
            last_lines(&self.printed()?)
        );
        Ok(())
    }
}

/// The end of `text`, where programs say what went wrong.
#[must_use]
pub fn last_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// A loopback address that was free a moment ago: for servers that cannot tell which port they chose.
///
/// # Errors
/// If there is no free port.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// `GET path`: the status code and the body. `None` if nobody answers there, or no longer.
///
/// # Errors
/// If the answer is not HTTP.
pub async fn http_get(address: SocketAddr, path: &str) -> Result<Option<(u16, String)>> {
    let Ok(answer) = exchange(address, path).await else {
        return Ok(None);
    };
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("an answer without an end of its head")?;
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("an answer without a code")?;
    Ok(Some((code, body.to_owned())))
}

async fn exchange(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(dir: &Path, script: &str) -> Service {
        Service::start(
            "stand-in",
            Command::new("sh").args(["-c", script]),
            &dir.join("log"),
        )
        .unwrap()
    }

    #[tokio::test]
    async fn a_server_is_waited_for_by_what_it_prints_and_ends_at_sigterm() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = shell(
            dir.path(),
            "trap 'kill $!; exit 0' TERM; sleep 60 & echo ready; wait",
        );
        service
            .wait_until(async |service| Ok(service.printed()?.contains("ready")))
            .await
            .unwrap();
        service.stop().await.unwrap();
    }

    #[tokio::test]
    async fn an_unclean_end_after_sigterm_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = shell(
            dir.path(),
            "trap 'kill $!; echo dirty; exit 3' TERM; sleep 60 & echo ready; wait",
        );
        service
            .wait_until(async |service| Ok(service.printed()?.contains("ready")))
            .await
            .unwrap();
        let error = service.stop().await.unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("dirty"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_ends_early_is_reported_with_what_it_said() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = shell(dir.path(), "echo no such field >&2; exit 64");
        let error = service
            .wait_until(async |_| Ok(false))
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 64") && error.contains("no such field"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_paused_server_says_nothing_and_a_killed_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut service = shell(dir.path(), "exec sleep 60");
        let stat = format!("/proc/{}/stat", service.child.id().unwrap());
        let state = || {
            let stat = fs_err::read_to_string(&stat).unwrap_or_default();
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
        };
        service.pause().await.unwrap();
        assert_eq!(state(), Some('T'));
        let mut looks = interval(LOOK_EVERY);
        service.resume().unwrap();
        while state() == Some('T') {
            looks.tick().await;
        }
        assert!(service.child.try_wait().unwrap().is_none());
        service.kill().await.unwrap();
        assert_eq!(state(), None);
    }

    #[tokio::test]
    async fn what_a_server_prints_follows_what_the_one_before_printed() {
        let dir = tempfile::tempdir().unwrap();
        for word in ["first", "second"] {
            let mut service = shell(dir.path(), &format!("echo {word}; sleep 60"));
            let printed = async |service: &Service| Ok(service.printed()?.contains(word));
            service.wait_until(printed).await.unwrap();
            service.kill().await.unwrap();
        }
        let printed = fs_err::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(printed, "first\nsecond\n");
    }

    #[test]
    fn an_error_shows_the_end_of_the_output() {
        let text: String = (1..=100).map(|n| format!("{n}\n")).collect();
        let shown = last_lines(&text);
        assert!(
            shown.starts_with("61\n62") && shown.ends_with("99\n100"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn an_http_answer_is_split_into_code_and_body() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let answer = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream
                .write_all(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\ntier 2 is down\n")
                .await
                .unwrap();
        };
        let (got, ()) = tokio::join!(http_get(address, "/readyz"), answer);
        assert_eq!(got.unwrap(), Some((503, "tier 2 is down\n".to_owned())));
        drop(listener);
        assert_eq!(http_get(address, "/readyz").await.unwrap(), None);
    }
}
