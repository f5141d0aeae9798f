//! The binary: how it starts, how it ends, and what is left when it is killed.

mod config;
mod crash;
mod crowd;
mod floods;
mod garbage;
mod proxy_profile;
mod recovery;
mod start;
mod stop;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tonic::transport::Endpoint;

use crate::client::Client;

/// Far beyond anything that is waited for here: a hang becomes a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback address of its own, so that tests that run at once never meet. Bound with port 0.
pub(crate) fn own_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let pid = std::process::id();
    format!(
        "127.{}.{}.{low}",
        64 + pid % 128,
        (pid / 128 + u32::from(high)) % 256
    )
}

/// A node to start, with a directory of its own as working directory.
struct Binary {
    dir: TempDir,
    address: String,
    variables: Vec<(&'static str, String)>,
}

impl Binary {
    /// With the embedded Tier 2.
    fn new() -> Binary {
        Binary {
            dir: tempfile::tempdir().unwrap(),
            address: own_address(),
            variables: Vec::new(),
        }
    }

    /// With a Tier 2 at an address.
    fn over(url: &str) -> Binary {
        Binary::new().set("GOREGO_TIER2_URL", url)
    }

    fn set(mut self, variable: &'static str, value: &str) -> Binary {
        self.variables.push((variable, value.to_owned()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The command, with nothing of this process' environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gorego"));
        command
            .args(arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path())
            .kill_on_drop(true);
        command
    }

    fn serve_command(&self) -> Command {
        let mut command = self.command(&["serve"]);
        let port = format!("{}:0", self.address);
        // What a test sets goes before.
        for (name, value) in [
            ("GOREGO_LISTEN_ADDR", port.as_str()),
            ("GOREGO_HTTP_ADDR", &port),
            ("GOREGO_LOG_FORMAT", "json"),
        ] {
            if !self.variables.iter().any(|(set, _)| *set == name) {
                command.env(name, value);
            }
        }
        command.stderr(Stdio::piped());
        command
    }

    /// Starts it, and waits until its ports are open.
    async fn start(&self) -> Running {
        self.started(self.serve_command()).await
    }

    /// The same where no more than so many files may be open.
    async fn start_with_files(&self, files: u32) -> Running {
        let serve = self.serve_command();
        let serve = serve.as_std();
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("ulimit -n {files} && exec \"$0\" serve")])
            .arg(serve.get_program())
            .env_clear()
            .envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(self.dir.path())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        self.started(command).await
    }

    async fn started(&self, mut command: Command) -> Running {
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut running = Running {
            child,
            lines,
            log: Vec::new(),
            grpc: String::new(),
            http: String::new(),
        };
        let listening = running.logged("listening").await;
        let address = |field: &str| listening[field].as_str().unwrap().to_owned();
        (running.grpc, running.http) = (address("grpc"), address("http"));
        running
    }
}

/// A node that runs.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// The lines so far.
    log: Vec<Value>,
    grpc: String,
    http: String,
}

impl Running {
    async fn next_line(&mut self) -> Option<&Value> {
        let next = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = next.unwrap_or_else(|_elapsed| panic!("a line of the log was due after {:?}", self.log));
        let line = line.unwrap()?;
        let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
        self.log.push(line);
        self.log.last()
    }

    /// Waits for a line of the log.
    async fn logged(&mut self, message: &str) -> Value {
        self.logged_with(message, |_| true).await
    }

    /// Waits for a line of the log of which this holds as well.
    async fn logged_with(&mut self, message: &str, also: impl Fn(&Value) -> bool) -> Value {
        let wanted = |line: &Value| line["message"] == message && also(line);
        if let Some(line) = self.log.iter().find(|line| wanted(line)) {
            return line.clone();
        }
        loop {
            match self.next_line().await {
                Some(line) if wanted(line) => return line.clone(),
                Some(_other) => {}
                None => panic!("the log ended without {message:?}: {:?}", self.log),
            }
        }
    }

    async fn client(&self) -> Client {
        self.client_of("").await
    }

    async fn client_of(&self, instance: &str) -> Client {
        let endpoint = Endpoint::new(format!("http://{}", self.grpc)).unwrap();
        Client::new(endpoint.connect().await.unwrap(), instance)
    }

    /// One value of `/metrics`, with the labels in its name.
    async fn metric(&self, name: &str) -> u64 {
        let page = self.page("/metrics").await;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Asks until a metric is as wanted. Nobody else tells when it is.
    async fn until(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        let asks = async { while !wanted(self.metric(name).await) {} };
        let asked = tokio::time::timeout(PATIENCE, asks).await;
        let last = self.metric(name).await;
        assert!(asked.is_ok() || wanted(last), "{name} is {last}");
    }

    /// Status line, head and body of a page for operators.
    async fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.http).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Memory that the process has for itself, in bytes.
    fn memory_bytes(&self) -> u64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))
            .unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// Asks until the process has given back all but so many bytes. The allocator keeps what is free for some seconds.
    async fn gives_back(&self, but_bytes: u64) -> u64 {
        let asks = async {
            while self.memory_bytes() > but_bytes {
                self.metric("gorego_flights").await;
            }
        };
        let given = tokio::time::timeout(PATIENCE, asks).await;
        let left = self.memory_bytes();
        assert!(
            given.is_ok() || left <= but_bytes,
            "{left} bytes are left, not {but_bytes}"
        );
        left
    }

    /// Ends it, and finds in its log that it ended in order and that nothing panicked.
    async fn ends_well(mut self) {
        self.signal(Signal::TERM);
        let (code, last) = self.ended().await;
        assert_eq!(code, Some(0), "{last}");
        let panics: Vec<_> = self
            .log
            .iter()
            .filter(|line| line.to_string().contains("panic"))
            .collect();
        assert!(panics.is_empty(), "{panics:?}");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end; returns the exit code, and the last line of its log.
    async fn ended(&mut self) -> (Option<i32>, Value) {
        let status = self.exited().await;
        while self.next_line().await.is_some() {}
        (status.code(), self.log.last().unwrap().clone())
    }

    async fn exited(&mut self) -> ExitStatus {
        let exit = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        exit.expect("the process did not end").unwrap()
    }

    /// As a power cut for the process.
    async fn kill(&mut self) {
        self.child.start_kill().unwrap();
        self.exited().await;
    }
}

/// The output of a command that ends by itself: exit code, standard output, standard error.
async fn output(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("the process did not end").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The names in a directory.
fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
