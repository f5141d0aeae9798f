use std::process::Stdio;

use mock_upstream::Digest;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tonic::transport::Endpoint;

use crate::client::{Client, part};

#[tokio::test]
async fn the_binary_prints_its_address_serves_and_ends_on_sigterm() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_mock-upstream"))
        .args(["--listen", "127.8.1.9:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let first = lines.next_line().await.unwrap().unwrap();
    let address = first
        .strip_prefix("mock-upstream listens on grpc://")
        .unwrap()
        .to_owned();

    let endpoint = Endpoint::new(format!("http://{address}")).unwrap();
    let mut client = Client::new(endpoint.connect().await.unwrap());
    let digest = Digest::of(b"content");
    client
        .write(vec![part(&digest.write_name("", "u"), 0, b"content", true)])
        .await
        .unwrap();
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"content");

    let pid = process.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert!(process.wait().await.unwrap().success());
    let last = lines.next_line().await.unwrap().unwrap();
    assert_eq!(last, "mock-upstream ends: 2 calls, 1 blobs, 0 actions");
}
