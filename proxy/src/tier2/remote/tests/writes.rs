use proto::bytestream::{WriteRequest, WriteResponse};
use tokio::sync::mpsc;

use super::*;
use crate::blob::Aborted;

const MIB: usize = 1024 * 1024;

/// A source of pieces that a test feeds. Dropped, it ends.
struct Feeder(mpsc::Sender<Result<Piece, Aborted>>);

impl Feeder {
    fn new() -> (Feeder, PieceStream) {
        let (sender, receiver) = mpsc::channel(16);
        let pieces = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|piece| (piece, receiver))
        });
        (Feeder(sender), pieces.boxed())
    }

    async fn data(&self, bytes: &Bytes) {
        self.0.send(Ok(Piece::Data(bytes.clone()))).await.unwrap();
    }

    async fn last(&self, bytes: Bytes, blob: &Bytes) {
        let proof = Verified::of(digest_of(blob), blob).unwrap();
        self.0.send(Ok(Piece::Last(bytes, proof))).await.unwrap();
    }
}

fn blob(len: usize) -> Bytes {
    vec![7; len].into()
}

fn committed(len: usize) -> WriteResponse {
    WriteResponse {
        committed_size: i64::try_from(len).unwrap(),
    }
}

fn one_piece(blob: &Bytes) -> PieceStream {
    let proof = Verified::of(digest_of(blob), blob).unwrap();
    futures::stream::iter([Ok(Piece::Last(blob.clone(), proof))]).boxed()
}

async fn write(harness: &Harness, blob: &Bytes, body: PieceStream) -> Result<Ack, Tier2Error> {
    harness.tier2.write(&call(), &digest_of(blob), body).await
}

#[tokio::test(start_paused = true)]
async fn an_upload_keeps_the_protocol_to_the_letter() {
    let harness = Harness::with(|options| {
        options.instances = InstanceMap::new(|_| InstanceName::parse("main").unwrap());
    });
    let blob = blob(MIB + 3);
    let (feeder, body) = Feeder::new();
    let feeding = async {
        feeder.data(&blob.slice(..MIB)).await;
        feeder.last(blob.slice(MIB..), &blob).await;
    };
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        let mut received = Vec::new();
        loop {
            let message: WriteRequest = call.message().await.unwrap();
            // PXY-61
            assert_eq!(
                message.resource_name.is_empty(),
                !received.is_empty(),
                "named once, at first"
            );
            if received.is_empty() {
                assert!(
                    message.resource_name.starts_with("main/uploads/"),
                    "{}",
                    message.resource_name
                );
                let tail = format!("/blobs/{}", digest_of(&blob));
                assert!(
                    message.resource_name.ends_with(&tail),
                    "{}",
                    message.resource_name
                );
            }
            assert_eq!(message.write_offset, i64::try_from(received.len()).unwrap());
            received.extend_from_slice(&message.data);
            if message.finish_write {
                break;
            }
        }
        assert_eq!(received, blob);
        assert_eq!(call.end::<WriteRequest>().await, End::HalfClose);
        call.answer(&committed(received.len()));
    };
    let (ack, (), ()) = tokio::join!(write(&harness, &blob, body), feeding, serving);
    ack.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_begins_with_the_first_piece_and_waits_for_a_slow_client() {
    let harness = Harness::new();
    let blob = blob(10);
    let (feeder, body) = Feeder::new();
    let feeding = async {
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(harness.peer.arrived(), 0);
        feeder.data(&blob.slice(..5)).await;
        tokio::time::sleep(Duration::from_secs(100)).await; // R14: no limit before the last piece
        feeder.last(blob.slice(5..), &blob).await;
    };
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        assert_eq!(call.end::<WriteRequest>().await, End::HalfClose);
        call.answer(&committed(10));
    };
    let (ack, (), ()) = tokio::join!(write(&harness, &blob, body), feeding, serving);
    let ack = ack.unwrap();
    assert_eq!(ack.sent_at, Instant::now(), "dated by its last piece");
}

