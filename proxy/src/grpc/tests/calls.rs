//! What all calls have in common: deadlines, metrics, capabilities, health.

use std::time::Duration;

use proto::bytestream::ReadRequest;
use proto::reapi;
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::harness::*;
use crate::tier2::Tier2Error;

const READ: &str = "/google.bytestream.ByteStream/Read";

#[tokio::test]
async fn capabilities_are_told_while_tier_2_is_down() {
    // CAP-01, CAP-25, R13, R18
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let mut client = node.capabilities().await;
    let request = reapi::GetCapabilitiesRequest::default();
    let cache = client
        .get_capabilities(request)
        .await
        .unwrap()
        .into_inner()
        .cache_capabilities
        .unwrap();
    assert_eq!(
        cache.max_batch_total_size_bytes,
        i64::try_from(BATCH_BYTES_MAX).unwrap()
    );
    assert_eq!(
        cache.max_cas_blob_size_bytes,
        i64::try_from(BLOB_BYTES_MAX).unwrap()
    );
    let request = reapi::GetCapabilitiesRequest {
        instance_name: "a/blobs".into(), // INST-02
    };
    assert_eq!(
        code(client.get_capabilities(request).await),
        Code::InvalidArgument
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_with_its_deadline_before_its_first_byte() {
    // GEN-08, R14
    let node = Node::new().await;
    let digest = node.plant(b"hello");
    node.tier2.hold_reads_at(0);
    let message = prost::Message::encode_to_vec(&ReadRequest {
        resource_name: read_name(&digest),
        ..Default::default()
    });
    // Sent by hand: the timer of tonic's client would fire first.
    let mut raw = node.raw().await;
    let begun = tokio::time::Instant::now();
    let code = raw
        .send_with(READ, framed(&message), |request| {
            request.header("grpc-timeout", "3S")
        })
        .await;
    assert_eq!(code, Some(Code::DeadlineExceeded));
    assert_eq!(begun.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_its_deadline_midway() {
    let node = Node::new().await;
    let digest = node.plant(&[7; 1 << 20]);
    node.tier2.hold_reads_at(512 * 1024);
    let mut request = Request::new(ReadRequest {
        resource_name: read_name(&digest),
        ..Default::default()
    });
    request
        .metadata_mut()
        .insert("grpc-timeout", "3S".parse().unwrap());
    let mut stream = node.byte_stream().await.read(request).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().data.is_empty());
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(code(end), Code::DeadlineExceeded);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_by_the_code_that_left() {
    let node = Node::new().await;
    let digest = node.plant(b"hello");
    let mut client = node.byte_stream().await;
    let request = |resource_name| ReadRequest {
        resource_name,
        ..Default::default()
    };
    read(&mut client, request(read_name(&digest))).await.unwrap();
    read(&mut client, request("x".into())).await.unwrap_err();
    let mut raw = node.raw().await;
    raw.send("/no/such/method?of=ours", framed(b"")).await;
    let count = |method: &str, code: &str| node.metrics.calls.total.with_label_values(&[method, code]).get();
    assert_eq!(count("ByteStream/Read", "OK"), 1);
    assert_eq!(count("ByteStream/Read", "INVALID_ARGUMENT"), 1);
    assert_eq!(count("other", "UNIMPLEMENTED"), 1);
    assert_eq!(node.metrics.calls.sent_bytes.get(), 5);
    assert_eq!(
        node.metrics
            .calls
            .in_flight
            .with_label_values(&["ByteStream/Read"])
            .get(),
        0
    );
    assert_eq!(
        node.metrics
            .calls
            .seconds
            .with_label_values(&["ByteStream/Read"])
            .get_sample_count(),
        2
    );
}

#[tokio::test]
async fn methods_that_are_not_offered_are_unimplemented() {
    // GEN-02, CAP-18
    let node = Node::new().await;
    let mut raw = node.raw().await;
    for path in [
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/SplitBlob",
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/SpliceBlob",
        "/build.bazel.remote.execution.v2.Execution/Execute",
        "/build.bazel.remote.asset.v1.Fetch/FetchBlob",
        "/google.bytestream.ByteStream/Nothing",
        "/",
    ] {
        assert_eq!(
            raw.send(path, framed(b"")).await,
            Some(Code::Unimplemented),
            "{path}"
        );
    }
}

#[tokio::test]
async fn large_headers_pass_and_odd_ones_change_nothing() {
    // META-06, META-03
    let node = Node::new().await;
    let digest = node.plant(b"hello");
    let message = prost::Message::encode_to_vec(&ReadRequest {
        resource_name: read_name(&digest),
        ..Default::default()
    });
    let mut raw = node.raw().await;
    for value in ["A".repeat(11 * 1024), "!".into(), String::new()] {
        let code = raw
            .send_with(READ, framed(&message), |request| {
                let request = request.header(proto::REQUEST_METADATA_HEADER, &value);
                (0..6).fold(request, |request, number| {
                    request.header(format!("x-remote-{number}"), "v".repeat(8 * 1024))
                })
            })
            .await;
        assert_eq!(code, Some(Code::Ok));
    }
}

#[tokio::test]
async fn health_says_what_it_is_told() {
    let node = Node::new().await;
    let mut client = HealthClient::new(node.channel().await);
    let mut check = async |service: &str| {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        client
            .check(request)
            .await
            .map(|answer| answer.into_inner().status)
            .map_err(|status| status.code())
    };
    assert_eq!(check("").await, Ok(ServingStatus::NotServing as i32));
    node.health.set_serving(true).await;
    assert_eq!(check("").await, Ok(ServingStatus::Serving as i32));
    assert_eq!(
        check("google.bytestream.ByteStream").await,
        Ok(ServingStatus::Serving as i32)
    );
    assert_eq!(check("no.such.Service").await, Err(Code::NotFound));
}

#[tokio::test]
async fn reflection_lists_what_is_served() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let node = Node::new().await;
    let mut client = ServerReflectionClient::new(node.channel().await);
    let mut ask = async |request: MessageRequest| {
        let request = ServerReflectionRequest {
            message_request: Some(request),
            ..Default::default()
        };
        let mut answers = client
            .server_reflection_info(futures::stream::iter([request]))
            .await
            .unwrap()
            .into_inner();
        answers.message().await.unwrap().unwrap().message_response
    };
    let Some(MessageResponse::ListServicesResponse(list)) =
        ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("a list was asked for");
    };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "build.bazel.remote.execution.v2.ActionCache",
            "build.bazel.remote.execution.v2.Capabilities",
            "build.bazel.remote.execution.v2.ContentAddressableStorage",
            "google.bytestream.ByteStream",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
        ]
    ); // GEN-01
    let symbol = MessageRequest::FileContainingSymbol("google.bytestream.ByteStream".into());
    assert!(matches!(
        ask(symbol).await,
        Some(MessageResponse::FileDescriptorResponse(_))
    ));
}

