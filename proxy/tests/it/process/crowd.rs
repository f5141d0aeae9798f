//! Thousands of uploads that stall: others are served, and memory stays within what the bounds add up to.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use mock_upstream::{Digest, Mock};
use proto::bytestream::WriteRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;

use super::start::mock;
use super::{Binary, PATIENCE, Running};
use crate::client::{Client, code};
use crate::harness::{MIB, files_below, noise};
use crate::wire::{self, DATA, WINDOW_UPDATE, WRITE};

const CONNECTIONS: u32 = 20;
const STREAMS: u32 = 250;

/// Bytes of its blob that a stalled upload has sent: so many that all uploads of a connection together fit its window.
const SENT_BYTES: usize = 32 * 1024;

/// What an upload may hold in memory: two parts.
const UPLOAD_BYTES_MAX: u64 = 512 * 1024;

/// Uploads that may be open at once.
const UPLOADS_MAX: u64 = 2048;

/// What a connection may have on its way to the node.
const CONNECTION_WINDOW_BYTES: u64 = 8 << 20;

/// What all messages that are not whole may hold, of all connections.
const MESSAGE_ROOM_BYTES: u64 = 512 << 20;

/// For tasks, tables, and what the allocator keeps.
const SLACK_BYTES: u64 = 128 << 20;

/// What may be left of a crowd that is gone: tables that have grown.
const RETURN_SLACK_BYTES: u64 = 64 << 20;

/// Has the allocator give back what is free in a tenth of a second instead of ten.
const ALLOCATOR: (&str, &str) = ("_RJEM_MALLOC_CONF", "dirty_decay_ms:100");

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// Begins an upload of a MiB on each stream of a connection, and says no more. Every fourth stops within a message, every
/// eighth before its first.
async fn stall(node: &Running, connection: u32) -> TcpStream {
    let mut socket = TcpStream::connect(&node.grpc).await.unwrap();
    socket.write_all(&wire::greeting(&[])).await.unwrap();
    // The node's own window is announced, and open, once it has heard the greeting.
    let mut heard = Vec::new();
    while !wire::frames(&heard)
        .iter()
        .any(|(kind, _, stream, _)| (*kind, *stream) == (WINDOW_UPDATE, 0))
    {
        assert_ne!(socket.read_buf(&mut heard).await.unwrap(), 0);
    }
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        let seed = u64::from(connection * STREAMS + number);
        let digest = Digest::parse(&Digest::of(&seed.to_be_bytes()).hash_hex(), 1 << 20).unwrap();
        let part = WriteRequest {
            resource_name: digest.write_name("", &uuid::Uuid::from_u128(seed.into()).to_string()),
            data: vec![7; SENT_BYTES].into(),
            ..Default::default()
        };
        let message = wire::message(&part);
        let sent = match number % 8 {
            0 => &[][..],
            1 | 5 => &message[..message.len() - 1],
            _ => &message,
        };
        socket.write_all(&wire::call(stream, WRITE)).await.unwrap();
        for part in sent.chunks(16 * 1024) {
            socket
                .write_all(&wire::frame(DATA, 0, stream, part))
                .await
                .unwrap();
        }
    }
    socket
}

/// What a build does; `Ok` once its upload was taken.
async fn work(client: &Client, mock: &Mock, number: u64) -> Result<(), Code> {
    let (cold, batched, fresh) = (
        noise(100_000, 10_000 + number),
        noise(50_000, 20_000 + number),
        noise(300_000, 30_000 + number),
    );
    let digest = mock.put_blob("", cold.clone());
    for _ in 0..2 {
        assert!(client.read(&digest).await.unwrap() == cold);
    }
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    assert_eq!(
        client.batch_write(std::slice::from_ref(&batched)).await.unwrap(),
        [Code::Ok]
    );
    assert!(mock.blob("", &Digest::of(&batched)).is_some(), "P1");
    client.write(&fresh).await.map_err(|status| status.code())?;
    assert!(mock.blob("", &Digest::of(&fresh)).is_some(), "P1");
    Ok(())
}

