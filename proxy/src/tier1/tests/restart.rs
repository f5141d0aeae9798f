//! What a start finds: after a clean end, a kill, a power cut.

use std::os::unix::fs::MetadataExt;

use super::super::disk::memory::Step;
use super::*;

#[tokio::test]
async fn restart_finds_what_was_stored_and_drops_what_was_half_written() {
    let node = Node::new().await;
    let (stored, half) = (blob(1, 100_000), blob(2, 100_000));
    drop(node.put(&key_in("a/b", &stored), &stored).await);
    drop(node.put(&key_in("", &stored), &stored).await);
    let mut staged = node.tier1.stage(&key(&half)).await.unwrap();
    let part = Bytes::copy_from_slice(&half[..60_000]);
    staged.append(part).await.unwrap();

    let node = Node::loaded(&node.disk.survivor(), u64::MAX).await;
    node.check_account().await;
    assert_eq!(node.account().blobs, 2);
    assert_eq!(node.account().staged_bytes, 0);
    for scope in ["a/b", ""] {
        let found = get(&node.tier1, &key_in(scope, &stored)).await;
        assert_eq!(found.unwrap().unwrap(), stored);
    }
    assert!(node.tier1.lookup(&key(&stored)).is_none());
    assert!(node.tier1.lookup(&key(&half)).is_none());
}

#[tokio::test]
async fn a_kill_between_any_two_steps_of_an_upload_leaves_all_of_a_blob_or_none() {
    let (before, bytes) = (blob(1, 10_000), blob(2, 100_000));
    let written = Node::new().await;
    drop(written.put(&key(&before), &before).await);
    let mut published_after = None;
    for changes in 0..20 {
        let disk = written.disk.survivor();
        let node = Node::loaded(&disk, u64::MAX).await;
        disk.die_after(changes);
        let published = try_put(&node.tier1, &key(&bytes), &bytes).await.is_ok();
        let node = Node::loaded(&disk.survivor(), u64::MAX).await;
        node.check_account().await;
        assert_eq!(get(&node.tier1, &key(&before)).await.unwrap().unwrap(), before);
        match get(&node.tier1, &key(&bytes)).await {
            Some(found) => assert_eq!(found.unwrap(), bytes),
            None => assert!(!published, "what was published is lost by a mere kill"),
        }
        if published {
            published_after.get_or_insert(changes);
        }
    }
    let changes = published_after.expect("at last there are changes enough");
    assert!(
        changes >= 5,
        "create, two appends, trailer, rename: not {changes} changes"
    );
}

#[tokio::test]
async fn a_power_cut_makes_blobs_void_and_never_wrong() {
    let written = Node::new().await;
    let blobs: Vec<Vec<u8>> = (0..12).map(|name| blob(name, 9000 * usize::from(name))).collect();
    for bytes in &blobs {
        drop(written.put(&key(bytes), bytes).await);
    }
    let mut lost = 0;
    for seed in 0..60 {
        let node = Node::loaded(&written.disk.after_power_cut(seed), u64::MAX).await;
        for bytes in &blobs {
            let Some(found) = node.tier1.lookup(&key(bytes)) else {
                lost += 1;
                continue;
            };
            match read_all(&found, 70_000).await {
                Ok(read) => assert_eq!(&read, bytes, "seed {seed}"),
                Err(error) => {
                    assert!(matches!(error, Tier1Error::Damaged), "seed {seed}: {error}");
                    node.tier1.discard(&found);
                    lost += 1;
                }
            }
        }
        node.check_account().await;
        node.stop().await;
    }
    assert!(lost > 100, "the cuts did no harm: {lost}");
}

