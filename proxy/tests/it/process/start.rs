use bytes::Bytes;
use mock_upstream::{Digest, Mock, method};
use tokio::net::TcpStream;
use tonic::Code;

use super::{Binary, output, own_address};
use crate::client::code;
use crate::harness::noise;

/// A mock behind a socket.
pub(super) async fn mock() -> Mock {
    let address = format!("{}:0", own_address());
    Mock::builder().start_tcp(&address).await.unwrap()
}

#[tokio::test]
async fn the_port_is_open_and_capabilities_are_told_while_tier_2_refuses_connections() {
    let mock = mock().await;
    mock.suspend().await.unwrap();
    let mut node = Binary::over(&mock.url()).start().await;
    let client = node.client().await;
    assert_eq!(client.capabilities().await.unwrap().digest_functions, [1]);
    let digest = Digest::of(b"content");
    assert_eq!(code(client.missing(&[digest]).await), Code::Unavailable);
    assert!(node.page("/livez").await.starts_with("HTTP/1.1 200"));
    mock.resume().await.unwrap();
    let of_blobs = |line: &serde_json::Value| line["service"] == "cas";
    node.logged_with("tier 2 is back", of_blobs).await;
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test]
async fn without_a_url_the_embedded_tier_2_is_used_and_a_line_says_so() {
    let binary = Binary::new();
    let mut node = binary.start().await;
    let said = "no tier2.url: using the embedded tier 2, which lives in this process and never evicts";
    let line = node.logged(said).await;
    assert_eq!(line["dir"], "gorego-data/tier2");
    let client = node.client().await;
    let blob = noise(100_000, 1);
    client.write(&blob).await.unwrap();
    assert_eq!(client.read(&Digest::of(&blob)).await.unwrap(), blob);
    let metrics = node.page("/metrics").await;
    assert!(
        metrics.contains(r#"gorego_calls_total{code="OK",method="ByteStream/Write"} 1"#),
        "{metrics}"
    );
    assert!(node.page("/readyz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_port_that_is_taken_ends_the_start_with_1_and_names_it() {
    let taken = std::net::TcpListener::bind(format!("{}:0", own_address())).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for variable in ["GOREGO_LISTEN_ADDR", "GOREGO_HTTP_ADDR"] {
        let binary = Binary::new().set(variable, &address);
        let (code, _, err) = output(binary.serve_command()).await;
        let field = variable.strip_prefix("GOREGO_").unwrap().to_lowercase();
        assert_eq!(code, Some(1), "{err}");
        let last = err.lines().last().unwrap();
        assert!(
            last.starts_with(&format!("gorego cannot start: {field}: {address}: ")),
            "{err}"
        );
    }
}

#[tokio::test]
async fn a_second_node_on_the_same_tier_1_serves_without_one() {
    let mock = mock().await;
    let first = Binary::over(&mock.url());
    let mut one = first.start().await;
    one.logged("tier 1 is loaded").await;
    let tier1 = first.path("gorego-data/tier1");
    let second = Binary::over(&mock.url()).set("GOREGO_TIER1_DIR", tier1.to_str().unwrap());
    let mut two = second.start().await;
    two.logged("tier 1 is off: another node uses its directory").await;
    let blob: Bytes = noise(200_000, 2);
    let digest = Digest::of(&blob);
    two.client().await.write(&blob).await.unwrap();
    for _ in 0..2 {
        assert!(two.client().await.read(&digest).await.unwrap() == blob);
    }
    let reads = mock.calls().method(method::READ).digest(&digest).count();
    assert_eq!(reads, 2, "each read is tier 2's");
    assert!(one.client().await.read(&digest).await.unwrap() == blob);
}

#[tokio::test]
async fn the_directory_of_an_embedded_tier_2_belongs_to_one_node() {
    let first = Binary::new();
    let mut one = first.start().await;
    one.logged("tier 1 is loaded").await;
    let tier2 = first.path("gorego-data/tier2");
    let second = Binary::new().set("GOREGO_TIER2_DIR", tier2.to_str().unwrap());
    let (code, _, err) = output(second.serve_command()).await;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("is in use by another process"), "{err}");
}

#[tokio::test]
async fn port_0_takes_free_ports_and_the_line_tells_which() {
    let binary = Binary::new();
    let node = binary.start().await;
    for address in [&node.grpc, &node.http] {
        assert!(
            address.starts_with(&binary.address) && !address.ends_with(":0"),
            "{address}"
        );
        TcpStream::connect(address).await.unwrap();
    }
    assert_ne!(node.grpc, node.http);
}
