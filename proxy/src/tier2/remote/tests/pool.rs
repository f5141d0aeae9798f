use proto::bytestream::{ReadResponse, WriteRequest};
use proto::reapi::FindMissingBlobsResponse;

use super::*;

async fn find(harness: &Harness) -> Result<Vec<Digest>, Tier2Error> {
    harness.tier2.find_missing(&call(), &[digest_of(b"a")]).await
}

async fn answer_one(harness: &Harness) -> usize {
    let call = harness.peer.call("FindMissingBlobs").await;
    let connection = call.connection;
    call.answer(&FindMissingBlobsResponse::default());
    connection
}

#[tokio::test(start_paused = true)]
async fn connections_are_made_when_needed_and_used_again() {
    let harness = Harness::new();
    assert_eq!(harness.peer.dialed(), 0);
    for _ in 0..3 {
        let (found, connection) = tokio::join!(find(&harness), answer_one(&harness));
        assert_eq!((found.unwrap(), connection), (vec![], 0));
    }
    assert_eq!(harness.metrics.tier2.connections.get(), 1);
    assert_eq!(harness.metrics.tier2.connect_seconds.get_sample_count(), 1);
    assert_eq!(
        harness.tasks.stop(Duration::from_secs(1)).await,
        0,
        "every task ends"
    );
    assert_eq!(harness.metrics.tier2.connections.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn busy_connections_get_company_up_to_the_limit() {
    let harness = Harness::with(|options| options.connections = 3);
    let calls = async { tokio::join!(find(&harness), find(&harness), find(&harness), find(&harness)) };
    let serving = async {
        let mut arrived = Vec::new();
        for _ in 0..4 {
            arrived.push(harness.peer.call("FindMissingBlobs").await);
        }
        let mut used: Vec<usize> = arrived.iter().map(|call| call.connection).collect();
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, [0, 1, 2]);
        for call in arrived {
            call.answer(&FindMissingBlobsResponse::default());
        }
    };
    let (found, ()) = tokio::join!(calls, serving);
    assert!(found.0.is_ok() && found.1.is_ok() && found.2.is_ok() && found.3.is_ok());
    assert_eq!(harness.peer.dialed(), 3);
}

#[tokio::test(start_paused = true)]
async fn uploads_reads_and_small_calls_do_not_share_connections() {
    let harness = Harness::new();
    let digest = digest_of(b"hello");
    let proof = Verified::of(digest, b"hello").unwrap();
    let body: PieceStream =
        futures::stream::iter([Ok(Piece::Last(Bytes::from_static(b"hello"), proof))]).boxed();
    let call = call();
    let asking = async {
        tokio::join!(
            harness.tier2.write(&call, &digest, body),
            harness.tier2.read(&call, &digest, ByteRange::whole(&digest)),
            find(&harness),
        )
    };
    let serving = async {
        let mut used = Vec::new();
        for _ in 0..3 {
            let mut arrived = harness.peer.call("").await;
            used.push(arrived.connection);
            match arrived.request.uri().path().rsplit('/').next().unwrap() {
                "Write" => {
                    arrived.end::<WriteRequest>().await;
                    arrived.refuse(Code::ResourceExhausted, &[]);
                }
                "Read" => arrived.answer(&ReadResponse {
                    data: Bytes::from_static(b"hello"),
                }),
                _ => arrived.answer(&FindMissingBlobsResponse::default()),
            }
        }
        used.sort_unstable();
        assert_eq!(used, [0, 1, 2]); // R12
    };
    let ((written, read, found), ()) = tokio::join!(asking, serving);
    assert!(is_code(&written, Code::ResourceExhausted) && read.is_ok() && found.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_is_given_up_after_its_limit() {
    let harness = Harness::new();
    harness.peer.set_door(Door::Silent);
    let start = Instant::now();
    let found = find(&harness).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    assert_took(start, 2); // R14
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_connection_learns_of_an_outage_at_once_and_a_probe_waits_on() {
    let harness = Harness::new();
    harness.peer.set_door(Door::Silent);
    let start = Instant::now();
    let announcing = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let since = Instant::now();
        harness.announcer.announce(Service::Cas, Health::Down { since });
    };
    let probe = harness
        .tier2
        .probe(Service::Cas, start + Duration::from_millis(250));
    let asking = async {
        let found = find(&harness).await;
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        found
    };
    let (found, probed, ()) = tokio::join!(asking, probe, announcing);
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    assert!(probed.is_err());
    assert!(start.elapsed() >= Duration::from_millis(250));
    // Another service may still be there.
    let key = ActionDigest(digest_of(b"a"));
    let found = harness.tier2.action(&call(), &key).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    assert!(start.elapsed() > Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_stands_ends_the_pauses_of_the_others() {
    let harness = Harness::new();
    harness.peer.set_door(Door::Refusing);
    let (call, digest) = (call(), digest_of(b"a"));
    let range = ByteRange::whole(&digest);
    for _ in 0..10 {
        let read = harness.tier2.read(&call, &digest, range).await;
        assert!(matches!(read, Err(Tier2Error::Down(_))));
    }
    harness.peer.set_door(Door::Open);
    let (found, _) = tokio::join!(find(&harness), answer_one(&harness));
    found.unwrap();
    let returned = Instant::now();
    let reading = harness.tier2.read(&call, &digest, range);
    let serving = async { harness.peer.call("Read").await.refuse(Code::NotFound, &[]) };
    let (read, ()) = tokio::join!(reading, serving);
    assert!(matches!(read, Err(Tier2Error::NotFound)));
    assert_eq!(returned.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_connect_is_tried_again_while_one_hangs() {
    let harness = Harness::new();
    harness.peer.set_door(Door::Silent);
    let returning = async {
        tokio::time::sleep(Duration::from_millis(1010)).await;
        harness.peer.set_door(Door::Open);
        let returned = Instant::now();
        answer_one(&harness).await;
        assert!(returned.elapsed() < Duration::from_secs(1)); // P6
    };
    let (found, ()) = tokio::join!(find(&harness), returning);
    found.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refused_connects_fail_soon_pause_shortly_and_never_hide_a_return() {
    let harness = Harness::new();
    harness.peer.set_door(Door::Refusing);
    let start = Instant::now();
    for _ in 0..50 {
        let found = find(&harness).await;
        assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    }
    assert_eq!(harness.peer.dialed(), 50);
    assert!(
        start.elapsed() > Duration::from_secs(4),
        "callers do not dial in a tight loop"
    );
    harness.peer.set_door(Door::Open);
    let returned = Instant::now();
    let (found, _) = tokio::join!(find(&harness), answer_one(&harness));
    found.unwrap();
    assert!(returned.elapsed() <= Duration::from_millis(110)); // P6
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_noticed_at_once_and_replaced() {
    let harness = Harness::new();
    let start = Instant::now();
    let losing = async {
        let call = harness.peer.call("FindMissingBlobs").await;
        harness.peer.cut();
        call
    };
    let (found, _call) = tokio::join!(find(&harness), losing);
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    let (found, connection) = tokio::join!(find(&harness), answer_one(&harness));
    assert_eq!((found.unwrap(), connection), (vec![], 1));
    // Lost while idle: the next call does not notice.
    harness.peer.cut();
    while harness.metrics.tier2.connections.get() > 0 {
        tokio::task::yield_now().await;
    }
    let (found, connection) = tokio::join!(find(&harness), answer_one(&harness));
    assert_eq!((found.unwrap(), connection), (vec![], 2));
    assert_eq!(start, Instant::now());
}

#[tokio::test(start_paused = true)]
async fn a_draining_connection_finishes_its_calls_and_gets_no_new_ones() {
    let harness = Harness::new();
    let serving = async {
        let first = harness.peer.call("FindMissingBlobs").await;
        harness.peer.drain();
        first
    };
    let first = async {
        let mut finding = Box::pin(find(&harness));
        let arrived = tokio::select! {
            arrived = serving => arrived,
            ended = &mut finding => panic!("{ended:?}"),
        };
        let (found, connection) = tokio::join!(find(&harness), answer_one(&harness));
        assert_eq!((found.unwrap(), connection), (vec![], 1));
        arrived.answer(&FindMissingBlobsResponse::default());
        finding.await
    };
    first.await.unwrap(); // R13
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_for_long_is_not_trusted() {
    let harness = Harness::new();
    let (found, _) = tokio::join!(find(&harness), answer_one(&harness));
    found.unwrap();
    tokio::time::sleep(Duration::from_secs(241)).await;
    let (found, connection) = tokio::join!(find(&harness), answer_one(&harness));
    assert_eq!((found.unwrap(), connection), (vec![], 1));
}
