//! Floods: of streams, of resets, of connections. A client beside them is served.

use bytes::Bytes;
use mock_upstream::{Digest, Mock, method};
use proto::bytestream::ReadRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::start::mock;
use super::{Binary, Running};
use crate::client::Client;
use crate::harness::{MIB, noise};
use crate::wire::{self, READ, RST_STREAM, WRITE};

async fn greeted(node: &Running) -> TcpStream {
    let mut socket = TcpStream::connect(&node.grpc).await.unwrap();
    socket.write_all(&wire::greeting(&[])).await.unwrap();
    socket
}

fn cold(mock: &Mock, seed: u64) -> (Digest, Bytes) {
    let blob = noise(200_000, seed);
    (mock.put_blob("", blob.clone()), blob)
}

/// Reads what is cold, and writes.
async fn is_served(client: &Client, mock: &Mock, seed: u64) {
    let (digest, blob) = cold(mock, seed);
    assert!(client.read(&digest).await.unwrap() == blob);
    let fresh = noise(100_000, 1000 + seed);
    client.write(&fresh).await.unwrap();
    assert!(mock.blob("", &Digest::of(&fresh)).is_some(), "P1");
}

#[tokio::test]
async fn rapid_resets_cost_one_fetch_and_leave_the_node_to_the_others() {
    // P7, P8: streams opened and reset in one breath, which is CVE-2023-44487.
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    let blob = noise(MIB, 1);
    let digest = mock.put_blob("", blob.clone());
    let request = wire::message(&ReadRequest {
        resource_name: digest.read_name(""),
        ..Default::default()
    });
    let before = node.memory_bytes();
    for _ in 0..5 {
        let (mut hear, mut say) = greeted(&node).await.into_split();
        let resets = async {
            for stream in (1..).step_by(2).take(4000) {
                let call = wire::call(stream, READ);
                let reset = wire::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
                let said = [call, wire::body(stream, &request, 1000), reset].concat();
                // The node may have had enough of it.
                if say.write_all(&said).await.is_err() {
                    return;
                }
            }
            let _gone = say.shutdown().await;
        };
        let mut heard = Vec::new();
        let (_end, ()) = tokio::join!(hear.read_to_end(&mut heard), resets);
    }
    is_served(&client, &mock, 2).await;
    assert!(client.read(&digest).await.unwrap() == blob);
    assert!(
        mock.calls().method(method::READ).digest(&digest).count() <= 1 + 5,
        "P7"
    );
    node.until(r#"gorego_calls_in_flight{method="ByteStream/Read"}"#, |calls| {
        calls == 0
    })
    .await;
    node.until("gorego_flights", |flights| flights == 0).await;
    let grown = node.memory_bytes().saturating_sub(before);
    eprintln!("memory: {} KiB more after 20,000 resets", grown / 1024);
    assert!(grown < 64 * MIB as u64, "{grown}");
    drop(client);
    node.ends_well().await;
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_take_nothing() {
    // P8
    let mock = mock().await;
    let binary = Binary::over(&mock.url()).set("GOREGO_LIMITS_MAX_STREAMS", "100");
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    let mut flood = greeted(&node).await;
    for stream in (1..).step_by(2).take(5000) {
        // A node that has had enough closes the connection.
        if flood.write_all(&wire::call(stream, WRITE)).await.is_err() {
            break;
        }
    }
    is_served(&client, &mock, 1).await;
    let in_flight = r#"gorego_calls_in_flight{method="ByteStream/Write"}"#;
    assert!(node.metric(in_flight).await <= 100);
    drop(flood);
    node.until(in_flight, |calls| calls == 0).await;
    drop(client);
    node.ends_well().await;
}

#[tokio::test]
async fn connections_to_the_pages_keep_no_probe_out() {
    // P8
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let mut flood = Vec::new();
    for number in 0..1000 {
        let mut socket = TcpStream::connect(&node.http).await.unwrap();
        if number % 2 == 0 {
            socket
                .write_all(b"GET /metrics HTTP/1.1\r\nhost: n")
                .await
                .unwrap();
        }
        flood.push(socket);
    }
    for page in ["/livez", "/readyz", "/metrics"] {
        assert!(node.page(page).await.starts_with("HTTP/1.1 200"), "{page}");
    }
    let pid = node.child.id().unwrap();
    let files = fs_err::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(files < 200, "{files} files are open");
    drop(flood);
    node.ends_well().await;
}

#[tokio::test]
async fn a_flood_of_connections_leaves_files_to_the_disk_and_to_tier_2() {
    // P8, P10
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start_with_files(256).await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    client.capabilities().await.unwrap();
    let mut flood = Vec::new();
    // More than may be served; a queue in the kernel takes the rest.
    for _ in 0..180 {
        flood.push(greeted(&node).await);
    }
    // Its Tier 2 connections are made now, and the files of Tier 1.
    is_served(&client, &mock, 1).await;
    node.until("gorego_tier1_blobs", |blobs| blobs == 2).await;
    assert!(node.page("/livez").await.starts_with("HTTP/1.1 200"));
    assert_eq!(node.metric(r#"gorego_tier1_errors_total{op="write"}"#).await, 0);
    drop(flood);
    let newcomer = node.client().await;
    is_served(&newcomer, &mock, 2).await;
    drop((client, newcomer));
    node.ends_well().await;
}
