use super::*;

/// Uploads a part and hangs up.
async fn break_off(node: &Node, blob: &Blob, name: &str, len: usize) {
    let mut upload = node.begin(blob, name).await;
    push_all(&mut upload, blob, 0..len).await;
    drop(upload);
    idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_goes_on_when_the_client_hangs_up_after_the_last_byte() {
    // BS-WRITE-30, R14
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    node.tier2.hold_writes_at(1);
    let mut upload = Box::pin(node.upload(&blob, "finishing"));
    assert!(waits(&mut upload).await);
    drop(upload);
    node.tier2.hold_writes_at(u64::MAX);
    node.settles().await;
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);

    let blob = Blob::of_len(3 * CHUNK);
    break_off(&node, &blob, "unfinished", 3 * CHUNK).await;
    let size = blob.digest.size_bytes();
    assert_eq!(node.status(&blob, "unfinished").await, (size, true));
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_in_order_without_finish_commits_nothing() {
    // BS-WRITE-06, BS-WRITE-08
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    let mut whole = node.begin(&blob, "whole").await;
    push_all(&mut whole, &blob, 0..3 * CHUNK).await;
    whole.leave();
    assert_eq!(node.status(&blob, "whole").await, (0, false)); // BS-QWS-02, BS-QWS-06
    let mut part = node.begin(&blob, "part").await;
    push_all(&mut part, &blob, 0..CHUNK).await;
    part.leave();
    assert_eq!(node.status(&blob, "part").await, (CHUNK as u64, false));
    node.settles().await;
    assert!(!node.in_tier2(&blob) && !node.in_tier1(&blob).await);
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_is_resumed_where_it_was_left_off() {
    // BS-WRITE-22, BS-QWS-01, PXY-60
    for node in [Node::new(), Node::without_files()] {
        let blob = Blob::of_len(6 * CHUNK);
        break_off(&node, &blob, "name", 2 * CHUNK).await;
        let (offset, complete) = node.status(&blob, "name").await;
        assert_eq!((offset, complete), (2 * CHUNK as u64, false));
        let mut upload = node.resume(&blob, "name", offset).await.unwrap();
        push_all(&mut upload, &blob, 2 * CHUNK..6 * CHUNK).await;
        upload.finish().await.unwrap();
        assert!(node.in_tier2(&blob));
        assert_eq!(node.status(&blob, "name").await, (blob.digest.size_bytes(), true));
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_upload_can_begin_anew() {
    // BS-WRITE-04
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    break_off(&node, &blob, "name", 2 * CHUNK).await;
    node.upload(&blob, "name").await.unwrap();
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn no_other_offset_is_taken_and_other_names_share_no_progress() {
    // BS-WRITE-03, BS-WRITE-25
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    let (left_off, beyond) = (2 * CHUNK as u64, 3 * CHUNK as u64);
    break_off(&node, &blob, "name", 2 * CHUNK).await;
    for (name, offset, expected) in [
        ("name", 1, left_off),
        ("name", beyond, left_off),
        ("other", left_off, 0),
    ] {
        match node.resume(&blob, name, offset).await {
            Err(CallError::ResumeOffset {
                expected: told,
                found,
            }) => assert_eq!((told, found), (expected, offset)),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("{name} was resumed at {offset}"),
        }
    }
    assert_eq!(node.status(&blob, "other").await, (0, false)); // BS-QWS-05
    assert_eq!(node.status(&Blob::of_len(CHUNK), "name").await, (0, false)); // BS-QWS-09
    assert_eq!(node.status(&blob, "name").await, (left_off, false)); // BS-QWS-07
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_dropped_after_the_window() {
    // BS-WRITE-24
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    break_off(&node, &blob, "name", 2 * CHUNK).await;
    assert_eq!(node.metrics.uploads.kept_for_resume.get(), 1);
    tokio::time::sleep(RESUME_WINDOW / 2).await;
    break_off(&node, &blob, "later", CHUNK).await;
    assert_eq!(node.metrics.uploads.kept_for_resume.get(), 2);
    tokio::time::sleep(RESUME_WINDOW / 2).await;
    assert_eq!(node.metrics.uploads.kept_for_resume.get(), 1);
    assert_eq!(node.status(&blob, "name").await, (0, false));
    assert_eq!(node.status(&blob, "later").await, (CHUNK as u64, false));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_stream_of_a_name_takes_over_from_one_that_seems_to_live() {
    // BS-WRITE-23
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    let mut old = node.begin(&blob, "name").await;
    push_all(&mut old, &blob, 0..2 * CHUNK).await;
    let (offset, _) = node.status(&blob, "name").await;
    let mut new = node.resume(&blob, "name", offset).await.unwrap();
    assert!(matches!(
        old.push(blob.bytes.slice(0..1)).await,
        Err(CallError::Superseded)
    ));
    assert!(matches!(old.acknowledged().await, Err(CallError::Superseded)));
    drop(old);
    push_all(&mut new, &blob, 2 * CHUNK..3 * CHUNK).await;
    node.upload(&blob, "name").await.unwrap();
    assert!(matches!(new.finish().await, Err(CallError::Superseded)));
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_begun_anew_during_its_commit_is_acknowledged_with_it() {
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    node.tier2.hold_writes_at(1);
    let mut first = Box::pin(node.upload(&blob, "name"));
    assert!(waits(&mut first).await);
    let mut second = Box::pin(node.upload(&blob, "name"));
    assert!(waits(&mut second).await);
    node.tier2.hold_writes_at(u64::MAX);
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_part_survives_a_failure_of_tier_2() {
    // PXY-63
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    node.tier2.hold_writes_at(1);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..2 * CHUNK).await;
    node.tier2.fail_with(Some(Tier2Error::down("reset")));
    node.tier2.hold_writes_at(u64::MAX);
    assert!(upload.acknowledged().await.is_err());
    drop(upload);
    let status = node.writes.status(&call(), &blob.digest, "name").await;
    assert!(
        matches!(status, Err(CallError::Tier2(Tier2Error::Down(_)))),
        "{status:?}"
    ); // BS-QWS-14
    node.tier2.fail_with(None);
    let (offset, _) = node.status(&blob, "name").await;
    assert_eq!(offset, 2 * CHUNK as u64);
    let mut upload = node.resume(&blob, "name", offset).await.unwrap();
    push_all(&mut upload, &blob, 2 * CHUNK..6 * CHUNK).await;
    upload.finish().await.unwrap();
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn status_waits_for_a_commit_and_tells_how_it_ended() {
    // R11, BS-QWS-06
    for fails in [false, true] {
        let node = Node::new();
        let blob = Blob::of_len(4 * CHUNK);
        let size = blob.digest.size_bytes();
        let expected = if fails { (0, false) } else { (size, true) };
        node.tier2.hold_writes_at(size - 1);
        let mut upload = Box::pin(node.upload(&blob, "name"));
        assert!(waits(&mut upload).await);
        let mut status = Box::pin(node.status(&blob, "name"));
        assert!(waits(&mut status).await);
        if fails {
            node.tier2.fail_with(Some(answered(Code::Internal)));
        }
        node.tier2.hold_writes_at(u64::MAX);
        let (status, uploaded) = tokio::join!(status, upload);
        assert_eq!(uploaded.is_err(), fails);
        assert_eq!(status, expected);
        node.tier2.fail_with(None);
        assert_eq!(node.status(&blob, "name").await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn status_does_not_wait_for_ever() {
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    node.tier2.hold_writes_at(1);
    let mut upload = Box::pin(node.upload(&blob, "name"));
    assert!(waits(&mut upload).await);
    assert_eq!(node.status(&blob, "name").await, (0, false));
    node.tier2.hold_writes_at(u64::MAX);
    upload.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn status_never_says_all_bytes_and_incomplete_before_the_finish() {
    let node = Node::new();
    let blob = Blob::of_len(2 * CHUNK);
    let size = blob.digest.size_bytes();
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    assert_eq!(node.status(&blob, "name").await, (CHUNK as u64, false));
    push_all(&mut upload, &blob, CHUNK..2 * CHUNK).await;
    let mut status = Box::pin(node.status(&blob, "name"));
    assert!(waits(&mut status).await);
    upload.finish().await.unwrap();
    assert_eq!(status.await, (size, true));
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_came_another_way_is_complete() {
    // BS-QWS-03
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    break_off(&node, &blob, "name", CHUNK).await;
    node.tier2.plant(blob.key(), blob.bytes.clone());
    assert_eq!(node.status(&blob, "name").await, (blob.digest.size_bytes(), true));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_loses_its_place_and_can_resume() {
    // P8, P10
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    let began = Instant::now();
    let error = upload.acknowledged().await.unwrap_err();
    assert!(matches!(error, CallError::Quiet), "{error}");
    assert_eq!(began.elapsed().as_secs(), 60);
    drop(upload);
    assert_eq!(node.writes.0.open.available_permits(), UPLOADS_MAX);
    let mut upload = node.resume(&blob, "name", CHUNK as u64).await.unwrap();
    push_all(&mut upload, &blob, CHUNK..3 * CHUNK).await;
    upload.finish().await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}
