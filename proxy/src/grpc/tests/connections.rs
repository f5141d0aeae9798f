//! The listener: drains, floods, bounds.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join_all, poll_immediate};
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{ReadRequest, WriteRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use super::harness::*;
use crate::digest::Digest;
use crate::grpc::listener::{Drained, ListenerOptions};

const GRACE: Duration = Duration::from_secs(30);

fn request(digest: &Digest) -> ReadRequest {
    ReadRequest {
        resource_name: read_name(digest),
        ..Default::default()
    }
}

/// A read that has its first bytes and waits for the rest.
async fn held_read(
    node: &Node,
) -> (
    ByteStreamClient<Channel>,
    tonic::Streaming<proto::bytestream::ReadResponse>,
) {
    let digest = node.plant(&[7; 1 << 20]);
    node.tier2.hold_reads_at(512 * 1024);
    let mut client = node.byte_stream().await;
    let mut stream = client.read(request(&digest)).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().data.is_empty());
    (client, stream)
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_calls_in_flight_end() {
    // GEN-14
    let node = Node::new().await;
    let (_client, mut stream) = held_read(&node).await;
    let rest = async {
        node.tier2.hold_reads_at(u64::MAX);
        while stream.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    };
    // The drain is polled first, so that it has begun before the read goes on.
    let (drained, rest) = tokio::join!(node.server.drain(GRACE), rest);
    rest.unwrap();
    assert!(drained.is_clean());
}

#[tokio::test(start_paused = true)]
async fn a_stalled_stream_holds_a_drain_for_its_grace_period_and_no_longer() {
    // P10
    let node = Node::new().await;
    let (_client, mut stream) = held_read(&node).await;
    let begun = Instant::now();
    assert_eq!(node.server.drain(GRACE).await, Drained { cut: 1 });
    assert_eq!(begun.elapsed().as_secs(), GRACE.as_secs());
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "a stream that was cut must not look whole");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_holds_a_drain_no_longer_either() {
    let node = Node::new().await;
    let digest = node.plant(&[7; 8 << 20]);
    let mut client = node.byte_stream().await;
    let _unread = client.read(request(&digest)).await.unwrap();
    assert_eq!(node.server.drain(GRACE).await, Drained { cut: 1 });
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_is_cut_off_after_its_deadline() {
    // P10
    let node = Node::new().await;
    let digest = node.plant(&[7; 8 << 20]);
    let mut request = tonic::Request::new(request(&digest));
    request
        .metadata_mut()
        .insert("grpc-timeout", "3S".parse().unwrap());
    let mut client = node.byte_stream().await;
    let _unread = client.read(request).await.unwrap();
    let begun = Instant::now();
    assert!(node.server.drain(GRACE).await.is_clean());
    assert!(begun.elapsed() < GRACE / 5);
}

#[tokio::test(start_paused = true)]
async fn a_reader_without_a_deadline_that_does_not_read_is_cut_off_in_the_end() {
    // P10
    let node = Node::new().await;
    let digest = node.plant(&[7; 8 << 20]);
    let mut client = node.byte_stream().await;
    let mut unread = client.read(request(&digest)).await.unwrap().into_inner();
    let in_flight = node
        .metrics
        .calls
        .in_flight
        .with_label_values(&["ByteStream/Read"]);
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(in_flight.get(), 1, "it has its time");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(in_flight.get(), 0);
    let end = loop {
        match unread.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "a stream that was cut must not look whole");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_waits_for_tier_2_is_not_taken_for_one_that_does_not_read() {
    let node = Node::new().await;
    let (_client, mut stream) = held_read(&node).await;
    let rest = async {
        let mut bytes = 0;
        while let Some(message) = stream.message().await? {
            bytes += message.data.len();
        }
        Ok::<_, tonic::Status>(bytes)
    };
    let release = async {
        tokio::time::sleep(Duration::from_secs(900)).await;
        node.tier2.hold_reads_at(u64::MAX);
    };
    let (rest, ()) = tokio::join!(rest, release);
    assert!(rest.unwrap() > 512 * 1024);
}

#[tokio::test(start_paused = true)]
async fn a_silent_uploader_without_a_deadline_leaves_its_place_in_the_end() {
    // P8, P10
    let node = Node::new().await;
    let digest = Digest::of(crate::digest::Function::Sha256, b"hello");
    let first = WriteRequest {
        resource_name: write_name(&digest),
        data: b"hel"[..].into(),
        ..Default::default()
    };
    let mut client = node.byte_stream().await;
    let silent = futures::stream::iter([first]).chain(futures::stream::pending());
    let begun = Instant::now();
    assert_eq!(code(client.write(silent).await), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_eq!(node.metrics.uploads.open.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_come_ends() {
    // P10
    let node = Node::new().await;
    let mut client = node.byte_stream().await;
    let begun = Instant::now();
    let silent = futures::stream::pending::<WriteRequest>();
    assert_eq!(code(client.write(silent).await), Code::DeadlineExceeded);
    assert_eq!(begun.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_http2_keeps_no_seat() {
    // P8
    let node = Node::new().await;
    let mut idle = node.raw().await;
    let begun = Instant::now();
    for said in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
        let mut peer = node.connect();
        peer.write_all(said).await.unwrap();
        let mut heard = Vec::new();
        peer.read_to_end(&mut heard).await.unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 20, "each was given ten seconds");
    let health = "/grpc.health.v1.Health/Check";
    assert_eq!(
        idle.send(health, framed(b"")).await,
        Some(Code::Ok),
        "an idle client is welcome"
    );
}

#[tokio::test(start_paused = true)]
async fn connections_without_calls_do_not_hold_a_drain() {
    let node = Node::new().await;
    let _silent = node.connect();
    let _idle = node.raw().await;
    let digest = node.plant(b"hello");
    let mut used = node.byte_stream().await;
    read(&mut used, request(&digest)).await.unwrap();
    let begun = Instant::now();
    assert!(node.server.drain(GRACE).await.is_clean());
    assert!(begun.elapsed() < GRACE / 10);
}

#[tokio::test]
async fn a_client_that_cancels_everything_at_once_keeps_its_connection() {
    // BS-READ-24: an interrupted build is everyday traffic.
    let node = Node::new().await;
    let digest = node.plant(&[7; 1 << 20]);
    node.tier2.hold_reads_at(512 * 1024);
    let client = node.byte_stream().await;
    let started = join_all((0..500).map(|_| {
        let mut client = client.clone();
        let request = request(&digest);
        async move { client.read(request).await.unwrap() }
    }));
    drop(started.await);
    node.tier2.hold_reads_at(u64::MAX);
    assert_eq!(
        read(&mut client.clone(), request(&digest)).await.unwrap().len(),
        1 << 20
    );
}

#[tokio::test]
async fn a_flood_of_resets_leaves_the_node_to_the_others() {
    // Rapid reset: streams opened and cancelled as fast as can be.
    let node = Node::new().await;
    let digest = node.plant(b"hello");
    let message = framed(&prost::Message::encode_to_vec(&request(&digest)));
    let mut flood = node.raw().await;
    for _ in 0..5000 {
        let call = pin!(flood.send("/google.bytestream.ByteStream/Read", message.clone()));
        if poll_immediate(call).await.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut other = node.byte_stream().await;
    assert_eq!(read(&mut other, request(&digest)).await.unwrap(), b"hello");
    drop((flood, other));
    assert!(node.server.drain(GRACE).await.is_clean());
}

async fn over_tcp(address: SocketAddr) -> ByteStreamClient<Channel> {
    ByteStreamClient::connect(format!("http://{address}"))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_connection_too_many_waits_for_a_seat() {
    // P8
    let node = Node::with(ListenerOptions {
        connections_max: 1,
        ..ListenerOptions::default()
    })
    .await;
    let digest = node.plant(b"hello");
    let listener = TcpListener::bind("127.61.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let server = node.server.clone();
    let stopped = stop.clone();
    let serving = node
        .tasks
        .spawn(async move { server.serve(listener, stopped).await });

    let mut first = over_tcp(address).await;
    assert_eq!(read(&mut first, request(&digest)).await.unwrap(), b"hello");
    let mut second = over_tcp(address).await;
    let waiting = node.tasks.spawn({
        let request = request(&digest);
        async move { read(&mut second, request).await }
    });
    // The one that has the seat is answered, so that the other has had its chance.
    assert_eq!(read(&mut first, request(&digest)).await.unwrap(), b"hello");
    assert!(!waiting.is_finished());
    drop(first);
    assert_eq!(waiting.await.unwrap().unwrap(), b"hello");

    stop.cancel();
    assert!(serving.await.unwrap().is_clean());
    let refused = ByteStreamClient::connect(format!("http://{address}")).await;
    assert!(refused.is_err(), "the port is closed");
}

#[tokio::test(start_paused = true)]
async fn a_call_on_a_draining_connection_may_be_tried_elsewhere() {
    // GEN-14
    let node = Node::new().await;
    let (mut client, _stream) = held_read(&node).await;
    let digest = node.plant(b"hello");
    let late = async {
        // Until the client has heard of the drain its calls are served.
        loop {
            if let Err(status) = read(&mut client, request(&digest)).await {
                break status.code();
            }
        }
    };
    let (drained, code) = tokio::join!(node.server.drain(GRACE), late);
    assert!(matches!(code, Code::Unavailable | Code::Cancelled), "{code:?}");
    assert_eq!(drained, Drained { cut: 1 });
}
