//! A disk that fails, lies or is not ours.

use super::super::disk::memory::Step;
use super::*;

#[tokio::test]
async fn a_flipped_bit_is_never_served_wherever_it_is() {
    let bytes = blob(1, 3 * BLOCK_BYTES + 77);
    let key = key(&bytes);
    let written = Node::new().await;
    drop(written.put(&key, &bytes).await);
    let len = written.disk.len_bytes(&written.path(&key));
    // First, middle and last byte of each block, and every byte of the trailer.
    let blocks = (0..4).flat_map(|block| {
        let start = block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(bytes.len());
        [start, (start + end) / 2, end - 1]
    });
    for at in blocks.chain(bytes.len()..len) {
        let node = Node::loaded(&written.disk.survivor(), u64::MAX).await;
        node.disk.flip_bit(&node.path(&key), at);
        let found = node.tier1.lookup(&key).unwrap();
        let rotten = read_all(&found, 40_000).await;
        assert!(
            matches!(rotten, Err(Tier1Error::Damaged)),
            "byte {at}: {rotten:?}"
        );
        node.tier1.discard(&found);
        node.tier1.discard(&found);
        assert_eq!(node.metrics.dropped.get(), 1);
        assert!(node.tier1.lookup(&key).is_none());
        drop(node.put(&key, &bytes).await);
        drop(found);
        node.check_account().await;
        assert_eq!(get(&node.tier1, &key).await.unwrap().unwrap(), bytes);
        node.stop().await;
    }
}

#[tokio::test]
async fn rot_in_an_open_file_is_never_served_either() {
    let node = Node::new().await;
    let bytes = blob(1, 2 * BLOCK_BYTES);
    let key = key(&bytes);
    let pinned = node.put(&key, &bytes).await;
    let whole = ByteRange::whole(&key.digest);
    node.disk.flip_bit(&node.path(&key), BLOCK_BYTES + 5);
    assert_eq!(pinned.try_read(whole, usize::MAX), None);
    let good = pinned.read(whole, BLOCK_BYTES).await.unwrap();
    assert_eq!(good, bytes[..BLOCK_BYTES]);
    let rotten = pinned.read(whole.skip(BLOCK_BYTES as u64), 10).await;
    assert!(matches!(rotten, Err(Tier1Error::Damaged)));
    assert_eq!(node.errors("read"), 1);
}

#[tokio::test]
async fn rot_in_a_staging_file_is_served_neither_before_nor_after_its_publish() {
    let node = Node::new().await;
    let bytes = blob(1, 1000);
    let key = key(&bytes);
    let mut staged = node.tier1.stage(&key).await.unwrap();
    staged.append(bytes.clone().into()).await.unwrap();
    let reader = staged.reader();
    let staging = node.disk.files(&Path::new(DIR).join("staging"));
    node.disk.flip_bit(&staging[0], 500);
    assert!(matches!(reader.read(0, 10).await, Err(Tier1Error::Damaged)));
    let published = staged.publish(proof(&bytes)).await.unwrap();
    assert!(matches!(read_all(&published, 10).await, Err(Tier1Error::Damaged)));
}

#[tokio::test]
async fn a_file_that_is_gone_or_short_is_dropped() {
    let node = Node::new().await;
    let (lost, short) = (blob(1, 1000), blob(2, 1000));
    for bytes in [&lost, &short] {
        drop(node.put(&key(bytes), bytes).await);
    }
    node.disk.lose(&node.path(&key(&lost)));
    node.disk.truncate(&node.path(&key(&short)), 999);
    let found = node.tier1.lookup(&key(&lost)).unwrap();
    assert!(matches!(read_all(&found, 10).await, Err(Tier1Error::Gone)));
    node.tier1.discard(&found);
    let found = node.tier1.lookup(&key(&short)).unwrap();
    assert!(matches!(read_all(&found, 10).await, Err(Tier1Error::Damaged)));
    node.tier1.discard(&found);
    node.check_account().await;
    assert_eq!(node.account().blobs, 0);
    assert_eq!(node.metrics.dropped.get(), 2);
}

