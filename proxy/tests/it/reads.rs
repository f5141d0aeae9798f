use std::time::Duration;

use futures::future::join_all;
use mock_upstream::{After, Match, Outcome, method};
use tonic::Code;

use crate::client::{code, rest};
use crate::harness::{Harness, MIB, noise};

#[tokio::test(start_paused = true)]
async fn a_hundred_clients_of_one_cold_blob_cost_one_read_and_have_bytes_before_the_last_arrived() {
    // P7
    let site = Harness::new().start().await;
    let blob = noise(20 * MIB, 1);
    let digest = site.mock.put_blob("", blob.clone());
    let last_byte = site
        .mock
        .hold(Match::read(&digest), After::Bytes(digest.size_bytes() - 1));
    let clients: Vec<_> = (0..100).map(|_| site.client()).collect();
    let began = join_all(clients.iter().map(async |client| {
        let mut stream = client.open(&digest).await.unwrap();
        let first = stream.message().await.unwrap().unwrap().data;
        assert!(!first.is_empty() && blob.starts_with(&first));
        (stream, first.len())
    }))
    .await;
    // Nobody reads on, and the fetch does not wait for anybody.
    last_byte.reached().await;
    last_byte.release();
    let blob = &blob;
    join_all(began.into_iter().map(async |(mut stream, mut at)| {
        while let Some(message) = stream.message().await.unwrap() {
            assert!(blob[at..].starts_with(&message.data), "right bytes at {at}");
            at += message.data.len();
        }
        assert_eq!(at, blob.len());
    }))
    .await;
    let reads = site.mock.calls().method(method::READ);
    assert_eq!((reads.count(), reads.bytes_sent()), (1, digest.size_bytes()));
    assert_eq!(site.node.metrics.reads.flights_joined.get(), 99);
}

