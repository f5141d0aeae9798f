use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{After, Digest, Match, Outcome, method};
use tonic::Code;

use crate::client::{code, parts};
use crate::harness::{Harness, MIB, Site, idle, is_pending, noise};

#[tokio::test(start_paused = true)]
async fn a_write_is_acknowledged_only_after_tier_2_has_it_and_then_read_without_asking() {
    // P1
    for mode in ["sync", "async"] {
        let site = Harness::new().set("tier1.write", mode).start().await;
        let blob = noise(MIB, 1);
        let digest = Digest::of(&blob);
        let commit = site.mock.hold(Match::write(&digest), After::End);
        let client = site.client();
        let mut write = pin!(client.write(&blob));
        assert!(
            is_pending(&mut write, Duration::from_secs(55)).await,
            "{mode}: tier 2 has not answered"
        );
        assert_eq!((commit.count(), site.mock.blob("", &digest)), (1, None));
        commit.release();
        assert_eq!(write.await.unwrap(), digest.size_bytes());
        assert_eq!(site.mock.blob("", &digest), Some(blob.clone()));
        assert!(
            site.client().read(&digest).await.unwrap() == blob,
            "{mode}: at once"
        );
        assert_eq!(site.upstream_reads(&digest), 0);
        site.landed().await;
        assert_eq!(site.kept(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_acknowledged_only_after_tier_2_has_them() {
    let site = Harness::new().start().await;
    let blobs = [noise(1000, 1), noise(2000, 2), Bytes::new(), noise(1000, 1)];
    let gate = site.mock.hold(Match::method(method::BATCH_UPDATE), After::End);
    let client = site.client();
    let mut write = pin!(client.batch_write(&blobs));
    assert!(is_pending(&mut write, Duration::from_secs(5)).await);
    gate.release();
    assert_eq!(write.await.unwrap(), [Code::Ok; 4]);
    let updates = site.mock.calls().method(method::BATCH_UPDATE);
    assert_eq!(updates.count(), 1);
    assert_eq!(
        updates.bytes_received(),
        3000,
        "no duplicate and nothing of the empty blob"
    );
    site.landed().await;
    assert_eq!(site.kept(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_answers_to_a_write_is_passed_on_and_the_blob_is_not_kept() {
    // P1, ERR
    for refusal in [Code::Internal, Code::ResourceExhausted, Code::FailedPrecondition] {
        let site = Harness::new().start().await;
        let blob = noise(MIB, 2);
        let digest = Digest::of(&blob);
        site.mock.fail(Match::write(&digest), refusal, 1);
        assert_eq!(code(site.client().write(&blob).await), refusal);
        assert_not_kept(&site, &digest).await;
        assert_eq!(code(site.client().write(&blob).await), Code::Ok);
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_not_what_it_says_is_refused_and_tier_2_sees_a_reset() {
    // P4, BS-WRITE: wrong hash, too short, too long. Ending the stream upstream would store it with some servers (R12).
    let right = noise(MIB, 3);
    let (short, long) = (right.slice(..MIB - 1), Bytes::from([&right[..], b"x"].concat()));
    let mut flipped = right.to_vec();
    flipped[MIB - 1] ^= 1;
    for (what, sent) in [("hash", flipped.into()), ("short", short), ("long", long)] {
        let site = Harness::new().start().await;
        let digest = Digest::of(&right);
        assert_eq!(
            code(site.client().write_as(&digest, &sent).await),
            Code::InvalidArgument,
            "{what}"
        );
        site.mock.finished(Match::write(&digest), 1).await;
        let writes = site.mock.calls().method(method::WRITE);
        let outcomes: Vec<_> = writes.iter().map(|call| call.outcome).collect();
        assert_eq!(outcomes, [Outcome::Reset], "{what}");
        assert_eq!(site.mock.counts().blobs, 0, "{what}");
        assert_not_kept(&site, &digest).await;
    }
}

/// Nothing of the blob is in Tier 1, and nobody claims that it is anywhere.
async fn assert_not_kept(site: &Site, digest: &Digest) {
    site.landed().await;
    let client = site.client();
    assert_eq!(client.missing(&[*digest]).await.unwrap(), [*digest]);
    assert_eq!(code(client.read(digest).await), Code::NotFound);
    assert_eq!(site.kept(), 0);
    // Not even what was kept for the client to go on with.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(site.node.metrics.tier1.staged_bytes.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn two_clients_that_upload_one_blob_cost_one_upload() {
    // R12
    let site = Harness::new().start().await;
    let blob = noise(2 * MIB, 4);
    let digest = Digest::of(&blob);
    let commit = site.mock.hold(Match::write(&digest), After::End);
    let (one, two) = (site.client(), site.client());
    let release = async {
        commit.reached().await;
        idle().await;
        commit.release();
    };
    let (first, second, ()) = tokio::join!(one.write(&blob), two.write(&blob), release);
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (digest.size_bytes(), digest.size_bytes())
    );
    assert_eq!(site.mock.calls().method(method::WRITE).count(), 1);
    assert_eq!(site.node.metrics.uploads.shared.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_succeeds_though_the_client_that_led_it_hangs_up() {
    // R12
    let site = Harness::new().start().await;
    let blob = noise(MIB, 5);
    let digest = Digest::of(&blob);
    let (leading, following) = (site.client(), site.client());
    let mut led = leading.upload(&leading.upload_name(&digest));
    led.send(&blob, 0, MIB / 2).await;
    site.mock.arrived(Match::write(&digest), 1).await;
    let mut followed = following.upload(&following.upload_name(&digest));
    followed.send(&blob, 0, MIB / 4).await;
    idle().await;
    led.hang_up().await;
    followed.send(&blob, MIB / 4, MIB).await;
    assert_eq!(followed.answer().await.unwrap(), digest.size_bytes());
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn a_bad_upload_is_not_the_fault_of_another_client_of_the_same_blob() {
    let site = Harness::new().start().await;
    let blob = noise(MIB, 6);
    let digest = Digest::of(&blob);
    let (bad, good) = (site.client(), site.client());
    let mut wrong = blob.to_vec();
    wrong[MIB - 1] ^= 1;
    let wrong = Bytes::from(wrong);
    let mut led = bad.upload(&bad.upload_name(&digest));
    led.send(&wrong, 0, MIB / 2).await;
    site.mock.arrived(Match::write(&digest), 1).await;
    let mut followed = good.upload(&good.upload_name(&digest));
    followed.send(&blob, 0, MIB / 2).await;
    idle().await;
    led.send(&wrong, MIB / 2, MIB).await;
    assert_eq!(code(led.answer().await), Code::InvalidArgument);
    followed.send(&blob, MIB / 2, MIB).await;
    assert_eq!(code(followed.answer().await), Code::Ok);
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_goes_on_where_query_write_status_says() {
    // R11, BS-WRITE resuming
    let site = Harness::new().start().await;
    let blob = noise(2 * MIB, 7);
    let digest = Digest::of(&blob);
    let client = site.client();
    let name = client.upload_name(&digest);
    let mut broken = client.upload(&name);
    for from in (0..MIB).step_by(MIB / 4) {
        broken.send(&blob, from, from + MIB / 4).await;
    }
    idle().await;
    broken.hang_up().await;
    idle().await;
    assert_eq!(client.write_status(&name).await.unwrap(), (MIB as u64, false));
    let elsewhere = parts(&name, MIB / 2, &blob);
    assert_eq!(code(client.write_parts(elsewhere).await), Code::InvalidArgument);
    assert_eq!(
        client.write_parts(parts(&name, MIB, &blob)).await.unwrap(),
        digest.size_bytes()
    );
    assert_eq!(
        client.write_status(&name).await.unwrap(),
        (digest.size_bytes(), true)
    );
    assert_eq!(site.mock.blob("", &digest), Some(blob.clone()));
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_counts_though_its_client_hung_up() {
    // R14
    let site = Harness::new().start().await;
    let blob = noise(MIB, 8);
    let digest = Digest::of(&blob);
    let commit = site.mock.hold(Match::write(&digest), After::End);
    let client = site.client();
    let name = client.upload_name(&digest);
    let mut upload = client.upload(&name);
    upload.send(&blob, 0, MIB / 2).await;
    upload.send(&blob, MIB / 2, MIB).await;
    commit.reached().await;
    upload.hang_up().await;
    let mut status = pin!(client.write_status(&name));
    assert!(
        is_pending(&mut status, Duration::from_secs(5)).await,
        "the commit is under way"
    );
    commit.release();
    assert_eq!(status.await.unwrap(), (digest.size_bytes(), true));
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_tier_2_has_is_acknowledged_early() {
    // BS-WRITE-14, BS-WRITE-15
    let site = Harness::new().start().await;
    let blob = noise(8 * MIB, 9);
    let digest = site.mock.put_blob("", blob.clone());
    let client = site.client();
    let mut upload = client.upload(&client.upload_name(&digest));
    upload.send(&blob, 0, MIB).await;
    idle().await;
    assert_eq!(upload.answer().await.unwrap(), digest.size_bytes());
}
