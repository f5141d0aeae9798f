//! Clients that hang up: at every byte of what they say, and of what they hear.

use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Digest, Match, method};
use prost::Message;
use proto::bytestream::ReadRequest;
use proto::reapi;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::client::parts;
use crate::harness::{Harness, Site, idle, noise};
use crate::wire::{self, BATCH_READ, BATCH_UPDATE, READ, WRITE};

/// Bytes of a frame: so small that a request has many, and a client can leave between any two.
const FRAME_BYTES: usize = 97;

/// Positions that are drawn beside those at the beginning and the end.
const DRAWN: usize = 150;

/// Bytes at the beginning and at the end of which every one is tried.
const EVERY_BYTE: usize = 60;

/// What a client says on its connection to make one call.
fn script(path: &str, body: &[u8]) -> Vec<u8> {
    let call = wire::call(1, path);
    [wire::greeting(&[]), call, wire::body(1, body, FRAME_BYTES)].concat()
}

fn write_script(blob: &Bytes, upload: u128) -> Vec<u8> {
    let name = Digest::of(blob).write_name("", &uuid::Uuid::from_u128(upload).to_string());
    // Two messages, so that there is a place between them.
    let half = blob.len() / 2;
    let mut requests = parts(&name, 0, &blob.slice(..half));
    requests[0].finish_write = false;
    requests.extend(parts(&name, half, blob));
    script(
        WRITE,
        &requests.iter().flat_map(wire::message).collect::<Vec<u8>>(),
    )
}

fn batch_script(blobs: &[Bytes]) -> Vec<u8> {
    let entry = |blob: &Bytes| reapi::batch_update_blobs_request::Request {
        digest: Some(Digest::of(blob).to_wire()),
        data: blob.clone(),
        ..Default::default()
    };
    let request = reapi::BatchUpdateBlobsRequest {
        requests: blobs.iter().map(entry).collect(),
        ..Default::default()
    };
    script(BATCH_UPDATE, &wire::message(&request))
}

fn read_script(digest: &Digest) -> Vec<u8> {
    let request = ReadRequest {
        resource_name: digest.read_name(""),
        ..Default::default()
    };
    script(READ, &wire::message(&request))
}

fn batch_read_script(digests: &[Digest]) -> Vec<u8> {
    let request = reapi::BatchReadBlobsRequest {
        digests: digests.iter().map(Digest::to_wire).collect(),
        ..Default::default()
    };
    script(BATCH_READ, &wire::message(&request))
}

/// Every position near the ends, and some between them.
fn positions(len: usize, random: &mut StdRng) -> Vec<usize> {
    let head = 0..EVERY_BYTE.min(len);
    let tail = len.saturating_sub(EVERY_BYTE)..len;
    let drawn = (0..DRAWN).map(|_| random.random_range(0..len));
    head.chain(tail).chain(drawn).collect()
}

/// Says the beginning of a script, hears at most `hear_bytes` of the answer if it waits for one at all, and hangs up.
async fn hang_up(site: &Site, said: &[u8], hear_bytes: Option<usize>) -> Vec<u8> {
    let mut io = site.pipe();
    io.write_all(said).await.unwrap();
    let mut heard = Vec::new();
    if let Some(hear_bytes) = hear_bytes {
        let answer = io.take(hear_bytes as u64).read_to_end(&mut heard).await;
        // Without an end to wait for, this ends when nothing more is to come.
        answer.unwrap();
    }
    heard
}

/// What was heard before nothing more was to come.
async fn hear(site: &Site, said: &[u8]) -> Vec<u8> {
    let mut io = site.pipe();
    io.write_all(said).await.unwrap();
    let mut heard = Vec::new();
    while let Ok(read) = tokio::time::timeout(Duration::from_millis(1), io.read_buf(&mut heard)).await {
        if read.unwrap() == 0 {
            break;
        }
    }
    heard
}

/// The message of an answer to the first call, if there is one.
fn answer<M: Message + Default>(heard: &[u8]) -> Option<M> {
    let frames = wire::frames(heard).into_iter();
    let body: Vec<u8> = frames
        .filter(|(kind, _, stream, _)| (*kind, *stream) == (wire::DATA, 1))
        .flat_map(|(_, _, _, payload)| payload)
        .collect();
    (!body.is_empty()).then(|| M::decode(&body[5..]).unwrap())
}

