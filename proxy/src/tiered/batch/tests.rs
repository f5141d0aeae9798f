use bytes::Bytes;
use futures::FutureExt as _;
use tokio::time::{Duration, Instant};

use super::super::CallError;
use super::super::read_harness::{Harness, MIB, noise};
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;
use crate::tier2::memory::ReadPlan;

async fn batch(harness: &Harness, digests: &[Digest]) -> Vec<Option<Bytes>> {
    let answers = harness.reads.batch(&harness.call, digests).await;
    answers.into_iter().map(Result::ok).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_answers_every_digest_in_order_with_one_call_to_tier_2() {
    let harness = Harness::new().await;
    let (a, b) = (noise(100), noise(200));
    let digests = [
        harness.plant(a.clone()),
        Function::Sha256.empty(),
        Digest::of(Function::Sha256, b"nowhere"),
        harness.plant(b.clone()),
        harness.plant(a.clone()),
    ];
    let expected = [Some(a.clone()), Some(Bytes::new()), None, Some(b), Some(a)];
    assert_eq!(batch(&harness, &digests).await, expected); // CAS-BRB-01, -03, -10, -11
    assert_eq!(harness.tier2.log().len(), 1);
    assert_eq!(harness.tier2.log()[0].digests.len(), 3);
    harness.landed().await;
    // What was had is local by then; what was missing is asked for again.
    assert_eq!(batch(&harness, &digests).await, expected);
    assert_eq!(harness.tier2.log().len(), 2);
    assert_eq!(harness.tier2.log()[1].digests, [digests[2]]);
    assert!(batch(&harness, &[]).await.is_empty()); // CAS-BRB-16
}

#[tokio::test(start_paused = true)]
async fn a_failing_tier_2_fails_only_what_it_was_asked_for() {
    let harness = Harness::new().await;
    let (near, far) = (noise(100), noise(200));
    let digests = [harness.plant(near.clone()), harness.plant(far)];
    harness.read(&digests[0]).await.unwrap();
    harness.landed().await;
    harness.tier2.fail_with(Some(Tier2Error::down("a test says so")));
    let mut answers = harness.reads.batch(&harness.call, &digests).await;
    let failed = answers.pop().unwrap();
    assert!(matches!(failed, Err(CallError::Tier2(Tier2Error::Down(_))))); // CAS-BRB-04, PXY-65
    assert_eq!(answers.pop().unwrap().unwrap(), near);
}

#[tokio::test(start_paused = true)]
async fn a_batch_and_a_read_of_the_same_blob_share_one_fetch() {
    let harness = Harness::new().await;
    let (a, b) = (noise(100), noise(200));
    let digests = [harness.plant(a.clone()), harness.plant(b.clone())];
    harness.tier2.hold_reads_at(0);
    let mut read = Box::pin(harness.read(&digests[0]));
    assert!((&mut read).now_or_never().is_none());
    let mut both = Box::pin(batch(&harness, &digests));
    assert!((&mut both).now_or_never().is_none());
    let mut late = Box::pin(harness.read(&digests[1]));
    assert!((&mut late).now_or_never().is_none());
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(both.await, [Some(a.clone()), Some(b.clone())]);
    assert_eq!((read.await.unwrap(), late.await.unwrap()), (a, b));
    let log = harness.tier2.log();
    assert_eq!(log.len(), 2);
    assert_eq!((log[0].method, &log[0].digests[..]), ("read", &digests[..1]));
    assert_eq!(
        (log[1].method, &log[1].digests[..]),
        ("read_batch", &digests[1..])
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_for_others_when_its_client_hangs_up() {
    let harness = Harness::new().await;
    let bytes = noise(100);
    let digest = harness.plant(bytes.clone());
    harness.tier2.hold_reads_at(0);
    let digests = [digest];
    let mut first = Box::pin(batch(&harness, &digests));
    assert!((&mut first).now_or_never().is_none());
    drop(first);
    let second = harness.read(&digest);
    harness.tier2.hold_reads_at(u64::MAX);
    assert_eq!(second.await.unwrap(), bytes);
    assert_eq!(harness.tier2.log().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_bad_blob_in_a_batch_is_fetched_again_and_fails_alone() {
    let harness = Harness::new().await;
    let good = noise(100);
    let digests = [harness.plant(good.clone()), harness.plant(noise(200))];
    let key = harness.call.blob(&digests[1]);
    harness.tier2.plant(key.clone(), vec![0; 200]);
    let mut answers = harness.reads.batch(&harness.call, &digests).await;
    assert!(matches!(answers.pop().unwrap(), Err(CallError::BadBlob))); // CAS-BRB-02, -09
    assert_eq!(answers.pop().unwrap().unwrap(), good);
    assert!(harness.bad.is_bad(&key));
    assert_eq!(
        (harness.tier2.count("read_batch"), harness.tier2.count("read")),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_blob_of_a_batch_that_was_mended_is_kept() {
    let harness = Harness::new().await;
    let bytes = noise(200);
    let digest = harness.plant(bytes.clone());
    harness.tier2.plan_reads([ReadPlan::FlipAt(7)]);
    assert_eq!(batch(&harness, &[digest]).await, [Some(bytes)]);
    harness.landed().await;
    assert!(harness.is_in_tier1(&digest));
}

#[tokio::test(start_paused = true)]
async fn large_blobs_of_a_batch_are_streamed_beside_it() {
    let harness = Harness::new().await;
    let (small, large) = (noise(100), noise(2 * MIB));
    let digests = [harness.plant(small.clone()), harness.plant(large.clone())];
    assert_eq!(batch(&harness, &digests).await, [Some(small), Some(large)]);
    assert_eq!(
        (harness.tier2.count("read_batch"), harness.tier2.count("read")),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_ends_with_its_deadline_and_keeps_what_is_local() {
    let harness = Harness::new().await;
    let near = noise(100);
    let digests = [harness.plant(near.clone()), harness.plant(noise(200))];
    harness.read(&digests[0]).await.unwrap();
    harness.landed().await;
    harness.tier2.hold_reads_at(0);
    let mut hasty = harness.call.clone();
    hasty.deadline = Some(Instant::now() + Duration::from_secs(1));
    let mut answers = harness.reads.batch(&hasty, &digests).await;
    assert!(matches!(answers.pop().unwrap(), Err(CallError::DeadlineExceeded)));
    assert_eq!(answers.pop().unwrap().unwrap(), near);
}
