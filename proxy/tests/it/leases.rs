use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{join, join_all};
use mock_upstream::{Act, After, Digest, Match, Rule, method};
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, Site, is_pending, noise};

const LEASE: Duration = Duration::from_secs(300);

fn blobs(numbers: std::ops::Range<u32>) -> Vec<Bytes> {
    numbers
        .map(|number| Bytes::copy_from_slice(&number.to_le_bytes()))
        .collect()
}

fn questions(site: &Site) -> usize {
    site.mock.calls().method(method::FIND_MISSING).count()
}

/// Lets a little time pass, so that what follows is dated later.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_blobs_asked_about_twice_cause_one_call_to_tier_2() {
    // P2, PXY
    let site = Harness::new().start().await;
    let digests: Vec<Digest> = blobs(0..1000)
        .into_iter()
        .map(|blob| site.mock.put_blob("", blob))
        .collect();
    for client in [site.client(), site.client()] {
        let twice = [&digests[..], &digests[..]].concat();
        assert_eq!(client.missing(&twice).await.unwrap(), []);
        a_moment().await;
    }
    assert_eq!(questions(&site), 1);
    assert_eq!(site.node.metrics.presence.leases.get(), 1000);
}

#[tokio::test(start_paused = true)]
async fn row_5_a_blob_that_tier_2_evicted_is_missing_once_its_lease_has_ended() {
    // R1: another instance's lease is nothing to this one's question.
    let site = Harness::new().start().await;
    let (client, other) = (site.client(), site.client_of("other"));
    let blob = noise(1000, 1);
    let digest = site.mock.put_blob("", blob.clone());
    site.mock.put_blob("other", blob);
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    site.mock.evict("", &digest);
    tokio::time::sleep(LEASE - Duration::from_secs(1)).await;
    assert_eq!(other.missing(&[digest]).await.unwrap(), []);
    assert_eq!(client.missing(&[digest]).await.unwrap(), [], "within the lease");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(other.missing(&[digest]).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn row_6_a_not_found_ends_the_lease_at_once_whichever_call_heard_it() {
    let site = Harness::new().start().await;
    let client = site.client();
    for (seed, how) in ["read", "batch", "tree"].into_iter().enumerate() {
        let digest = site.mock.put_blob("", noise(1000, seed as u64));
        assert_eq!(client.missing(&[digest]).await.unwrap(), []);
        site.mock.evict("", &digest);
        a_moment().await;
        assert_eq!(client.missing(&[digest]).await.unwrap(), []);
        match how {
            "read" => assert_eq!(code(client.read(&digest).await), Code::NotFound),
            "batch" => {
                let answers = client.batch_read(&[digest]).await.unwrap();
                let status = answers[0].status.clone().unwrap_or_default();
                assert_eq!(Code::from(status.code), Code::NotFound);
            }
            _ => assert_eq!(code(client.tree(&digest).await), Code::NotFound),
        }
        assert_eq!(client.missing(&[digest]).await.unwrap(), [digest], "{how}");
        // Three of these within ten seconds would end all leases.
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn writes_batches_and_fetches_give_leases() {
    let site = Harness::new().set("repair", "off").start().await;
    let client = site.client();
    let (written, batched, fetched, small) = (noise(MIB, 1), noise(100, 2), noise(MIB, 3), noise(100, 4));
    client.write(&written).await.unwrap();
    client.batch_write(std::slice::from_ref(&batched)).await.unwrap();
    let digests = [
        Digest::of(&written),
        Digest::of(&batched),
        site.mock.put_blob("", fetched),
        site.mock.put_blob("", small),
    ];
    client.read(&digests[2]).await.unwrap();
    client.batch_read(&digests[3..]).await.unwrap();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    assert_eq!(questions(&site), 0);
    site.mock.clear();
    tokio::time::sleep(LEASE).await;
    assert_eq!(
        client.missing(&digests).await.unwrap(),
        digests,
        "a copy in Tier 1 is no lease"
    );
}

#[tokio::test(start_paused = true)]
async fn r5_clients_that_ask_while_a_call_is_in_the_air_share_the_next_one() {
    let site = Harness::new().start().await;
    let digests: Vec<Digest> = blobs(0..100)
        .into_iter()
        .map(|blob| site.mock.put_blob("", blob))
        .collect();
    let gate = site.mock.hold(Match::method(method::FIND_MISSING), After::Start);
    let first = site.client();
    let mut first = pin!(first.missing(&digests[..1]));
    assert!(is_pending(&mut first, Duration::from_millis(5)).await);
    let asks = (0..30).map(|number| {
        let (client, part) = (site.client(), &digests[number..]);
        async move { client.missing(part).await.unwrap() }
    });
    let release = async {
        gate.reached().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.release();
    };
    let (answers, ()) = join(join_all(asks), release).await;
    assert!(answers.iter().all(Vec::is_empty));
    assert_eq!(first.await.unwrap(), []);
    assert_eq!(questions(&site), 2);
}

#[tokio::test(start_paused = true)]
async fn r5_a_client_that_hangs_up_takes_nobodys_answer_along() {
    let site = Harness::new().start().await;
    let digest = site.mock.put_blob("", noise(100, 1));
    let gate = site.mock.hold(Match::method(method::FIND_MISSING), After::Start);
    let (gone, stays) = (site.client(), site.client());
    let digests = [digest];
    let mut stays = pin!(stays.missing(&digests));
    {
        let mut gone = pin!(gone.missing(&digests));
        assert!(is_pending(&mut gone, Duration::from_millis(1)).await);
        assert!(is_pending(&mut stays, Duration::from_millis(1)).await);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    gate.release();
    assert_eq!(stays.await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn r5_one_clients_refusal_is_not_anothers() {
    // The shared call is refused, and so is one of the two that repeat it.
    let site = Harness::new().start().await;
    let digests = [
        site.mock.put_blob("", noise(100, 1)),
        site.mock.put_blob("", noise(100, 2)),
    ];
    let gate = site.mock.hold(Match::method(method::FIND_MISSING), After::Start);
    let first = site.client();
    let absent = [Digest::of(b"absent")];
    let mut first = pin!(first.missing(&absent));
    assert!(is_pending(&mut first, Duration::from_millis(5)).await);
    site.mock
        .fail(Match::method(method::FIND_MISSING), Code::FailedPrecondition, 2);
    let ask = |digest: Digest| {
        let client = site.client();
        async move { client.missing(&[digest]).await }
    };
    let release = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        gate.release();
    };
    let ((one, other), ()) = join(join(ask(digests[0]), ask(digests[1])), release).await;
    let codes = [code(one), code(other)];
    assert!(
        codes.contains(&Code::Ok) && codes.contains(&Code::FailedPrecondition),
        "{codes:?}"
    );
    assert_eq!(first.await.unwrap(), absent);
}

#[tokio::test(start_paused = true)]
async fn r4_leases_do_not_outlive_an_outage() {
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = site.mock.put_blob("", noise(1000, 1));
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    site.mock.suspend().await.unwrap();
    assert_eq!(code(client.read(&digest).await), Code::Unavailable);
    site.mock.evict("", &digest);
    tokio::time::sleep(Duration::from_secs(2)).await;
    site.mock.resume().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(start_paused = true)]
async fn r4_leases_do_not_outlive_the_last_connection() {
    // Tier 2 was away for so short a time that no call noticed.
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = site.mock.put_blob("", noise(1000, 1));
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    site.mock.evict("", &digest);
    assert!(site.mock.reset_connections() > 0);
    a_moment().await;
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(start_paused = true)]
async fn r4_three_surprises_within_ten_seconds_end_all_leases() {
    let site = Harness::new().start().await;
    let client = site.client();
    let digests: Vec<Digest> = (0..5)
        .map(|seed| site.mock.put_blob("", noise(1000, seed)))
        .collect();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    site.mock.clear();
    a_moment().await;
    for digest in &digests[..2] {
        assert_eq!(code(client.read(digest).await), Code::NotFound);
    }
    assert_eq!(client.missing(&digests).await.unwrap(), digests[..2]);
    assert_eq!(code(client.read(&digests[2]).await), Code::NotFound);
    a_moment().await;
    assert_eq!(client.missing(&digests).await.unwrap(), digests);
}

#[tokio::test(start_paused = true)]
async fn r10_a_bad_blob_has_no_lease() {
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = Digest::of(b"right");
    site.mock.plant("", &digest, "wrong");
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    assert_eq!(code(client.read(&digest).await), Code::NotFound);
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_knows_no_leases() {
    let site = Harness::new().start().await;
    let blob = noise(1000, 1);
    let digest = Digest::of(&blob);
    site.client().write(&blob).await.unwrap();
    site.landed().await;
    let (stopped, _ended) = site.stop().await;
    let site = stopped.start().await;
    let asked = questions(&site);
    assert_eq!(site.client().missing(&[digest]).await.unwrap(), []);
    assert_eq!(questions(&site), asked + 1);
}

/// Prints what it takes; how long depends on the machine.
#[tokio::test]
async fn questions_about_a_thousand_leased_blobs_are_answered_without_tier_2() {
    const CALLS: u32 = 300;
    let site = Harness::new().start().await;
    let digests: Vec<Digest> = blobs(0..1000)
        .into_iter()
        .map(|blob| site.mock.put_blob("", blob))
        .collect();
    let client = site.client();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    let since = std::time::Instant::now();
    for _ in 0..CALLS {
        assert_eq!(client.missing(&digests).await.unwrap(), []);
    }
    let per_second = f64::from(CALLS) / since.elapsed().as_secs_f64();
    println!("FindMissing(1000), all leased, one client, same thread: {per_second:.0} calls/s");
    assert_eq!(questions(&site), 1);
}

#[tokio::test(start_paused = true)]
async fn r3_missing_that_an_acknowledgement_overtook_is_asked_again_and_one_that_came_first_is_not() {
    for acknowledged_first in [true, false] {
        let site = Harness::new().start().await;
        let (asks, writes) = (site.client(), site.client());
        let blob = noise(MIB, 1);
        let digest = Digest::of(&blob);
        let question = Match::method(method::FIND_MISSING);
        let held = site.mock.hold(question.clone(), After::Start);
        // What Tier 2 found before it stored the blob.
        site.mock.add(Rule::new(question, Act::SayMissing).times(1));
        let digests = [digest];
        let mut missing = pin!(asks.missing(&digests));
        assert!(is_pending(&mut missing, Duration::from_millis(10)).await);
        if acknowledged_first {
            writes.write(&blob).await.unwrap();
            a_moment().await;
            held.release();
            assert_eq!(missing.await.unwrap(), []);
            assert_eq!(questions(&site), 2);
            continue;
        }
        let commit = site.mock.hold(Match::write(&digest), After::End);
        let mut write = pin!(writes.write(&blob));
        assert!(is_pending(&mut write, Duration::from_millis(10)).await);
        held.release();
        assert_eq!(missing.await.unwrap(), [digest]);
        assert_eq!(questions(&site), 1);
        a_moment().await;
        commit.release();
        write.await.unwrap();
        assert_eq!(asks.missing(&digests).await.unwrap(), []);
        assert_eq!(questions(&site), 2, "nobody knew which was first");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_present_that_an_absence_overtook_is_asked_again_and_one_that_came_first_is_ended_by_it() {
    for absent_first in [true, false] {
        let site = Harness::new().start().await;
        let (asks, reads) = (site.client(), site.client());
        let digest = Digest::of(b"evicted");
        let question = Match::method(method::FIND_MISSING);
        let held = site.mock.hold(question.clone(), After::Start);
        // What Tier 2 found before it evicted the blob.
        site.mock.add(Rule::new(question, Act::SayPresent).times(1));
        let digests = [digest];
        let mut missing = pin!(asks.missing(&digests));
        assert!(is_pending(&mut missing, Duration::from_millis(10)).await);
        if absent_first {
            assert_eq!(code(reads.read(&digest).await), Code::NotFound);
            a_moment().await;
            held.release();
            assert_eq!(missing.await.unwrap(), [digest]);
        } else {
            held.release();
            assert_eq!(missing.await.unwrap(), [], "it was there when Tier 2 looked");
            assert_eq!(code(reads.read(&digest).await), Code::NotFound);
        }
        assert_eq!(asks.missing(&digests).await.unwrap(), [digest]);
    }
}