/// A client that behaves is served.
async fn beside(site: &Site, number: u64) {
    let client = site.client();
    let (cold, fresh) = (noise(5000, 1_000_000 + number), noise(5000, 2_000_000 + number));
    let digest = site.mock.put_blob("", cold.clone());
    assert!(client.read(&digest).await.unwrap() == cold);
    client.write(&fresh).await.unwrap();
    assert_eq!(site.mock.blob("", &Digest::of(&fresh)), Some(fresh));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_at_any_byte_of_a_write_leaves_nothing_half() {
    // P1, P4, P10
    let seed = 1;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Harness::new().start().await;
    let mut acknowledged = 0;
    for (number, refused) in [(0, false), (1, true)] {
        let rule = refused.then(|| {
            site.mock
                .fail(Match::method(method::WRITE), Code::Internal, u64::MAX)
        });
        let len = write_script(&noise(3000, 0), 0).len();
        for (at, position) in positions(len, &mut random).into_iter().chain([len]).enumerate() {
            let blob = noise(3000, 10_000 * (number + 1) + at as u64);
            let digest = Digest::of(&blob);
            // Some come back under the name of one that left.
            let said = write_script(&blob, u128::try_from(at / 2).unwrap());
            let heard = if random.random() {
                hear(&site, &said[..position]).await
            } else {
                hang_up(&site, &said[..position], None).await
            };
            if answer::<proto::bytestream::WriteResponse>(&heard).is_some() {
                acknowledged += 1;
                assert_eq!(
                    site.mock.blob("", &digest),
                    Some(blob.clone()),
                    "P1 at byte {position}"
                );
            }
            idle().await;
            let stored = site.mock.blob("", &digest);
            assert!(
                stored.is_none() || (stored == Some(blob) && !refused),
                "P4 at byte {position}"
            );
        }
        if rule.is_some() {
            site.mock.heal();
        }
        beside(&site, number).await;
    }
    assert!(acknowledged > 0, "the whole script is answered");
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_at_any_byte_of_a_batch_leaves_nothing_half() {
    // P1, P4, P10
    let seed = 2;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Harness::new().start().await;
    let mut answered = 0;
    let len = batch_script(&[noise(900, 0), noise(1500, 0)]).len();
    for (at, position) in positions(len, &mut random).into_iter().chain([len]).enumerate() {
        let blobs = [noise(900, 3 + at as u64), noise(1500, 3 + at as u64)];
        let heard = hear(&site, &batch_script(&blobs)[..position]).await;
        idle().await;
        let stored = blobs
            .iter()
            .filter(|blob| site.mock.blob("", &Digest::of(blob)).is_some());
        let stored = stored.count();
        if answer::<reapi::BatchUpdateBlobsResponse>(&heard).is_some() {
            answered += 1;
            assert_eq!(stored, blobs.len(), "P1 at byte {position}");
        }
        if position < len {
            assert_eq!(stored, 0, "half a request at byte {position}");
        }
    }
    beside(&site, 0).await;
    assert!(answered > 0, "the whole script is answered");
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_hangs_up_at_any_byte_disturbs_nobody() {
    // P7, P10: in its request, and in the answer.
    let seed = 3;
    eprintln!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let site = Harness::new().start().await;
    let blob = noise(20_000, 0);
    let digest = site.mock.put_blob("", blob.clone());
    for said in [read_script(&digest), batch_read_script(&[digest, digest])] {
        for position in positions(said.len(), &mut random) {
            hang_up(&site, &said[..position], None).await;
        }
        for at in 0..DRAWN as u64 {
            let cold = noise(20_000, 1 + at);
            let cold_digest = site.mock.put_blob("", cold.clone());
            let said = read_script(&cold_digest);
            let hear_bytes = random.random_range(0..cold.len());
            hang_up(&site, &said, Some(hear_bytes)).await;
            assert!(site.client().read(&cold_digest).await.unwrap() == cold);
            assert_eq!(site.upstream_reads(&cold_digest), 1, "P7");
        }
        hang_up(&site, &said, Some(random.random_range(0..20_000))).await;
        assert!(site.client().read(&digest).await.unwrap() == blob);
    }
    beside(&site, 0).await;
    site.nothing_is_left().await;
}