#[tokio::test]
async fn five_thousand_stalled_uploads_leave_the_node_to_the_others() {
    // P8, P10
    let mock = mock().await;
    let binary = Binary::over(&mock.url())
        .set("GOREGO_UPLOAD_RESUME_WINDOW", "1s")
        .set(ALLOCATOR.0, ALLOCATOR.1);
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    work(&client, &mock, 0).await.unwrap();
    let before = node.memory_bytes();

    let crowd = join_all((0..CONNECTIONS).map(|connection| stall(&node, connection))).await;
    let in_flight = r#"gorego_calls_in_flight{method="ByteStream/Write"}"#;
    node.until(in_flight, |calls| calls >= UPLOADS_MAX).await;
    let (mut number, mut taken) = (0, 1);
    // In a full house an upload is refused until those who are silent have been so for a second; everything else is
    // served all the while.
    let serving = async {
        loop {
            number += 1;
            match work(&client, &mock, number).await {
                Ok(()) => {
                    taken += 1;
                    if node.metric("gorego_uploads_gave_way_total").await > 0 {
                        break;
                    }
                }
                Err(refusal) => assert_eq!(refusal, Code::ResourceExhausted),
            }
        }
    };
    let served = tokio::time::timeout(PATIENCE, serving).await;
    assert!(served.is_ok(), "nobody gave way");
    let under = node.memory_bytes();
    let windows = u64::from(CONNECTIONS) * CONNECTION_WINDOW_BYTES;
    let bound = before + UPLOADS_MAX * UPLOAD_BYTES_MAX + MESSAGE_ROOM_BYTES + windows + SLACK_BYTES;
    assert!(under <= bound, "{} MiB, not {}", mib(under), mib(bound));

    drop(crowd);
    node.until(in_flight, |calls| calls == 0).await;
    for left in [
        "gorego_uploads_open",
        "gorego_uploads_kept_for_resume",
        "gorego_tier1_staged_bytes",
    ] {
        node.until(left, |count| count == 0).await;
    }
    assert_eq!(files_below(&binary.path("gorego-data/tier1/staging")).len(), 0);
    work(&client, &mock, number + 1).await.unwrap();
    // What 5,000 uploads have sent is 160 MB.
    let after = node.gives_back(before + RETURN_SLACK_BYTES).await;
    eprintln!(
        "memory: {} MiB before, {} under, {} after",
        mib(before),
        mib(under),
        mib(after)
    );
    assert_eq!(
        mock.counts().blobs,
        2 * usize::try_from(number + 2).unwrap() + taken + 1,
        "nothing of the others"
    );
    drop(client);
    node.ends_well().await;
}

/// Sends all of a message of 4 MiB but its last byte, as far as the node takes it, and hears how its call ends.
async fn unfinished(
    mut sender: h2::client::SendRequest<Bytes>,
    message: Arc<Bytes>,
) -> Option<http::HeaderMap> {
    let request = http::Request::post(format!("http://node{WRITE}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = sender.send_request(request, false).ok()?;
    body.send_data(message.slice(..message.len() - 1), false).ok()?;
    Some(response.await.ok()?.headers().clone())
}

#[tokio::test]
async fn messages_without_an_end_hold_bounded_memory_and_give_way() {
    // P8, P10: 200 of them are 800 MiB.
    let mock = mock().await;
    let binary = Binary::over(&mock.url()).set(ALLOCATOR.0, ALLOCATOR.1);
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    work(&client, &mock, 0).await.unwrap();
    let before = node.memory_bytes();
    let part = WriteRequest {
        resource_name: client.upload_name(&Digest::of(b"any")),
        data: vec![7; 4 * MIB - 1000].into(),
        ..Default::default()
    };
    let message = Arc::new(Bytes::from(wire::message(&part)));
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let socket = TcpStream::connect(&node.grpc).await.unwrap();
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        calls.spawn(async {
            let _end = connection.await;
            None
        });
        for _ in 0..50 {
            let sender = sender.clone().ready().await.unwrap();
            calls.spawn(unfinished(sender, message.clone()));
        }
    }
    // The first that had to give way: by then the room was full.
    let first = calls.join_next().await.unwrap().unwrap().unwrap();
    let exhausted = Code::ResourceExhausted as i32;
    assert_eq!(first["grpc-status"], exhausted.to_string().as_str());
    let full = node.memory_bytes();
    let blob = noise(3 * MIB, 1);
    assert_eq!(
        client.batch_write(std::slice::from_ref(&blob)).await.unwrap(),
        [Code::Ok]
    );
    work(&client, &mock, 1).await.unwrap();
    let under = node.memory_bytes();
    // A message that grows leaves smaller buffers behind, which the allocator gives back or to the next.
    let room = MESSAGE_ROOM_BYTES * 3 / 2;
    let bound = before + room + 4 * CONNECTION_WINDOW_BYTES + SLACK_BYTES;
    assert!(
        full.max(under) <= bound,
        "{} MiB, not {}",
        mib(full.max(under)),
        mib(bound)
    );
    calls.shutdown().await;
    node.until(r#"gorego_calls_in_flight{method="ByteStream/Write"}"#, |calls| {
        calls == 0
    })
    .await;
    assert_eq!(code(client.write(&noise(MIB, 2)).await), Code::Ok);
    let after = node.gives_back(before + RETURN_SLACK_BYTES).await;
    eprintln!(
        "memory: {} MiB before, {} full, {} under, {} after",
        mib(before),
        mib(full),
        mib(under),
        mib(after)
    );
    drop(client);
    node.ends_well().await;
}
