use bytes::Bytes;
use prost::Message as _;
use proto::{reapi, wire};

use super::*;
use crate::digest::{Digest, Function};
use crate::tier2::health::outlook;
use crate::tiered::read_harness::Harness;
use crate::tiered::{Publish, WriteOptions};

const LEASE: Duration = Duration::from_secs(60);

fn actions(harness: &Harness) -> Actions {
    let options = WriteOptions {
        publish: Publish::Sync,
        resume_window: LEASE,
        repair: false,
    };
    let writes = Writes::new(
        harness.tier1.clone(),
        harness.presence.clone(),
        harness.pending.clone(),
        options,
        harness.tasks.clone(),
        harness.metrics.uploads.clone(),
    );
    let options = ActionOptions {
        lease: LEASE,
        memory_bytes: 1 << 20,
    };
    Actions::new(
        harness.reads.clone(),
        writes,
        &options,
        outlook().1,
        harness.metrics.actions.clone(),
    )
}

fn key() -> ActionDigest {
    ActionDigest(Digest::of(Function::Sha256, b"action"))
}

fn named(digest: &Digest) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: digest.hash().to_hex(),
        size_bytes: i64::try_from(digest.size_bytes()).unwrap(),
    })
}

/// A result with one output file and one output directory.
fn result(file: &Digest, tree: &Digest) -> RawActionResult {
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            digest: named(file),
            ..Default::default()
        }],
        output_directories: vec![reapi::OutputDirectory {
            tree_digest: named(tree),
            ..Default::default()
        }],
        ..Default::default()
    };
    RawActionResult(result.encode_to_vec().into())
}

/// A Tree with one file.
fn tree_of(file: &Digest) -> Bytes {
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            digest: named(file),
            ..Default::default()
        }],
        ..Default::default()
    };
    let tree = wire::Tree {
        root: Some(root.encode_to_vec().into()),
        children: Vec::new(),
    };
    tree.encode_to_vec().into()
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_held_if_it_counted_when_tier_2_went_down_and_all_that_it_refers_to_is_here() {
    // R13
    let harness = Harness::new().await;
    let actions = actions(&harness);
    let (file, deep) = (harness.plant("file"), harness.plant("deep"));
    let tree = harness.plant(tree_of(&deep));
    let stored = result(&file, &tree);
    actions.put(&harness.call, &key(), stored.clone()).await.unwrap();
    let written = Instant::now();
    let held = async |down_since| actions.held(&harness.call, &key(), down_since).await;
    for digest in [file, tree, deep] {
        assert_eq!(held(written).await, None);
        harness.read(&digest).await.unwrap();
        harness.landed().await;
    }
    harness.tier2.fail_with(Some(Tier2Error::down("for good")));
    let asked = harness.tier2.log().len();
    let counts = written + LEASE - Duration::from_secs(1);
    assert_eq!(held(counts).await, Some(stored.clone()));
    assert_eq!(held(written + LEASE).await, None, "its lease had ended by then");
    tokio::time::advance(100 * LEASE).await;
    assert_eq!(held(counts).await, Some(stored), "however long ago that was");
    let other = ActionDigest(file);
    assert_eq!(actions.held(&harness.call, &other, written).await, None);
    harness.bad.condemn(&harness.call.blob(&deep));
    assert_eq!(held(counts).await, None);
    assert_eq!(harness.tier2.log().len(), asked, "nobody was asked");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_of_no_use_is_no_answer_while_tier_2_has_a_newer_result() {
    // P5, R7: what is wrong with our copy is no reason for a miss.
    let harness = Harness::new().await;
    let actions = actions(&harness);
    let (old, new) = (harness.plant("old"), harness.plant("new"));
    let [first, second] = [old, new].map(|file| result(&file, &harness.plant(tree_of(&file))));
    actions.put(&harness.call, &key(), first).await.unwrap();
    // Another node writes, and Tier 2 evicts what is no longer referred to.
    harness
        .tier2
        .put_action(&harness.call, &key(), second.clone())
        .await
        .unwrap();
    harness.tier2.evict(&harness.call.blob(&old));
    let get = async || actions.get(&harness.call, &key()).await;
    assert_eq!(get().await.unwrap(), second);
    harness.tier2.evict(&harness.call.blob(&new));
    let missing = get().await.unwrap_err();
    assert!(
        matches!(missing, CallError::Incomplete(crate::tiered::Flaw::Missing(digest)) if digest == new),
        "{missing}"
    );
    let metrics = &harness.metrics.actions;
    assert_eq!((metrics.hits_tier2.get(), metrics.misses.get()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_copy_does_not_hold_the_message_that_it_came_in() {
    // P8
    let harness = Harness::new().await;
    let actions = actions(&harness);
    let file = harness.plant("file");
    let stored = result(&file, &harness.plant(tree_of(&file))).0;
    let message = Bytes::from([stored.to_vec(), vec![0; 8192]].concat());
    let stored = RawActionResult(message.slice(..stored.len()));
    let (written, asked) = (key(), ActionDigest(file));
    actions
        .put(&harness.call, &written, stored.clone())
        .await
        .unwrap();
    let put = harness.tier2.put_action(&harness.call, &asked, stored.clone());
    put.await.unwrap();
    for key in [written, asked] {
        assert_eq!(actions.get(&harness.call, &key).await.unwrap(), stored);
        let action = harness.call.action(&key);
        let copy = actions.0.table.lock().current(&action, Instant::now()).unwrap();
        assert!(!message.as_ptr_range().contains(&copy.result.0.as_ptr()));
    }
}

#[tokio::test(start_paused = true)]
async fn questions_are_bounded_in_number_and_in_time() {
    // P8, P10
    let harness = Harness::new().await;
    let actions = actions(&harness);
    let all = actions.0.questions.clone().try_acquire_many_owned(1024).unwrap();
    let key = key();
    let mut waits = Box::pin(actions.get(&harness.call, &key));
    let waited = timeout(Duration::from_secs(3600), &mut waits).await;
    assert!(waited.is_err(), "for a place; its own deadline ends that");
    assert_eq!(harness.tier2.count("action"), 0);
    drop(all);
    let missing = waits.await.unwrap_err();
    assert!(
        matches!(missing, CallError::Tier2(Tier2Error::NotFound)),
        "{missing}"
    );
}