#[tokio::test]
async fn five_hundred_reads_at_once_are_all_answered() {
    // GEN-16
    let node = Node::new().await;
    let digest = node.plant(&[7; 10_000]);
    let client = node.byte_stream().await;
    let reads = (0..500).map(|_| {
        let mut client = client.clone();
        let request = ReadRequest {
            resource_name: read_name(&digest),
            ..Default::default()
        };
        async move { read(&mut client, request).await.map(|bytes| bytes.len()) }
    });
    for len in futures::future::join_all(reads).await {
        assert_eq!(len.unwrap(), 10_000);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted_and_holds_nothing() {
    // GEN-09, ERR-02
    let node = Node::new().await;
    let digest = node.plant(&[7; 1 << 20]);
    node.tier2.hold_reads_at(100_000);
    let mut client = node.byte_stream().await;
    let request = ReadRequest {
        resource_name: read_name(&digest),
        ..Default::default()
    };
    let mut stream = client.read(request).await.unwrap().into_inner();
    stream.message().await.unwrap();
    drop((stream, client));
    assert!(node.server.drain(Duration::from_secs(30)).await.is_clean());
    let cancelled = node
        .metrics
        .calls
        .total
        .with_label_values(&["ByteStream/Read", "CANCELLED"]);
    assert_eq!(cancelled.get(), 1);
}
