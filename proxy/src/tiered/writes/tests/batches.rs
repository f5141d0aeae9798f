use futures::FutureExt;
use prost::Message as _;

use super::*;
use crate::blob::Verified;
use crate::tier2::health::{Health, Service};
use crate::tiered::action_lines::UPDATES_MAX;
use crate::tiered::write_batch::BATCHES_MAX;

fn whole(blob: &Blob) -> (Verified, Bytes) {
    let proof = Verified::of(blob.digest, &blob.bytes).unwrap();
    (proof, blob.bytes.clone())
}

#[tokio::test(start_paused = true)]
async fn a_batch_reaches_both_tiers_and_sends_each_blob_once() {
    // CAS-BUB-13, CAS-BUB-15, CAS-BUB-16
    let node = Node::new();
    let (one, two, empty) = (Blob::of_len(10), Blob::of_len(CHUNK), Blob::of(Bytes::new()));
    let blobs = vec![whole(&one), whole(&empty), whole(&two), whole(&one)];
    let answers = node.writes.batch(&call(), blobs).await;
    assert_eq!(answers.len(), 4);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(node.tier2.log()[0].digests, [one.digest, two.digest]);
    for blob in [&one, &two] {
        assert!(node.in_tier2(blob) && node.in_tier1(blob).await);
    }
    assert!(node.writes.batch(&call(), Vec::new()).await.is_empty());
    assert_eq!(node.tier2.count("write_batch"), 1);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn blobs_of_a_batch_fail_one_by_one_and_what_failed_is_not_kept() {
    // CAS-BUB-01, CAS-BUB-19, R10
    let node = Node::new();
    let (good, bad) = (Blob::of_len(10), Blob::of_len(20));
    node.bad.condemn(&bad.key());
    node.tier2.spoil_writes_of(&bad.key());
    let answers = node.writes.batch(&call(), vec![whole(&bad), whole(&good)]).await;
    let [Err(CallError::Tier2(Tier2Error::Corrupt(_))), Ok(())] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert!(!node.in_tier1(&bad).await && node.in_tier1(&good).await);
    assert!(node.pending.find(&bad.key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_tier_2_refuses_is_not_kept() {
    let node = Node::new();
    let (one, empty) = (Blob::of_len(10), Blob::of(Bytes::new()));
    node.tier2.fail_with(Some(answered(Code::ResourceExhausted))); // CAS-BUB-06
    let answers = node.writes.batch(&call(), vec![whole(&one), whole(&empty)]).await;
    let [Err(CallError::Tier2(Tier2Error::Answered(_))), Ok(())] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert!(!node.in_tier1(&one).await);
    assert!(node.pending.find(&one.key()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_when_its_client_hangs_up() {
    let node = Node::new();
    let blob = Blob::of_len(10);
    let batch = node.writes.batch(&call(), vec![whole(&blob)]).now_or_never();
    assert!(batch.is_none());
    node.settles().await;
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);
}

#[tokio::test(start_paused = true)]
async fn blobs_of_a_batch_can_be_read_before_tier_1_has_them() {
    let node = Node::with(Publish::Async);
    let blob = Blob::of_len(10);
    node.disk.hold(Step::Rename);
    let answers = node.writes.batch(&call(), vec![whole(&blob)]).await;
    answers[0].as_ref().unwrap();
    let found = node.pending.find(&blob.key());
    assert!(matches!(found, Some(PendingCopy::Memory(bytes)) if bytes == blob.bytes));
    node.disk.release(Step::Rename);
    node.settles().await;
    assert!(node.pending.find(&blob.key()).is_none() && node.in_tier1(&blob).await);
}

#[tokio::test(start_paused = true)]
async fn find_missing_asks_tier_2_once_per_digest_and_never_for_the_empty_one() {
    // CAS-FMB-01, CAS-FMB-03, CAS-FMB-07, PXY-74
    let node = Node::new();
    let (present, missing, empty) = (Blob::of_len(10), Blob::of_len(20), Blob::of(Bytes::new()));
    node.upload(&present, "name").await.unwrap();
    let asked = [&missing, &present, &empty, &missing].map(|blob| blob.digest);
    let found = node.writes.find_missing(&call(), &asked).await.unwrap();
    assert_eq!(found, [missing.digest]);
    let log = node.tier2.log();
    let mut distinct = [missing.digest, present.digest];
    distinct.sort();
    assert_eq!(log.last().unwrap().digests, distinct);
    let found = node.writes.find_missing(&call(), &[empty.digest]).await.unwrap();
    assert_eq!(found, []);
    assert_eq!(node.writes.find_missing(&call(), &[]).await.unwrap(), []); // CAS-FMB-04
    assert_eq!(node.tier2.count("find_missing"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_tier_1_is_no_proof() {
    // P2, PXY-34
    let node = Node::new();
    let blob = Blob::of_len(10);
    node.upload(&blob, "name").await.unwrap();
    node.tier2.evict(&blob.key());
    assert!(node.in_tier1(&blob).await);
    let found = node.writes.find_missing(&call(), &[blob.digest]).await.unwrap();
    assert_eq!(found, [blob.digest]);
    node.upload(&blob, "name").await.unwrap();
    assert!(node.in_tier2(&blob));
}

#[tokio::test(start_paused = true)]
async fn a_bad_blob_is_missing_and_an_outage_is_not() {
    // CAS-FMB-09, PXY-01, R10
    let node = Node::new();
    let (bad, present) = (Blob::of_len(10), Blob::of_len(20));
    for blob in [&bad, &present] {
        node.upload(blob, "name").await.unwrap();
    }
    node.bad.condemn(&bad.key());
    let asked = [bad.digest, present.digest];
    let found = node.writes.find_missing(&call(), &asked).await.unwrap();
    assert_eq!(found, [bad.digest]);
    node.tier2.fail_with(Some(Tier2Error::down("refused")));
    let found = node.writes.find_missing(&call(), &asked).await;
    assert!(
        matches!(found, Err(CallError::Tier2(Tier2Error::Down(_)))),
        "{found:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_blob_is_missing_until_its_upload_is_acknowledged() {
    // CAS-FMB-13
    let node = Node::new();
    let blob = Blob::of_len(2 * CHUNK);
    node.tier2.hold_writes_at(blob.digest.size_bytes() - 1);
    let mut upload = Box::pin(node.upload(&blob, "name"));
    assert!(waits(&mut upload).await);
    let asked = [blob.digest];
    assert_eq!(node.writes.find_missing(&call(), &asked).await.unwrap(), asked);
    node.tier2.hold_writes_at(u64::MAX);
    upload.await.unwrap();
    assert_eq!(node.writes.find_missing(&call(), &asked).await.unwrap(), []);
}

fn action() -> ActionDigest {
    ActionDigest(Blob::of_len(33).digest)
}

fn result(text: &'static str) -> RawActionResult {
    let result = proto::reapi::ActionResult {
        stdout_raw: text.into(),
        ..Default::default()
    };
    RawActionResult(result.encode_to_vec().into())
}

#[tokio::test(start_paused = true)]
async fn an_action_result_is_read_back_as_it_was_written() {
    // AC-UPD-01, AC-UPD-10
    let node = Node::new();
    let missing = node.actions.get(&call(), &action()).await;
    assert!(
        matches!(missing, Err(CallError::Tier2(Tier2Error::NotFound))),
        "{missing:?}"
    );
    for text in ["one", "two"] {
        let put = node.actions.put(&call(), &action(), result(text)).await;
        put.unwrap();
        let found = node.actions.get(&call(), &action()).await;
        assert_eq!(found.unwrap(), result(text));
    }
    node.tier2.fail_with(Some(answered(Code::Internal)));
    let put = node.actions.put(&call(), &action(), result("three")).await;
    assert!(
        matches!(put, Err(CallError::Tier2(Tier2Error::Answered(_)))),
        "{put:?}"
    );
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn updates_of_one_key_reach_tier_2_in_order_and_outlive_their_clients() {
    // R7, PXY-42
    let node = Node::new();
    let (call, action) = (call(), action());
    let put = |text| node.actions.put(&call, &action, result(text));
    node.tier2.hold_writes_at(0);
    let mut first = Box::pin(put("first"));
    assert!(waits(&mut first).await);
    assert!(put("second").now_or_never().is_none());
    let mut third = Box::pin(put("third"));
    assert!(waits(&mut third).await);
    assert_eq!(node.tier2.count("put_action"), 1);
    node.tier2.hold_writes_at(u64::MAX);
    third.await.unwrap();
    first.await.unwrap();
    assert_eq!(node.tier2.count("put_action"), 3);
    let found = node.actions.get(&call, &action).await;
    assert_eq!(found.unwrap(), result("third"));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_line_of_updates_is_bounded_and_a_late_one_is_not_sent() {
    let node = Node::new();
    let late = Call {
        deadline: Some(Instant::now()),
        ..call()
    };
    let put = node.actions.put(&late, &action(), result("late")).await;
    assert!(matches!(put, Err(CallError::DeadlineExceeded)), "{put:?}");
    assert_eq!(node.tier2.count("put_action"), 0);

    let (call, action) = (call(), action());
    let put = |_| node.actions.put(&call, &action, result("same"));
    let outcomes = futures::future::join_all((0..64).map(put)).await;
    let refused = |outcome: &&Result<(), CallError>| matches!(outcome, Err(CallError::Overloaded(_)));
    assert_eq!(outcomes.iter().filter(refused).count(), 32);
    assert_eq!(node.tier2.count("put_action"), 32);
    put(0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_update_waits_for_many_that_hang_and_none_is_sent_ahead_of_one_that_does() {
    // P6, P10, R7
    let node = Node::new();
    let action = action();
    node.tier2.hold_writes_at(0);
    let patient = call();
    let mut first = Box::pin(node.actions.put(&patient, &action, result("first")));
    assert!(waits(&mut first).await);
    let began = Instant::now();
    let hasty = Call {
        deadline: Some(began + Duration::from_secs(3)),
        ..call()
    };
    let put = |number| {
        let call = if number % 2 == 0 { &patient } else { &hasty };
        node.actions.put(call, &action, result("behind"))
    };
    let outcomes = futures::future::join_all((0..31).map(put)).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let is_right = match outcome {
            Err(CallError::Busy(_)) => number % 2 == 0,
            Err(CallError::DeadlineExceeded) => number % 2 == 1,
            _ => false,
        };
        assert!(is_right, "{number}: {outcome:?}");
    }
    assert_eq!(began.elapsed().as_secs(), 10, "all together");
    let mut last = Box::pin(node.actions.put(&patient, &action, result("last")));
    assert!(waits(&mut last).await);
    assert_eq!(node.tier2.count("put_action"), 1);
    node.tier2.hold_writes_at(u64::MAX);
    first.await.unwrap();
    last.await.unwrap();
    assert_eq!(
        node.tier2.count("put_action"),
        2,
        "what was turned away is not sent"
    );
    let found = node.actions.get(&patient, &action).await;
    assert_eq!(found.unwrap(), result("last"));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn updates_that_wait_fail_at_once_when_tier_2_is_known_to_be_down() {
    // P6, R13
    let node = Node::new();
    let (call, action) = (call(), action());
    let blob = Blob::of_len(2 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    let put = |_| node.actions.put(&call, &action, result_naming(&blob));
    let mut puts = Box::pin(futures::future::join_all((0..32).map(put)));
    assert!(waits(&mut puts).await);
    let since = Instant::now();
    node.announcer
        .announce(Service::ActionCache, Health::Down { since });
    for outcome in puts.await {
        assert!(
            matches!(outcome, Err(CallError::Tier2(Tier2Error::Down(_)))),
            "{outcome:?}"
        );
    }
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(node.tier2.count("put_action"), 0);
}

fn result_naming(blob: &Blob) -> RawActionResult {
    let named = proto::reapi::OutputFile {
        digest: Some(proto::reapi::Digest {
            hash: blob.digest.hash().to_hex(),
            size_bytes: i64::try_from(blob.digest.size_bytes()).unwrap(),
        }),
        ..Default::default()
    };
    let result = proto::reapi::ActionResult {
        output_files: vec![named],
        ..Default::default()
    };
    RawActionResult(prost::Message::encode_to_vec(&result).into())
}

#[tokio::test(start_paused = true)]
async fn an_action_result_waits_for_the_uploads_of_what_it_names() {
    // P1, R16, PXY-39
    for ends_well in [true, false] {
        let node = Node::new();
        let (call, action) = (call(), action());
        let blob = Blob::of_len(2 * CHUNK);
        let mut upload = node.begin(&blob, "name").await;
        push_all(&mut upload, &blob, 0..CHUNK).await;
        let mut put = Box::pin(node.actions.put(&call, &action, result_naming(&blob)));
        assert!(waits(&mut put).await);
        assert_eq!(node.tier2.count("put_action"), 0);
        if ends_well {
            push_all(&mut upload, &blob, CHUNK..2 * CHUNK).await;
            upload.finish().await.unwrap();
            put.await.unwrap();
        } else {
            drop(upload);
            let error = put.await.unwrap_err();
            assert!(
                matches!(&error, CallError::MissingBlobs(missing) if **missing == [blob.digest]),
                "{error}"
            );
        }
        assert_eq!(node.tier2.count("put_action"), usize::from(ends_well));
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_action_result_waits_for_a_stalled_upload_only_so_long_and_for_others_not_at_all() {
    let node = Node::new();
    let (stalled, other) = (Blob::of_len(2 * CHUNK), Blob::of_len(3 * CHUNK));
    let mut upload = node.begin(&stalled, "name").await;
    push_all(&mut upload, &stalled, 0..CHUNK).await;
    let (call, action) = (call(), action());
    let put = |blob| node.actions.put(&call, &action, result_naming(blob));
    put(&other).await.unwrap();
    let began = Instant::now();
    let error = put(&stalled).await.unwrap_err();
    assert!(matches!(error, CallError::Busy(_)), "{error}");
    assert_eq!(began.elapsed().as_secs(), 10);
    assert_eq!(node.tier2.count("put_action"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_action_result_waits_for_the_batches_with_what_it_names() {
    // P1, R16
    let node = Node::new();
    let blob = Blob::of_len(10);
    node.tier2.hold_writes_at(0);
    let (call, action) = (call(), action());
    let mut batch = Box::pin(node.writes.batch(&call, vec![whole(&blob)]));
    assert!(waits(&mut batch).await);
    let mut put = Box::pin(node.actions.put(&call, &action, result_naming(&blob)));
    assert!(waits(&mut put).await);
    assert_eq!(node.tier2.count("put_action"), 0);
    node.tier2.hold_writes_at(u64::MAX);
    let answers = batch.await;
    answers[0].as_ref().unwrap();
    put.await.unwrap();
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn batches_that_outlive_their_clients_are_bounded() {
    // P8
    let node = Node::new();
    node.tier2.hold_writes_at(0);
    for len in 1..=2 * BATCHES_MAX {
        let blob = Blob::of_len(len);
        assert!(
            node.writes
                .batch(&call(), vec![whole(&blob)])
                .now_or_never()
                .is_none()
        );
    }
    idle().await;
    assert_eq!(node.tier2.count("write_batch"), BATCHES_MAX);
    let blob = Blob::of_len(10);
    let call = call();
    let mut patient = Box::pin(node.writes.batch(&call, vec![whole(&blob)]));
    assert!(waits(&mut patient).await);
    node.tier2.hold_writes_at(u64::MAX);
    let answers = patient.await;
    answers[0].as_ref().unwrap();
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn updates_that_outlive_their_clients_are_bounded() {
    // P8
    let node = Node::new();
    node.tier2.hold_writes_at(0);
    let (node, call) = (&node, call());
    let call = &call;
    let put = |number: usize| async move {
        let key = ActionDigest(Blob::of_len(number + 1).digest);
        node.actions.put(call, &key, result("same")).await
    };
    for number in 0..UPDATES_MAX {
        assert!(put(number).now_or_never().is_none());
    }
    let refused = put(UPDATES_MAX).await;
    assert!(matches!(refused, Err(CallError::Overloaded(_))), "{refused:?}");
    node.tier2.hold_writes_at(u64::MAX);
    idle().await;
    put(UPDATES_MAX).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_small_blob_that_waits_for_the_disk_does_not_hold_the_request_that_it_came_in() {
    // P8
    let node = Node::with(Publish::Async);
    let request = Blob::of_len(4 << 20).bytes;
    let blob = Blob::of(request.slice(1000..1010));
    node.disk.hold(Step::Rename);
    let answers = node.writes.batch(&call(), vec![whole(&blob)]).await;
    answers[0].as_ref().unwrap();
    let Some(PendingCopy::Memory(copy)) = node.pending.find(&blob.key()) else {
        panic!("a copy waits");
    };
    node.disk.release(Step::Rename);
    assert_eq!(copy, blob.bytes);
    assert!(!request.as_ptr_range().contains(&copy.as_ptr()));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_action_result_that_names_a_failed_upload_is_refused_until_tier_2_has_the_blob() {
    // R16
    let node = Node::new();
    let (call, action) = (call(), action());
    let put = |blob| node.actions.put(&call, &action, result_naming(blob));
    let (streamed, batched) = (Blob::of_len(2 * CHUNK), Blob::of_len(10));
    node.tier2.fail_with(Some(answered(Code::ResourceExhausted)));
    node.upload(&streamed, "name").await.unwrap_err();
    let answers = node.writes.batch(&call, vec![whole(&batched)]).await;
    answers[0].as_ref().unwrap_err();
    node.tier2.fail_with(None);
    for (asked, blob) in [(1, &streamed), (3, &batched)] {
        let error = put(blob).await.unwrap_err();
        assert!(
            matches!(&error, CallError::MissingBlobs(missing) if **missing == [blob.digest]),
            "{error}"
        );
        assert_eq!(node.tier2.count("find_missing"), asked);
        // By whatever way it came.
        node.tier2.plant(blob.key(), blob.bytes.clone());
        put(blob).await.unwrap();
        put(blob).await.unwrap();
        assert_eq!(node.tier2.count("find_missing"), asked + 1);
    }
    let again = Blob::of_len(3 * CHUNK);
    drop(node.begin(&again, "again").await);
    idle().await;
    node.upload(&again, "again").await.unwrap();
    put(&again).await.unwrap();
    assert_eq!(node.tier2.count("find_missing"), 4);
    node.settles().await;
}
