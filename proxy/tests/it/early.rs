use std::time::Duration;

use mock_upstream::{After, Digest, Match, method};
use tonic::Code;

use crate::harness::{Harness, MIB, Site, noise};

fn uploads(site: &Site) -> usize {
    let calls = site.mock.calls();
    calls.clone().method(method::WRITE).count() + calls.method(method::BATCH_UPDATE).count()
}

fn questions(site: &Site) -> usize {
    site.mock.calls().method(method::FIND_MISSING).count()
}

#[tokio::test(start_paused = true)]
async fn r2_an_upload_is_answered_early_on_tier_2s_word_of_the_last_five_seconds() {
    let site = Harness::new().start().await;
    let client = site.client();
    let (large, small) = (noise(MIB, 1), noise(100, 2));
    let digests = [
        site.mock.put_blob("", large.clone()),
        site.mock.put_blob("", small.clone()),
    ];
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    tokio::time::sleep(Duration::from_millis(4900)).await;
    assert_eq!(client.write(&large).await.unwrap(), MIB as u64);
    assert_eq!(
        client.batch_write(std::slice::from_ref(&small)).await.unwrap(),
        [Code::Ok]
    );
    assert_eq!((uploads(&site), questions(&site)), (0, 1));
    assert_eq!(site.node.metrics.uploads.early.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn r2_with_an_older_lease_tier_2_is_asked_before_an_upload_is_answered_early() {
    let site = Harness::new().start().await;
    let client = site.client();
    let blob = noise(MIB, 1);
    let digest = site.mock.put_blob("", blob.clone());
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(client.write(&blob).await.unwrap(), MIB as u64);
    assert_eq!((uploads(&site), questions(&site)), (0, 2));
    tokio::time::sleep(Duration::from_secs(5)).await;
    site.mock.evict("", &digest);
    assert_eq!(client.write(&blob).await.unwrap(), MIB as u64);
    assert_eq!((uploads(&site), questions(&site)), (1, 3));
    assert_eq!(site.mock.blob("", &digest), Some(blob));
}

#[tokio::test(start_paused = true)]
async fn r2_a_question_that_fails_or_is_not_answered_means_a_real_upload() {
    for hangs in [false, true] {
        let site = Harness::new().start().await;
        let client = site.client();
        let blob = noise(MIB, 1);
        let digest = site.mock.put_blob("", blob.clone());
        assert_eq!(client.missing(&[digest]).await.unwrap(), []);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let question = Match::method(method::FIND_MISSING);
        let _held = hangs.then(|| site.mock.hold(question.clone(), After::Start));
        if !hangs {
            site.mock.fail(question, Code::Internal, 1);
        }
        assert_eq!(client.write(&blob).await.unwrap(), MIB as u64);
        assert_eq!(uploads(&site), 1, "hangs: {hangs}");
    }
}

#[tokio::test(start_paused = true)]
async fn r2_without_a_lease_an_upload_is_sent_on_unasked() {
    for (field, upload_again) in [
        ("cas.write_lease", true),
        ("cas.lease", true),
        ("cas.lease", false),
    ] {
        let site = Harness::new().set(field, "0s").start().await;
        let (client, blob) = (site.client(), noise(MIB, 1));
        let digest = Digest::of(&blob);
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
        client.write(&blob).await.unwrap();
        if upload_again {
            client.write(&blob).await.unwrap();
            client.batch_write(std::slice::from_ref(&blob)).await.unwrap();
        }
        let expected = if upload_again { 3 } else { 1 };
        assert_eq!((uploads(&site), questions(&site)), (expected, 1), "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn r10_an_upload_of_a_bad_blob_is_never_answered_early() {
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = Digest::of(b"right");
    site.mock.plant("", &digest, "wrong");
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    assert!(client.read(&digest).await.is_err());
    site.mock.evict("", &digest);
    assert_eq!(client.write(&"right".into()).await.unwrap(), 5);
    assert_eq!(site.mock.blob("", &digest), Some("right".into()));
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
}
