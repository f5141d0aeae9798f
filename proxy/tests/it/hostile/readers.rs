//! Readers that take nothing, beside others.

use mock_upstream::{After, Match};
use proto::bytestream::ReadRequest;
use tokio::io::AsyncWriteExt as _;

use crate::client::rest;
use crate::harness::{Harness, MIB, idle, noise};
use crate::wire::{self, INITIAL_WINDOW_SIZE, READ};

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_up_no_fast_one_of_the_same_blob() {
    // P7, P10
    let site = Harness::new().start().await;
    let blob = noise(40 * MIB, 1);
    let digest = site.mock.put_blob("", blob.clone());
    let gate = site.mock.hold(Match::read(&digest), After::Bytes(MIB as u64));
    let mut slow = site.client().open(&digest).await.unwrap();
    let mut had = slow.message().await.unwrap().unwrap().data.to_vec();
    let fast: Vec<_> = (0..4).map(|_| site.client()).collect();
    let reads = futures::future::join_all(fast.iter().map(|client| client.read(&digest)));
    let release = async {
        gate.reached().await;
        gate.release();
    };
    // They end while the slow one takes nothing.
    let (reads, ()) = tokio::join!(reads, release);
    assert!(reads.into_iter().all(|read| read.unwrap() == blob));
    rest(&mut slow, &mut had).await.unwrap();
    assert!(had == blob, "P4");
    assert_eq!(site.upstream_reads(&digest), 1);
    site.nothing_is_left().await;
}

#[tokio::test(start_paused = true)]
async fn readers_without_a_window_hold_up_nobody_and_are_cut_off_in_the_end() {
    // P8, P10
    let site = Harness::new().start().await;
    let blob = noise(12 * MIB, 2);
    let digest = site.mock.put_blob("", blob.clone());
    let request = wire::message(&ReadRequest {
        resource_name: digest.read_name(""),
        ..Default::default()
    });
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let mut io = site.pipe();
        io.write_all(&wire::greeting(&[(INITIAL_WINDOW_SIZE, 0)]))
            .await
            .unwrap();
        for stream in (1..).step_by(2).take(100) {
            io.write_all(&wire::call(stream, READ)).await.unwrap();
            io.write_all(&wire::body(stream, &request, 1000)).await.unwrap();
        }
        stuck.push(io);
    }
    idle().await;
    assert!(site.client().read(&digest).await.unwrap() == blob);
    assert_eq!(site.upstream_reads(&digest), 1);
    let in_flight = site.node.metrics.calls.in_flight.clone();
    let in_flight = in_flight.with_label_values(&["ByteStream/Read"]);
    assert_eq!(in_flight.get(), 300, "they are open");
    site.nothing_is_left().await;
    drop(stuck);
}