#[tokio::test(start_paused = true)]
async fn the_order_of_eviction_survives_a_restart() {
    let node = Node::new().await;
    let blobs: Vec<Vec<u8>> = (0..90).map(|name| blob(name, 100)).collect();
    for bytes in &blobs {
        drop(node.put(&key(bytes), bytes).await);
    }
    for bytes in &blobs[..40] {
        get(&node.tier1, &key(bytes)).await.unwrap().unwrap();
    }
    let node = Node::loaded(&node.disk.survivor(), 95 * 4096).await;
    node.check_account().await;
    let index = node.tier1.0.index.lock();
    let place = |name: &usize| layout::Place {
        home: Arc::new(layout::Home::of(&Scope::new("main"))),
        digest: key(&blobs[*name]).digest,
    };
    let found: Vec<usize> = (0..90).filter(|name| index.contains(&place(name))).collect();
    let gone = 90 - found.len();
    assert!(gone >= 14, "{gone}");
    let expected: Vec<usize> = (0..40).chain(40 + gone..90).collect();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn a_store_found_above_its_marks_is_brought_under_them() {
    let node = Node::new().await;
    for name in 0..200 {
        let bytes = blob(name, 100);
        drop(node.put(&key(&bytes), &bytes).await);
    }
    let node = Node::loaded(&node.disk.survivor(), 100 * 4096).await;
    node.check_account().await;
    assert_eq!(node.account().blobs, 80);
}

#[tokio::test]
async fn what_is_published_during_the_scan_is_on_the_account_once() {
    let node = Node::new().await;
    let blobs: Vec<Vec<u8>> = (0..20).map(|name| blob(name, 5000)).collect();
    for bytes in &blobs {
        drop(node.put(&key(bytes), bytes).await);
    }
    let disk = node.disk.survivor();
    disk.hold(Step::List);
    let node = Node::start(&disk, u64::MAX);
    disk.somebody_waits().await;
    // The scan has seen nothing yet: some of what it will find is published meanwhile, and some was published and dropped.
    for bytes in &blobs[5..] {
        drop(node.put(&key(bytes), bytes).await);
    }
    let new = blob(99, 5000);
    let pinned = node.put(&key(&new), &new).await;
    assert_eq!(node.account().blobs, 16);
    disk.hold(Step::Remove);
    node.tier1.discard(&pinned);
    disk.release(Step::List);
    disk.release(Step::Remove);
    node.tier1.loaded().await;
    node.check_account().await;
    assert_eq!(node.account().blobs, 20);
    for bytes in &blobs {
        assert_eq!(get(&node.tier1, &key(bytes)).await.unwrap().unwrap(), *bytes);
    }
    assert!(node.tier1.lookup(&key(&new)).is_none());
}

#[tokio::test]
async fn open_returns_while_the_disk_still_works_and_lookups_miss_until_then() {
    let written = Node::new().await;
    let bytes = blob(1, 1000);
    drop(written.put(&key(&bytes), &bytes).await);
    let disk = written.disk.survivor();
    disk.hold(Step::List);
    let node = Node::start(&disk, u64::MAX);
    assert!(node.tier1.lookup(&key(&bytes)).is_none());
    disk.somebody_waits().await;
    assert!(node.tier1.lookup(&key(&bytes)).is_none());
    assert_eq!(node.metrics.loaded.get(), 0);
    disk.release(Step::List);
    node.tier1.loaded().await;
    assert_eq!(node.metrics.loaded.get(), 1);
    assert_eq!(get(&node.tier1, &key(&bytes)).await.unwrap().unwrap(), bytes);
}

#[tokio::test]
async fn files_of_others_are_left_alone_and_counted() {
    let written = Node::new().await;
    let (bytes, short) = (blob(1, 1000), blob(2, 1000));
    drop(written.put(&key(&bytes), &bytes).await);
    drop(written.put(&key(&short), &short).await);
    let disk = written.disk.survivor();
    let cas = Path::new(DIR).join("cas");
    let beside = written.path(&key(&bytes)).with_file_name("notes.txt");
    let foreign = [cas.join("lost+found/x"), cas.join("README"), beside];
    for path in &foreign {
        disk.put(path, b"somebody's");
    }
    disk.truncate(&written.path(&key(&short)), 1000);
    disk.put(&Path::new(DIR).join("staging/left-by-the-dead"), b"half");
    let node = Node::loaded(&disk, u64::MAX).await;
    node.tier1.settled().await;
    assert_eq!(node.errors("scan"), 4, "three foreign, one short");
    assert_eq!(node.metrics.dropped.get(), 1);
    let left = disk.files(Path::new(DIR));
    assert!(foreign.iter().all(|path| left.contains(path)));
    assert_eq!(left.len(), 5, "with the mark and the one good blob: {left:?}");
    assert_eq!(node.account().blobs, 1);
}

#[tokio::test]
async fn a_part_of_the_directory_that_cannot_be_looked_at_is_skipped() {
    let written = Node::new().await;
    let bytes = blob(1, 1000);
    drop(written.put(&key(&bytes), &bytes).await);
    for step in [Step::List, Step::Look] {
        let disk = written.disk.survivor();
        disk.fail(step, io::ErrorKind::Other);
        let node = Node::loaded(&disk, u64::MAX).await;
        assert!(node.errors("scan") > 0, "{step:?}");
        assert!(node.tier1.lookup(&key(&bytes)).is_none());
        disk.heal();
        drop(node.put(&key(&bytes), &bytes).await);
        assert_eq!(get(&node.tier1, &key(&bytes)).await.unwrap().unwrap(), bytes);
    }
}

async fn open_real(dir: &Path) -> (Tier1, TaskGroup, Tier1Metrics) {
    let (tasks, metrics) = (TaskGroup::new(), Metrics::new().tier1);
    let tier1 = Tier1::open(
        options(dir, 1 << 30),
        Arc::new(SystemDisk::new()),
        &tasks,
        metrics.clone(),
    );
    tier1.loaded().await;
    (tier1, tasks, metrics)
}

#[tokio::test]
async fn the_real_disk_keeps_blobs_over_a_restart_and_accounts_for_their_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("tier1");
    let (tier1, tasks, metrics) = open_real(&dir).await;
    let blobs: Vec<Vec<u8>> = (0..5)
        .map(|name| blob(name, 70_000 * usize::from(name)))
        .collect();
    for bytes in &blobs {
        let pinned = try_put(&tier1, &key(bytes), bytes).await.unwrap();
        assert_eq!(read_all(&pinned, 100_000).await.unwrap(), *bytes);
    }
    let mut half = tier1.stage(&key(&blob(9, 1000))).await.unwrap();
    half.append(Bytes::from_static(b"half")).await.unwrap();
    assert_eq!(half.reader().read(1, 2).await.unwrap(), b"al".as_slice());
    let (second, second_tasks, _) = open_real(&dir).await;
    assert!(second.stage(&key(b"x")).await.is_err(), "the directory is taken");
    assert_eq!(second_tasks.stop(Duration::from_secs(60)).await, 0);
    assert_eq!(tasks.stop(Duration::from_secs(60)).await, 0);
    drop((tier1, second, half));
    assert_eq!(fs_err::read_dir(dir.join("staging")).unwrap().count(), 1);

    let (tier1, tasks, again) = open_real(&dir).await;
    tier1.settled().await;
    assert_eq!(fs_err::read_dir(dir.join("staging")).unwrap().count(), 0);
    assert_eq!(again.blobs.get(), 5);
    assert_eq!(again.allocated_bytes.get(), metrics.allocated_bytes.get());
    let mut blocks = 0;
    for bytes in &blobs {
        assert_eq!(get(&tier1, &key(bytes)).await.unwrap().unwrap(), *bytes);
        let place = layout::Place {
            home: Arc::new(layout::Home::of(&Scope::new("main"))),
            digest: key(bytes).digest,
        };
        blocks += fs_err::metadata(tier1.0.layout.blob(&place)).unwrap().blocks();
    }
    assert_eq!(again.allocated_bytes.get() as u64, blocks * 512);
    assert_eq!(tasks.stop(Duration::from_secs(60)).await, 0);
}

#[tokio::test]
async fn a_real_file_with_a_flipped_bit_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let (tier1, tasks, metrics) = open_real(dir.path()).await;
    let bytes = blob(1, 100_000);
    drop(try_put(&tier1, &key(&bytes), &bytes).await.unwrap());
    let place = layout::Place {
        home: Arc::new(layout::Home::of(&Scope::new("main"))),
        digest: key(&bytes).digest,
    };
    let path = tier1.0.layout.blob(&place);
    let mut written = fs_err::read(&path).unwrap();
    written[70_000] ^= 4;
    fs_err::write(&path, written).unwrap();
    let found = tier1.lookup(&key(&bytes)).unwrap();
    assert!(matches!(read_all(&found, 90_000).await, Err(Tier1Error::Damaged)));
    tier1.discard(&found);
    tier1.settled().await;
    assert!(!path.exists());
    assert_eq!(metrics.dropped.get(), 1);
    assert_eq!(metrics.allocated_bytes.get(), 0);
    assert_eq!(tasks.stop(Duration::from_secs(60)).await, 0);
}