#[tokio::test]
async fn another_blobs_file_under_a_blobs_name_is_not_served() {
    let node = Node::new().await;
    let (ours, theirs) = (blob(1, 1000), blob(2, 1000));
    drop(node.put(&key(&ours), &ours).await);
    drop(node.put(&key(&theirs), &theirs).await);
    let (from, to) = (node.path(&key(&theirs)), node.path(&key(&ours)));
    node.disk.rename(&from, &to).unwrap();
    let found = node.tier1.lookup(&key(&ours)).unwrap();
    assert!(matches!(read_all(&found, 10).await, Err(Tier1Error::Damaged)));
}

#[tokio::test]
async fn a_disk_that_fails_a_step_gives_an_error_and_a_true_account() {
    let steps = [
        (Step::Create, "write"),
        (Step::Write, "write"),
        (Step::Rename, "publish"),
    ];
    let kinds = [
        io::ErrorKind::StorageFull,
        io::ErrorKind::Other,
        io::ErrorKind::ReadOnlyFilesystem,
    ];
    for (step, op) in steps {
        for kind in kinds {
            let node = Node::new().await;
            let bytes = blob(1, 100_000);
            node.disk.fail(step, kind);
            let failed = try_put(&node.tier1, &key(&bytes), &bytes).await;
            assert!(matches!(failed, Err(Tier1Error::Io(error)) if error.kind() == kind));
            assert!(node.errors(op) > 0, "{op}");
            node.check_account().await;
            assert_eq!(node.account(), Account::default());
            node.disk.heal();
            drop(node.put(&key(&bytes), &bytes).await);
            node.check_account().await;
        }
    }
}

#[tokio::test]
async fn no_space_at_any_byte_of_an_upload_leaves_nothing_behind() {
    let bytes = blob(1, 100_000);
    for free_bytes in [0, 49_999, 50_000, 99_999, 100_000] {
        let node = Node::new().await;
        node.disk.limit_free_bytes(free_bytes);
        let failed = try_put(&node.tier1, &key(&bytes), &bytes).await;
        assert!(
            matches!(failed, Err(Tier1Error::Io(error)) if error.kind() == io::ErrorKind::StorageFull),
            "{free_bytes}"
        );
        node.check_account().await;
        assert_eq!(node.account(), Account::default());
    }
}

#[tokio::test]
async fn a_read_that_the_disk_fails_is_an_error_until_the_disk_heals() {
    let node = Node::new().await;
    let bytes = blob(1, 1000);
    drop(node.put(&key(&bytes), &bytes).await);
    node.disk.fail(Step::Read, io::ErrorKind::Other);
    let found = node.tier1.lookup(&key(&bytes)).unwrap();
    assert_eq!(found.try_read(ByteRange::whole(&key(&bytes).digest), 10), None);
    assert!(matches!(read_all(&found, 10).await, Err(Tier1Error::Io(_))));
    node.disk.heal();
    assert_eq!(read_all(&found, 10).await.unwrap(), bytes);
}

