use std::process::Stdio;

use mock_upstream::Digest;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic::Code;
use tonic::transport::Endpoint;

use crate::client::{Client, code, part};
use crate::http::Http;

struct Process {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(args: &[&str]) -> Process {
        let mut process = Command::new(env!("CARGO_BIN_EXE_mock-upstream"))
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Process { process, lines }
    }

    /// What follows these words in the next line.
    async fn says(&mut self, words: &str) -> String {
        let line = self.lines.next_line().await.unwrap().unwrap();
        line.strip_prefix(words)
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    }

    async fn terminate(&mut self) {
        let pid = self.process.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-TERM", &pid]).status().await;
        assert!(kill.unwrap().success());
        assert!(self.process.wait().await.unwrap().success());
    }
}

async fn connect(address: &str) -> Client {
    let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn the_binary_prints_its_address_serves_and_ends_on_sigterm() {
    let mut process = Process::start(&["--listen", "127.8.1.9:0"]);
    let address = process.says("mock-upstream listens on grpc://").await;
    let mut client = connect(&address).await;
    let digest = Digest::of(b"content");
    client
        .write(vec![part(&digest.write_name("", "u"), 0, b"content", true)])
        .await
        .unwrap();
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"content");
    process.terminate().await;
    let end = process.says("mock-upstream ends: ").await;
    assert_eq!(end, "2 calls, 1 blobs, 0 actions");
}

#[tokio::test]
async fn presets_rules_and_the_control_port_are_there_from_the_command_line() {
    let file = std::env::temp_dir().join(format!("mock-upstream-rules-{}.toml", std::process::id()));
    let rule = "[[rule]]\nname = \"first\"\nact = { status = { code = \"ABORTED\" } }\ntimes = 1\n";
    fs_err::write(&file, rule).unwrap();
    let path = file.to_str().unwrap();
    let address = "127.8.1.10:0";
    let args = ["--listen", address, "--control", address];
    let faults = ["--preset", "flaky", "--seed", "7", "--rules", path];
    let mut process = Process::start(&[&args[..], &faults[..]].concat());
    let address = process.says("mock-upstream listens on grpc://").await;
    let http = Http(
        process
            .says("mock-upstream is controlled on http://")
            .await
            .parse()
            .unwrap(),
    );
    fs_err::remove_file(&file).unwrap();

    let rules = http.json("GET", "/rules", "").await;
    let names: Vec<_> = rules
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| &rule["rule"]["name"])
        .collect();
    assert_eq!(names.len(), 6);
    assert_eq!((names[0], names[5]), (&json!("flaky-status"), &json!("first")));
    // All but the last rule are taken back, one by one.
    for rule in &rules.as_array().unwrap()[..5] {
        http.json("DELETE", &format!("/rules/{}", rule["id"]), "").await;
    }
    let mut client = connect(&address).await;
    let digest = Digest::of(b"content");
    assert_eq!(code(client.read_blob(&digest).await), Code::Aborted);
    http.ask("PUT", "/blobs", b"content").await;
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"content");
    let calls = http
        .json("GET", "/calls/wait?on=ByteStream.Read&count=2&state=finished", "")
        .await;
    assert_eq!(calls[0]["fired"][0]["name"], "first");
    assert_eq!(
        (&calls[1]["fired"], &calls[1]["bytes_sent"]),
        (&json!([]), &json!(7))
    );
    process.terminate().await;
}

#[tokio::test]
async fn the_binary_forwards_over_a_network_that_breaks_on_command() {
    let mut server = Process::start(&["--listen", "127.8.1.11:0"]);
    let target = server.says("mock-upstream listens on grpc://").await;
    let args = [
        "forward",
        "--listen",
        "127.8.1.11:0",
        "--control",
        "127.8.1.11:0",
        "--to",
        &target,
    ];
    let mut forward = Process::start(&args);
    let address = forward.says("mock-upstream forwards from ").await;
    let http = Http(
        forward
            .says("mock-upstream is controlled on http://")
            .await
            .parse()
            .unwrap(),
    );
    let mut client = connect(&address).await;
    let digest = Digest::of(b"content");
    assert_eq!(code(client.read_blob(&digest).await), Code::NotFound);
    let link = http
        .json("PUT", "/link", r#"{"reset_after_down_bytes": 0}"#)
        .await;
    assert_eq!(link["reset_after_down_bytes"], 0);
    assert_ne!(code(client.read_blob(&digest).await), Code::NotFound);
    http.json("PUT", "/link", "{}").await;
    assert_eq!(
        code(connect(&address).await.read_blob(&digest).await),
        Code::NotFound
    );
    let state = http.json("GET", "/", "").await;
    assert_eq!(
        (&state["carried"]["connections"], &state["carried"]["resets"]),
        (&json!(2), &json!(1))
    );
    forward.terminate().await;
    server.terminate().await;
}
