use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use tokio::time::Instant;
use tonic::Code;

use super::super::read_harness::{Harness, MIB, noise, part, take};
use super::super::{CallError, READ_CHUNK_BYTES};
use crate::call::Scope;
use crate::digest::{Digest, Function};
use crate::task::TaskGroup;
use crate::tier2::memory::ReadPlan;
use crate::tier2::{Tier2Error, UpstreamStatus};

fn down() -> Tier2Error {
    Tier2Error::down("a test says so")
}

/// A digest of zeros that nobody has to hash: for fetches that never get to their end.
fn never_read_to_its_end(harness: &Harness, len: u64) -> Digest {
    let hash = Digest::of(Function::Sha256, b"no such blob").hash().to_hex();
    let digest = Digest::parse(Function::Sha256, &hash, i64::try_from(len).unwrap()).unwrap();
    let zeros = vec![0; usize::try_from(len).unwrap()];
    harness.tier2.plant(harness.call.blob(&digest), zeros);
    digest
}

// One fetch.

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_of_a_cold_blob_cause_one_read_and_have_their_first_byte_before_the_last_came() {
    let harness = Harness::new().await;
    let bytes = noise(20 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(19 * MIB); // PXY-54
    let readings = join_all((0..100).map(|_| harness.open(&digest))).await;
    assert_eq!(readings.iter().filter(|reading| reading.is_ok()).count(), 100);
    harness.tier2.hold_reads_at(u64::MAX);
    let bytes = &bytes;
    join_all(readings.into_iter().map(|reading| async move {
        let mut reading = reading.unwrap();
        let mut offset = 0;
        while let Some(chunk) = reading.next().await {
            let chunk = chunk.unwrap();
            assert!(!chunk.is_empty() && chunk.len() <= READ_CHUNK_BYTES);
            assert_eq!(chunk, part(bytes, offset, chunk.len() as u64));
            offset += chunk.len() as u64;
        }
        assert_eq!(offset, 20 * MIB);
    }))
    .await;
    harness.landed().await;
    assert_eq!(harness.tier2.count("read"), 1);
    assert!(harness.is_in_tier1(&digest));
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_keep_their_stream_when_the_first_client_hangs_up() {
    let harness = Harness::new().await;
    let bytes = noise(10 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(2 * MIB);
    let mut first = harness.open(&digest).await.unwrap();
    let second = harness.open(&digest).await.unwrap();
    take(&mut first, MIB).await;
    drop(first);
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(second.collect().await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_with_little_left_is_finished_when_its_only_reader_hangs_up() {
    let harness = Harness::new().await;
    let digest = harness.plant(noise(10 * MIB));
    harness.tier2.hold_reads_at(2 * MIB);
    let mut only = harness.open(&digest).await.unwrap();
    take(&mut only, MIB).await;
    drop(only);
    harness.tier2.hold_reads_at(u64::MAX);
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_with_much_left_ends_five_seconds_after_its_last_reader() {
    let harness = Harness::new().await;
    let digest = never_read_to_its_end(&harness, 200 * MIB);
    harness.tier2.hold_reads_at(MIB);
    let only = harness.open(&digest).await.unwrap();
    drop(only);
    let since = Instant::now();
    harness.landed().await;
    assert_eq!(since.elapsed().as_secs(), 5);
    assert_eq!(harness.metrics.reads.flights.get(), 0);
    assert!(!harness.is_in_tier1(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_within_five_seconds_finds_the_fetch_still_going() {
    let harness = Harness::new().await;
    let digest = never_read_to_its_end(&harness, 200 * MIB);
    harness.tier2.hold_reads_at(MIB);
    drop(harness.open(&digest).await.unwrap());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let second = harness.open(&digest).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.metrics.reads.flights.get(), 1);
    assert_eq!(harness.tier2.count("read"), 1);
    drop(second);
    harness.landed().await;
}

#[tokio::test(start_paused = true)]
async fn scopes_do_not_share_fetches_or_copies() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    harness.landed().await;
    let mut stranger = harness.call.clone();
    stranger.scope = Scope::new("other");
    let range = crate::blob::ByteRange::whole(&digest);
    let answer = harness.reads.open(&stranger, &digest, range).await;
    assert!(matches!(answer, Err(CallError::Tier2(Tier2Error::NotFound))));
}

#[tokio::test(start_paused = true)]
async fn a_reading_is_over_after_its_end_and_counts_what_it_served() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    let mut cold = harness.open(&digest).await.unwrap();
    assert_eq!(cold.remaining_bytes(), 1000);
    assert_eq!(cold.next().await.unwrap().unwrap(), bytes);
    assert!(cold.next().await.is_none() && cold.next().await.is_none());
    harness.landed().await;
    harness.read(&digest).await.unwrap();
    let count = |tier| harness.metrics.reads.hits.with_label_values(&[tier, "cas"]).get();
    assert_eq!((count("1"), count("2")), (1, 1));
    let served = |tier| harness.metrics.reads.bytes.with_label_values(&[tier]).get();
    assert_eq!((served("1"), served("2")), (1000, 1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_race_for_the_same_blobs_cause_one_read_of_each() {
    let harness = std::sync::Arc::new(Harness::new().await);
    let blobs: Vec<Bytes> = (0..200)
        .map(|index| noise(100 + 7000 * (index % 40) + index))
        .collect();
    for blob in &blobs {
        harness.plant(blob.clone());
    }
    // Some meet in the air, some come while a blob is published, some find it in Tier 1.
    let readers = (0..16_usize).map(|reader| {
        let (harness, blobs) = (harness.clone(), blobs.clone());
        TaskGroup::new().spawn(async move {
            for turn in 0..blobs.len() {
                let blob = &blobs[(turn + reader % 4) % blobs.len()];
                let digest = Digest::of(Function::Sha256, blob);
                let read = if reader % 3 == 0 {
                    harness.reads.batch(&harness.call, &[digest]).await.remove(0)
                } else {
                    harness.read(&digest).await
                };
                assert_eq!(read.unwrap(), blob);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    harness.landed().await;
    assert_eq!(harness.tier2.log().len(), blobs.len());
    assert_eq!(harness.metrics.reads.flights.get(), 0);
}

// Errors and times.

#[tokio::test(start_paused = true)]
async fn everybody_is_told_that_a_blob_is_in_neither_tier() {
    let harness = Harness::new().await;
    let digest = Digest::of(Function::Sha256, b"nowhere");
    let answers = join_all((0..3).map(|_| harness.open(&digest))).await;
    for answer in answers {
        assert!(matches!(answer, Err(CallError::Tier2(Tier2Error::NotFound)))); // BS-READ-10
    }
    assert_eq!(harness.metrics.reads.misses.with_label_values(&["cas"]).get(), 3);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn readers_are_told_tier_2s_own_code_and_the_next_reader_asks_again() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    let status = UpstreamStatus {
        code: Code::PermissionDenied,
        message: "no".into(),
        details: Bytes::new(),
    };
    harness
        .tier2
        .plan_reads([ReadPlan::BreakAt(0, Tier2Error::Answered(status.clone()))]);
    let answers = join_all((0..2).map(|_| harness.open(&digest))).await;
    for answer in answers {
        let Err(CallError::Tier2(Tier2Error::Answered(told))) = answer else {
            panic!("{:?}", answer.map(drop));
        };
        assert_eq!(told, status); // PXY-55
    }
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
}

#[tokio::test(start_paused = true)]
async fn a_readers_deadline_is_its_own() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(0);
    let mut hasty = harness.call.clone();
    hasty.deadline = Some(Instant::now() + Duration::from_secs(1));
    let range = crate::blob::ByteRange::whole(&digest);
    let since = Instant::now();
    let patient = harness.open(&digest);
    let answer = harness.reads.open(&hasty, &digest, range);
    let (patient, answer) = futures::join!(
        async {
            tokio::time::timeout(Duration::from_secs(60), patient.map(|answer| answer.map(drop)))
                .await
                .is_err()
        },
        answer.inspect(|_| assert_eq!(since.elapsed().as_secs(), 1))
    );
    assert!(matches!(answer.map(drop), Err(CallError::DeadlineExceeded)));
    assert!(patient, "a stranger's deadline ended a read");
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_broken_stream_is_resumed_at_its_byte_and_the_client_sees_nothing() {
    let harness = Harness::new().await;
    let bytes = noise(3 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.plan_reads([
        ReadPlan::BreakAt(MIB + 7, down()),
        ReadPlan::BreakAt(2 * MIB + 1, Tier2Error::Stalled),
        ReadPlan::BreakAt(2 * MIB + 2, Tier2Error::Short),
    ]); // PXY-52
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    let starts: Vec<u64> = harness.tier2.log().iter().map(|call| call.from_byte).collect();
    assert_eq!(starts, [0, MIB + 7, 2 * MIB + 1, 2 * MIB + 2]);
    assert_eq!(harness.metrics.reads.resumed.get(), 3);
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_well_before_its_first_byte_is_begun_anew() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    harness
        .tier2
        .plan_reads([ReadPlan::BreakAt(0, Tier2Error::Short)]);
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 2);
    // Not for ever.
    let other = harness.plant(noise(2000));
    harness
        .tier2
        .plan_reads(vec![ReadPlan::BreakAt(0, Tier2Error::Short); 10]);
    let answer = harness.read(&other).await;
    assert!(matches!(answer, Err(CallError::Tier2(Tier2Error::Short))));
    assert_eq!(harness.tier2.count("read"), 2 + 6);
}

#[tokio::test(start_paused = true)]
async fn resumes_without_progress_end_with_the_true_code_and_keep_nothing() {
    let harness = Harness::new().await;
    let bytes = noise(3 * MIB);
    let digest = harness.plant(bytes.clone());
    harness
        .tier2
        .plan_reads(vec![ReadPlan::BreakAt(MIB, Tier2Error::Short); 10]); // PXY-48
    let mut reading = harness.open(&digest).await.unwrap();
    assert_eq!(take(&mut reading, MIB).await, part(&bytes, 0, MIB));
    assert!(matches!(
        reading.next().await,
        Some(Err(CallError::Tier2(Tier2Error::Short)))
    ));
    assert!(reading.next().await.is_none());
    harness.landed().await;
    assert_eq!(harness.tier2.count("read"), 6);
    assert!(!harness.is_in_tier1(&digest) && !harness.bad.is_bad(&harness.call.blob(&digest)));
}

#[tokio::test(start_paused = true)]
async fn a_tier_2_that_is_down_is_reported_at_once() {
    let harness = Harness::new().await;
    let digest = harness.plant(noise(1000));
    harness.tier2.fail_with(Some(down()));
    let since = Instant::now();
    let answer = harness.open(&digest).await;
    assert!(matches!(
        answer.map(drop),
        Err(CallError::Tier2(Tier2Error::Down(_)))
    ));
    assert_eq!(since.elapsed(), Duration::ZERO);
}

// Ranges.

#[tokio::test(start_paused = true)]
async fn a_part_of_a_cold_blob_is_read_as_such_and_never_stored() {
    let harness = Harness::new().await;
    let bytes = noise(MIB);
    let digest = harness.plant(bytes.clone());
    let read = harness.read_part(&digest, 1000, Some(5000)).await.unwrap();
    assert_eq!(read, part(&bytes, 1000, 5000)); // BS-READ-09, PXY-56
    harness.landed().await;
    assert!(!harness.is_in_tier1(&digest));
    assert_eq!(harness.tier2.log()[0].from_byte, 1000);
    assert_eq!(harness.metrics.reads.flights_started.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_from_the_middle_to_the_end_is_a_whole_fetch_and_verified() {
    let harness = Harness::new().await;
    let bytes = noise(MIB);
    let digest = harness.plant(bytes.clone());
    let read = harness.read_part(&digest, 1000, None).await.unwrap();
    assert_eq!(read, part(&bytes, 1000, MIB - 1000));
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
    assert_eq!(harness.tier2.log()[0].from_byte, 0);
}

#[tokio::test(start_paused = true)]
async fn a_part_shares_a_fetch_that_is_near_and_leaves_one_that_is_far() {
    let harness = Harness::new().await;
    let digest = never_read_to_its_end(&harness, 200 * MIB);
    harness.tier2.hold_reads_at(MIB);
    let _whole = harness.open(&digest).await.unwrap();
    assert_eq!(
        harness.read_part(&digest, 1000, Some(10)).await.unwrap().len(),
        10
    );
    assert_eq!(harness.tier2.count("read"), 1);
    let mut near = Box::pin(harness.read_part(&digest, 4 * MIB, Some(10)));
    assert!((&mut near).now_or_never().is_none());
    assert_eq!(harness.tier2.count("read"), 1);
    let mut far = Box::pin(harness.read_part(&digest, 100 * MIB, Some(10)));
    assert!((&mut far).now_or_never().is_none());
    assert_eq!(harness.tier2.count("read"), 2);
    harness.tier2.hold_reads_at(5 * MIB);
    assert_eq!(near.await.unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_no_bytes_asks_only_whether_the_blob_exists() {
    let harness = Harness::new().await;
    let digest = harness.plant(noise(10));
    assert!(harness.read_part(&digest, 10, None).await.unwrap().is_empty()); // BS-READ-02
    assert_eq!(harness.tier2.count("read"), 0);
    harness.tier2.evict(&harness.call.blob(&digest));
    let answer = harness.open_part(&digest, 10, None).await;
    assert!(matches!(
        answer.map(drop),
        Err(CallError::Tier2(Tier2Error::NotFound))
    ));
    let empty = Function::Sha256.empty();
    assert!(harness.read(&empty).await.unwrap().is_empty()); // BS-READ-18
    assert_eq!(harness.tier2.log().len(), 2);
}

// Without a disk.

#[tokio::test(start_paused = true)]
async fn a_fetch_without_a_disk_serves_all_who_keep_up() {
    let harness = Harness::without_disk().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(MIB);
    let readings = join_all((0..10).map(|_| harness.open(&digest))).await;
    harness.tier2.hold_reads_at(u64::MAX);
    let mut readings: Vec<_> = readings.into_iter().map(Result::unwrap).collect();
    let mut offset = 0;
    while offset < 24 * MIB {
        let mut len = 0;
        for reading in &mut readings {
            let chunk = reading.next().await.unwrap().unwrap();
            len = chunk.len() as u64;
            assert_eq!(chunk, part(&bytes, offset, len));
        }
        offset += len;
    }
    assert_eq!(harness.tier2.count("read"), 1);
    let not_kept = harness.metrics.reads.not_kept.with_label_values(&["too_large"]);
    assert_eq!(not_kept.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_straggler_without_a_disk_goes_on_alone_at_its_own_byte_and_slows_nobody() {
    let harness = Harness::without_disk().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    let mut slow = harness.open(&digest).await.unwrap();
    let fast = harness.open(&digest).await.unwrap();
    let mut had = take(&mut slow, MIB).await.to_vec();
    assert_eq!(fast.collect().await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
    let left = had.len() as u64;
    while let Some(chunk) = slow.next().await {
        had.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(had, bytes);
    assert_eq!(harness.metrics.reads.followers_detached.get(), 1); // PXY-57
    let log = harness.tier2.log();
    assert_eq!((log.len(), log[1].from_byte), (2, left));
}

#[tokio::test(start_paused = true)]
async fn a_straggler_is_not_told_ok_when_its_own_stream_ends_wrong() {
    let harness = Harness::without_disk().await;
    let digest = harness.plant(noise(24 * MIB));
    harness
        .tier2
        .plan_reads([ReadPlan::Good, ReadPlan::FlipAt(23 * MIB)]);
    let mut slow = harness.open(&digest).await.unwrap();
    let fast = harness.open(&digest).await.unwrap();
    fast.collect().await.unwrap();
    let mut had = 0;
    let error = loop {
        match slow.next().await.expect("an error before the end") {
            Ok(chunk) => had += chunk.len() as u64,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CallError::DataLoss) && had < 24 * MIB);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_comes_too_late_for_a_fetch_without_a_disk_reads_on_its_own_and_verified() {
    let harness = Harness::without_disk().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    let mut first = harness.open(&digest).await.unwrap();
    take(&mut first, 16 * MIB).await;
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    let middle = harness.read_part(&digest, MIB, None).await.unwrap();
    assert_eq!(middle, part(&bytes, MIB, 23 * MIB));
    let starts: Vec<u64> = harness.tier2.log().iter().map(|call| call.from_byte).collect();
    assert_eq!(starts, [0, 0, 0]);
    assert!(first.next().await.unwrap().is_ok());
}

// Wrong bytes.

#[tokio::test(start_paused = true)]
async fn a_blob_that_came_wrong_in_its_last_piece_is_mended_unseen() {
    let harness = Harness::new().await;
    let bytes = noise(3 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.tier2.plan_reads([ReadPlan::FlipAt(3 * MIB - 1)]);
    assert_eq!(harness.read(&digest).await.unwrap(), bytes); // P4, R10
    assert_eq!(harness.metrics.reads.corrupt.get(), 1);
    assert_eq!(harness.tier2.count("read"), 2);
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest) && !harness.bad.is_bad(&harness.call.blob(&digest)));
    assert_eq!(harness.read(&digest).await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 2);
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_that_left_are_data_loss_and_who_had_none_gets_the_good_copy() {
    for len in [3 * MIB, 6 * MIB] {
        let harness = Harness::new().await;
        let bytes = noise(len);
        let digest = harness.plant(bytes.clone());
        harness.tier2.plan_reads([ReadPlan::FlipAt(5)]);
        harness.tier2.hold_reads_at(MIB);
        let mut early = harness.open(&digest).await.unwrap();
        let mut late = Box::pin(harness.read_part(&digest, 2 * MIB, None));
        assert!((&mut late).now_or_never().is_none());
        harness.tier2.hold_reads_at(u64::MAX);
        let error = loop {
            if let Err(error) = early.next().await.expect("an error before the end") {
                break error;
            }
        };
        assert!(matches!(error, CallError::DataLoss)); // PXY-51
        assert_eq!(late.await.unwrap(), part(&bytes, 2 * MIB, len - 2 * MIB));
        harness.landed().await;
        assert_eq!(harness.read(&digest).await.unwrap(), bytes);
        assert_eq!(harness.tier2.count("read"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_fetch_that_fails_makes_nothing_bad() {
    let harness = Harness::new().await;
    let digest = harness.plant(noise(1000));
    harness
        .tier2
        .plan_reads([ReadPlan::FlipAt(5), ReadPlan::BreakAt(0, down())]);
    let answer = harness.open(&digest).await;
    assert!(matches!(
        answer.map(drop),
        Err(CallError::Tier2(Tier2Error::Down(_)))
    ));
    assert!(!harness.bad.is_bad(&harness.call.blob(&digest)));
    assert!(harness.read(&digest).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_came_wrong_twice_is_absent_until_a_good_copy_is_seen() {
    let harness = Harness::new().await;
    let bytes = noise(1000);
    let digest = harness.plant(bytes.clone());
    let key = harness.call.blob(&digest);
    harness.tier2.plant(
        key.clone(),
        noise(999).iter().copied().chain([0]).collect::<Vec<_>>(),
    );
    let open = || async { harness.open(&digest).await.map(drop) };
    assert!(matches!(open().await, Err(CallError::BadBlob)));
    assert_eq!(harness.tier2.count("read"), 2);
    assert_eq!(harness.metrics.reads.bad_blobs.get(), 1);
    // Refused without asking, whole or in part.
    assert!(matches!(open().await, Err(CallError::BadBlob)));
    assert!(matches!(
        harness.open_part(&digest, 0, Some(1)).await.map(drop),
        Err(CallError::BadBlob)
    ));
    assert_eq!(harness.tier2.count("read"), 2);
    // Tried again after ten seconds, and still bad.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(matches!(open().await, Err(CallError::BadBlob)));
    assert!(matches!(open().await, Err(CallError::BadBlob)));
    assert_eq!(harness.tier2.count("read"), 3);
    // Forgiven when right.
    harness.tier2.plant(key.clone(), bytes.clone());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        harness.read_part(&digest, 1, Some(5)).await.unwrap(),
        part(&bytes, 1, 5)
    );
    assert!(!harness.bad.is_bad(&key));
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_bad_blob_is_tried_whole_before_a_byte_of_it_leaves() {
    let harness = Harness::new().await;
    let bytes = noise(6 * MIB);
    let digest = harness.plant(bytes.clone());
    harness.bad.condemn(&harness.call.blob(&digest));
    tokio::time::sleep(Duration::from_secs(10)).await;
    harness.tier2.hold_reads_at(6 * MIB - 1);
    let mut first = Box::pin(harness.read(&digest));
    let mut second = Box::pin(harness.read(&digest));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(first.await.unwrap(), bytes);
    assert_eq!(second.await.unwrap(), bytes);
    assert_eq!(harness.tier2.count("read"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bad_blob_is_absent_for_a_read_of_no_bytes_too() {
    // R10
    let harness = Harness::new().await;
    let digest = harness.plant("hello");
    harness.bad.condemn(&harness.call.blob(&digest));
    let error = harness.read_part(&digest, 5, None).await.unwrap_err();
    assert!(matches!(error, CallError::BadBlob), "{error}");
}

#[tokio::test(start_paused = true)]
async fn readers_that_take_nothing_hold_no_stream_of_tier_2() {
    // P10
    let harness = Harness::without_disk().await;
    let bytes = noise(24 * MIB);
    let digest = harness.plant(bytes.clone());
    let mut stalled = harness.open(&digest).await.unwrap();
    let mut had = take(&mut stalled, 1).await.to_vec();
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(harness.tier2.open_streams(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(harness.tier2.open_streams(), 0);
    had.extend_from_slice(&stalled.collect().await.unwrap());
    assert!(had == bytes);
    let log = harness.tier2.log();
    assert_eq!(log.len(), 2);
    assert!(
        (7 * MIB..10 * MIB).contains(&log[1].from_byte),
        "{}",
        log[1].from_byte
    );
}
