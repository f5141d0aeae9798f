use super::*;
use crate::blob::DigestMismatch;
use crate::tiered::crowd::SILENCE;

#[tokio::test(start_paused = true)]
async fn an_upload_reaches_both_tiers() {
    let node = Node::new();
    for len in [1, CHUNK - 1, CHUNK, 3 * CHUNK + 5, 2048 * KIB] {
        let blob = Blob::of_len(len);
        node.upload(&blob, "name").await.unwrap();
        assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await, "{len}");
    }
    assert_eq!(node.tier2.count("write"), 5);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn ok_is_not_told_before_tier_2_acknowledged() {
    // BS-WRITE-28, PXY-33, P1
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    node.tier2.hold_writes_at(blob.digest.size_bytes() - 1);
    let mut upload = Box::pin(node.upload(&blob, "name"));
    assert!(waits(&mut upload).await);
    assert!(!node.in_tier2(&blob));
    assert!(!node.in_tier1(&blob).await);
    assert!(node.pending.find(&blob.key()).is_none());
    node.tier2.hold_writes_at(u64::MAX);
    upload.await.unwrap();
    assert!(node.in_tier2(&blob));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn the_upstream_call_is_opened_by_the_first_chunk() {
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    idle().await;
    assert_eq!(node.metrics.uploads.upstream.get(), 0);
    push_all(&mut upload, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 1).await;
    push_all(&mut upload, &blob, CHUNK..3 * CHUNK).await;
    upload.finish().await.unwrap();
    assert_eq!(node.metrics.uploads.upstream.get(), 1);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_tier_2_refuses_fails_with_its_word_and_leaves_nothing_in_tier_1() {
    let blob = Blob::of_len(3 * CHUNK);
    for failure in [
        Tier2Error::down("refused"),
        answered(Code::Internal),
        answered(Code::ResourceExhausted), // BS-WRITE-27
        Tier2Error::Stalled,
    ] {
        let node = Node::new();
        node.tier2.fail_with(Some(failure.clone()));
        let error = node.upload(&blob, "name").await.unwrap_err();
        assert_eq!(error.to_string(), failure.to_string());
        assert!(!node.in_tier1(&blob).await);
        assert!(node.pending.find(&blob.key()).is_none());
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_fails_when_tier_2_fails_midway_or_at_the_commit() {
    let blob = Blob::of_len(4 * CHUNK);
    for gate in [CHUNK as u64, blob.digest.size_bytes() - 1] {
        let node = Node::new();
        node.tier2.hold_writes_at(gate);
        let mut upload = Box::pin(node.upload(&blob, "name"));
        assert!(waits(&mut upload).await);
        node.tier2.fail_with(Some(answered(Code::Internal)));
        node.tier2.hold_writes_at(u64::MAX);
        let error = upload.await.unwrap_err();
        assert!(
            matches!(error, CallError::Tier2(Tier2Error::Answered(_))),
            "{error}"
        );
        assert!(!node.in_tier1(&blob).await);
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_that_do_not_fit_are_the_clients_fault_and_are_stored_nowhere() {
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    let error = node.upload(&blob.spoilt(), "name").await.unwrap_err(); // BS-WRITE-11
    assert!(
        matches!(error, CallError::BadUpload(DigestMismatch::WrongHash { .. })),
        "{error}"
    );

    let mut short = node.begin(&blob, "name").await; // BS-WRITE-09
    push_all(&mut short, &blob, 0..2 * CHUNK).await;
    let error = short.finish().await.unwrap_err();
    assert!(
        matches!(error, CallError::BadUpload(DigestMismatch::TooShort { .. })),
        "{error}"
    );

    let mut long = node.begin(&blob, "name").await; // BS-WRITE-10
    push_all(&mut long, &blob, 0..2 * CHUNK).await;
    let error = long.push(vec![0; CHUNK + 1].into()).await.unwrap_err();
    assert!(
        matches!(error, CallError::BadUpload(DigestMismatch::TooLong { .. })),
        "{error}"
    );
    drop(long);

    assert!(!node.in_tier2(&blob) && !node.in_tier1(&blob).await);
    assert_eq!(node.status(&blob, "name").await, (0, false)); // BS-QWS-11
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_byte_after_the_last_is_refused_even_if_those_before_fit() {
    let node = Node::new();
    let blob = Blob::of_len(CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    let error = upload.push(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(error, CallError::BadUpload(_)), "{error}");
    drop(upload);
    node.settles().await;
    assert!(!node.in_tier2(&blob));
}

#[tokio::test(start_paused = true)]
async fn the_empty_blob_is_stored_without_being_sent() {
    // BS-WRITE-20, BS-QWS-15
    let node = Node::new();
    node.tier2.fail_with(Some(Tier2Error::down("refused")));
    let empty = Blob::of(Bytes::new());
    let mut upload = node.begin(&empty, "name").await;
    assert_eq!(upload.push(Bytes::new()).await.unwrap(), Pushed::Taken);
    upload.finish().await.unwrap();
    assert_eq!(node.status(&empty, "name").await, (0, true));
    let mut upload = node.begin(&empty, "name").await;
    assert!(matches!(
        upload.push(Bytes::from_static(b"x")).await,
        Err(CallError::BadUpload(_))
    ));
    assert!(node.resume(&empty, "name", 1).await.is_err());
    assert_eq!(node.tier2.log(), []);
}

#[tokio::test(start_paused = true)]
async fn empty_chunks_change_nothing_and_single_bytes_are_enough() {
    // BS-WRITE-19, BS-WRITE-21
    let node = Node::new();
    let blob = Blob::of_len(100);
    let mut upload = node.begin(&blob, "name").await;
    for index in 0..100 {
        upload.push(Bytes::new()).await.unwrap();
        upload.push(blob.bytes.slice(index..=index)).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);
}

#[tokio::test(start_paused = true)]
async fn an_early_acknowledgement_reaches_the_client_midway() {
    // BS-WRITE-14, PXY-62
    let node = Node::new();
    let blob = Blob::of_len(8 * CHUNK);
    node.tier2.plant(blob.key(), blob.bytes.clone());
    node.tier2.ack_early();
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    upload.acknowledged().await.unwrap();
    assert_eq!(
        upload.push(blob.bytes.slice(0..1)).await.unwrap(),
        Pushed::Acknowledged
    );
    upload.finish().await.unwrap();
    assert_eq!(node.status(&blob, "name").await, (blob.digest.size_bytes(), true));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_tier_2_makes_the_client_wait_and_bounds_what_is_held() {
    // BS-WRITE-32
    for node in [Node::new(), Node::without_files()] {
        let blob = Blob::of_len(64 * CHUNK);
        node.tier2.hold_writes_at(1);
        let mut upload = node.begin(&blob, "name").await;
        push_all(&mut upload, &blob, 0..CHUNK).await;
        node.tier2.arrived("write", 1).await;
        let mut taken = CHUNK;
        while !waits(&mut Box::pin(upload.push(blob.bytes.slice(taken..taken + CHUNK)))).await {
            taken += CHUNK;
        }
        assert!((256 * KIB..=512 * KIB).contains(&taken), "{taken}");
        node.tier2.hold_writes_at(u64::MAX);
        push_all(&mut upload, &blob, taken..64 * CHUNK).await;
        upload.finish().await.unwrap();
        assert!(node.in_tier2(&blob));
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_blob_that_tier_1_does_not_keep_is_written_all_the_same() {
    let node = Node::without_files();
    let blob = Blob::of_len(40 * CHUNK);
    node.upload(&blob, "name").await.unwrap();
    assert!(node.in_tier2(&blob) && !node.in_tier1(&blob).await);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn between_acknowledgement_and_publication_the_copy_can_be_read() {
    // R12
    let node = Node::with(Publish::Async);
    let blob = Blob::of_len(3 * CHUNK);
    node.disk.hold(Step::Rename);
    node.upload(&blob, "name").await.unwrap();
    let Some(PendingCopy::Staged(reader)) = node.pending.find(&blob.key()) else {
        panic!("no copy can be read");
    };
    assert!(node.tier1.lookup(&blob.key()).is_none());
    assert_eq!(reader.read(0, CHUNK).await.unwrap(), blob.bytes.slice(0..CHUNK));
    node.disk.release(Step::Rename);
    node.settles().await;
    assert!(node.pending.find(&blob.key()).is_none());
    assert!(node.in_tier1(&blob).await);
}

#[tokio::test(start_paused = true)]
async fn uploads_are_bounded_in_number() {
    let node = Node::new();
    let blob = Blob::of_len(CHUNK);
    let mut open = Vec::new();
    for number in 0..UPLOADS_MAX {
        open.push(node.begin(&blob, &format!("name {number}")).await);
    }
    let error = node.resume(&blob, "one more", 0).await.err();
    assert!(matches!(error, Some(CallError::Overloaded(_))), "{error:?}");
    drop(open);
    node.settles().await;
    node.upload(&blob, "one more").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_a_bad_blob_counts_only_after_a_verified_read_back() {
    // R10
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    node.tier2.plant(blob.key(), blob.spoilt().bytes);
    node.bad.condemn(&blob.key());
    node.tier2.ack_early();
    let error = node.upload(&blob, "name").await.unwrap_err();
    assert!(
        matches!(error, CallError::Tier2(Tier2Error::Corrupt(_))),
        "{error}"
    );
    assert!(node.bad.is_bad(&blob.key()));
    assert!(!node.in_tier1(&blob).await);
    let (_, complete) = node.status(&blob, "name").await;
    assert!(!complete);

    node.tier2.evict(&blob.key());
    node.upload(&blob, "name").await.unwrap();
    assert!(!node.bad.is_bad(&blob.key()));
    assert_eq!(node.tier2.count("read"), 2);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_ends_what_cannot_end_by_itself_and_commits_the_rest() {
    let node = Node::new();
    let (open, committing) = (Blob::of_len(3 * CHUNK), Blob::of_len(2 * CHUNK));
    node.tier2.hold_writes_at(CHUNK as u64);
    let mut upload = node.begin(&open, "open").await;
    push_all(&mut upload, &open, 0..CHUNK).await;
    let mut commit = Box::pin(node.upload(&committing, "committing"));
    assert!(waits(&mut commit).await);
    let (left, ended, (), committed) = tokio::join!(
        node.tasks.stop(Duration::from_secs(30)),
        upload.acknowledged(),
        async { node.tier2.hold_writes_at(u64::MAX) },
        commit
    );
    assert!(matches!(ended, Err(CallError::ShuttingDown)), "{ended:?}");
    committed.unwrap();
    assert_eq!(left, 0);
    assert!(matches!(
        node.resume(&open, "new", 0).await,
        Err(CallError::ShuttingDown)
    ));
}

#[tokio::test(start_paused = true)]
async fn silent_uploads_give_their_places_to_newcomers_and_can_be_resumed() {
    // P8, P10
    let node = Node::new();
    let blob = Blob::of_len(3 * CHUNK);
    let mut silent = Vec::new();
    for number in 0..UPLOADS_MAX - 1 {
        let mut upload = node.begin(&blob, &format!("silent {number}")).await;
        if number == 0 {
            upload.push(blob.bytes.slice(..CHUNK)).await.unwrap();
            tokio::time::sleep(SILENCE / 10).await;
        }
        silent.push(upload);
    }
    let busy_blob = Blob::of_len(3 * CHUNK + 1);
    let mut busy = node.begin(&busy_blob, "busy").await;
    tokio::time::sleep(SILENCE).await;
    busy.push(busy_blob.bytes.slice(..CHUNK)).await.unwrap();
    let newcomer = Blob::of_len(CHUNK);
    let taken = node.upload(&newcomer, "newcomer").await;
    assert!(taken.is_ok(), "{taken:?}");
    let gave_way = node.metrics.uploads.gave_way.get();
    assert!((1..=64).contains(&gave_way), "{gave_way}");
    let told = silent.remove(0).acknowledged().await;
    assert!(matches!(told, Err(CallError::Overloaded(_))), "{told:?}");
    busy.push(busy_blob.bytes.slice(CHUNK..)).await.unwrap();
    busy.finish().await.unwrap();
    let mut resumed = node.resume(&blob, "silent 0", CHUNK as u64).await.unwrap();
    resumed.push(blob.bytes.slice(CHUNK..)).await.unwrap();
    resumed.finish().await.unwrap();
    drop(silent);
    node.settles().await;
}
