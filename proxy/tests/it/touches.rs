use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Digest, method};
use prost::Message as _;
use proto::reapi;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, Site, noise};

const INTERVAL: Duration = Duration::from_secs(600);

/// Reads are gathered for a second.
const GATHERED: Duration = Duration::from_secs(2);

/// A node whose Tier 1 holds some blobs, of which Tier 2 has heard nothing for long.
async fn filled(harness: Harness, count: u64) -> (Site, Vec<Digest>) {
    let site = harness.start().await;
    let blobs: Vec<Bytes> = (0..count).map(|seed| noise(1000, seed)).collect();
    site.client().batch_write(&blobs).await.unwrap();
    site.landed().await;
    tokio::time::sleep(INTERVAL).await;
    (site, blobs.iter().map(|blob| Digest::of(blob)).collect())
}

fn touches(site: &Site, digest: &Digest) -> usize {
    site.mock
        .calls()
        .method(method::FIND_MISSING)
        .digest(digest)
        .count()
}

fn questions(site: &Site) -> usize {
    site.mock.calls().method(method::FIND_MISSING).count()
}

#[tokio::test(start_paused = true)]
async fn row_14_local_hits_reach_tier_2_together_and_each_blob_once_per_interval() {
    let (site, digests) = filled(Harness::new(), 100).await;
    let client = site.client();
    for _ in 0..3 {
        client.batch_read(&digests[..50]).await.unwrap();
        for digest in &digests[50..] {
            client.read(digest).await.unwrap();
        }
    }
    assert_eq!(questions(&site), 0, "nobody waits for it");
    tokio::time::sleep(GATHERED).await;
    assert_eq!(questions(&site), 1);
    assert!(digests.iter().all(|digest| touches(&site, digest) == 1));
    client.read(&digests[0]).await.unwrap();
    tokio::time::sleep(INTERVAL - 2 * GATHERED).await;
    assert_eq!(questions(&site), 1);
    tokio::time::sleep(2 * GATHERED).await;
    client.read(&digests[0]).await.unwrap();
    tokio::time::sleep(GATHERED).await;
    assert_eq!((touches(&site, &digests[0]), questions(&site)), (2, 2));
    assert_eq!(site.node.metrics.touches.touched.get(), 101);
    assert_eq!(
        site.node
            .metrics
            .reads
            .hits
            .with_label_values(&["2", "cas"])
            .get(),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_was_asked_about_anyway_is_not_touched_and_zero_touches_nothing() {
    let (site, digests) = filled(Harness::new(), 1).await;
    let client = site.client();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    client.read(&digests[0]).await.unwrap();
    tokio::time::sleep(GATHERED).await;
    assert_eq!(questions(&site), 1);

    let (site, digests) = filled(Harness::new().set("touch.interval", "0s"), 1).await;
    site.client().read(&digests[0]).await.unwrap();
    tokio::time::sleep(GATHERED).await;
    assert_eq!(questions(&site), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hit_that_leases_answer_touches_what_it_refers_to_once_per_interval() {
    // R6, row 14
    for (interval, touched) in [("10m", 1), ("2h", 0), ("0s", 0)] {
        let site = Harness::new()
            .set("cas.lease", "1h")
            .set("ac.lease", "1h")
            .set("touch.interval", interval)
            .start()
            .await;
        let client = site.client();
        // One that Tier 1 holds, and one of which only Tier 2's word is known.
        let (held, elsewhere) = (noise(1000, 1), site.mock.put_blob("", noise(1000, 2)));
        client.write(&held).await.unwrap();
        assert_eq!(client.missing(&[elsewhere]).await.unwrap(), []);
        let files = [Digest::of(&held), elsewhere];
        let output = |digest: &Digest| reapi::OutputFile {
            digest: Some(digest.to_wire()),
            ..Default::default()
        };
        let result = reapi::ActionResult {
            output_files: files.iter().map(output).collect(),
            ..Default::default()
        };
        let (action, result) = (Digest::of(b"action"), Bytes::from(result.encode_to_vec()));
        client.put_action(&action, &result).await.unwrap();
        let before = files.map(|digest| touches(&site, &digest));
        let told = || files.map(|digest| touches(&site, &digest) - before[usize::from(digest == elsewhere)]);
        client.action(&action).await.unwrap();
        tokio::time::sleep(GATHERED).await;
        assert_eq!(told(), [0, 0], "Tier 2 was asked just now");
        tokio::time::sleep(INTERVAL).await;
        for _ in 0..2 {
            client.action(&action).await.unwrap();
            assert_eq!(told(), [0, 0], "nobody waits for it");
        }
        tokio::time::sleep(GATHERED).await;
        client.action(&action).await.unwrap();
        tokio::time::sleep(GATHERED).await;
        assert_eq!(told(), [touched; 2], "{interval}");
        tokio::time::sleep(INTERVAL).await;
        client.action(&action).await.unwrap();
        tokio::time::sleep(GATHERED).await;
        assert_eq!(told(), [2 * touched; 2], "{interval}");
        let questions = site.mock.calls().method(method::GET_ACTION).count();
        assert_eq!(questions, 0, "the copy counts for an hour");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_what_a_touch_finds_lacking_is_repaired_and_its_lease_ends() {
    for repair in ["on", "off"] {
        let harness = Harness::new()
            .set("repair", repair)
            .set("cas.lease", "1h")
            .set("touch.interval", "10m");
        let (site, digests) = filled(harness, 1).await;
        let client = site.client();
        site.mock.evict("", &digests[0]);
        assert_eq!(client.missing(&digests).await.unwrap(), [], "within the lease");
        client.read(&digests[0]).await.unwrap();
        tokio::time::sleep(GATHERED).await;
        assert_eq!(touches(&site, &digests[0]), 1);
        assert_eq!(site.mock.blob("", &digests[0]).is_some(), repair == "on");
        let missing = client.missing(&digests).await.unwrap();
        assert_eq!(missing.is_empty(), repair == "on");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_touched_while_tier_2_is_down_and_what_gathered_is_told_when_it_is_back() {
    let (site, digests) = filled(Harness::new().set("tier2.when_down", "fail"), 1).await;
    let client = site.client();
    client.read(&digests[0]).await.unwrap();
    site.mock.suspend().await.unwrap();
    assert_eq!(code(client.read(&Digest::of(b"absent")).await), Code::Unavailable);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(touches(&site, &digests[0]), 0);
    site.mock.resume().await.unwrap();
    tokio::time::sleep(GATHERED).await;
    assert_eq!(touches(&site, &digests[0]), 1);
    assert_eq!(site.node.metrics.touches.dropped.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_tells_what_it_has_gathered() {
    let (site, digests) = filled(Harness::new(), 3).await;
    site.client().batch_read(&digests).await.unwrap();
    let mock = site.mock.clone();
    let (_stopped, ended) = site.stop().await;
    assert_eq!(ended, gorego::life::Ended::Clean);
    assert_eq!(mock.calls().method(method::FIND_MISSING).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_while_tier_2_is_away_does_not_wait_for_it() {
    let (site, digests) = filled(Harness::new(), 1).await;
    let client = site.client();
    client.read(&digests[0]).await.unwrap();
    site.mock.suspend().await.unwrap();
    assert_eq!(code(client.read(&Digest::of(b"absent")).await), Code::Unavailable);
    drop(client);
    let dropped = site.node.metrics.touches.dropped.clone();
    let (_stopped, ended) = site.stop().await;
    assert_eq!(ended, gorego::life::Ended::Clean);
    assert_eq!(dropped.get(), 1);
}
