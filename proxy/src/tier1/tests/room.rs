//! The account, the marks and the janitor.

use super::super::disk::memory::Step;
use super::*;

/// What a blob of [`SMALL`] bytes takes with its trailer.
const SMALL_ALLOCATED: u64 = 4096;
const SMALL: usize = 100;

fn small(name: u8) -> Vec<u8> {
    blob(name, SMALL)
}

/// A node with room for so many small blobs.
async fn room_for(blobs: u64) -> Node {
    Node::loaded(&MemoryDisk::new(), blobs * SMALL_ALLOCATED).await
}

/// Puts a blob, if need be when the janitor is done: it removes files on a thread of its own, and may be behind.
async fn put(node: &Node, bytes: &[u8]) {
    let key = key(bytes);
    match try_put(&node.tier1, &key, bytes).await {
        Err(Tier1Error::Full) => {
            node.tier1.settled().await;
            drop(node.put(&key, bytes).await);
        }
        stored => drop(stored.unwrap()),
    }
}

/// Puts small blobs, each with its staging page on top of what is stored, so the janitor gets its turn in between.
async fn fill(node: &Node, names: std::ops::Range<u8>) {
    for name in names {
        put(node, &small(name)).await;
    }
}

/// Whether a blob is there, without that counting as a read.
fn has(node: &Node, name: u8) -> bool {
    let place = layout::Place {
        home: Arc::new(layout::Home::of(&Scope::new("main"))),
        digest: key(&small(name)).digest,
    };
    node.tier1.0.index.lock().contains(&place)
}

