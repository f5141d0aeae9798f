//! What the disk does to readers: nothing that they could see.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::join_all;
use tokio::time::Instant;

use super::super::pending::PendingCopy;
use super::super::read_harness::{Harness, MIB, noise, part, take};
use super::STAGED_FILLS_MAX;
use crate::digest::Digest;
use crate::tier1::COOL_DOWN;
use crate::tier1::disk::memory::Step;

fn not_kept(harness: &Harness, reason: &str) -> u64 {
    harness.metrics.reads.not_kept.with_label_values(&[reason]).get()
}

/// Puts a blob into both tiers.
async fn plant_twice(harness: &Harness, bytes: &Bytes) -> Digest {
    let digest = harness.plant(bytes.clone());
    harness.read(&digest).await.unwrap();
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
    digest
}

/// The file of the only large blob on disk.
fn its_file(harness: &Harness, len: u64) -> PathBuf {
    let files = harness.disk.files("/tier1".as_ref());
    files
        .into_iter()
        .find(|file| harness.disk.len_bytes(file) as u64 >= len)
        .expect("a file with the blob")
}

/// Lets virtual time pass although a thread hangs at the disk, which stops the clock of a paused runtime.
async fn while_time_passes<T>(work: impl Future<Output = T>) -> T {
    let mut work = Box::pin(work);
    loop {
        for _ in 0..1000 {
            if let std::task::Poll::Ready(done) = futures::poll!(&mut work) {
                return done;
            }
            tokio::task::yield_now().await;
        }
        tokio::time::advance(Duration::from_millis(10)).await;
    }
}

// A copy that grows beside the stream.

