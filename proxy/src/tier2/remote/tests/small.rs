use proto::reapi::{
    ActionCacheUpdateCapabilities, BatchReadBlobsResponse, BatchUpdateBlobsResponse, CacheCapabilities,
    FindMissingBlobsResponse, GetCapabilitiesRequest, ServerCapabilities, batch_read_blobs_response,
    batch_update_blobs_response,
};

use super::*;

fn key() -> ActionDigest {
    ActionDigest(digest_of(b"action"))
}

async fn action(harness: &Harness) -> Result<RawActionResult, Tier2Error> {
    harness.tier2.action(&call(), &key()).await
}

async fn find_missing(harness: &Harness, digests: &[Digest]) -> Result<Vec<Digest>, Tier2Error> {
    harness.tier2.find_missing(&call(), digests).await
}

/// An action result with a field from the future.
fn raw() -> RawActionResult {
    RawActionResult(Bytes::from_static(b"\x20\x01\xfa\x3f\x01x"))
}

#[tokio::test(start_paused = true)]
async fn action_results_pass_as_the_bytes_they_are() {
    let harness = Harness::new();
    let serving = async {
        let mut call = harness.peer.call("GetActionResult").await;
        let asked: GetActionResultRequest = call.message().await.unwrap();
        assert_eq!(asked.action_digest, Some(to_wire(&key().0)));
        assert_eq!(asked.digest_function, 1); // PXY-27
        call.answer(&wire::ActionResult(raw().0)); // PXY-46
        let mut call = harness.peer.call("UpdateActionResult").await;
        let sent: wire::UpdateActionResultRequest = call.message().await.unwrap();
        assert_eq!(sent.action_result, Some(raw().0));
        call.answer(&wire::ActionResult::default());
    };
    let asking = async {
        assert_eq!(action(&harness).await.unwrap(), raw());
        harness.tier2.put_action(&call(), &key(), raw()).await.unwrap();
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn codes_keep_their_meaning() {
    let harness = Harness::new();
    let codes = [
        Code::NotFound,
        Code::Unavailable,
        Code::PermissionDenied,
        Code::Unknown,
    ];
    let serving = async {
        for code in codes {
            harness.peer.call("GetActionResult").await.refuse(code, &[]);
        }
        harness
            .peer
            .call("UpdateActionResult")
            .await
            .refuse(Code::NotFound, &[]);
    };
    let asking = async {
        for code in codes {
            let found = action(&harness).await;
            let fits = if code == Code::NotFound {
                matches!(found, Err(Tier2Error::NotFound))
            } else {
                is_code(&found, code)
            };
            assert!(fits, "{code:?}: {found:?}"); // PXY-01
        }
        let put = harness.tier2.put_action(&call(), &key(), raw()).await;
        assert!(
            is_code(&put, Code::NotFound),
            "no absence of what was sent: {put:?}"
        );
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn details_that_cannot_be_decoded_are_dropped() {
    let harness = Harness::new();
    let serving = async {
        for details in ["!", "CAkSAA=="] {
            let more = [("grpc-status-details-bin", details)];
            harness
                .peer
                .call("GetActionResult")
                .await
                .refuse(Code::Internal, &more);
        }
    };
    let asking = async {
        for details in [&b""[..], b"\x08\x09\x12\x00"] {
            match action(&harness).await {
                Err(Tier2Error::Answered(status)) => assert_eq!(status.details, details),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_that_nobody_asked_for_is_tried_again() {
    let harness = Harness::new();
    let serving = async {
        harness
            .peer
            .call("GetActionResult")
            .await
            .refuse(Code::Cancelled, &[]);
        harness
            .peer
            .call("GetActionResult")
            .await
            .answer(&wire::ActionResult(raw().0));
    };
    let (found, ()) = tokio::join!(action(&harness), serving);
    assert_eq!(found.unwrap(), raw());
}

#[tokio::test(start_paused = true)]
async fn a_small_call_that_nobody_answers_is_a_stall() {
    let harness = Harness::new();
    let start = Instant::now();
    let missing = [digest_of(b"a")];
    let (found, _call) = tokio::join!(
        find_missing(&harness, &missing),
        harness.peer.call("FindMissingBlobs")
    );
    assert!(matches!(found, Err(Tier2Error::Stalled)), "{found:?}");
    assert_took(start, 10);
}

#[tokio::test(start_paused = true)]
async fn missing_is_only_what_was_asked_for_once() {
    let harness = Harness::new();
    let (a, b) = (digest_of(b"a"), digest_of(b"b"));
    let serving = async {
        let mut call = harness.peer.call("FindMissingBlobs").await;
        let asked: FindMissingBlobsRequest = call.message().await.unwrap();
        assert_eq!(asked.blob_digests.len(), 2, "no digest twice");
        let mut upper = to_wire(&b);
        upper.hash.make_ascii_uppercase();
        call.answer(&FindMissingBlobsResponse {
            missing_blob_digests: vec![to_wire(&a), to_wire(&digest_of(b"stranger")), upper, to_wire(&a)],
        });
    };
    let asked = [a, b, a];
    let (missing, ()) = tokio::join!(find_missing(&harness, &asked), serving);
    assert_eq!(missing.unwrap(), [a]); // PXY-66
}

#[tokio::test(start_paused = true)]
async fn many_digests_go_in_several_calls_and_one_failure_is_no_presence() {
    let harness = Harness::new();
    let digests: Vec<Digest> = (0..DIGESTS_MAX + 1)
        .map(|i| digest_of(&i.to_le_bytes()))
        .collect();
    for failing in [false, true] {
        let serving = async {
            let mut counts = Vec::new();
            for part in 0..2 {
                let mut call = harness.peer.call("FindMissingBlobs").await;
                let asked: FindMissingBlobsRequest = call.message().await.unwrap();
                counts.push(asked.blob_digests.len());
                if failing && part == 1 {
                    call.refuse(Code::Internal, &[]);
                } else {
                    call.answer(&FindMissingBlobsResponse {
                        missing_blob_digests: asked.blob_digests[..1].to_vec(),
                    });
                }
            }
            counts.sort_unstable();
            assert_eq!(counts, [1, DIGESTS_MAX]); // PXY-16
        };
        let (missing, ()) = tokio::join!(find_missing(&harness, &digests), serving);
        if failing {
            assert!(is_code(&missing, Code::Internal), "{missing:?}"); // PXY-02
        } else {
            assert_eq!(missing.unwrap().len(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batches_are_answered_by_digest() {
    let harness = Harness::new();
    let (a, b) = (digest_of(b"a"), digest_of(b"b"));
    let serving = async {
        let mut call = harness.peer.call("BatchReadBlobs").await;
        let asked: BatchReadBlobsRequest = call.message().await.unwrap();
        assert_eq!(asked.digests.len(), 2);
        let response = |digest: &Digest, data: &'static [u8]| batch_read_blobs_response::Response {
            digest: Some(to_wire(digest)),
            data: Bytes::from_static(data),
            ..Default::default()
        };
        call.answer(&BatchReadBlobsResponse {
            responses: vec![response(&b, b"b"), response(&a, b"a")],
        });
        let mut call = harness.peer.call("BatchUpdateBlobs").await;
        let sent: BatchUpdateBlobsRequest = call.message().await.unwrap();
        assert_eq!(sent.requests.len(), 1, "no blob twice");
        call.answer(&BatchUpdateBlobsResponse {
            responses: vec![batch_update_blobs_response::Response {
                digest: sent.requests[0].digest.clone(),
                status: None,
            }],
        });
    };
    let asking = async {
        let found = harness.tier2.read_batch(&call(), &[a, b, a]).await;
        let found: Vec<Bytes> = found.into_iter().map(Result::unwrap).collect();
        assert_eq!(found, ["a", "b", "a"]);
        let blob = || (Verified::of(a, b"a").unwrap(), Bytes::from_static(b"a"));
        let acks = harness.tier2.write_batch(&call(), vec![blob(), blob()]).await;
        assert!(matches!(acks[..], [Ok(_), Ok(_)]), "{acks:?}"); // CAS-BUB-13
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn a_tier_2_without_batches_is_served_around_and_remembered() {
    use proto::bytestream::{ReadResponse, WriteRequest, WriteResponse};
    let harness = Harness::new();
    let a = digest_of(b"a");
    let serving = async {
        harness
            .peer
            .call("BatchReadBlobs")
            .await
            .refuse(Code::Unimplemented, &[]);
        for _ in 0..2 {
            let call = harness.peer.call("Read").await;
            call.answer(&ReadResponse {
                data: Bytes::from_static(b"a"),
            });
        }
        harness
            .peer
            .call("BatchUpdateBlobs")
            .await
            .refuse(Code::Unimplemented, &[]);
        for _ in 0..2 {
            let mut call = harness.peer.call("Write").await;
            call.end::<WriteRequest>().await;
            call.answer(&WriteResponse { committed_size: 1 });
        }
    };
    let asking = async {
        for _ in 0..2 {
            let found = harness.tier2.read_batch(&call(), &[a]).await;
            assert_eq!(found[0].as_ref().unwrap(), "a"); // PXY-11
        }
        for _ in 0..2 {
            let blob = (Verified::of(a, b"a").unwrap(), Bytes::from_static(b"a"));
            let acks = harness.tier2.write_batch(&call(), vec![blob]).await;
            assert!(acks[0].is_ok(), "{acks:?}");
        }
    };
    tokio::join!(asking, serving);
}

#[tokio::test(start_paused = true)]
async fn capabilities_are_learnt_per_instance_and_kept_when_tier_2_goes() {
    let harness = Harness::with(|options| {
        options.instances = InstanceMap::new(|_| InstanceName::parse("up").unwrap());
    });
    let instance = InstanceName::parse("client").unwrap();
    let assumed = harness.tier2.offers(&instance);
    assert!(assumed.update_enabled && assumed.batch_bytes_max.is_some());
    let answer = |limit| ServerCapabilities {
        cache_capabilities: Some(CacheCapabilities {
            action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: true }),
            max_batch_total_size_bytes: limit,
            ..CacheCapabilities::default()
        }),
        ..ServerCapabilities::default()
    };
    let start = Instant::now();
    for (limit, seconds) in [(1000, 0), (2000, 60)] {
        let mut call = harness.peer.call("GetCapabilities").await;
        assert_took(start, seconds);
        let asked: GetCapabilitiesRequest = call.message().await.unwrap();
        assert_eq!(asked.instance_name, "up"); // PXY-22, PXY-24
        call.answer(&answer(limit));
    }
    // The third question shows that the second answer was taken.
    let call = harness.peer.call("GetCapabilities").await;
    assert_eq!(harness.tier2.offers(&instance).batch_bytes_max, Some(2000));
    call.refuse(Code::Unavailable, &[]);
    let call = harness.peer.call("GetCapabilities").await;
    assert_took(start, 121);
    assert_eq!(
        harness.tier2.offers(&instance).batch_bytes_max,
        Some(2000),
        "the last known good"
    );
    drop(call);
}

#[tokio::test(start_paused = true)]
async fn a_probe_takes_any_answer_for_life_and_silence_for_none() {
    let harness = Harness::new();
    let probe = || {
        let deadline = Instant::now() + Duration::from_millis(250);
        harness.tier2.probe(Service::Cas, deadline)
    };
    let serving = async {
        let call = harness.peer.call("FindMissingBlobs").await;
        call.answer(&FindMissingBlobsResponse::default());
        harness
            .peer
            .call("FindMissingBlobs")
            .await
            .refuse(Code::Unauthenticated, &[]);
        harness
            .peer
            .call("FindMissingBlobs")
            .await
            .refuse(Code::Unavailable, &[]);
        let silent = harness.peer.call("FindMissingBlobs").await;
        let call = harness.peer.call("FindMissingBlobs").await;
        assert_ne!(
            call.connection, silent.connection,
            "the next probe has a fresh connection"
        );
        call.answer(&FindMissingBlobsResponse::default());
    };
    let probing = async {
        probe().await.unwrap();
        probe().await.unwrap();
        assert!(is_code(&probe().await, Code::Unavailable));
        assert!(probe().await.is_err());
        probe().await.unwrap();
    };
    tokio::join!(probing, serving);
}
