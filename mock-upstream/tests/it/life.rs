use std::io::ErrorKind;

use mock_upstream::{After, Digest, Match, Mock, Outcome};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::client::{Client, code, part};

/// Every test has an address of its own: a port that one has closed must not be opened by another.
async fn over_tcp(mock: &Mock) -> Client {
    let endpoint = Endpoint::new(format!("http://{}", mock.addr())).unwrap();
    Client::new(endpoint.connect().await.unwrap())
}

#[tokio::test]
async fn suspend_cuts_calls_and_refuses_connections_and_resume_serves_the_same_contents() {
    let mock = Mock::builder().start_tcp("127.8.1.1:0").await.unwrap();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::read(&digest), After::Bytes(3));
    let mut client = over_tcp(&mock).await;
    let address = mock.addr();
    for round in 1..=3 {
        let suspend = async {
            gate.reached_by(round).await;
            mock.suspend().await.unwrap();
        };
        let (read, ()) = tokio::join!(client.read_blob(&digest), suspend);
        assert_ne!(code(read), Code::Ok);
        let cut = mock.calls();
        assert_eq!(cut.last().unwrap().outcome, Outcome::Suspended);
        assert_eq!(
            TcpStream::connect(address).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        assert_eq!(mock.connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
        mock.resume().await.unwrap();
        assert_eq!(mock.addr(), address);
        drop(TcpStream::connect(address).await.unwrap());
    }
    gate.release();
    assert_eq!(
        over_tcp(&mock).await.read_blob(&digest).await.unwrap(),
        b"content"
    );
    mock.stop().await;
    assert_eq!(
        TcpStream::connect(address).await.unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_through_memory_connects_again_after_a_suspension() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let mut client = Client::of(&mock);
    client.read_blob(&digest).await.unwrap();
    mock.suspend().await.unwrap();
    assert_eq!(code(client.read_blob(&digest).await), Code::Unavailable);
    mock.suspend().await.unwrap();
    mock.resume().await.unwrap();
    mock.resume().await.unwrap();
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_partial_upload_outlives_a_suspension_and_is_resumed() {
    // BS-WRITE-22, BS-QWS-01
    let mock = Mock::builder().start_tcp("127.8.1.2:0").await.unwrap();
    let digest = Digest::of(b"0123456789");
    let name = digest.write_name("", "u");
    let gate = mock.hold(Match::write(&digest), After::Bytes(4));
    let mut client = over_tcp(&mock).await;
    let suspend = async {
        gate.reached().await;
        mock.suspend().await.unwrap();
        gate.release();
    };
    let (write, ()) = tokio::join!(client.write(vec![part(&name, 0, b"0123", false)]), suspend);
    assert_ne!(code(write), Code::Ok);
    mock.resume().await.unwrap();
    let mut client = over_tcp(&mock).await;
    assert_eq!(client.write_status(&name).await.unwrap(), (4, false));
    assert_eq!(
        client.write(vec![part(&name, 4, b"456789", true)]).await.unwrap(),
        10
    );
    assert_eq!(client.write_status(&name).await.unwrap(), (10, true));
    assert_eq!(mock.blob("", &digest).unwrap(), "0123456789");
}

#[tokio::test]
async fn the_last_handle_dropped_closes_everything() {
    let mock = Mock::builder().start_tcp("127.8.1.3:0").await.unwrap();
    let mut client = over_tcp(&mock).await;
    let digest = mock.put_blob("", "content");
    client.read_blob(&digest).await.unwrap();
    let channel = mock.channel();
    drop(mock);
    assert_ne!(code(client.read_blob(&digest).await), Code::Ok);
    assert_eq!(
        code(Client::new(channel).read_blob(&digest).await),
        Code::Unavailable
    );
}

#[tokio::test]
async fn five_hundred_calls_on_one_connection_are_open_at_once() {
    // GEN-16
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::read(&digest), After::Bytes(1));
    let client = Client::of(&mock);
    let reads = (0..500).map(|_| {
        let mut client = client.clone();
        let digest = &digest;
        async move { client.read_blob(digest).await }
    });
    let open = async {
        gate.reached_by(500).await;
        gate.release();
    };
    let (reads, ()) = tokio::join!(futures::future::join_all(reads), open);
    assert!(reads.into_iter().all(|read| read.unwrap() == b"content"));
}