#[tokio::test(start_paused = true)]
async fn eviction_begins_above_the_high_mark_and_ends_at_the_low_one() {
    let node = room_for(100).await;
    // What is being written counts two pages more.
    fill(&node, 0..88).await;
    node.check_account().await;
    assert_eq!(node.account().blobs, 88);
    assert_eq!(node.metrics.evicted.get(), 0);
    fill(&node, 88..91).await;
    node.check_account().await;
    assert!((80..84).contains(&node.account().blobs), "{:?}", node.account());
    let evicted = 91 - node.account().blobs;
    assert_eq!(node.metrics.evicted.get(), evicted);
    assert_eq!(node.metrics.evicted_bytes.get(), evicted * SMALL_ALLOCATED);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_last_stays() {
    let node = room_for(100).await;
    fill(&node, 0..88).await;
    for name in 0..70 {
        drop(node.tier1.lookup(&key(&small(name))).unwrap());
    }
    fill(&node, 88..92).await;
    node.check_account().await;
    assert!((0..70).all(|name| has(&node, name)));
    assert!((70..76).all(|name| !has(&node, name)));
    assert_eq!(node.metrics.dropped.get(), 0, "eviction is no damage");
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_last_evicted_blob_counts_from_its_last_read() {
    let node = room_for(100).await;
    fill(&node, 0..88).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    fill(&node, 88..92).await;
    node.tier1.settled().await;
    assert_eq!(node.metrics.evicted_age_seconds.get(), 60);
}

#[tokio::test(start_paused = true)]
async fn janitor_never_evicts_a_pinned_blob() {
    let node = room_for(100).await;
    let first = node.put(&key(&small(0)), &small(0)).await;
    fill(&node, 1..80).await;
    let mut pinned = vec![first];
    pinned.extend((1..40).map(|name| node.tier1.lookup(&key(&small(name))).unwrap()));
    // The pins on the oldest ones are what counts here, not how lately they were read.
    for name in 40..80 {
        drop(node.tier1.lookup(&key(&small(name))).unwrap());
    }
    fill(&node, 80..200).await;
    node.check_account().await;
    assert!(node.metrics.evicted.get() >= 100);
    assert!((0..40).all(|name| has(&node, name)));
    for (name, pinned) in (0..).zip(&pinned) {
        assert_eq!(read_all(pinned, 9999).await.unwrap(), small(name));
    }
}

#[tokio::test(start_paused = true)]
async fn room_is_made_when_pins_go_though_all_was_pinned_before() {
    let node = room_for(10).await;
    let mut pinned = Vec::new();
    let refused = loop {
        let bytes = small(u8::try_from(pinned.len()).unwrap());
        match try_put(&node.tier1, &key(&bytes), &bytes).await {
            Ok(pin) => pinned.push(pin),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Tier1Error::Full));
    node.check_account().await;
    assert_eq!(node.metrics.evicted.get(), 0);
    assert!(node.account().blobs > 8);
    pinned.clear();
    // Whoever is refused does not come again, but has room made for the next.
    drop(try_put(&node.tier1, &key(b"next"), b"next").await);
    node.check_account().await;
    assert!(node.account().blobs <= 8);
    drop(node.put(&key(b"next"), b"next").await);
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_what_arrives_and_not_what_is_declared() {
    let node = Node::loaded(&MemoryDisk::new(), MIB).await;
    // A hundred uploads of half of all room each: declared sizes cost nothing.
    let bytes = blob(1, 500_000);
    let mut uploads = Vec::new();
    for _ in 0..100 {
        uploads.push(node.tier1.stage(&key(&bytes)).await.unwrap());
    }
    let (mut staged_bytes, mut refused) = (0, 0);
    for upload in &mut uploads {
        match upload.append(Bytes::copy_from_slice(&bytes[..50_000])).await {
            Ok(()) => staged_bytes += 50_000,
            Err(error) => {
                assert!(matches!(error, Tier1Error::Full), "{error}");
                refused += 1;
            }
        }
        assert!(node.account().used_bytes() <= MIB);
    }
    assert!(staged_bytes >= MIB / 2 && refused > 0, "{staged_bytes} {refused}");
    uploads.clear();
    node.check_account().await;
    assert_eq!(node.account(), Account::default());
    drop(node.put(&key(&bytes), &bytes).await);
}

#[tokio::test(start_paused = true)]
async fn staged_bytes_push_stored_blobs_out() {
    let node = room_for(100).await;
    fill(&node, 0..80).await;
    let bytes = blob(1, 15 * 4096);
    let mut staged = node.tier1.stage(&key(&bytes)).await.unwrap();
    staged.append(bytes.clone().into()).await.unwrap();
    node.check_account().await;
    assert!(node.metrics.evicted.get() >= 10);
    drop(staged.publish(proof(&bytes)).await.unwrap());
    node.check_account().await;
}

#[tokio::test]
async fn removing_files_on_a_slow_disk_blocks_neither_readers_nor_writers() {
    let node = room_for(100).await;
    fill(&node, 0..88).await;
    node.disk.hold(Step::Remove);
    fill(&node, 88..91).await;
    node.disk.somebody_waits().await;
    assert!(node.account().leaving_bytes > 0);
    fill(&node, 91..94).await;
    let found = get(&node.tier1, &key(&small(93))).await;
    assert_eq!(found.unwrap().unwrap(), small(93));
    node.disk.release(Step::Remove);
    node.check_account().await;
}

#[tokio::test]
async fn a_blob_published_while_its_older_file_waits_for_removal_keeps_its_file() {
    let node = Node::new().await;
    let (other, again) = (small(1), small(2));
    let pinned = node.put(&key(&again), &again).await;
    node.disk.hold(Step::Remove);
    drop(node.tier1.stage(&key(&other)).await.unwrap());
    node.disk.somebody_waits().await;
    // The janitor is busy: this removal comes to it only after the new copy was published.
    node.tier1.discard(&pinned);
    drop(node.put(&key(&again), &again).await);
    node.disk.release(Step::Remove);
    node.check_account().await;
    assert_eq!(get(&node.tier1, &key(&again)).await.unwrap().unwrap(), again);
}

#[tokio::test(start_paused = true)]
async fn files_that_cannot_be_removed_stay_on_the_account_and_are_tried_again() {
    let node = room_for(100).await;
    fill(&node, 0..88).await;
    node.disk.fail(Step::Remove, io::ErrorKind::Other);
    fill(&node, 88..91).await;
    node.tier1.settled().await;
    let account = node.account();
    assert_eq!(account.used_bytes(), 91 * SMALL_ALLOCATED);
    assert!(
        account.blobs >= 78,
        "evicting more would make no more room: {account:?}"
    );
    assert!(node.errors("remove") > 0);
    node.disk.heal();
    tokio::time::sleep(Duration::from_secs(31)).await;
    node.check_account().await;
    assert_eq!(node.account().blobs, account.blobs);
}

#[tokio::test(start_paused = true)]
async fn a_long_run_stays_under_the_marks() {
    let node = room_for(500).await;
    for round in 0..8 {
        for name in 0..=255 {
            put(&node, &[round, name]).await;
            assert!(node.account().used_bytes() <= 500 * SMALL_ALLOCATED);
        }
    }
    node.check_account().await;
    assert!(node.account().blobs <= 450);
    assert!(node.metrics.evicted.get() >= 8 * 256 - 450);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_others_filled_makes_room_though_the_marks_are_far() {
    let node = Node::new().await;
    fill(&node, 0..100).await;
    node.disk.limit_free_bytes(0);
    let refused = try_put(&node.tier1, &key(&small(100)), &small(100)).await;
    assert!(matches!(refused, Err(Tier1Error::Io(_))));
    node.check_account().await;
    assert_eq!(node.metrics.evicted.get(), 64);
    fill(&node, 100..101).await;
    assert!(has(&node, 99) && has(&node, 100));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_takes_a_bounded_number_of_threads() {
    let node = Node::new().await;
    drop(node.put(&key(&small(0)), &small(0)).await);
    node.disk.hold(Step::Open);
    let tasks = TaskGroup::new();
    for _ in 0..300 {
        let pinned = node.tier1.lookup(&key(&small(0))).unwrap();
        drop(tasks.spawn(async move { read_all(&pinned, 9999).await }));
    }
    node.disk.somebody_waits().await;
    let stranger = tokio::task::spawn_blocking(|| "served");
    assert_eq!(stranger.await.unwrap(), "served");
    assert!(node.disk.waiting() <= 128);
    node.disk.release(Step::Open);
    assert_eq!(tasks.settle(Duration::from_secs(60)).await, 0);
    node.check_account().await;
}

#[tokio::test(start_paused = true)]
async fn one_file_that_cannot_be_removed_does_not_end_eviction() {
    let node = room_for(100).await;
    let first = node.put(&key(&small(0)), &small(0)).await;
    fill(&node, 1..88).await;
    node.disk.fail(Step::Remove, io::ErrorKind::Other);
    node.tier1.discard(&first);
    node.tier1.settled().await;
    node.disk.heal();
    fill(&node, 88..92).await;
    node.tier1.settled().await;
    assert!(node.metrics.evicted.get() >= 8, "{:?}", node.account());
    tokio::time::sleep(Duration::from_secs(31)).await;
    node.check_account().await;
}
