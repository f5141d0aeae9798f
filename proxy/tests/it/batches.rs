use std::collections::HashSet;

use bytes::Bytes;
use mock_upstream::{Digest, method};
use tonic::Code;

use crate::client::Client;
use crate::harness::{Harness, MIB, Site, idle, noise};

async fn answers(client: &Client, digests: &[Digest]) -> Vec<Result<Bytes, Code>> {
    let answers = client.batch_read(digests).await.unwrap();
    let echoed: Vec<_> = answers.iter().map(|answer| answer.digest.clone()).collect();
    let asked: Vec<_> = digests.iter().map(|digest| Some(digest.to_wire())).collect();
    assert_eq!(echoed, asked);
    let outcome = |answer: proto::reapi::batch_read_blobs_response::Response| match answer.status {
        Some(status) if status.code != 0 => Err(Code::from(status.code)),
        Some(_) | None => Ok(answer.data),
    };
    answers.into_iter().map(outcome).collect()
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_hits_and_misses_is_one_question_for_the_misses() {
    // P7, CAS-BRB
    let site = Harness::new().start().await;
    let client = site.client();
    let blobs: Vec<Bytes> = (0..3).map(|seed| noise(1000, seed)).collect();
    let held: Vec<Digest> = blobs
        .iter()
        .map(|blob| site.mock.put_blob("", blob.clone()))
        .collect();
    let (absent, empty) = (Digest::of(b"absent"), Digest::of(b""));
    client.read(&held[0]).await.unwrap();
    site.landed().await;
    let mark = site.mock.mark();
    let asked = [held[0], held[1], empty, absent, held[2], held[1]];
    let expected = [
        Ok(blobs[0].clone()),
        Ok(blobs[1].clone()),
        Ok(Bytes::new()),
        Err(Code::NotFound),
        Ok(blobs[2].clone()),
        Ok(blobs[1].clone()),
    ];
    assert_eq!(answers(&client, &asked).await, expected);
    let upstream = site.asked_since(mark);
    assert_eq!(upstream.len(), 1, "{upstream:?}");
    assert_eq!(upstream[0].method, method::BATCH_READ);
    let asked_upstream: HashSet<Digest> = upstream[0].digests.iter().copied().collect();
    assert_eq!(asked_upstream, HashSet::from([held[1], absent, held[2]]));
    assert_eq!(upstream[0].digests.len(), 3, "each once");

    site.landed().await;
    let mark = site.mock.mark();
    assert_eq!(answers(&client, &asked).await, expected);
    let upstream = site.asked_since(mark);
    assert_eq!(upstream.len(), 1, "absence is not remembered: {upstream:?}");
    assert_eq!(upstream[0].digests, [absent]);
}

/// A node that knows the limit of its Tier 2: the first question makes it ask.
async fn over_batches_of_100_kb() -> Site {
    let site = Harness::new()
        .mock(|settings| settings.max_batch_bytes = 100_000)
        .start()
        .await;
    site.client().capabilities().await.unwrap();
    idle().await;
    site
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_cut_to_what_tier_2_takes() {
    // PXY-15
    let site = over_batches_of_100_kb().await;
    let client = site.client();
    let blobs: Vec<Bytes> = (0..10).map(|seed| noise(30_000, seed)).collect();
    assert_eq!(client.batch_write(&blobs).await.unwrap(), [Code::Ok; 10]);
    let digests: Vec<Digest> = blobs.iter().map(|blob| Digest::of(blob)).collect();
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    let updates = site.mock.calls().method(method::BATCH_UPDATE);
    assert_eq!(updates.count(), 4);
    assert!(updates.iter().all(|call| call.bytes_received <= 100_000));
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_for_a_batch_of_tier_2_is_read_as_a_stream_and_resumed_where_that_breaks() {
    // PXY-15, P4
    let site = over_batches_of_100_kb().await;
    let client = site.client();
    let (large, small) = (noise(500_000, 1), noise(1000, 2));
    let digests = [&large, &small].map(|blob| site.mock.put_blob("", blob.clone()));
    let gate = site.mock.hold(
        mock_upstream::Match::read(&digests[0]).nth(1),
        mock_upstream::After::Bytes(300_000),
    );
    let breaks = async {
        gate.reached().await;
        assert!(site.mock.reset_connections() > 0);
    };
    let (found, ()) = tokio::join!(answers(&client, &digests), breaks);
    assert!(found == [Ok(large), Ok(small)]);
    let reads: Vec<_> = site.mock.calls().method(method::READ).into_iter().collect();
    assert_eq!(reads.len(), 2, "{reads:?}");
    assert!(reads[1].offset > 0, "resumed, not begun anew");
    let batches = site.mock.calls().method(method::BATCH_READ);
    assert_eq!((batches.count(), site.upstream_reads(&digests[1])), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn blobs_of_a_batch_join_a_fetch_that_is_in_the_air() {
    let site = Harness::new().start().await;
    let blob = noise(MIB, 7);
    let digest = site.mock.put_blob("", blob.clone());
    let gate = site.mock.hold(
        mock_upstream::Match::read(&digest),
        mock_upstream::After::Bytes(1000),
    );
    let (reader, batcher) = (site.client(), site.client());
    let read = reader.read(&digest);
    let batch = async {
        gate.reached().await;
        let asked = [digest];
        let mut batch = std::pin::pin!(answers(&batcher, &asked));
        let waiting = crate::harness::is_pending(&mut batch, std::time::Duration::from_secs(1)).await;
        assert!(waiting);
        gate.release();
        batch.await
    };
    let (read, batch) = tokio::join!(read, batch);
    assert!(read.unwrap() == blob && batch == [Ok(blob)]);
    assert_eq!(site.upstream_reads(&digest), 1);
}

#[tokio::test(start_paused = true)]
async fn row_16_a_batch_with_one_miss_and_tier_2_down_still_returns_its_hits() {
    // R13
    let site = Harness::new().set("tier2.when_down", "serve_tier1").start().await;
    let client = site.client();
    let blobs = [1, 2].map(|seed| noise(1000, seed));
    let [here, also_here] = [0, 1].map(|number| site.mock.put_blob("", blobs[number].clone()));
    let far = site.mock.put_blob("", noise(1000, 3));
    client.batch_read(&[here, also_here]).await.unwrap();
    site.landed().await;
    site.mock.suspend().await.unwrap();
    let [one, other] = blobs;
    // Also for the call that notices.
    for _ in 0..2 {
        let asked = [here, far, also_here];
        let expected = [Ok(one.clone()), Err(Code::Unavailable), Ok(other.clone())];
        assert_eq!(answers(&client, &asked).await, expected);
    }
}
