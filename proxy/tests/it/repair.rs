use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use mock_upstream::{After, Digest, Match, method};
use prost::Message as _;
use proto::reapi;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, Site, idle, is_pending, noise};

const LEASE: Duration = Duration::from_secs(300);

/// A node whose Tier 1 holds a blob that Tier 2 has lost, and whose lease has ended.
async fn lost(harness: Harness, blob: &Bytes) -> (Site, Digest) {
    let site = harness.start().await;
    let digest = Digest::of(blob);
    site.client().write(blob).await.unwrap();
    site.landed().await;
    assert_eq!(site.kept(), 1);
    site.mock.evict("", &digest);
    tokio::time::sleep(LEASE).await;
    (site, digest)
}

fn uploads(site: &Site, digest: &Digest) -> usize {
    site.mock.calls().method(method::WRITE).digest(digest).count()
}

fn repairs(site: &Site, outcome: &str) -> u64 {
    site.node
        .metrics
        .uploads
        .repairs
        .with_label_values(&[outcome])
        .get()
}

#[tokio::test(start_paused = true)]
async fn row_5_what_tier_2_lost_and_tier_1_holds_is_repaired_by_one_upload_and_then_present() {
    // P2, R15
    let blob = noise(3 * MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let (one, other) = (site.client(), site.client());
    let digests = [digest];
    let (first, second) = join(one.missing(&digests), other.missing(&digests)).await;
    assert_eq!((first.unwrap(), second.unwrap()), (vec![], vec![]));
    assert_eq!(site.mock.blob("", &digest), Some(blob));
    assert_eq!(uploads(&site, &digest), 2, "the client's and the repair");
    assert_eq!((repairs(&site, "ok"), repairs(&site, "failed")), (1, 0));
    assert_eq!(site.node.metrics.uploads.repaired_bytes.get(), 3 * MIB as u64);
}

#[tokio::test(start_paused = true)]
async fn r15_a_blob_under_repair_is_missing_until_tier_2_has_acknowledged_it() {
    let blob = noise(MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let client = site.client();
    let gate = site.mock.hold(Match::write(&digest), After::End);
    let digests = [digest];
    {
        let mut missing = pin!(client.missing(&digests));
        assert!(is_pending(&mut missing, Duration::from_secs(4)).await);
        assert_eq!(
            missing.await.unwrap(),
            [digest],
            "not acknowledged within a client's patience"
        );
    }
    gate.release();
    idle().await;
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    assert_eq!(uploads(&site, &digest), 2, "the repair went on behind");
}

#[tokio::test(start_paused = true)]
async fn r15_a_repair_that_tier_2_refuses_leaves_the_blob_missing_and_is_tried_again() {
    let blob = noise(1000, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let client = site.client();
    site.mock.fail(Match::write(&digest), Code::ResourceExhausted, 1);
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(repairs(&site, "failed"), 1);
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn repair_can_be_switched_off() {
    let blob = noise(1000, 1);
    let (site, digest) = lost(Harness::new().set("repair", "off"), &blob).await;
    assert_eq!(site.client().missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(uploads(&site, &digest), 1);
}

#[tokio::test(start_paused = true)]
async fn row_4_a_clients_upload_of_what_tier_1_holds_and_tier_2_lost_reaches_tier_2() {
    // The lease lives: Tier 2's word is too old to answer an upload with, and is asked for again.
    for harness in [Harness::new(), Harness::new().set("repair", "off")] {
        let site = harness.start().await;
        let (client, blob) = (site.client(), noise(MIB, 1));
        let digest = Digest::of(&blob);
        client.write(&blob).await.unwrap();
        site.landed().await;
        site.mock.evict("", &digest);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(client.write(&blob).await.unwrap(), MIB as u64);
        assert_eq!(site.mock.blob("", &digest), Some(blob.clone()));
        tokio::time::sleep(LEASE).await;
        site.mock.evict("", &digest);
        assert_eq!(
            client.batch_write(std::slice::from_ref(&blob)).await.unwrap(),
            [Code::Ok]
        );
        assert_eq!(site.mock.blob("", &digest), Some(blob));
    }
}

#[tokio::test(start_paused = true)]
async fn p4_a_rotten_copy_repairs_nothing() {
    let blob = noise(MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let file = site.tier1_file(&digest);
    let mut bytes = fs_err::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(&file, bytes).unwrap();
    assert_eq!(site.client().missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(site.mock.blob("", &digest), None);
    assert_eq!((repairs(&site, "failed"), site.kept()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn r1_one_scope_is_not_repaired_with_anothers_copy() {
    let blob = noise(1000, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    assert_eq!(
        site.client_of("other").missing(&[digest]).await.unwrap(),
        [digest]
    );
    assert_eq!(site.mock.counts().blobs, 0);
}

/// Uploads that Tier 2 saw since `mark`: streams, batches, and the most bytes of blobs in one of these.
fn uploads_since(site: &Site, mark: u64) -> (usize, usize, u64) {
    let calls = site.mock.calls().since(mark);
    let batches = calls.clone().method(method::BATCH_UPDATE);
    let largest = batches.iter().map(|call| call.bytes_received).max();
    (
        calls.method(method::WRITE).count(),
        batches.count(),
        largest.unwrap_or_default(),
    )
}

#[tokio::test(start_paused = true)]
async fn a_thousand_lost_blobs_are_repaired_within_one_question_and_in_few_calls() {
    // R15, PXY-15
    for (limit, batches) in [(4_000_000, 1), (50_000, 4)] {
        let site = Harness::new()
            .mock(|settings| settings.max_batch_bytes = limit)
            .start()
            .await;
        let client = site.client();
        client.capabilities().await.unwrap();
        let mut blobs: Vec<Bytes> = (0..1000).map(|seed| noise(100, seed)).collect();
        blobs.push(noise(MIB, 1));
        let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
        client.batch_write(&blobs).await.unwrap();
        site.landed().await;
        assert_eq!(site.kept(), 1001);
        site.mock.clear();
        tokio::time::sleep(LEASE).await;
        let mark = site.mock.mark();
        assert_eq!(client.missing(&digests).await.unwrap(), []);
        assert_eq!(site.mock.counts().blobs, 1001);
        let (streams, sent, largest) = uploads_since(&site, mark);
        assert_eq!((streams, sent), (1, batches), "the large one is a stream");
        assert!(largest <= limit, "{largest}");
        assert_eq!((repairs(&site, "ok"), repairs(&site, "failed")), (1001, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn blobs_that_are_repaired_together_fail_one_by_one_and_action_results_wait_for_them() {
    // P4, R16
    let site = Harness::new().start().await;
    let client = site.client();
    let blobs = [1, 2, 3].map(|seed| noise(1000, seed));
    let digests = [0, 1, 2].map(|number: usize| Digest::of(&blobs[number]));
    client.batch_write(&blobs).await.unwrap();
    site.landed().await;
    let file = site.tier1_file(&digests[1]);
    let mut rotten = fs_err::read(&file).unwrap();
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    fs_err::write(&file, rotten).unwrap();
    site.mock.clear();
    tokio::time::sleep(LEASE).await;

    let commit = site.mock.hold(Match::method(method::BATCH_UPDATE), After::End);
    let (asks, updates) = (site.client(), site.client());
    let mut missing = pin!(asks.missing(&digests));
    assert!(is_pending(&mut missing, Duration::from_secs(1)).await);
    commit.reached().await;
    let result = reapi::ActionResult {
        stdout_digest: Some(digests[2].to_wire()),
        ..Default::default()
    };
    let (action, result) = (Digest::of(b"action"), Bytes::from(result.encode_to_vec()));
    let mut update = pin!(updates.put_action(&action, &result));
    assert!(is_pending(&mut update, Duration::from_secs(1)).await);
    assert!(site.mock.calls().method(method::UPDATE_ACTION).is_empty());
    commit.release();
    let (missing, update) = join(missing, update).await;
    assert_eq!(missing.unwrap(), [digests[1]]);
    update.unwrap();
    assert_eq!((repairs(&site, "ok"), repairs(&site, "failed")), (2, 1));
    assert_eq!((site.kept(), site.mock.counts().blobs), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn r6_a_hit_whose_output_tier_2_lost_is_repaired_from_tier_1() {
    let site = Harness::new().start().await;
    let (client, blob) = (site.client(), noise(1000, 1));
    let (digest, action) = (Digest::of(&blob), Digest::of(b"action"));
    client.write(&blob).await.unwrap();
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let result = Bytes::from(result.encode_to_vec());
    client.put_action(&action, &result).await.unwrap();
    site.landed().await;
    site.mock.evict("", &digest);
    tokio::time::sleep(LEASE).await;
    assert_eq!(client.action(&action).await.unwrap(), result);
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn r12_a_client_with_wrong_bytes_does_not_spoil_a_repair_and_a_right_one_shares_it() {
    let blob = noise(MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let gate = site.mock.hold(Match::write(&digest), After::End);
    let (asks, wrong, right) = (site.client(), site.client(), site.client());
    let digests = [digest];
    let mut missing = pin!(asks.missing(&digests));
    assert!(is_pending(&mut missing, Duration::from_secs(1)).await);
    gate.reached().await;
    let mut spoilt = blob.to_vec();
    spoilt[MIB - 1] ^= 1;
    assert_eq!(
        code(wrong.write_as(&digest, &spoilt.into()).await),
        Code::InvalidArgument
    );
    let mut write = pin!(right.write(&blob));
    assert!(is_pending(&mut write, Duration::from_secs(1)).await);
    gate.release();
    let (missing, written) = join(missing, write).await;
    assert_eq!((missing.unwrap(), written.unwrap()), (vec![], MIB as u64));
    assert_eq!(uploads(&site, &digest), 2);
    assert!(site.mock.blob("", &digest).is_some());
}

#[tokio::test(start_paused = true)]
async fn r12_a_repair_takes_over_from_a_client_that_hangs_up_and_whoever_asked_notices_nothing() {
    let blob = noise(MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let (uploads_it, asks) = (site.client(), site.client());
    let mut upload = uploads_it.upload(&uploads_it.upload_name(&digest));
    upload.send(&blob, 0, MIB / 2).await;
    site.mock.arrived(Match::write(&digest), 2).await;
    let digests = [digest];
    let mut missing = pin!(asks.missing(&digests));
    assert!(
        is_pending(&mut missing, Duration::from_secs(1)).await,
        "the client leads, and the repair waits beside it"
    );
    upload.hang_up().await;
    assert_eq!(missing.await.unwrap(), []);
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_begins_no_repair_and_ends_those_that_are_on() {
    let blob = noise(MIB, 1);
    let (site, digest) = lost(Harness::new(), &blob).await;
    let gate = site.mock.hold(Match::write(&digest), After::End);
    let client = site.client();
    let digests = [digest];
    {
        let mut missing = pin!(client.missing(&digests));
        assert!(is_pending(&mut missing, Duration::from_secs(1)).await);
    }
    let mock = site.mock.clone();
    let (stopped, ()) = join(site.stop(), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.release();
    })
    .await;
    assert_eq!(stopped.1, gorego::life::Ended::Clean);
    assert_eq!(mock.blob("", &digest), Some(blob));
}
