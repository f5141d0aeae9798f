use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use mock_upstream::{After, Digest, Match, method};
use tonic::Code;

use super::start::mock;
use super::{Binary, Running};
use crate::client::code;
use crate::harness::{MIB, files_below, noise};

/// What a client had done when the node was killed.
struct Before {
    acknowledged: Vec<Bytes>,
    /// Sent in part, in full without the end, and in full with the end, none of them acknowledged.
    open: Vec<Bytes>,
}

/// Writes, and kills the node with uploads open.
async fn write_and_kill(node: &mut Running, seed: u64) -> Before {
    let client = node.client().await;
    let small: Vec<Bytes> = (0..10).map(|number| noise(5000, seed + number)).collect();
    assert_eq!(client.batch_write(&small).await.unwrap(), [Code::Ok; 10]);
    let mut acknowledged = small;
    for number in 10..14 {
        let blob = noise(MIB, seed + number);
        client.write(&blob).await.unwrap();
        acknowledged.push(blob);
    }
    let open: Vec<Bytes> = (20..23).map(|number| noise(2 * MIB, seed + number)).collect();
    let mut uploads: Vec<_> = open
        .iter()
        .map(|blob| client.upload(&client.upload_name(&Digest::of(blob))))
        .collect();
    uploads[0].send(&open[0], 0, MIB).await;
    uploads[1].send(&open[1], 0, 2 * MIB - 1).await;
    uploads[2].send(&open[2], 0, MIB).await;
    uploads[2].send(&open[2], MIB, 2 * MIB).await;
    node.kill().await;
    Before { acknowledged, open }
}

/// Whatever was acknowledged is there and right; whatever was not is absent or right, and the two words about it agree.
async fn check(node: &Running, before: &Before) {
    let client = node.client().await;
    let digests: Vec<Digest> = before.acknowledged.iter().map(|blob| Digest::of(blob)).collect();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    for (blob, digest) in before.acknowledged.iter().zip(&digests) {
        assert!(client.read(digest).await.unwrap() == blob, "{digest}");
    }
    for blob in &before.open {
        let digest = Digest::of(blob);
        let absent = client.missing(&[digest]).await.unwrap() == [digest];
        match client.read(&digest).await {
            Ok(bytes) => assert!(bytes == blob && !absent, "{digest}"),
            Err(status) => assert!(status.code() == Code::NotFound && absent, "{digest}: {status}"),
        }
        assert_eq!(code(client.write(blob).await), Code::Ok);
        assert!(client.read(&digest).await.unwrap() == blob);
    }
}

#[tokio::test]
async fn a_node_that_was_killed_during_writes_has_what_it_acknowledged_and_nothing_half() {
    // P1, P9: with the embedded Tier 2, thrice, so that the second start begins where the first was cut.
    let binary = Binary::new();
    let mut before: Vec<Before> = Vec::new();
    for round in 0..3 {
        let mut node = binary.start().await;
        node.logged("tier 1 is loaded").await;
        assert_no_leftovers(&binary);
        for earlier in &before {
            check(&node, earlier).await;
        }
        before.push(write_and_kill(&mut node, 100 * (round + 1)).await);
    }
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    assert_no_leftovers(&binary);
    for earlier in &before {
        check(&node, earlier).await;
    }
}

fn assert_no_leftovers(binary: &Binary) {
    for dir in ["gorego-data/tier1/staging", "gorego-data/tier2/tmp"] {
        assert_eq!(
            files_below(&binary.path(dir)),
            [""; 0].map(std::path::PathBuf::from)
        );
    }
}

#[tokio::test]
async fn a_node_that_was_killed_over_another_server_serves_from_tier_1_what_it_had_there() {
    // P9
    let mock = mock().await;
    let binary = Binary::over(&mock.url()).set("GOREGO_TIER1_WRITE", "sync");
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    // The commit of this one is under way when the node dies: Tier 2 never says that it has it.
    let unacknowledged = noise(MIB, 1);
    let digest = Digest::of(&unacknowledged);
    let commit = mock.hold(Match::write(&digest), After::End);
    let client = node.client().await;
    let mut upload = client.upload(&client.upload_name(&digest));
    upload.send(&unacknowledged, 0, MIB).await;
    commit.reached().await;
    let mut before = write_and_kill(&mut node, 100).await;
    assert_ne!(code(upload.answer().await), Code::Ok);
    mock.finished(Match::write(&digest), 1).await;
    commit.release();
    before.open.push(unacknowledged);

    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    assert_no_leftovers(&binary);
    let mark = mock.mark();
    let client = node.client().await;
    for blob in &before.acknowledged {
        assert!(client.read(&Digest::of(blob)).await.unwrap() == blob);
    }
    let asked = mock.calls().since(mark);
    assert!(asked.clone().method(method::READ).is_empty() && asked.method(method::BATCH_READ).is_empty());
    check(&node, &before).await;
}

#[tokio::test]
async fn a_kill_amid_many_writes_loses_none_that_was_acknowledged() {
    // P1, P9: killed at the moment in which so many had been acknowledged.
    let binary = Binary::new();
    let mut acknowledged = Vec::new();
    for (round, acks) in [1, 5, 17, 30].into_iter().enumerate() {
        let mut node = binary.start().await;
        let client = node.client().await;
        let blobs: Vec<Bytes> = (0..40)
            .map(|number: usize| noise(20_000 + number * 7000, (1000 * round + number) as u64))
            .collect();
        let mut writes: FuturesUnordered<_> = blobs
            .iter()
            .map(async |blob| client.write(blob).await.map(|_size| blob.clone()))
            .collect();
        for _ in 0..acks {
            acknowledged.push(writes.next().await.unwrap().unwrap());
        }
        node.kill().await;
        // Some were acknowledged in the meantime.
        acknowledged.extend(
            writes
                .filter_map(async |write| write.ok())
                .collect::<Vec<_>>()
                .await,
        );
    }
    let mut node = binary.start().await;
    node.logged("tier 1 is loaded").await;
    assert_no_leftovers(&binary);
    let before = Before {
        acknowledged,
        open: Vec::new(),
    };
    check(&node, &before).await;
}

#[tokio::test]
async fn action_results_that_were_acknowledged_outlive_a_kill() {
    // P1, P9
    let binary = Binary::new();
    let mut node = binary.start().await;
    let client = node.client_of("team/a").await;
    let results: Vec<(Digest, Bytes)> = (0..20_u8)
        .map(|number| (Digest::of(&[number]), Bytes::from(vec![0x20, number + 1])))
        .collect();
    for (action, result) in &results {
        client.put_action(action, result).await.unwrap();
    }
    node.kill().await;
    let node = binary.start().await;
    let client = node.client_of("team/a").await;
    for (action, result) in &results {
        assert_eq!(client.action(action).await.unwrap(), result);
    }
    assert_eq!(
        code(node.client().await.action(&results[0].0).await),
        Code::NotFound
    );
}
