use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Act, After, Digest, Match, Rule, method};
use prost::Message as _;
use proto::reapi;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, noise};

fn some_result() -> Bytes {
    let result = reapi::ActionResult {
        exit_code: 3,
        ..Default::default()
    };
    result.encode_to_vec().into()
}

#[tokio::test(start_paused = true)]
async fn while_tier_2_is_down_nothing_is_acknowledged_or_missing_and_afterwards_nothing_is_remembered() {
    // P1, P5, P6
    let site = Harness::new().start().await;
    let client = site.client();
    let (small, large) = (noise(1000, 1), noise(MIB, 2));
    let digests = [Digest::of(&small), Digest::of(&large)];
    let action = Digest::of(b"an action");
    site.mock.suspend().await.unwrap();
    for _ in 0..2 {
        assert_eq!(code(client.write(&large).await), Code::Unavailable);
        let batch = client.batch_write(std::slice::from_ref(&small)).await.unwrap();
        assert_eq!(batch, [Code::Unavailable]);
        let update = client.put_action(&action, &some_result()).await;
        assert_eq!(code(update), Code::Unavailable);
        assert_eq!(code(client.missing(&digests).await), Code::Unavailable);
        assert_eq!(code(client.action(&action).await), Code::Unavailable);
        assert_eq!(code(client.read(&digests[1]).await), Code::Unavailable);
        let batch = client.batch_read(&digests[..1]).await.unwrap();
        let status = batch[0].status.clone().unwrap_or_default();
        assert_eq!(Code::from(status.code), Code::Unavailable);
        assert_eq!(code(client.tree(&digests[0]).await), Code::Unavailable);
    }
    site.landed().await;
    assert_eq!(site.kept(), 0);
    // Not even what was kept for the client to go on with.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(site.node.metrics.tier1.staged_bytes.get(), 0);

    site.mock.resume().await.unwrap();
    site.tier2_is_up().await;
    assert_eq!(client.missing(&digests).await.unwrap(), digests);
    assert_eq!(code(client.read(&digests[1]).await), Code::NotFound);
    assert_eq!(code(client.action(&action).await), Code::NotFound);
    assert_eq!(client.write(&large).await.unwrap(), MIB as u64);
    assert_eq!(client.batch_write(&[small]).await.unwrap(), [Code::Ok]);
    client.put_action(&action, &some_result()).await.unwrap();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    assert_eq!(client.action(&action).await.unwrap(), some_result());
}

#[tokio::test(start_paused = true)]
async fn a_write_that_tier_2_leaves_midway_fails_and_is_not_kept() {
    // P1
    let site = Harness::new().start().await;
    let blob = noise(2 * MIB, 3);
    let digest = Digest::of(&blob);
    for after in [After::Bytes(MIB as u64), After::End] {
        let gate = site.mock.hold(Match::write(&digest), after);
        let client = site.client();
        let cut = async {
            gate.reached().await;
            site.mock.suspend().await.unwrap();
        };
        let (answer, ()) = tokio::join!(client.write(&blob), cut);
        assert_eq!(code(answer), Code::Unavailable, "{after:?}");
        site.mock.resume().await.unwrap();
        site.tier2_is_up().await;
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
        site.landed().await;
        assert_eq!(site.kept(), 0);
    }
    assert_eq!(code(site.client().write(&blob).await), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_tier_2_that_hangs_is_an_error_within_the_first_byte_time() {
    // R14
    let site = Harness::new().start().await;
    let gate = site.mock.hold(Match::any(), After::Start);
    let client = site.client();
    let digest = Digest::of(b"content");
    for _ in 0..2 {
        let asked = tokio::time::Instant::now();
        assert_eq!(code(client.missing(&[digest]).await), Code::Unavailable);
        assert_eq!(code(client.action(&digest).await), Code::Unavailable);
        assert!(
            asked.elapsed() <= Duration::from_secs(21),
            "{:?}",
            asked.elapsed()
        );
    }
    gate.release();
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    assert!(!site.mock.calls().method(method::FIND_MISSING).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_one_service_leaves_the_other_alone() {
    // R13
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = Digest::of(b"content");
    let gone = |method| Rule::new(Match::method(method), Act::status(Code::Unavailable));
    let rule = site.mock.add(gone(method::GET_ACTION));
    assert_eq!(code(client.action(&digest).await), Code::Unavailable);
    let mark = site.mock.mark();
    assert_eq!(code(client.action(&digest).await), Code::Unavailable);
    let update = client.put_action(&digest, &some_result()).await;
    assert_eq!(code(update), Code::Unavailable);
    assert_eq!(site.asked_since(mark), [], "at once, and nothing was sent");
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    site.mock.remove(rule);
    site.tier2_is_up().await;
    client.put_action(&digest, &some_result()).await.unwrap();

    site.mock.add(gone(method::FIND_MISSING));
    assert_eq!(code(client.missing(&[digest]).await), Code::Unavailable);
    assert_eq!(code(client.read(&digest).await), Code::Unavailable);
    assert_eq!(client.action(&digest).await.unwrap(), some_result());
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_is_no_outage() {
    // R13
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = Digest::of(b"content");
    for (answer, told) in [
        (Code::Internal, Code::Internal),
        (Code::ResourceExhausted, Code::ResourceExhausted),
        (Code::Unauthenticated, Code::Unavailable),
    ] {
        site.mock.fail(Match::method(method::FIND_MISSING), answer, 1);
        assert_eq!(code(client.missing(&[digest]).await), told);
        assert_eq!(site.node.outlook.down_since(), None);
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_outage_is_seen_within_a_second_and_the_outage_sends_nothing_but_probes() {
    // P6
    let site = Harness::new().start().await;
    let client = site.client();
    let blob = noise(1000, 5);
    let digest = site.mock.put_blob("", blob.clone());
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    for outage in [1, 60, 3600] {
        site.mock.suspend().await.unwrap();
        assert_eq!(code(client.missing(&[digest]).await), Code::Unavailable);
        tokio::time::sleep(Duration::from_secs(outage)).await;
        let asked = tokio::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(code(client.missing(&[digest]).await), Code::Unavailable);
            assert_eq!(code(client.action(&digest).await), Code::Unavailable);
        }
        assert!(asked.elapsed() < Duration::from_millis(50));
        site.mock.resume().await.unwrap();
        let returned = tokio::time::Instant::now();
        while client.missing(&[digest]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(client.read(&digest).await.unwrap() == blob);
        assert_eq!(client.write(&noise(MIB, outage)).await.unwrap(), MIB as u64);
        assert!(returned.elapsed() < Duration::from_secs(1));
    }
}
