//! Troubles of Tier 1 never fail a write that Tier 2 takes (P5).

use std::io::ErrorKind;

use super::*;
use crate::blob::Verified;

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_at_any_step_does_not_fail_the_write() {
    for step in [
        Step::Create,
        Step::Open,
        Step::Write,
        Step::Read,
        Step::Rename,
        Step::Look,
    ] {
        for kind in [
            ErrorKind::Other,
            ErrorKind::StorageFull,
            ErrorKind::ReadOnlyFilesystem,
        ] {
            let node = Node::new();
            node.tier1.loaded().await;
            node.disk.fail(step, kind);
            let (large, small) = (Blob::of_len(20 * CHUNK + 3), Blob::of_len(10));
            node.upload(&large, "name").await.unwrap();
            let proof = Verified::of(small.digest, &small.bytes).unwrap();
            let answers = node
                .writes
                .batch(&call(), vec![(proof, small.bytes.clone())])
                .await;
            answers[0].as_ref().unwrap();
            assert!(node.in_tier2(&large) && node.in_tier2(&small), "{step:?}");
            node.settles().await;
            assert!(node.pending.find(&large.key()).is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_midway_does_not_fail_the_write() {
    for chunks in [1, 7, 19] {
        let node = Node::new();
        node.tier1.loaded().await;
        node.disk.limit_free_bytes(chunks * CHUNK as u64);
        let blob = Blob::of_len(20 * CHUNK);
        node.upload(&blob, "name").await.unwrap();
        assert!(node.in_tier2(&blob) && node.tier1.lookup(&blob.key()).is_none());
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_whose_file_broke_takes_over_with_what_it_has() {
    let node = Node::new();
    let blob = Blob::of_len(20 * CHUNK);
    let mut leader = node.begin(&blob, "leader").await;
    push_all(&mut leader, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let mut follower = node.begin(&blob, "follower").await;
    push_all(&mut follower, &blob, 0..6 * CHUNK).await;
    node.disk.fail(Step::Write, ErrorKind::Other);
    // Memory takes some more; then the client has to wait.
    push_all(&mut follower, &blob, 6 * CHUNK..10 * CHUNK).await;
    let mut more = Box::pin(push_all(&mut follower, &blob, 10 * CHUNK..20 * CHUNK));
    assert!(waits(&mut more).await);
    drop(leader);
    more.await;
    follower.finish().await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_file_broke_can_be_resumed_from_memory() {
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    node.disk.fail(Step::Create, ErrorKind::Other);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..2 * CHUNK).await;
    drop(upload);
    let mut upload = node.resume(&blob, "name", 2 * CHUNK as u64).await.unwrap();
    push_all(&mut upload, &blob, 2 * CHUNK..6 * CHUNK).await;
    upload.finish().await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_cannot_be_read_back_end_the_upload_with_a_code_that_is_tried_again() {
    let node = Node::new();
    let blob = Blob::of_len(20 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..6 * CHUNK).await;
    drop(upload);
    node.disk.fail(Step::Read, ErrorKind::Other);
    let mut upload = node.resume(&blob, "name", 6 * CHUNK as u64).await.unwrap();
    let error = upload.acknowledged().await.unwrap_err();
    assert!(matches!(error, CallError::Tier2(Tier2Error::Aborted)), "{error}");
    drop(upload);
    assert_eq!(node.status(&blob, "name").await, (0, false));
    node.upload(&blob, "name").await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_dropped_in_the_middle_of_an_append_can_be_resumed() {
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..2 * CHUNK).await;
    node.disk.hold(Step::Write);
    {
        let mut push = Box::pin(upload.push(blob.bytes.slice(2 * CHUNK..3 * CHUNK)));
        tokio::select! {
            biased;
            _ = &mut push => panic!("the disk is held"),
            () = node.disk.somebody_waits() => {}
        }
    }
    drop(upload);
    node.disk.release(Step::Write);
    let (offset, _) = node.status(&blob, "name").await;
    assert_eq!(offset, 3 * CHUNK as u64);
    let mut upload = node.resume(&blob, "name", offset).await.unwrap();
    push_all(&mut upload, &blob, 3 * CHUNK..6 * CHUNK).await;
    upload.finish().await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_slow_at_every_chunk_does_not_slow_a_whole_upload() {
    // P5, P10
    let node = Node::new();
    node.tier1.loaded().await;
    node.disk.hold(Step::Write);
    let blob = Blob::of_len(20 * CHUNK);
    let began = Instant::now();
    let mut upload = Box::pin(node.upload(&blob, "name"));
    let slow_disk = async {
        loop {
            node.disk.somebody_waits().await;
            tokio::time::advance(Duration::from_secs(4)).await;
            node.disk.release(Step::Write);
            while node.disk.waiting() > 0 {
                tokio::task::yield_now().await;
            }
            node.disk.hold(Step::Write);
        }
    };
    tokio::select! {
        uploaded = &mut upload => uploaded.unwrap(),
        () = slow_disk => {}
    }
    node.disk.release(Step::Write);
    assert!(began.elapsed().as_secs() <= 12, "{:?}", began.elapsed());
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_early_acknowledgement_does_not_wait_for_a_chunk_on_its_way_to_the_disk() {
    // P5
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    node.upload(&blob, "name").await.unwrap();
    node.tier2.ack_early();
    node.disk.hold(Step::Write);
    let mut leader = node.begin(&blob, "leader").await;
    let mut follower = node.begin(&blob, "follower").await;
    let stuck = leader.push(blob.bytes.slice(..CHUNK));
    let told = async {
        node.disk.somebody_waits().await;
        let patience = async {
            for _ in 0..10_000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            told = follower.acknowledged() => told.unwrap(),
            () = patience => panic!("nothing is told while a chunk is on its way"),
        }
        node.disk.release(Step::Write);
    };
    let (pushed, ()) = tokio::join!(stuck, told);
    pushed.unwrap();
    drop((leader, follower));
    node.settles().await;
}
