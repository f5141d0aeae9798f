//! The remote Tier 2 with its wrappers, against a whole server.

use std::io;

use mock_upstream::{After, Match, Mock, Outcome, method};

use super::*;
use crate::tier2::breaker::Breaker;
use crate::tier2::health::Outlook;
use crate::tier2::metered::Metered;
use crate::tier2::split::Split;

struct Pipes(Mock);

#[async_trait]
impl Connect for Pipes {
    async fn connect(&self) -> io::Result<BoxIo> {
        Ok(Box::new(self.0.connect()?))
    }
}

type Whole = Split<Breaker<Metered<RemoteTier2>>>;

fn assembled(mock: &Mock) -> (Whole, Outlook, TaskGroup, Metrics) {
    let (tasks, metrics) = (TaskGroup::new(), Metrics::new());
    let endpoint = Endpoint {
        tls: false,
        host: "mock".to_owned(),
        port: 1,
    };
    let connector = Box::new(Pipes(mock.clone()));
    let (announcer, outlook) = outlook();
    let remote = RemoteTier2::new(
        options(endpoint),
        connector,
        outlook.clone(),
        &tasks,
        &metrics.tier2,
    )
    .unwrap();
    let losses = remote.losses();
    let metered = Metered::new(remote, metrics.tier2.clone());
    let breaker = Breaker::new(
        metered,
        (announcer, outlook.clone()),
        &losses,
        &tasks,
        &metrics.tier2.up,
    );
    (Split::new(breaker), outlook, tasks, metrics)
}

fn proven(blob: &Bytes) -> (Verified, Bytes) {
    (Verified::of(digest_of(blob), blob).unwrap(), blob.clone())
}

#[tokio::test(start_paused = true)]
async fn a_whole_server_takes_and_returns_everything() {
    let mock = Mock::builder().max_batch_bytes(1000).start();
    let (tier2, _outlook, tasks, metrics) = assembled(&mock);
    let call = call_as("main");
    let large = Bytes::from(vec![3; 3_000_000]);
    let digest = digest_of(&large);
    let body: PieceStream = futures::stream::iter([
        Ok(Piece::Data(large.slice(..2_000_000))),
        Ok(Piece::Last(large.slice(2_000_000..), proven(&large).0)),
    ])
    .boxed();
    assert_eq!(tier2.find_missing(&call, &[digest]).await.unwrap(), [digest]);
    tier2.write(&call, &digest, body).await.unwrap();
    assert_eq!(tier2.find_missing(&call, &[digest]).await.unwrap(), []);
    let stream = tier2
        .read(&call, &digest, ByteRange::whole(&digest))
        .await
        .unwrap();
    assert_eq!(collect(digest, stream).await.unwrap(), large);

    // The limit is learnt in the background, after the first question.
    let _assumed = tier2.offers(&call.instance);
    mock.finished(Match::method(method::CAPABILITIES), 1).await;
    while tier2.offers(&call.instance).batch_bytes_max != Some(1000) {
        tokio::task::yield_now().await;
    }
    let small: Vec<Bytes> = (0..5).map(|i| Bytes::from(vec![i; 600])).collect();
    let acks = tier2.write_batch(&call, small.iter().map(proven).collect()).await;
    assert!(acks.iter().all(Result::is_ok), "{acks:?}");
    assert_eq!(mock.calls().method(method::BATCH_UPDATE).count(), 5); // PXY-15
    let mut asked: Vec<Digest> = small.iter().map(|blob| digest_of(blob)).collect();
    asked.push(digest);
    let found = tier2.read_batch(&call, &asked).await;
    let found: Vec<Bytes> = found.into_iter().map(Result::unwrap).collect();
    assert_eq!((&found[..5], &found[5]), (&small[..], &large));

    let key = ActionDigest(digest_of(b"action"));
    assert!(matches!(
        tier2.action(&call, &key).await,
        Err(Tier2Error::NotFound)
    ));
    let raw = RawActionResult(Bytes::from_static(b"\x20\x01\xfa\x3f\x01x"));
    tier2.put_action(&call, &key, raw.clone()).await.unwrap();
    assert_eq!(tier2.action(&call, &key).await.unwrap(), raw);

    assert!(mock.calls().instance("main").count() > 0);
    assert_eq!(mock.calls().instance("").count(), 0);
    assert_eq!(metrics.tier2.total.with_label_values(&["write", "ok"]).get(), 1);
    assert_eq!(tasks.stop(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_given_up_upload_is_no_half_close_to_a_server() {
    let mock = Mock::builder().start();
    let (tier2, _outlook, _tasks, _metrics) = assembled(&mock);
    let blob = Bytes::from(vec![3; 100_000]);
    let body: PieceStream = futures::stream::iter([Ok(Piece::Data(blob.clone()))]).boxed();
    let written = tier2.write(&call(), &digest_of(&blob), body).await;
    assert!(matches!(written, Err(Tier2Error::Aborted)));
    mock.finished(Match::method(method::WRITE), 1).await;
    assert_eq!(mock.calls().last().unwrap().outcome, Outcome::Reset); // R12
    assert_eq!(mock.counts().blobs, 0);
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_calls_fail_at_once_and_its_end_is_noticed_within_a_second() {
    let mock = Mock::builder().start();
    let (tier2, mut outlook, tasks, _metrics) = assembled(&mock);
    let missing = [digest_of(b"a")];
    tier2.find_missing(&call(), &missing).await.unwrap();
    mock.suspend().await.unwrap();
    let found = tier2.find_missing(&call(), &missing).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    assert!(
        matches!(outlook.of(Service::Cas), Health::Down { .. }),
        "known by then"
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(outlook.of(Service::ActionCache), Health::Down { .. }));
    let asked = Instant::now();
    for _ in 0..1000 {
        tier2.find_missing(&call(), &missing).await.unwrap_err();
        tier2
            .action(&call(), &ActionDigest(missing[0]))
            .await
            .unwrap_err();
    }
    assert_eq!(asked.elapsed(), Duration::ZERO); // P6

    mock.resume().await.unwrap();
    let returned = Instant::now();
    while outlook.down_since().is_some() {
        outlook.changed().await;
    }
    tier2.find_missing(&call(), &missing).await.unwrap();
    let range = ByteRange::whole(&missing[0]);
    let read = tier2.read(&call(), &missing[0], range).await;
    assert!(matches!(read, Err(Tier2Error::NotFound)));
    assert!(returned.elapsed() < Duration::from_secs(1)); // P6
    assert_eq!(tasks.stop(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn connections_that_were_silent_in_an_outage_are_not_trusted_after_it() {
    let mock = Mock::builder().start();
    let (tier2, mut outlook, _tasks, _metrics) = assembled(&mock);
    let digest = mock.put_blob("", "hello");
    let blob = digest_of(b"hello");
    let range = ByteRange::whole(&blob);
    assert_eq!(tier2.read(&call(), &blob, range).await.unwrap().count().await, 1);
    let before = mock.calls().digest(&digest).last().unwrap().connection;
    let hung = mock.hold(Match::any(), After::Start);
    assert!(tier2.find_missing(&call(), &[blob]).await.is_err());
    assert!(outlook.down_since().is_some());
    hung.release();
    while outlook.down_since().is_some() {
        outlook.changed().await;
    }
    assert_eq!(tier2.read(&call(), &blob, range).await.unwrap().count().await, 1);
    let after = mock.calls().digest(&digest).last().unwrap().connection;
    assert_ne!(before, after);
}
