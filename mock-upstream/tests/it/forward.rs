//! The forwarder between a plain client and a mock, over TCP.

use std::io::ErrorKind;

use mock_upstream::{Digest, Forwarder, Link, Match, Mock};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::client::{Client, code};

/// A mock behind a forwarder, each test with an address of its own.
async fn line(address: &str, link: Link) -> (Mock, Forwarder, Digest) {
    let mock = Mock::builder().start_tcp(address).await.unwrap();
    let digest = mock.put_blob("", vec![7; 300_000]);
    let target = mock.addr().to_string();
    let forwarder = Forwarder::start(address, target, link).await.unwrap();
    (mock, forwarder, digest)
}

fn client(forwarder: &Forwarder) -> Client {
    let endpoint = Endpoint::new(format!("http://{}", forwarder.addr())).unwrap();
    Client::new(endpoint.connect_lazy())
}

#[tokio::test]
async fn a_good_network_carries_everything() {
    let (_mock, forwarder, digest) = line("127.8.4.1:0", Link::default()).await;
    let mut client = client(&forwarder);
    assert_eq!(client.read_blob(&digest).await.unwrap().len(), 300_000);
    let carried = forwarder.carried();
    assert!(carried.down_bytes > 300_000, "{carried:?}");
    assert_eq!((carried.connections, carried.resets), (1, 0));
    forwarder.stop().await;
    assert_ne!(code(client.read_blob(&digest).await), Code::Ok);
}

#[tokio::test]
async fn a_connection_is_reset_midway_and_the_next_one_works() {
    let link = Link {
        reset_after_down_bytes: Some(100_000),
        ..Link::default()
    };
    let (mock, forwarder, digest) = line("127.8.4.2:0", link).await;
    let mut client = client(&forwarder);
    assert_ne!(code(client.read_blob(&digest).await), Code::Ok);
    mock.finished(Match::read(&digest), 1).await;
    let carried = forwarder.carried();
    assert_eq!((carried.down_bytes, carried.resets), (100_000, 1));
    forwarder.set(Link::default());
    assert_eq!(client.read_blob(&digest).await.unwrap().len(), 300_000);
}

#[tokio::test]
async fn in_a_black_hole_a_call_does_not_arrive_until_it_ends() {
    let (mock, forwarder, digest) = line("127.8.4.3:0", Link::default()).await;
    let mut client = client(&forwarder);
    let small = mock.put_blob("", "small");
    client.read_blob(&small).await.unwrap();
    let black_hole = Link {
        black_hole: true,
        ..Link::default()
    };
    forwarder.set(black_hole);
    // The direct way to the server shows that it lives; what came by the forwarder it has not seen by then.
    let direct = Client::of(&mock).read_blob(&small).await;
    assert_eq!(direct.unwrap(), b"small");
    let end = async {
        assert_eq!(mock.calls().digest(&digest).count(), 0);
        forwarder.set(Link::default());
        mock.arrived(Match::read(&digest), 1).await;
    };
    let (read, ()) = tokio::join!(client.read_blob(&digest), end);
    assert_eq!(read.unwrap().len(), 300_000);
}

#[tokio::test]
async fn a_reset_on_command_reaches_the_client_as_one() {
    let (_mock, forwarder, _) = line("127.8.4.4:0", Link::default()).await;
    let mut socket = TcpStream::connect(forwarder.addr()).await.unwrap();
    // Settings of the server behind.
    assert!(socket.read(&mut [0; 1]).await.unwrap() > 0);
    forwarder.reset_connections();
    let error = socket.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn without_a_server_behind_it_a_connection_is_reset() {
    let forwarder = Forwarder::start("127.8.4.5:0", "127.8.4.5:1", Link::default())
        .await
        .unwrap();
    let mut socket = TcpStream::connect(forwarder.addr()).await.unwrap();
    let error = socket.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}