#[tokio::test(start_paused = true)]
async fn a_slow_reader_with_a_disk_costs_no_second_read_and_slows_nobody() {
    let harness = Harness::new().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    let mut slow = harness.open(&digest).await.unwrap();
    let fast = harness.open(&digest).await.unwrap();
    let mut had = take(&mut slow, 1).await.to_vec();
    assert_eq!(fast.collect().await.unwrap(), bytes); // PXY-57
    while let Some(chunk) = slow.next().await {
        had.extend_from_slice(&chunk.unwrap());
    }
    assert!(had == bytes);
    assert_eq!(harness.tier2.count("read"), 1);
    assert_eq!(harness.metrics.reads.followers_detached.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_late_reads_the_beginning_from_disk_while_the_rest_arrives() {
    let harness = Harness::new().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(20 * MIB);
    let mut first = harness.open(&digest).await.unwrap();
    take(&mut first, 20 * MIB).await;
    let mut late = harness.open(&digest).await.unwrap();
    assert_eq!(take(&mut late, 20 * MIB).await, part(&bytes, 0, 20 * MIB));
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(late.collect().await.unwrap(), part(&bytes, 20 * MIB, 4 * MIB));
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_midway_is_noticed_by_no_reader() {
    let harness = Harness::new().await;
    let bytes = noise(32 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(12 * MIB);
    let mut slow = harness.open(&digest).await.unwrap();
    let mut fast = harness.open(&digest).await.unwrap();
    let mut had = take(&mut slow, MIB).await.to_vec();
    assert_eq!(take(&mut fast, 12 * MIB).await, part(&bytes, 0, 12 * MIB));
    harness.disk.fail(Step::Write, ErrorKind::StorageFull); // P5
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(fast.collect().await.unwrap(), part(&bytes, 12 * MIB, 20 * MIB));
    while let Some(chunk) = slow.next().await {
        had.extend_from_slice(&chunk.unwrap());
    }
    assert!(had == bytes);
    assert_eq!(not_kept(&harness, "failed"), 1);
    // The slow one went on alone where the copy on disk had ended, and not before.
    assert_eq!(harness.metrics.reads.followers_detached.get(), 1);
    let log = harness.tier2.log();
    assert_eq!(log.len(), 2);
    assert!(log[1].from_byte >= 4 * MIB, "from {}", log[1].from_byte);
    harness.landed().await;
    assert!(!harness.is_in_tier1(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_cannot_be_opened_for_writing_is_noticed_by_no_reader() {
    let harness = Harness::new().await;
    let bytes = noise(10 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.disk.make_read_only();
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(not_kept(&harness, "failed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_costs_a_hungry_reader_a_moment_once() {
    let harness = Harness::new().await;
    let bytes = noise(32 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.disk.hold(Step::Write);
    let since = Instant::now();
    let read = while_time_passes(harness.read(&digest)).await;
    let elapsed = since.elapsed();
    harness.disk.release(Step::Write);
    assert_eq!(read.unwrap(), bytes);
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}"); // R8; virtual time
    assert_eq!(not_kept(&harness, "lagged"), 1);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_while_the_blob_is_being_published_causes_no_second_read() {
    let harness = Harness::new().await;
    let bytes = noise(10 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.disk.hold(Step::Rename);
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    harness.disk.somebody_waits().await;
    assert!(!harness.is_in_tier1(&digest));
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    let meanwhile = harness.open(&digest).await.unwrap();
    harness.disk.release(Step::Rename);
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
    assert_eq!(meanwhile.collect().await.unwrap(), bytes);
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn fetches_above_the_cap_go_without_a_disk() {
    let harness = Harness::new().await;
    harness.tier2.hold_reads_at(1);
    let blobs: Vec<Bytes> = (0..=STAGED_FILLS_MAX as u64)
        .map(|index| noise(100 + index))
        .collect();
    let digests: Vec<Digest> = blobs.iter().map(|blob| harness.plant(blob.clone())).collect();
    let reads = join_all(digests.iter().map(|digest| harness.read(digest)));
    let open = async {
        harness.tier2.arrived("read", blobs.len()).await;
        harness.tier2.hold_reads_at(u64::MAX);
    };
    let (read, ()) = futures::join!(reads, open);
    for (read, blob) in read.into_iter().zip(&blobs) {
        assert_eq!(read.unwrap(), blob);
    }
    assert_eq!(not_kept(&harness, "full"), 1);
    harness.landed().await;
    // A batch waits for its turn at the disk instead.
    let many: Vec<Digest> = (0..2 * STAGED_FILLS_MAX as u64)
        .map(|index| harness.plant(noise(1000 + index)))
        .collect();
    let answers = harness.reads.batch(&harness.call, &many).await;
    assert!(answers.iter().all(Result::is_ok));
    harness.landed().await;
    assert!(many.iter().all(|digest| harness.is_in_tier1(digest)));
    assert_eq!(not_kept(&harness, "full"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_does_not_wait_for_readers_to_come_back() {
    let harness = Harness::without_disk().await;
    let digest = harness.plant(noise(10 * MIB));
    harness.tier2.hold_reads_at(MIB);
    drop(harness.open(&digest).await.unwrap());
    let since = Instant::now();
    assert_eq!(harness.tasks.stop(Duration::from_secs(30)).await, 0);
    assert_eq!(since.elapsed(), Duration::ZERO);
}

// A copy that was there.

#[tokio::test(start_paused = true)]
async fn a_copy_that_rots_under_its_reader_is_replaced_within_the_read() {
    for cold in [false, true] {
        let harness = Harness::new().await;
        let bytes = noise(6 * MIB);
        let digest = plant_twice(&harness, &bytes).await;
        if cold {
            harness.disk.make_cold();
        }
        let mut reading = harness.open(&digest).await.unwrap();
        let mut had = take(&mut reading, MIB).await.to_vec();
        let file = its_file(&harness, 6 * MIB);
        harness.disk.flip_bit(&file, 4 << 20); // PXY-72
        while let Some(chunk) = reading.next().await {
            had.extend_from_slice(&chunk.unwrap());
        }
        assert!(had == bytes);
        assert_eq!(harness.tier2.count("read"), 2);
        harness.landed().await;
        assert_eq!(harness.read(&digest).await.unwrap(), bytes);
        assert_eq!(harness.tier2.count("read"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_whose_file_is_gone_is_fetched_again_within_the_read() {
    let harness = Harness::new().await;
    let bytes = noise(6 * MIB);
    let digest = plant_twice(&harness, &bytes).await;
    harness.disk.lose(&its_file(&harness, 6 * MIB));
    harness.disk.make_cold();
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    let answers = harness.reads.batch(&harness.call, &[digest]).await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_ok_and(|read| *read == bytes))
    );
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_reads_nothing_any_more_fails_no_read() {
    let harness = Harness::new().await;
    let bytes = noise(6 * MIB);
    let digest = plant_twice(&harness, &bytes).await;
    harness.disk.make_cold();
    harness.disk.fail(Step::Read, ErrorKind::Other); // EIO
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(
        harness.read_part(&digest, MIB, Some(10)).await.unwrap(),
        part(&bytes, MIB, 10)
    );
    let range = harness.read_part(&digest, 3 * MIB, None).await.unwrap();
    assert_eq!(range, part(&bytes, 3 * MIB, 3 * MIB));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_upload_is_read_before_tier_1_shows_it() {
    let harness = Harness::new().await;
    let bytes = noise(2 * MIB);
    let digest = Digest::of(crate::digest::Function::Sha256, &bytes);
    let key = harness.call.blob(&digest);
    let memory = harness
        .pending
        .hold(key.clone(), PendingCopy::Memory(bytes.clone()));
    assert_eq!(harness.read(&digest).await.unwrap(), bytes); // R12
    drop(memory);
    let mut staged = harness.tier1.stage(&key).await.unwrap();
    staged.append(bytes.clone()).await.unwrap();
    let file = harness.pending.hold(key, PendingCopy::Staged(staged.reader()));
    assert_eq!(
        harness.read_part(&digest, 5, None).await.unwrap(),
        part(&bytes, 5, 2 * MIB - 5)
    );
    drop(file);
    assert_eq!(harness.tier2.log().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_blob_on_a_disk_that_hangs_comes_from_tier_2_and_is_not_dropped() {
    // P5, P10
    for held in [Step::Open, Step::Read] {
        let harness = Harness::new().await;
        let bytes = noise(MIB);
        let digest = plant_twice(&harness, &bytes).await;
        harness.disk.make_cold();
        harness.disk.hold(held);
        let read = harness.read(&digest);
        let read = tokio::time::timeout(Duration::from_secs(15), read);
        let found = while_time_passes(read).await;
        harness.disk.release(held);
        assert_eq!(found.expect("an answer within the patience").unwrap(), bytes);
        // A shared fetch, and one of the read's own if that one led back to the disk.
        assert!((2..=3).contains(&harness.tier2.count("read")));
        assert_eq!(harness.metrics.tier1.dropped.get(), 0);
        harness.landed().await;
        assert!(harness.is_in_tier1(&digest));
    }
}

#[tokio::test(start_paused = true)]
async fn batches_on_a_disk_that_hangs_hold_bounded_memory() {
    // P8
    let harness = Harness::new().await;
    harness.disk.hold(Step::Create);
    for number in 0..80 {
        let bytes = noise(MIB - number);
        let digest = harness.plant(bytes.clone());
        let found = harness.reads.batch(&harness.call, &[digest]).await;
        assert_eq!(found[0].as_ref().unwrap(), &bytes);
    }
    let held = harness.metrics.reads.flights.get();
    harness.disk.release(Step::Create);
    assert!((1..=64).contains(&held), "{held} MiB");
    harness.landed().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_again_and_again_is_passed_over_until_a_trial_finds_it_well() {
    // P5, P10
    let harness = Harness::new().await;
    let blobs: Vec<Bytes> = (0..8).map(|number| noise(MIB + number)).collect();
    let mut digests = Vec::new();
    for bytes in &blobs {
        digests.push(plant_twice(&harness, bytes).await);
    }
    harness.disk.make_cold();
    harness.disk.hold(Step::Read);
    let mut read = Vec::new();
    for digest in &digests {
        read.push(while_time_passes(harness.read(digest)).await);
    }
    let passed_over = harness.metrics.tier1.passed_over.get();
    // First of all, since a test that fails waits for threads at the disk.
    harness.disk.release(Step::Read);
    for (read, bytes) in read.into_iter().zip(&blobs) {
        assert_eq!(read.unwrap(), *bytes);
    }
    assert_eq!(passed_over, 1);
    assert_eq!(
        harness.metrics.tier1.dropped.get(),
        0,
        "nothing is known against the copies"
    );
    harness.landed().await;

    tokio::time::sleep(COOL_DOWN).await;
    let asked = harness.tier2.count("read");
    for (digest, bytes) in digests.iter().zip(&blobs) {
        assert_eq!(harness.read(digest).await.unwrap(), *bytes);
    }
    assert_eq!(harness.tier2.count("read"), asked, "tier 1 has them all");
    assert_eq!(harness.metrics.tier1.passed_over.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_every_read_loses_few_of_its_copies() {
    // P5
    let harness = Harness::new().await;
    let blobs: Vec<Bytes> = (0..10).map(|number| noise(MIB + number)).collect();
    let mut digests = Vec::new();
    for bytes in &blobs {
        digests.push(plant_twice(&harness, bytes).await);
    }
    harness.disk.make_cold();
    harness.disk.fail(Step::Read, ErrorKind::Other); // EIO
    for (digest, bytes) in digests.iter().zip(&blobs) {
        assert_eq!(harness.read(digest).await.unwrap(), *bytes);
    }
    assert_eq!(harness.metrics.tier1.passed_over.get(), 1);
    assert!(
        harness.metrics.tier1.dropped.get() <= 4,
        "{}",
        harness.metrics.tier1.dropped.get()
    );
}
