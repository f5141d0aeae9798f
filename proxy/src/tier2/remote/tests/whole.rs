//! The remote Tier 2 with its wrappers, against a whole server.

use std::io;

use mock_upstream::{Match, Mock, Outcome, method};

use super::*;
use crate::tier2::health::{Health, Watched};
use crate::tier2::metered::Metered;
use crate::tier2::split::Split;

struct Pipes(Mock);

#[async_trait]
impl Connect for Pipes {
    async fn connect(&self) -> io::Result<BoxIo> {
        Ok(Box::new(self.0.connect()?))
    }
}

type Whole = Split<Watched<Metered<RemoteTier2>>>;

fn assembled(mock: &Mock) -> (Whole, tokio::sync::watch::Receiver<Health>, TaskGroup, Metrics) {
    let (tasks, metrics) = (TaskGroup::new(), Metrics::new());
    let endpoint = Endpoint {
        tls: false,
        host: "mock".to_owned(),
        port: 1,
    };
    let connector = Box::new(Pipes(mock.clone()));
    let remote = RemoteTier2::new(options(endpoint), connector, &tasks, &metrics.tier2).unwrap();
    let metered = Metered::new(remote, metrics.tier2.clone());
    let watched = Watched::new(metered, &tasks, metrics.tier2.up.clone());
    let health = watched.health();
    (Split::new(watched), health, tasks, metrics)
}

fn proven(blob: &Bytes) -> (Verified, Bytes) {
    (Verified::of(digest_of(blob), blob).unwrap(), blob.clone())
}

#[tokio::test(start_paused = true)]
async fn a_whole_server_takes_and_returns_everything() {
    let mock = Mock::builder().max_batch_bytes(1000).start();
    let (tier2, _health, tasks, metrics) = assembled(&mock);
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
    let (tier2, _health, _tasks, _metrics) = assembled(&mock);
    let blob = Bytes::from(vec![3; 100_000]);
    let body: PieceStream = futures::stream::iter([Ok(Piece::Data(blob.clone()))]).boxed();
    let written = tier2.write(&call(), &digest_of(&blob), body).await;
    assert!(matches!(written, Err(Tier2Error::Aborted)));
    mock.finished(Match::method(method::WRITE), 1).await;
    assert_eq!(mock.calls().last().unwrap().outcome, Outcome::Reset); // R12
    assert_eq!(mock.counts().blobs, 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_noticed_and_so_is_its_end_within_a_second() {
    let mock = Mock::builder().start();
    let (tier2, mut health, tasks, _metrics) = assembled(&mock);
    let missing = [digest_of(b"a")];
    tier2.find_missing(&call(), &missing).await.unwrap();
    mock.suspend().await.unwrap();
    let found = tier2.find_missing(&call(), &missing).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))), "{found:?}");
    let down = health.wait_for(|health| *health != Health::Up);
    assert!(matches!(*down.await.unwrap(), Health::Down { .. }));
    tokio::time::sleep(Duration::from_secs(60)).await;
    mock.resume().await.unwrap();
    let returned = Instant::now();
    tier2.find_missing(&call(), &missing).await.unwrap();
    health.wait_for(|health| *health == Health::Up).await.unwrap();
    assert!(returned.elapsed() < Duration::from_secs(1)); // P6
    assert_eq!(tasks.stop(Duration::from_secs(1)).await, 0);
}
