//! Many clients on many threads, that hang up, come back, spoil and repeat: what each is told is true, and nothing is left.

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const CLIENTS: u64 = 8;
const ROUNDS: usize = 40;

/// One stream of a client that may go on with an upload left off, and may end in any way.
async fn stream(node: &Node, blob: &Blob, name: &str, rng: &mut StdRng) -> Result<(), CallError> {
    let offset = match rng.random_range(0..3) {
        0 => node.writes.status(&call(), &blob.digest, name).await?,
        _ => WriteStatus {
            committed_bytes: 0,
            complete: false,
        },
    };
    if offset.complete {
        assert!(node.in_tier2(blob));
        return Ok(());
    }
    assert!(offset.committed_bytes < blob.digest.size_bytes());
    let sent = if rng.random_ratio(1, 6) {
        blob.spoilt()
    } else {
        blob.copy()
    };
    let mut upload = node.resume(&sent, name, offset.committed_bytes).await?;
    let mut at = usize::try_from(offset.committed_bytes).unwrap();
    while at < sent.bytes.len() {
        if rng.random_ratio(1, 30) {
            return Err(Tier2Error::Aborted.into());
        }
        let to = sent.bytes.len().min(at + rng.random_range(1..CHUNK));
        if upload.push(sent.bytes.slice(at..to)).await? == Pushed::Acknowledged {
            return Ok(());
        }
        at = to;
    }
    upload.finish().await
}

async fn client(node: Arc<Node>, number: u64) {
    let mut rng = StdRng::seed_from_u64(number);
    for round in 0..ROUNDS {
        // Clients meet at the blobs of about the same round.
        let blob = Blob::of_len((5 + round / 6) * CHUNK + rng.random_range(0..2));
        let name = format!("name {}", rng.random_range(0..CLIENTS / 2));
        match stream(&node, &blob, &name, &mut rng).await {
            Ok(()) => assert!(node.in_tier2(&blob), "acknowledged, but not in tier 2"),
            Err(
                CallError::BadUpload(_)
                | CallError::ResumeOffset { .. }
                | CallError::Superseded
                | CallError::Tier2(Tier2Error::Aborted),
            ) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_or_left_over_among_threads() {
    for files in [true, false] {
        let blob_bytes_max = if files { u64::MAX } else { 0 };
        let node = Arc::new(Node::build(
            Publish::Async,
            blob_bytes_max,
            Duration::from_millis(5),
            ALWAYS_ASK,
        ));
        let clients = TaskGroup::new();
        let ends: Vec<_> = (0..CLIENTS)
            .map(|number| clients.spawn(client(node.clone(), number)))
            .collect();
        for end in ends {
            end.await.unwrap();
        }
        node.settles().await;
        let blob = Blob::of_len(9 * CHUNK);
        node.upload(&blob, "name").await.unwrap();
        assert!(node.in_tier2(&blob));
    }
}
