use super::*;

#[tokio::test(start_paused = true)]
async fn two_identical_uploads_are_one_to_tier_2_and_both_are_acknowledged() {
    let node = Node::new();
    let blob = Blob::of_len(9 * CHUNK);
    node.tier2.hold_writes_at(blob.digest.size_bytes() - 1);
    let (mut one, mut two) = (
        Box::pin(node.upload(&blob, "one")),
        Box::pin(node.upload(&blob, "two")),
    );
    assert!(waits(&mut one).await && waits(&mut two).await);
    node.tier2.hold_writes_at(u64::MAX);
    one.await.unwrap();
    two.await.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
    assert_eq!(node.metrics.uploads.shared.get(), 1);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_midway_is_acknowledged_with_the_one_that_leads() {
    let node = Node::new();
    let blob = Blob::of_len(9 * CHUNK);
    let mut leader = node.begin(&blob, "leader").await;
    push_all(&mut leader, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let mut silent = node.begin(&blob, "silent").await;
    let mut midway = node.begin(&blob, "midway").await;
    push_all(&mut midway, &blob, 0..2 * CHUNK).await;
    push_all(&mut leader, &blob, CHUNK..9 * CHUNK).await;
    leader.finish().await.unwrap();
    silent.acknowledged().await.unwrap();
    assert_eq!(
        midway.push(blob.bytes.slice(0..1)).await.unwrap(),
        Pushed::Acknowledged
    );
    assert_eq!(node.tier2.count("write"), 1);
    drop((silent, midway));
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_takes_over_from_byte_0_when_the_leader_hangs_up() {
    for node in [Node::new(), Node::without_files()] {
        let blob = Blob::of_len(20 * CHUNK);
        let mut leader = node.begin(&blob, "leader").await;
        push_all(&mut leader, &blob, 0..5 * CHUNK).await;
        node.tier2.arrived("write", 1).await;
        let mut follower = node.begin(&blob, "follower").await;
        push_all(&mut follower, &blob, 0..3 * CHUNK).await;
        drop(leader);
        push_all(&mut follower, &blob, 3 * CHUNK..20 * CHUNK).await;
        follower.finish().await.unwrap();
        assert!(node.in_tier2(&blob));
        assert_eq!(node.tier2.count("write"), 2);
        assert_eq!(node.metrics.uploads.taken_over.get(), 1);
        node.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_does_not_inherit_the_leaders_bad_bytes() {
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    let spoilt = blob.spoilt();
    let mut leader = node.begin(&spoilt, "leader").await;
    push_all(&mut leader, &spoilt, 0..5 * CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let mut follower = Box::pin(node.upload(&blob, "follower"));
    assert!(waits(&mut follower).await);
    let error = leader.push(spoilt.bytes.slice(5 * CHUNK..)).await.unwrap_err();
    assert!(matches!(error, CallError::BadUpload(_)), "{error}");
    follower.await.unwrap();
    drop(leader);
    assert!(node.in_tier2(&blob) && node.in_tier1(&blob).await);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_follower_with_bad_bytes_harms_nobody() {
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    let mut leader = node.begin(&blob, "leader").await;
    push_all(&mut leader, &blob, 0..5 * CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let error = node.upload(&blob.spoilt(), "follower").await.unwrap_err();
    assert!(matches!(error, CallError::BadUpload(_)), "{error}");
    push_all(&mut leader, &blob, 5 * CHUNK..6 * CHUNK).await;
    leader.finish().await.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_leader_is_passed_and_acknowledged_by_the_other() {
    let node = Node::new();
    let blob = Blob::of_len(20 * CHUNK);
    let mut leader = node.begin(&blob, "leader").await;
    push_all(&mut leader, &blob, 0..15 * CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let began = Instant::now();
    node.upload(&blob, "follower").await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(node.tier2.count("write"), 2);
    leader.acknowledged().await.unwrap();
    drop(leader);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_leader_without_company_keeps_its_stream() {
    let node = Node::new();
    let blob = Blob::of_len(4 * CHUNK);
    let mut upload = node.begin(&blob, "name").await;
    push_all(&mut upload, &blob, 0..CHUNK).await;
    let _silent = node.begin(&blob, "silent").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    push_all(&mut upload, &blob, CHUNK..4 * CHUNK).await;
    upload.finish().await.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_waits_for_tier_2_is_not_stalled() {
    let node = Node::new();
    let blob = Blob::of_len(20 * CHUNK);
    node.tier2.hold_writes_at(1);
    let (mut one, mut two) = (
        Box::pin(node.upload(&blob, "one")),
        Box::pin(node.upload(&blob, "two")),
    );
    assert!(waits(&mut one).await && waits(&mut two).await);
    tokio::time::sleep(Duration::from_secs(30)).await;
    node.tier2.hold_writes_at(u64::MAX);
    let (one, two) = tokio::join!(one, two);
    one.unwrap();
    two.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_does_not_hold_up_one_that_has_sent_all() {
    // P10
    let node = Node::new();
    let blob = Blob::of_len(20 * CHUNK);
    let mut dripping = node.begin(&blob, "dripping").await;
    push_all(&mut dripping, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let drip = async {
        for index in CHUNK.. {
            tokio::time::sleep(Duration::from_secs(3)).await;
            if dripping.push(blob.bytes.slice(index..=index)).await.unwrap() == Pushed::Acknowledged {
                return;
            }
        }
    };
    let ((), finished) = tokio::join!(drip, node.upload(&blob, "finished"));
    finished.unwrap();
    assert_eq!(node.tier2.count("write"), 2);
}

#[tokio::test(start_paused = true)]
async fn all_are_told_when_tier_2_fails() {
    let node = Node::new();
    let blob = Blob::of_len(6 * CHUNK);
    node.tier2.hold_writes_at(1);
    let mut midway = node.begin(&blob, "midway").await;
    push_all(&mut midway, &blob, 0..2 * CHUNK).await;
    let mut whole = Box::pin(node.upload(&blob, "whole"));
    assert!(waits(&mut whole).await);
    node.tier2.fail_with(Some(answered(Code::ResourceExhausted)));
    node.tier2.hold_writes_at(u64::MAX);
    for error in [whole.await.unwrap_err(), midway.acknowledged().await.unwrap_err()] {
        assert!(
            matches!(error, CallError::Tier2(Tier2Error::Answered(_))),
            "{error}"
        );
    }
    assert_eq!(node.tier2.count("write"), 1);
    drop(midway);
    node.settles().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_file_a_follower_waits_for_the_leader() {
    let node = Node::without_files();
    let blob = Blob::of_len(30 * CHUNK);
    let mut leader = node.begin(&blob, "leader").await;
    push_all(&mut leader, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 1).await;
    let mut follower = Box::pin(node.upload(&blob, "follower"));
    assert!(waits(&mut follower).await);
    push_all(&mut leader, &blob, CHUNK..30 * CHUNK).await;
    leader.finish().await.unwrap();
    follower.await.unwrap();
    assert_eq!(node.tier2.count("write"), 1);
}

#[tokio::test(start_paused = true)]
async fn scopes_share_nothing() {
    // R1
    let node = Node::new();
    let blob = Blob::of_len(CHUNK);
    let elsewhere = Call {
        scope: Scope::new("elsewhere"),
        ..call()
    };
    let begin = node.writes.begin(&elsewhere, &blob.digest, "name", 0);
    let (mut one, mut two) = (node.begin(&blob, "name").await, begin.await.unwrap());
    push_all(&mut one, &blob, 0..CHUNK).await;
    push_all(&mut two, &blob, 0..CHUNK).await;
    one.finish().await.unwrap();
    two.finish().await.unwrap();
    assert_eq!(node.tier2.count("write"), 2);
    assert!(node.tier1.lookup(&elsewhere.blob(&blob.digest)).is_some());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_lead_any_more_does_not_wait_for_one_that_says_nothing() {
    // P10
    let node = Node::without_files();
    let blob = Blob::of_len(20 * CHUNK);
    let mut first = node.begin(&blob, "first").await;
    push_all(&mut first, &blob, 0..10 * CHUNK).await;
    let mut second = node.begin(&blob, "second").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    push_all(&mut second, &blob, 0..CHUNK).await;
    node.tier2.arrived("write", 2).await;
    let silent = node.begin(&blob, "silent").await;
    drop(second);
    let told = tokio::time::timeout(Duration::from_secs(1), first.acknowledged()).await;
    let error = told.expect("an answer").unwrap_err();
    assert!(matches!(error, CallError::Tier2(Tier2Error::Aborted)), "{error}");
    drop((first, silent));
    node.settles().await;
}
