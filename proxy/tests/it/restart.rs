use gorego::life::Ended;
use mock_upstream::Digest;

use crate::harness::{Harness, MIB, Site, noise};

async fn filled(blob: &bytes::Bytes) -> Site {
    let site = Harness::new().start().await;
    site.client().write(blob).await.unwrap();
    site.landed().await;
    site
}

async fn restarted(site: Site) -> Site {
    let (stopped, ended) = site.stop().await;
    assert_eq!(ended, Ended::Clean);
    stopped.start().await
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_serves_what_it_held_without_a_read_of_tier_2() {
    // P9
    let blob = noise(MIB, 1);
    let digest = Digest::of(&blob);
    let site = restarted(filled(&blob).await).await;
    assert_eq!(site.kept(), 1);
    assert_eq!(site.client().missing(&[digest]).await.unwrap(), []);
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 0);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_was_torn_while_the_node_was_down_is_fetched_again() {
    // P4, P9, R17
    let blob = noise(MIB, 2);
    let digest = Digest::of(&blob);
    let site = filled(&blob).await;
    let file = site.tier1_file(&digest);
    let (stopped, _) = site.stop().await;
    let found = fs_err::OpenOptions::new().write(true).open(&file).unwrap();
    found.set_len(MIB as u64 / 2).unwrap();
    let site = stopped.start().await;
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 1);
    site.landed().await;
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 1, "and kept again");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_rots_is_dropped_and_fetched_again_within_the_same_call() {
    // P4, R17: every block is checked before it leaves.
    let blob = noise(MIB, 3);
    let digest = Digest::of(&blob);
    let site = filled(&blob).await;
    let file = site.tier1_file(&digest);
    let mut bytes = fs_err::read(&file).unwrap();
    for place in [bytes.len() / 3, bytes.len() / 2] {
        bytes[place] ^= 0x40;
    }
    fs_err::write(&file, bytes).unwrap();
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 1);
    assert_eq!(site.node.metrics.tier1.dropped.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_file_that_vanished_is_fetched_again() {
    let blob = noise(MIB, 4);
    let digest = Digest::of(&blob);
    let site = filled(&blob).await;
    fs_err::remove_file(site.tier1_file(&digest)).unwrap();
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 1);
}

#[tokio::test(start_paused = true)]
async fn the_embedded_tier_2_outlives_its_node_and_a_wiped_tier_1() {
    let site = Harness::new().embedded_tier2().start().await;
    let blob = noise(MIB, 5);
    let digest = Digest::of(&blob);
    site.client().write(&blob).await.unwrap();
    site.landed().await;
    let file = site.tier1_file(&digest);
    let (stopped, ended) = site.stop().await;
    assert_eq!(ended, Ended::Clean);
    fs_err::remove_file(file).unwrap();
    let site = stopped.start().await;
    assert_eq!(site.kept(), 0);
    assert_eq!(site.client().missing(&[digest]).await.unwrap(), []);
    assert!(site.client().read(&digest).await.unwrap() == blob);
}