#[tokio::test(start_paused = true)]
async fn readers_and_tier_1_get_everything_when_the_first_client_leaves_at_a_tenth() {
    let site = Harness::new().set("tier2.when_down", "serve_tier1").start().await;
    let blob = noise(10 * MIB, 2);
    let digest = site.mock.put_blob("", blob.clone());
    let gate = site.mock.hold(Match::read(&digest), After::Bytes(MIB as u64));
    let (first, second) = (site.client(), site.client());
    let mut leaving = first.open(&digest).await.unwrap();
    let mut staying = second.open(&digest).await.unwrap();
    let mut had = 0;
    while had < MIB {
        had += leaving.message().await.unwrap().unwrap().data.len();
    }
    drop(leaving);
    drop(first);
    gate.reached().await;
    gate.release();
    let mut got = Vec::new();
    rest(&mut staying, &mut got).await.unwrap();
    assert!(got == blob);
    site.landed().await;
    site.mock.suspend().await.unwrap();
    assert!(
        site.client().read(&digest).await.unwrap() == blob,
        "tier 1 has it"
    );
    assert_eq!(site.mock.calls().method(method::READ).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_without_readers_that_is_nearly_done_is_finished_for_tier_1() {
    let site = Harness::new().start().await;
    let digest = site.mock.put_blob("", noise(4 * MIB, 3));
    let gate = site.mock.hold(Match::read(&digest), After::Bytes(MIB as u64));
    let client = site.client();
    let stream = client.open(&digest).await.unwrap();
    gate.reached().await;
    drop((stream, client));
    gate.release();
    site.landed().await;
    assert_eq!(site.kept(), 1);
    let reads = site.mock.calls().method(method::READ);
    assert_eq!(reads.outcome(Outcome::Ok).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_goes_on_at_the_same_byte_when_tier_2_breaks_midway_and_comes_back() {
    // P4: ours to retry, the client sees nothing.
    let site = Harness::new().start().await;
    let blob = noise(4 * MIB, 4);
    let digest = site.mock.put_blob("", blob.clone());
    let gate = site
        .mock
        .hold(Match::read(&digest).nth(1), After::Bytes(MIB as u64 + 7));
    let client = site.client();
    let mut stream = client.open(&digest).await.unwrap();
    gate.reached().await;
    site.mock.suspend().await.unwrap();
    site.mock.resume().await.unwrap();
    let mut got = Vec::new();
    rest(&mut stream, &mut got).await.unwrap();
    assert!(got == blob);
    let reads: Vec<_> = site.mock.calls().method(method::READ).into_iter().collect();
    assert_eq!(reads.len(), 2, "{reads:?}");
    assert_eq!(reads[0].outcome, Outcome::Suspended);
    assert!(
        reads[1].offset > 0,
        "resumed, not begun anew: {}",
        reads[1].offset
    );
    assert_eq!(site.node.metrics.reads.resumed.get(), 1);
    site.landed().await;
    assert_eq!(site.kept(), 1, "and kept, verified over both streams");
}

#[tokio::test(start_paused = true)]
async fn a_reader_does_not_wait_for_tier_2_to_end_its_stream_and_tier_2_sees_no_reset() {
    let site = Harness::new().start().await;
    let blob = noise(MIB, 8);
    let digest = site.mock.put_blob("", blob.clone());
    let status = site.mock.hold(Match::read(&digest), After::End);
    assert!(site.client().read(&digest).await.unwrap() == blob);
    status.reached().await;
    assert_eq!(
        site.mock.calls().method(method::READ).first().unwrap().outcome,
        Outcome::Open
    );
    status.release();
    site.mock.finished(Match::read(&digest), 1).await;
    assert_eq!(
        site.mock.calls().method(method::READ).first().unwrap().outcome,
        Outcome::Ok
    );
}

#[tokio::test(start_paused = true)]
async fn offset_and_limit_work_on_a_cold_blob_and_on_a_warm_one() {
    // BS-READ-05, BS-READ-06, BS-READ-09
    let site = Harness::new().start().await;
    let blob = noise(3 * MIB, 5);
    let digest = site.mock.put_blob("", blob.clone());
    let size = i64::try_from(blob.len()).unwrap();
    for warm in [false, true] {
        for (offset, limit) in [
            (0, 100),
            (size - 10, 0),
            (MIB as i64, 70_000),
            (5, size),
            (size, 0),
        ] {
            if !warm {
                // Each finds Tier 1 empty.
                let fresh = Harness::new().start().await;
                fresh.mock.put_blob("", blob.clone());
                check_range(&fresh.client(), &blob, offset, limit).await;
            } else {
                check_range(&site.client(), &blob, offset, limit).await;
            }
        }
        site.client().read(&digest).await.unwrap();
        site.landed().await;
    }
    let outside = site.client().read_range(&digest, size + 1, 0).await;
    assert_eq!(code(outside), Code::OutOfRange); // BS-READ-07
}

async fn check_range(client: &crate::client::Client, blob: &bytes::Bytes, offset: i64, limit: i64) {
    let digest = mock_upstream::Digest::of(blob);
    let got = client.read_range(&digest, offset, limit).await.unwrap();
    let from = usize::try_from(offset).unwrap();
    let to = match limit {
        0 => blob.len(),
        limit => (from + usize::try_from(limit).unwrap()).min(blob.len()),
    };
    assert!(got == blob[from..to], "offset {offset}, limit {limit}");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_tier_2_never_answers_ends_and_is_no_miss() {
    // P5, P10, R14
    let site = Harness::new().start().await;
    let digest = site.mock.put_blob("", noise(1000, 6));
    let gate = site.mock.hold(Match::read(&digest), After::Start);
    let asked = tokio::time::Instant::now();
    assert_eq!(code(site.client().read(&digest).await), Code::Unavailable);
    assert!(
        asked.elapsed() <= Duration::from_secs(11),
        "{:?}",
        asked.elapsed()
    );
    drop(gate);
    site.client().read(&digest).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_full_tier_1_makes_room_and_every_read_is_right() {
    let site = Harness::new().set("tier1.max_size", "8MiB").start().await;
    for seed in 0..160 {
        let blob = noise(MIB / 4, seed);
        let digest = site.mock.put_blob("", blob.clone());
        assert!(site.client().read(&digest).await.unwrap() == blob);
        site.landed().await;
    }
    site.node.tier1.settled().await;
    let allocated = site.node.metrics.tier1.allocated_bytes.get();
    assert!(allocated <= 8 << 20, "{allocated}");
    let (kept, evicted) = (
        u64::try_from(site.kept()).unwrap(),
        site.node.metrics.tier1.evicted.get(),
    );
    assert!(
        kept >= 20 && kept + evicted == 160,
        "{kept} kept, {evicted} evicted"
    );
}
