//! What is no HTTP/2, or no HTTP/2 that anybody should send.

use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::start::mock;
use super::{Binary, PATIENCE, Running};
use crate::client::Client;
use crate::harness::{MIB, noise};
use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, READ, SETTINGS, WINDOW_UPDATE, WRITE, call,
    frame, greeting, header, header_block,
};

/// Says something and hears the node out. The node has to close the connection by itself.
async fn is_hung_up_on(node: &Running, what: &str, said: &[u8]) {
    let (mut hear, mut say) = TcpStream::connect(&node.grpc).await.unwrap().into_split();
    let say = async {
        // It may have hung up long before the end. The write side stays open.
        let _gone = say.write_all(said).await;
        say
    };
    let mut heard = Vec::new();
    // A reset is an end as well.
    let both = async { tokio::join!(hear.read_to_end(&mut heard), say) };
    let ended = tokio::time::timeout(PATIENCE, both).await;
    assert!(ended.is_ok(), "{what}: the connection stays open");
}

/// Says something that the node has to live with, hears it out, and leaves.
async fn is_endured(node: &Running, said: &[u8]) {
    let (mut hear, mut say) = TcpStream::connect(&node.grpc).await.unwrap().into_split();
    let say = async {
        let _gone = say.write_all(said).await;
        let _gone = say.shutdown().await;
    };
    let mut heard = Vec::new();
    let _ended = tokio::join!(hear.read_to_end(&mut heard), say);
}

async fn is_served(client: &Client, after: &str) {
    let blob = noise(50_000, 1);
    let digest = mock_upstream::Digest::of(&blob);
    client
        .write(&blob)
        .await
        .unwrap_or_else(|status| panic!("after {after}: {status}"));
    assert!(client.read(&digest).await.unwrap() == blob, "after {after}");
}

fn after_greeting(frames: &[Vec<u8>]) -> Vec<u8> {
    [greeting(&[]), frames.concat()].concat()
}

fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(7);
    let mut noise = vec![0; 64 * 1024];
    random.fill_bytes(&mut noise);
    let block = header_block(READ);
    let open_block = frame(HEADERS, 0, 1, &block);
    let endless = [
        vec![open_block.clone()],
        vec![frame(CONTINUATION, 0, 1, b""); 20_000],
    ]
    .concat();
    let large = header(b"x-large", &[b'x'; 16_000]);
    let growing = [
        vec![open_block.clone()],
        vec![frame(CONTINUATION, 0, 1, &large); 200],
    ]
    .concat();
    let many = vec![header(b"x-many", b"x"); 100_000].concat();
    let many = many.chunks(16_000).map(|part| frame(CONTINUATION, 0, 1, part));
    vec![
        ("HTTP/1", b"GET / HTTP/1.1\r\nhost: node\r\n\r\n".repeat(4)),
        (
            "TLS",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], [7; 500].as_slice()].concat(),
        ),
        ("noise", noise.clone()),
        ("noise after the preface", [crate::wire::PREFACE, &noise].concat()),
        ("noise after the greeting", [greeting(&[]), noise].concat()),
        ("continuations without end", after_greeting(&endless)),
        ("headers without end", after_greeting(&growing)),
        (
            "many headers",
            after_greeting(&[vec![open_block.clone()], many.collect()].concat()),
        ),
        (
            "another frame between headers",
            after_greeting(&[open_block, frame(PING, 0, 0, &[0; 8])]),
        ),
        (
            "a frame too large",
            after_greeting(&[frame(DATA, 0, 1, &vec![0; 300_000])]),
        ),
        (
            "data without a stream",
            after_greeting(&[frame(DATA, 0, 0, b"x")]),
        ),
        (
            "data of a stream that is not open",
            after_greeting(&[frame(DATA, 0, 99, b"x")]),
        ),
        (
            "an even stream",
            after_greeting(&[frame(HEADERS, END_HEADERS, 2, &block)]),
        ),
        (
            "a stream that goes backwards",
            after_greeting(&[call(9, WRITE), call(3, WRITE)]),
        ),
        (
            "headers that cannot be decoded",
            after_greeting(&[frame(HEADERS, END_HEADERS, 1, &[0xff; 40])]),
        ),
        (
            "a window of more than there is",
            after_greeting(&vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]); 2]),
        ),
        (
            "a window that grows by nothing",
            after_greeting(&[frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
        ),
        (
            "settings of half a setting",
            after_greeting(&[frame(SETTINGS, 0, 0, &[0; 3])]),
        ),
        ("a ping of nothing", after_greeting(&[frame(PING, 0, 0, &[])])),
    ]
}

#[tokio::test]
async fn who_speaks_no_http2_is_hung_up_on_and_disturbs_nobody() {
    // P8, P10
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    is_served(&client, "the start").await;
    let before = node.memory_bytes();
    for (what, said) in cases() {
        for _ in 0..3 {
            is_hung_up_on(&node, what, &said).await;
        }
        is_served(&client, what).await;
    }
    let grown = node.memory_bytes().saturating_sub(before);
    eprintln!("memory: {} KiB more after all of it", grown / 1024);
    assert!(grown < 64 * MIB as u64, "{grown}");
    drop(client);
    node.ends_well().await;
}

#[tokio::test]
async fn floods_of_small_frames_disturb_nobody() {
    // P8, P10
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    is_served(&client, "the start").await;
    let before = node.memory_bytes();
    let floods = [
        ("pings", vec![frame(PING, 0, 0, &[1; 8]); 50_000]),
        ("settings", vec![frame(SETTINGS, 0, 0, &[]); 50_000]),
        ("windows", vec![frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]); 50_000]),
        (
            "empty data",
            [vec![call(1, WRITE)], vec![frame(DATA, 0, 1, &[]); 50_000]].concat(),
        ),
        (
            "frames from nowhere",
            vec![frame(0xee, 0xff, 0, &[0; 100]); 50_000],
        ),
        (
            "empty requests",
            (0..10_000)
                .map(|number| {
                    frame(
                        HEADERS,
                        END_HEADERS | END_STREAM,
                        2 * number + 1,
                        &header_block(WRITE),
                    )
                })
                .collect(),
        ),
    ];
    for (what, flood) in floods {
        is_endured(&node, &after_greeting(&flood)).await;
        is_served(&client, what).await;
    }
    let grown = node.memory_bytes().saturating_sub(before);
    eprintln!("memory: {} KiB more after all of it", grown / 1024);
    assert!(grown < 64 * MIB as u64, "{grown}");
    drop(client);
    node.ends_well().await;
}

#[tokio::test]
async fn mutated_requests_find_no_fault() {
    // P8: a request that is right but for some bytes.
    let seed = 11;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mock = mock().await;
    let binary = Binary::over(&mock.url());
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    let client = node.client().await;
    let right = after_greeting(&[call(1, READ), frame(DATA, END_STREAM, 1, &[0, 0, 0, 0, 2, 10, 0])]);
    for _ in 0..300 {
        let mut said = right.clone();
        for _ in 0..random.random_range(1..6) {
            let at = random.random_range(0..said.len());
            said[at] = random.random();
        }
        is_endured(&node, &said).await;
    }
    is_served(&client, "mutations").await;
    drop(client);
    node.ends_well().await;
}
