use proto::bytestream::{ReadRequest, ReadResponse};

use super::*;

fn data(bytes: &'static [u8]) -> ReadResponse {
    ReadResponse {
        data: Bytes::from_static(bytes),
    }
}

async fn read_all(tier2: &RemoteTier2, call: Call, range: ByteRange) -> Result<Vec<u8>, Tier2Error> {
    let stream = tier2.read(&call, &digest_of(b"hello"), range).await?;
    let chunks: Vec<Bytes> = stream.try_collect().await?;
    Ok(chunks.concat())
}

fn whole() -> ByteRange {
    ByteRange::whole(&digest_of(b"hello"))
}

fn part(start: u64, limit: u64) -> ByteRange {
    ByteRange::within(&digest_of(b"hello"), start, Some(limit)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_read_names_the_blob_and_passes_what_comes() {
    let harness = Harness::new();
    let reading = read_all(&harness.tier2, call(), whole());
    let serving = async {
        let mut call = harness.peer.call("Read").await;
        assert_eq!(call.request.uri().authority().unwrap(), "tier2.example:8980");
        assert_eq!(call.header(Via::HEADER), Some("node1"));
        assert_eq!(call.header("grpc-timeout"), None);
        let asked: ReadRequest = call.message().await.unwrap();
        let name = format!("blobs/{}", digest_of(b"hello"));
        assert_eq!(
            (asked.resource_name, asked.read_offset, asked.read_limit),
            (name, 0, 0)
        );
        for bytes in [&b""[..], b"hel", b"", b"lo", b""] {
            call.send(&data(bytes)); // BS-READ-14, PXY-49
        }
        call.finish(Code::Ok);
    };
    let (read, ()) = tokio::join!(reading, serving);
    assert_eq!(read.unwrap(), b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_range_is_asked_for_under_the_upstream_instance_with_a_limit_only_before_the_end() {
    let harness = Harness::with(|options| {
        let name = |text| InstanceName::parse(text).unwrap();
        options.instances = InstanceMap::new(move |client| match client.as_str() {
            "a" => name("x/y"),
            other => panic!("{other:?} did not ask"),
        });
    });
    let call = call_as("a");
    for (range, limit, sent) in [(part(1, 2), 2, &b"el"[..]), (part(3, 9), 0, b"lo")] {
        let serving = async {
            let mut call = harness.peer.call("Read").await;
            let asked: ReadRequest = call.message().await.unwrap();
            assert!(asked.resource_name.starts_with("x/y/blobs/"), "{asked:?}"); // PXY-24
            assert_eq!(
                (asked.read_offset, asked.read_limit),
                (i64::try_from(range.start()).unwrap(), limit)
            );
            call.answer(&data(sent));
        };
        let (read, ()) = tokio::join!(read_all(&harness.tier2, call.clone(), range), serving);
        assert_eq!(read.unwrap(), sent);
    }
}

#[tokio::test(start_paused = true)]
async fn a_clients_metadata_and_deadline_go_along() {
    let harness = Harness::new();
    let call = Call {
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        cause: Cause::Client(Some(Bytes::from_static(b"\x0a\xff"))),
        via: Via::arrived("node0", "node1").unwrap(),
        ..call()
    };
    let start = Instant::now();
    let serving = async {
        let call = harness.peer.call("Read").await;
        assert_eq!(call.header(proto::REQUEST_METADATA_HEADER), Some("Cv8")); // PXY-28
        assert_eq!(call.header(Via::HEADER), Some("node0,node1")); // PXY-78
        let timeout = call.header("grpc-timeout").unwrap(); // PXY-67
        assert!(timeout.starts_with('5') || timeout.starts_with('4'), "{timeout}");
        call
    };
    let (read, _call) = tokio::join!(read_all(&harness.tier2, call.clone(), whole()), serving);
    assert!(matches!(read, Err(Tier2Error::DeadlineExceeded)), "{read:?}");
    assert_took(start, 5);
}

#[tokio::test(start_paused = true)]
async fn absence_is_told_before_a_stream_begins_however_late_it_comes() {
    let harness = Harness::new();
    let serving = async {
        harness.peer.call("Read").await.refuse(Code::NotFound, &[]);
        let mut call = harness.peer.call("Read").await;
        call.begin();
        call.send(&data(b""));
        call.finish(Code::NotFound);
    };
    let reading = async {
        for _ in 0..2 {
            let opened = harness.tier2.read(&call(), &digest_of(b"hello"), whole()).await;
            assert!(matches!(opened, Err(Tier2Error::NotFound))); // PXY-03
        }
    };
    tokio::join!(reading, serving);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_early_is_short_and_one_that_goes_on_is_corrupt() {
    let harness = Harness::new();
    let sent: [&[&[u8]]; 5] = [
        &[],
        &[b"hell"],
        &[b"hello!"],
        &[b"hello", b"!"],
        &[b"hell", b"o!"],
    ];
    let serving = async {
        for messages in sent {
            let mut call = harness.peer.call("Read").await;
            for bytes in messages {
                call.send(&data(bytes));
            }
            call.finish(Code::Ok);
        }
    };
    let reading = async {
        for messages in sent {
            let read = read_all(&harness.tier2, call(), whole()).await;
            match messages.concat().len() {
                0..5 => assert!(matches!(read, Err(Tier2Error::Short)), "{read:?}"), // PXY-48
                _ => assert!(matches!(read, Err(Tier2Error::Corrupt(_))), "{read:?}"),
            }
        }
    };
    tokio::join!(reading, serving);
}

#[tokio::test(start_paused = true)]
async fn a_range_gets_no_byte_beyond_its_end() {
    let harness = Harness::new();
    let serving = async {
        let call = harness.peer.call("Read").await;
        call.answer(&data(b"ello"));
    };
    let (read, ()) = tokio::join!(read_all(&harness.tier2, call(), part(1, 2)), serving);
    assert!(matches!(read, Err(Tier2Error::Corrupt(_))), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_before_the_first_byte_is_a_stall_and_gives_up_the_connection() {
    let harness = Harness::new();
    let start = Instant::now();
    let (read, silent) = tokio::join!(
        read_all(&harness.tier2, call(), whole()),
        harness.peer.call("Read")
    );
    assert!(matches!(read, Err(Tier2Error::Stalled)), "{read:?}");
    assert_took(start, 10);
    let serving = async {
        let call = harness.peer.call("Read").await;
        assert_ne!(
            call.connection, silent.connection,
            "the silent connection may be dead"
        );
        call.answer(&data(b"hello"));
    };
    let (read, ()) = tokio::join!(read_all(&harness.tier2, call(), whole()), serving);
    assert_eq!(read.unwrap(), b"hello");
}

#[tokio::test(start_paused = true)]
async fn a_stall_is_counted_from_the_last_byte() {
    let harness = Harness::new();
    let start = Instant::now();
    let serving = async {
        let mut call = harness.peer.call("Read").await;
        call.send(&data(b"h"));
        tokio::time::sleep(Duration::from_secs(9)).await;
        call.send(&data(b"e"));
        tokio::time::sleep(Duration::from_secs(9)).await;
        call.send(&data(b"l"));
        call
    };
    let (read, _call) = tokio::join!(read_all(&harness.tier2, call(), whole()), serving);
    assert!(matches!(read, Err(Tier2Error::Stalled)), "{read:?}");
    assert_took(start, 28);
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_without_bytes_do_not_hold_a_read_for_ever() {
    let harness = Harness::new();
    let serving = async {
        let mut call = harness.peer.call("Read").await;
        loop {
            call.send(&data(b""));
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    };
    let read = tokio::select! {
        read = read_all(&harness.tier2, call(), whole()) => read,
        () = serving => unreachable!("it goes on for ever"),
    };
    assert!(matches!(read, Err(Tier2Error::Stalled)), "{read:?}"); // P10
}

#[tokio::test(start_paused = true)]
async fn a_reset_midway_is_down_and_never_an_end() {
    let harness = Harness::new();
    for reason in [
        h2::Reason::CANCEL,
        h2::Reason::INTERNAL_ERROR,
        h2::Reason::NO_ERROR,
    ] {
        let serving = async {
            let mut call = harness.peer.call("Read").await;
            call.send(&data(b"hello"));
            call
        };
        let reading = async { harness.tier2.read(&call(), &digest_of(b"hello"), whole()).await };
        let (opened, arrived) = tokio::join!(reading, serving);
        let mut stream = opened.unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "hello");
        arrived.reset(reason);
        let end = stream.next().await;
        assert!(
            matches!(end, Some(Err(Tier2Error::Down(_)))),
            "{reason:?}: {end:?}"
        );
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_is_asked_for_again_and_a_third_refusal_is_down() {
    let harness = Harness::new();
    for refusals in [1, 2, 3] {
        let serving = async {
            for _ in 0..refusals {
                let call = harness.peer.call("Read").await;
                call.reset(h2::Reason::REFUSED_STREAM);
            }
            if refusals < 3 {
                harness.peer.call("Read").await.answer(&data(b"hello"));
            }
        };
        let (read, ()) = tokio::join!(read_all(&harness.tier2, call(), whole()), serving);
        match refusals {
            1 | 2 => assert_eq!(read.unwrap(), b"hello"),
            _ => assert!(matches!(read, Err(Tier2Error::Down(_))), "{read:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_resets_it() {
    let harness = Harness::new();
    let serving = async {
        let mut call = harness.peer.call("Read").await;
        call.send(&data(b"hel"));
        call
    };
    let reading = async { harness.tier2.read(&call(), &digest_of(b"hello"), whole()).await };
    let (opened, mut arrived) = tokio::join!(reading, serving);
    drop(opened.unwrap());
    let reason = std::future::poll_fn(|cx| arrived.begin().poll_reset(cx)).await;
    assert_eq!(reason.unwrap(), h2::Reason::CANCEL); // PXY-69
}

#[tokio::test(start_paused = true)]
async fn an_empty_range_still_tells_absence() {
    let harness = Harness::new();
    let end = ByteRange::within(&digest_of(b"hello"), 5, None).unwrap();
    let serving = async {
        use proto::reapi::FindMissingBlobsResponse;
        let call = harness.peer.call("FindMissingBlobs").await;
        call.answer(&FindMissingBlobsResponse::default());
        let call = harness.peer.call("FindMissingBlobs").await;
        call.answer(&FindMissingBlobsResponse {
            missing_blob_digests: vec![to_wire(&digest_of(b"hello"))],
        });
    };
    let reading = async {
        let found = read_all(&harness.tier2, call(), end).await;
        assert_eq!(found.unwrap(), b""); // BS-READ-02
        let missing = read_all(&harness.tier2, call(), end).await;
        assert!(matches!(missing, Err(Tier2Error::NotFound)));
    };
    tokio::join!(reading, serving);
}

#[tokio::test(start_paused = true)]
async fn readers_that_stall_hold_up_no_stranger() {
    // P10
    let harness = Harness::new();
    let hash = digest_of(b"large").hash().to_hex();
    let large = Digest::parse(Function::Sha256, &hash, 100 << 20).unwrap();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let serving = async {
            let mut served = harness.peer.call("Read").await;
            for _ in 0..5 {
                served.send(&data(&[7; 1 << 20]));
            }
            served
        };
        let (call, whole) = (call(), ByteRange::whole(&large));
        let (stream, served) = tokio::join!(harness.tier2.read(&call, &large, whole), serving);
        stalled.push((stream.unwrap(), served));
    }
    let serving = async {
        let call = harness.peer.call("Read").await;
        call.answer(&data(b"hello"));
    };
    let (read, ()) = tokio::join!(read_all(&harness.tier2, call(), whole()), serving);
    assert_eq!(read.unwrap(), b"hello");
}