#[tokio::test]
async fn a_read_only_disk_is_read_from_and_refuses_stages() {
    let written = Node::new().await;
    let bytes = blob(1, 1000);
    drop(written.put(&key(&bytes), &bytes).await);
    let disk = written.disk.survivor();
    disk.make_read_only();
    let node = Node::loaded(&disk, u64::MAX).await;
    assert_eq!(get(&node.tier1, &key(&bytes)).await.unwrap().unwrap(), bytes);
    let refused = node.tier1.stage(&key(&bytes)).await;
    assert!(matches!(refused, Err(Tier1Error::Io(_))));
    assert_eq!(node.metrics.loaded.get(), 1);
    node.tier1.settled().await;
    assert_eq!(node.account().staged_bytes, 0);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_turns_tier1_off_and_nothing_else() {
    let disk = MemoryDisk::new();
    disk.make_read_only();
    let node = Node::loaded(&disk, u64::MAX).await;
    let bytes = blob(1, 1000);
    assert!(node.tier1.lookup(&key(&bytes)).is_none());
    let refused = node.tier1.stage(&key(&bytes)).await;
    assert!(matches!(refused, Err(Tier1Error::Io(_))));
    assert_eq!(node.errors("open"), 1);
    assert_eq!(node.metrics.loaded.get(), 0);
    node.tier1.settled().await;
    node.stop().await;
}

#[tokio::test]
async fn two_nodes_do_not_share_a_directory() {
    let first = Node::new().await;
    let bytes = blob(1, 1000);
    drop(first.put(&key(&bytes), &bytes).await);
    let second = Node::loaded(&first.disk, u64::MAX).await;
    assert!(second.tier1.lookup(&key(&bytes)).is_none());
    assert!(second.tier1.stage(&key(&bytes)).await.is_err());
    assert_eq!(second.errors("open"), 1);
    assert_eq!(get(&first.tier1, &key(&bytes)).await.unwrap().unwrap(), bytes);
    first.check_account().await;
}

#[tokio::test]
async fn a_directory_of_another_version_is_left_as_it_is() {
    let disk = MemoryDisk::new();
    disk.put(&Path::new(DIR).join("format"), b"gorego tier 1, format 2\n");
    disk.put(&Path::new(DIR).join("staging/theirs"), b"half");
    let node = Node::loaded(&disk, u64::MAX).await;
    assert!(node.tier1.stage(&key(b"x")).await.is_err());
    node.tier1.settled().await;
    assert_eq!(disk.files(Path::new(DIR)).len(), 2);
}

#[tokio::test]
async fn a_mark_torn_by_a_power_cut_is_written_again() {
    for torn in [&b""[..], b"gorego ti", &[0; 24]] {
        let disk = MemoryDisk::new();
        disk.put(&Path::new(DIR).join("format"), torn);
        let node = Node::loaded(&disk, u64::MAX).await;
        let bytes = blob(1, 10);
        drop(node.put(&key(&bytes), &bytes).await);
        let node = node.restart().await;
        assert_eq!(get(&node.tier1, &key(&bytes)).await.unwrap().unwrap(), bytes);
    }
}

/// Lets virtual time pass although a thread hangs at the disk, which stops the clock of a paused runtime.
async fn while_time_passes<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    loop {
        if let std::task::Poll::Ready(done) = futures::poll!(&mut work) {
            return done;
        }
        tokio::time::advance(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_not_asked_after_a_few_times_and_then_tried_by_one_at_a_time() {
    // P10
    let node = Node::new().await;
    let bytes = blob(1, 100);
    let key = key(&bytes);
    let pinned = node.put(&key, &bytes).await;
    let whole = ByteRange::whole(&key.digest);
    node.disk.make_cold();
    node.disk.hold(Step::Read);
    let mut costs = Vec::new();
    for pause in [0, 0, 0, 0, 0, COOL_DOWN.as_secs(), 0] {
        tokio::time::advance(Duration::from_secs(pause)).await;
        let since = tokio::time::Instant::now();
        let read = while_time_passes(pinned.read(whole, 100)).await;
        costs.push((since.elapsed().as_secs(), matches!(read, Err(Tier1Error::Slow))));
    }
    let staged = while_time_passes(node.tier1.stage(&key)).await;
    // First of all, since a test that fails waits for threads at the disk.
    node.disk.release(Step::Read);
    assert!(matches!(staged, Err(Tier1Error::Slow)), "{staged:?}");
    let (asked, passed_over) = ((5, true), (0, true));
    let expected = [asked, asked, asked, passed_over, passed_over, asked, passed_over];
    assert_eq!(costs, expected);
    assert_eq!((node.errors("wait"), node.metrics.passed_over.get()), (4, 1));

    tokio::time::sleep(COOL_DOWN).await;
    assert_eq!(pinned.read(whole, 100).await.unwrap(), bytes);
    assert_eq!(node.metrics.passed_over.get(), 0);
    assert_eq!(pinned.read(whole, 100).await.unwrap(), bytes);
}
