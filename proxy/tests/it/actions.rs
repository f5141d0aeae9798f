use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{After, Digest, Match, method};
use prost::Message as _;
use proto::reapi;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, is_pending, noise};

/// Field 1000 as a varint: a later version of the protocol may mean something by it.
const FROM_THE_FUTURE: [u8; 3] = [0xc0, 0x3e, 0x2a];

fn result_with(stdout: &Digest) -> Bytes {
    let result = reapi::ActionResult {
        exit_code: 0,
        stdout_digest: Some(stdout.to_wire()),
        ..Default::default()
    };
    [result.encode_to_vec(), FROM_THE_FUTURE.to_vec()].concat().into()
}

#[tokio::test(start_paused = true)]
async fn an_action_result_passes_both_ways_byte_for_byte() {
    // R7
    let site = Harness::new().start().await;
    let client = site.client();
    let action = Digest::of(b"action");
    let stdout = site.mock.put_blob("", "said");
    let result = result_with(&stdout);
    assert_eq!(client.put_action(&action, &result).await.unwrap(), result);
    assert_eq!(site.mock.action("", &action), Some(result.clone()));
    assert_eq!(client.action(&action).await.unwrap(), result);
}

#[tokio::test(start_paused = true)]
async fn inlining_adds_what_was_asked_for_and_changes_nothing_else() {
    // AC-GET-16
    let site = Harness::new().start().await;
    let (action, stdout) = (Digest::of(b"action"), site.mock.put_blob("", "said"));
    let stored = result_with(&stdout);
    site.mock.put_action("", &action, stored.clone());
    let inlined = site.client().action_inlined(&action, true).await.unwrap();
    let parsed = reapi::ActionResult::decode(inlined.clone()).unwrap();
    assert_eq!(parsed.stdout_raw, "said");
    assert_eq!(parsed.stdout_digest, Some(stdout.to_wire()));
    assert!(
        inlined.windows(3).any(|window| window == FROM_THE_FUTURE),
        "the unknown field is still there"
    );
    assert_eq!(site.mock.action("", &action), Some(stored), "a copy was edited");
}

#[tokio::test(start_paused = true)]
async fn an_action_result_waits_for_the_uploads_that_it_names() {
    // P1, R16
    let site = Harness::new().start().await;
    let blob = noise(300_000, 1);
    let (stdout, action) = (Digest::of(&blob), Digest::of(b"action"));
    let commit = site.mock.hold(Match::write(&stdout), After::End);
    let (uploader, updater) = (site.client(), site.client());
    let mut upload = pin!(uploader.write(&blob));
    assert!(is_pending(&mut upload, Duration::from_secs(1)).await);
    let result = result_with(&stdout);
    let mut update = pin!(updater.put_action(&action, &result));
    assert!(is_pending(&mut update, Duration::from_secs(5)).await);
    assert!(site.mock.calls().method(method::UPDATE_ACTION).is_empty());
    commit.release();
    let (upload, update) = tokio::join!(upload, update);
    upload.unwrap();
    update.unwrap();
    assert_eq!(site.mock.action("", &action), Some(result.clone()));
}

#[tokio::test(start_paused = true)]
async fn an_action_result_waits_for_the_uploads_of_what_is_in_its_trees() {
    // P1, R16
    let site = Harness::new()
        .set("cas.write_lease", "0s")
        .set("repair", "off")
        .start()
        .await;
    let file = noise(300_000, 1);
    let digest = Digest::of(&file);
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "file".to_owned(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let tree = reapi::Tree {
        root: Some(root),
        children: Vec::new(),
    };
    let tree = Bytes::from(tree.encode_to_vec());
    let result = reapi::ActionResult {
        output_directories: vec![reapi::OutputDirectory {
            tree_digest: Some(Digest::of(&tree).to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let (action, result) = (Digest::of(b"action"), Bytes::from(result.encode_to_vec()));
    let (uploader, updater) = (site.client(), site.client());
    updater.write(&tree).await.unwrap();
    let commit = site.mock.hold(Match::write(&digest), After::End);
    let mut upload = pin!(uploader.write(&file));
    assert!(is_pending(&mut upload, Duration::from_secs(1)).await);
    let mut update = pin!(updater.put_action(&action, &result));
    assert!(is_pending(&mut update, Duration::from_secs(5)).await);
    assert!(site.mock.calls().method(method::UPDATE_ACTION).is_empty());
    commit.release();
    let (upload, update) = tokio::join!(upload, update);
    upload.unwrap();
    update.unwrap();
    // Known now, it is also asked for where its upload failed.
    site.mock.evict("", &digest);
    site.mock.fail(Match::write(&digest), Code::Internal, 1);
    let again = site.client_of("");
    assert_eq!(code(again.write(&file).await), Code::Internal);
    let status = again.put_action(&action, &result).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert_eq!(site.mock.calls().method(method::UPDATE_ACTION).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_action_result_does_not_wait_for_the_upload_of_what_tier_2_is_known_to_have() {
    // R16
    let site = Harness::new().start().await;
    let blob = noise(300_000, 1);
    let (stdout, action) = (Digest::of(&blob), Digest::of(b"action"));
    let _commit = site.mock.hold(Match::write(&stdout), After::End);
    let (uploader, updater) = (site.client(), site.client());
    let mut upload = pin!(uploader.write(&blob));
    assert!(is_pending(&mut upload, Duration::from_secs(1)).await);
    // Another node brought it meanwhile.
    site.mock.put_blob("", blob.clone());
    assert_eq!(updater.missing(&[stdout]).await.unwrap(), []);
    let result = result_with(&stdout);
    let questions = site.mock.calls().method(method::FIND_MISSING).count();
    updater.put_action(&action, &result).await.unwrap();
    assert_eq!(site.mock.action("", &action), Some(result));
    assert_eq!(site.mock.calls().method(method::FIND_MISSING).count(), questions);
}

#[tokio::test(start_paused = true)]
async fn a_herd_that_updates_one_action_result_which_tier_2_does_not_take_is_answered_in_seconds() {
    // P6, P10: probes are answered all the while.
    let site = Harness::new().start().await;
    let action = Digest::of(b"action");
    let result = result_with(&site.mock.put_blob("", "said"));
    let hangs = site.mock.hold(Match::method(method::UPDATE_ACTION), After::Start);
    let began = tokio::time::Instant::now();
    let clients: Vec<_> = (0..32).map(|_| site.client()).collect();
    let updates = clients.iter().map(|client| client.put_action(&action, &result));
    for answer in futures::future::join_all(updates).await {
        assert_eq!(code(answer), Code::Unavailable);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(21), "a wait and a call: {took:?}");
    hangs.release();
    clients[0].put_action(&action, &result).await.unwrap();
    assert_eq!(site.mock.action("", &action), Some(result));
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_says_of_an_action_result_is_passed_on() {
    let site = Harness::new().start().await;
    let client = site.client();
    let action = Digest::of(b"action");
    let result = result_with(&Digest::of(b"out"));
    for refusal in [Code::Internal, Code::ResourceExhausted] {
        site.mock.fail(Match::method(method::UPDATE_ACTION), refusal, 1);
        site.mock.fail(Match::method(method::GET_ACTION), refusal, 1);
        assert_eq!(code(client.put_action(&action, &result).await), refusal);
        assert_eq!(code(client.action(&action).await), refusal);
        assert_eq!(code(client.action(&action).await), Code::NotFound);
    }
}