#[tokio::test(start_paused = true)]
async fn giving_up_is_a_reset_that_no_server_takes_for_an_end() {
    let harness = Harness::new();
    let blob = blob(MIB);
    for how in ["error", "end", "hang-up", "hang-up after headers"] {
        let (feeder, body) = Feeder::new();
        let writing = write(&harness, &blob, body);
        feeder.data(&blob).await;
        let serving = async {
            let mut call = harness.peer.call("Write").await;
            let mut seen = 0;
            while seen < MIB {
                seen += call.message::<WriteRequest>().await.unwrap().data.len();
            }
            if how == "hang-up after headers" {
                call.begin();
            }
            call
        };
        let mut writing = Box::pin(writing);
        let mut arrived = tokio::select! {
            arrived = serving => arrived,
            ended = &mut writing => panic!("{ended:?}"),
        };
        match how {
            "error" => feeder.0.send(Err(Aborted)).await.unwrap(),
            "end" => drop(feeder),
            _ => {}
        }
        if how.starts_with("hang-up") {
            drop(writing);
        } else {
            assert!(matches!(writing.await, Err(Tier2Error::Aborted)), "{how}");
        }
        // Not CANCEL, which servers made with hyper see as the end of the stream.
        let end = arrived.end::<WriteRequest>().await;
        assert_eq!(end, End::Reset(h2::Reason::INTERNAL_ERROR), "{how}"); // R12, BS-WRITE-08
    }
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_is_stuck_is_reset_when_it_is_given_up() {
    let harness = Harness::new();
    let blob = blob(4 * MIB);
    let (feeder, body) = Feeder::new();
    let writing = write(&harness, &blob, body);
    feeder.data(&blob).await;
    // The server reads nothing, so that the window fills up.
    let mut arrived = tokio::select! {
        arrived = harness.peer.call("Write") => arrived,
        ended = writing => panic!("{ended:?}"),
    };
    let end = arrived.end::<WriteRequest>().await;
    assert!(matches!(end, End::Reset(_)), "{end:?}");
}

#[tokio::test(start_paused = true)]
async fn an_early_answer_is_taken_and_stops_the_sending() {
    let harness = Harness::new();
    let blob = blob(MIB);
    let (feeder, body) = Feeder::new();
    let start = Instant::now();
    feeder.data(&blob.slice(..1)).await;
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        let _first: WriteRequest = call.message().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        call.answer(&committed(MIB)); // BS-WRITE-14, PXY-62
    };
    let (ack, ()) = tokio::join!(write(&harness, &blob, body), serving);
    assert_eq!(ack.unwrap().sent_at, start, "dated by when the call was opened");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_committed_size_is_no_acknowledgement() {
    let harness = Harness::new();
    let blob = blob(10);
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        call.end::<WriteRequest>().await;
        call.answer(&committed(9));
    };
    let (ack, ()) = tokio::join!(write(&harness, &blob, one_piece(&blob)), serving);
    assert!(is_code(&ack, Code::Internal), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_only_with_its_status() {
    let harness = Harness::new();
    let blob = blob(10);
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        call.end::<WriteRequest>().await;
        call.send(&committed(10));
        call.finish(Code::ResourceExhausted);
        let mut call = harness.peer.call("Write").await;
        call.send(&committed(10));
        call.reset(h2::Reason::NO_ERROR);
    };
    let writing = async {
        let ack = write(&harness, &blob, one_piece(&blob)).await;
        assert!(is_code(&ack, Code::ResourceExhausted), "{ack:?}"); // PXY-08
        let ack = write(&harness, &blob, one_piece(&blob)).await;
        assert!(matches!(ack, Err(Tier2Error::Down(_))), "{ack:?}");
    };
    tokio::join!(writing, serving);
}

#[tokio::test(start_paused = true)]
async fn a_refused_upload_is_sent_again_from_its_first_piece() {
    let harness = Harness::new();
    let blob = blob(10);
    let (feeder, body) = Feeder::new();
    let feeding = async {
        feeder.data(&blob.slice(..5)).await;
    };
    let serving = async {
        harness.peer.call("Write").await.reset(h2::Reason::REFUSED_STREAM);
        let mut call = harness.peer.call("Write").await;
        let first: WriteRequest = call.message().await.unwrap();
        assert_eq!((first.write_offset, first.data.len()), (0, 5));
        call.answer(&committed(10));
    };
    let (ack, (), ()) = tokio::join!(write(&harness, &blob, body), feeding, serving);
    ack.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_commit_has_a_limit_of_its_own() {
    let harness = Harness::new();
    let blob = blob(40_000_000);
    let start = Instant::now();
    let serving = async {
        let mut call = harness.peer.call("Write").await;
        assert_eq!(call.end::<WriteRequest>().await, End::HalfClose);
        call
    };
    let (ack, _call) = tokio::join!(write(&harness, &blob, one_piece(&blob)), serving);
    assert!(matches!(ack, Err(Tier2Error::Stalled)), "{ack:?}");
    assert_took(start, 60 + 2);
}

#[tokio::test(start_paused = true)]
async fn a_tier_2_that_takes_no_bytes_is_a_stall() {
    let harness = Harness::new();
    let blob = blob(4 * MIB);
    let start = Instant::now();
    let (ack, _call) = tokio::join!(
        write(&harness, &blob, one_piece(&blob)),
        harness.peer.call("Write")
    );
    assert!(matches!(ack, Err(Tier2Error::Stalled)), "{ack:?}");
    assert_took(start, 10);
}

#[tokio::test(start_paused = true)]
async fn no_upload_follows_one_that_stalled_onto_its_connection() {
    // P10, R12: the connection answers all the while, and yet takes no bytes.
    let harness = Harness::with(|options| options.connections = 1);
    let (large, small) = (blob(4 * MIB), blob(3));
    let mut stuck = std::pin::pin!(write(&harness, &large, one_piece(&large)));
    let call = tokio::select! {
        call = harness.peer.call("Write") => call,
        ended = &mut stuck => panic!("{ended:?}"),
    };
    let answered = async { harness.peer.call("Write").await.answer(&committed(3)) };
    let other = write(&harness, &small, one_piece(&small));
    let (stuck, other, ()) = tokio::join!(stuck, other, answered);
    assert!(matches!(stuck, Err(Tier2Error::Stalled)), "{stuck:?}");
    other.unwrap();
    assert_eq!(harness.peer.dialed(), 1);
    let (next, ()) = tokio::join!(write(&harness, &small, one_piece(&small)), async {
        harness.peer.call("Write").await.answer(&committed(3));
    });
    next.unwrap();
    assert_eq!(harness.peer.dialed(), 2);
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_midway_is_passed_on_at_once() {
    let harness = Harness::new();
    let blob = blob(MIB);
    let (feeder, body) = Feeder::new();
    feeder.data(&blob.slice(..1)).await;
    let serving = async {
        let call = harness.peer.call("Write").await;
        call.refuse(Code::InvalidArgument, &[]);
    };
    let (ack, ()) = tokio::join!(write(&harness, &blob, body), serving);
    assert!(is_code(&ack, Code::InvalidArgument), "{ack:?}");
}

#[tokio::test(start_paused = true)]
async fn a_callers_deadline_ends_an_upload() {
    let harness = Harness::new();
    let blob = blob(MIB);
    let (feeder, body) = Feeder::new();
    feeder.data(&blob.slice(..1)).await;
    let call = Call {
        deadline: Some(Instant::now() + Duration::from_secs(3)),
        ..call()
    };
    let start = Instant::now();
    let ack = harness.tier2.write(&call, &digest_of(&blob), body).await;
    assert!(matches!(ack, Err(Tier2Error::DeadlineExceeded)), "{ack:?}");
    assert_took(start, 3);
}
