//! Many clients at once over a Tier 2 that comes and goes: whatever happens, the promises hold and everything ends.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Digest, Match, Mock};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::client::{Client, code};
use crate::harness::{Harness, MIB, Site, noise};

const CLIENTS: u64 = 12;
const OPERATIONS: usize = 40;

/// No call takes longer, whatever Tier 2 does: a few first-byte times, and some resumes (R14).
const LONGEST_CALL: Duration = Duration::from_secs(90);

/// What the clients share.
struct World {
    blobs: Vec<(Digest, Bytes)>,
    /// What a client was told to be in Tier 2, which forgets nothing.
    acknowledged: Mutex<HashSet<Digest>>,
    mock: Mock,
}

impl World {
    fn new(mock: &Mock, seed: u64) -> World {
        let mut random = StdRng::seed_from_u64(seed);
        let len = |random: &mut StdRng| match random.random_range(0..4) {
            0 => random.random_range(0..100),
            1 | 2 => random.random_range(100..200_000),
            _ => random.random_range(200_000..4 * MIB),
        };
        let blobs = (0..24)
            .map(|number| noise(len(&mut random), seed + number))
            .map(|blob| (Digest::of(&blob), blob))
            .collect::<Vec<_>>();
        // Half of them were brought by another node.
        let theirs = blobs.iter().step_by(2);
        let acknowledged = theirs.map(|(_, blob)| mock.put_blob("", blob.clone())).collect();
        World {
            blobs,
            acknowledged: Mutex::new(acknowledged),
            mock: mock.clone(),
        }
    }

    fn is_due(&self, digest: &Digest) -> bool {
        digest.is_empty() || self.acknowledged.lock().contains(digest)
    }

    fn acknowledge(&self, digest: &Digest) {
        assert!(
            self.mock.blob("", digest).is_some(),
            "P1: acknowledged, not in tier 2"
        );
        self.acknowledged.lock().insert(*digest);
    }
}

async fn client(world: Arc<World>, client: Client, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..OPERATIONS {
        let (digest, blob) = world.blobs[random.random_range(0..world.blobs.len())].clone();
        let due = world.is_due(&digest);
        let operation = random.random_range(0..6);
        let hang_up = random
            .random_bool(0.1)
            .then(|| Duration::from_millis(random.random_range(0..50)));
        let made = async {
            match operation {
                0 | 1 => match client.read(&digest).await {
                    Ok(bytes) => assert!(bytes == blob, "P4"),
                    Err(status) => assert!(!due || status.code() != Code::NotFound, "P5: {status}"),
                },
                2 => match client.batch_read(&[digest]).await {
                    Ok(answers) if answers[0].status.clone().unwrap_or_default().code == 0 => {
                        assert!(answers[0].data == blob, "P4");
                    }
                    Ok(answers) => {
                        let code = Code::from(answers[0].status.clone().unwrap_or_default().code);
                        assert!(!due || code != Code::NotFound, "P5");
                    }
                    Err(status) => assert_ne!(status.code(), Code::NotFound),
                },
                3 => match client.missing(&[digest]).await {
                    Ok(missing) if missing.is_empty() => {
                        assert!(digest.is_empty() || world.mock.blob("", &digest).is_some(), "P2");
                    }
                    Ok(_missing) => assert!(!due, "P5"),
                    Err(_status) => {}
                },
                4 => {
                    if client.write(&blob).await.is_ok() {
                        world.acknowledge(&digest);
                    }
                }
                _ => {
                    let answers = client.batch_write(std::slice::from_ref(&blob)).await;
                    if answers.is_ok_and(|codes| codes == [Code::Ok]) {
                        world.acknowledge(&digest);
                    }
                }
            }
        };
        match hang_up {
            Some(after) => drop(timeout(after, made).await),
            None => timeout(LONGEST_CALL, made)
                .await
                .expect("P10: a call did not end"),
        }
        sleep(Duration::from_millis(random.random_range(0..100))).await;
    }
}

/// Breaks Tier 2 until it is dropped.
async fn trouble(mock: Mock, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        sleep(Duration::from_millis(random.random_range(50..1500))).await;
        match random.random_range(0..3) {
            0 => {
                mock.suspend().await.unwrap();
                sleep(Duration::from_millis(random.random_range(0..2000))).await;
                mock.resume().await.unwrap();
            }
            1 => {
                let code =
                    [Code::Unavailable, Code::Internal, Code::ResourceExhausted][random.random_range(0..3)];
                mock.fail(Match::any(), code, random.random_range(1..10));
            }
            _ => {
                let after = mock_upstream::After::Bytes(random.random_range(0..500_000));
                let gate = mock.hold(Match::any(), after);
                sleep(Duration::from_millis(random.random_range(0..15_000))).await;
                drop(gate);
            }
        }
    }
}

async fn storm(seed: u64) {
    eprintln!("seed {seed}");
    let site = Harness::new().set("tier1.max_size", "8MiB").start().await;
    let world = Arc::new(World::new(&site.mock, seed));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(world.clone(), site.client(), 1000 * seed + number));
    }
    let mut breaking = JoinSet::new();
    for number in 0..3 {
        breaking.spawn(trouble(site.mock.clone(), 1000 * seed + 500 + number));
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    breaking.shutdown().await;
    site.mock.resume().await.unwrap();
    site.mock.heal();
    after(&site, &world).await;
}

/// With Tier 2 back, all that was acknowledged is there, and nothing is left over.
async fn after(site: &Site, world: &World) {
    // Longer than any fetch, commit or resume window.
    sleep(Duration::from_secs(300)).await;
    let client = site.client();
    for (digest, blob) in &world.blobs {
        if world.is_due(digest) {
            assert_eq!(client.missing(&[*digest]).await.unwrap(), []);
            assert!(client.read(digest).await.unwrap() == blob);
        }
        assert_eq!(code(client.write(blob).await), Code::Ok);
    }
    drop(client);
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn the_promises_hold_among_many_clients_while_tier_2_comes_and_goes() {
    for seed in 1..=3 {
        storm(seed).await;
    }
}
