//! What clients rely on without thinking of it.

use bytes::Bytes;
use prost::Message;
use proto::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use proto::{reapi, wire};
use tonic::{Code, Request};

use super::harness::*;
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest, Function};
use crate::tier2::{RawActionResult, Tier2, Tier2Error};

const FIND_MISSING: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";

fn find(digests: &[&[u8]]) -> reapi::FindMissingBlobsRequest {
    reapi::FindMissingBlobsRequest {
        blob_digests: digests.iter().map(|bytes| digest(bytes)).collect(),
        ..Default::default()
    }
}

fn batch_read(digests: &[&[u8]]) -> reapi::BatchReadBlobsRequest {
    reapi::BatchReadBlobsRequest {
        digests: digests.iter().map(|bytes| digest(bytes)).collect(),
        ..Default::default()
    }
}

fn whole_upload(instance: &str, bytes: &'static [u8]) -> Vec<WriteRequest> {
    let name = write_name(&Digest::of(Function::Sha256, bytes));
    vec![WriteRequest {
        resource_name: format!("{instance}{name}"),
        write_offset: 0,
        finish_write: true,
        data: Bytes::from_static(bytes),
    }]
}

fn whole(resource_name: String) -> ReadRequest {
    ReadRequest {
        resource_name,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_field_from_the_future_in_a_request_changes_nothing() {
    // GEN-11
    let node = Node::new().await;
    let mut request = find(&[b"hello"]).encode_to_vec();
    prost::encoding::bytes::encode(1000, &Bytes::from_static(b"future"), &mut request);
    let mut raw = node.raw().await;
    assert_eq!(raw.send(FIND_MISSING, framed(&request)).await, Some(Code::Ok));
}

#[tokio::test]
async fn pings_are_answered_however_many_there_are() {
    // GEN-13
    let node = Node::new().await;
    let (mut requests, mut connection) = h2::client::handshake(node.connect()).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    drop(node.tasks.spawn(async {
        // Ends with the test.
        let _end = connection.await;
    }));
    for _ in 0..200 {
        pings.ping(h2::Ping::opaque()).await.unwrap();
    }
    let health = http::Request::post("http://node/grpc.health.v1.Health/Check").body(());
    requests = requests.ready().await.expect("no GOAWAY came");
    let (answer, _body) = requests.send_request(health.unwrap(), true).unwrap();
    answer.await.expect("nor does one come");
}

#[tokio::test]
async fn what_was_acknowledged_is_seen_on_every_connection() {
    // GEN-17, BS-WRITE-28, CAS-BUB-19, CAS-GEN-06
    let node = Node::new().await;
    let mut writer = node.byte_stream().await;
    write(&mut writer, whole_upload("", b"hello")).await.unwrap();
    let mut other = node.cas().await;
    let found = other.find_missing_blobs(find(&[b"hello"])).await.unwrap();
    assert_eq!(found.into_inner().missing_blob_digests, []);
    let found = other.batch_read_blobs(batch_read(&[b"hello"])).await.unwrap();
    assert_eq!(found.into_inner().responses[0].data, "hello");
}

#[tokio::test]
async fn a_blob_is_bytes_and_may_be_written_again() {
    // CAS-GEN-09, CAS-GEN-15, DIG-23, DIG-24, BS-WRITE-18: no Directory, and no canonical one either
    let node = Node::new().await;
    let mut client = node.byte_stream().await;
    for bytes in [&b"\xff\xff"[..], b"\x0a\x00\x0a\x00"] {
        let digest = Digest::of(Function::Sha256, bytes);
        for _ in 0..2 {
            let answer = write(&mut client, whole_upload("", bytes)).await.unwrap();
            assert_eq!(answer.committed_size, i64::try_from(bytes.len()).unwrap());
        }
        let found = read(&mut client, whole(read_name(&digest))).await.unwrap();
        assert_eq!(found, bytes);
    }
}

#[tokio::test]
async fn a_name_that_went_round_outside_of_the_api_can_be_read() {
    // RN-17: the tail of bytestream://host/…
    let node = Node::new().await;
    let mut client = node.byte_stream().await;
    write(&mut client, whole_upload("some/name/", b"hello"))
        .await
        .unwrap();
    let tail = format!("some/name/{}", read_name(&Digest::of(Function::Sha256, b"hello")));
    assert_eq!(read(&mut client, whole(tail)).await.unwrap(), b"hello");
}

#[tokio::test]
async fn digests_of_a_request_have_the_function_that_it_names() {
    // DIG-16, DIG-17
    let node = Node::new().await;
    let mut client = node.cas().await;
    let sha1 = reapi::Digest {
        hash: "da39a3ee5e6b4b0d3255bfef95601890afd80709".into(),
        size_bytes: 5,
    };
    for digest_function in [0, 1] {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: vec![digest(b"hello"), sha1.clone()],
            digest_function,
            ..Default::default()
        };
        for _again in 0..2 {
            // ERR-18: the same code each time
            assert_eq!(
                code(client.find_missing_blobs(request.clone()).await),
                Code::InvalidArgument
            );
        }
    }
}

#[tokio::test]
async fn compressors_that_nobody_knows_are_not_used_and_do_no_harm() {
    // CAS-BRB-08, CAP-14, GEN-10
    let node = Node::new().await;
    node.plant(b"hello");
    let request = reapi::BatchReadBlobsRequest {
        acceptable_compressors: vec![99, 1, -1],
        ..batch_read(&[b"hello"])
    };
    let found = node.cas().await.batch_read_blobs(request).await.unwrap();
    let found = &found.into_inner().responses[0];
    assert_eq!((&found.data[..], found.compressor), (&b"hello"[..], 0));
    // BS-QWS-10, BS-QWS-12
    let digest = Digest::of(Function::Sha256, b"hello");
    let request = QueryWriteStatusRequest {
        resource_name: format!("uploads/u/compressed-blobs/zstd/{digest}"),
    };
    let told = node.byte_stream().await.query_write_status(request).await;
    assert_eq!(code(told), Code::InvalidArgument);
}

#[tokio::test]
async fn what_stands_in_request_metadata_is_not_looked_at() {
    // META-04, META-05
    let node = Node::new().await;
    let mut client = node.cas().await;
    for action_id in [
        "capabilities",
        "input",
        "lease-extension",
        "remote_downloader",
        "",
    ] {
        let metadata = reapi::RequestMetadata {
            action_id: action_id.into(),
            ..Default::default()
        };
        let mut request = Request::new(find(&[b""]));
        let value = tonic::metadata::BinaryMetadataValue::from_bytes(&metadata.encode_to_vec());
        request
            .metadata_mut()
            .insert_bin(proto::REQUEST_METADATA_HEADER, value);
        assert!(client.find_missing_blobs(request).await.is_ok(), "{action_id}");
    }
}

#[tokio::test]
async fn what_tier_2_has_got_meanwhile_is_found_and_what_it_lost_is_not() {
    // PXY-35, PXY-38
    let node = Node::new().await;
    let mut client = node.byte_stream().await;
    let digest = Digest::of(Function::Sha256, b"hello");
    let missing = async || {
        let found = node.cas().await.find_missing_blobs(find(&[b"hello"])).await;
        found.unwrap().into_inner().missing_blob_digests.len()
    };
    assert_eq!(
        code(read(&mut client, whole(read_name(&digest))).await),
        Code::NotFound
    );
    assert_eq!(missing().await, 1);
    node.plant(b"hello");
    assert_eq!(missing().await, 0);
    assert_eq!(
        read(&mut client, whole(read_name(&digest))).await.unwrap(),
        b"hello"
    );
    node.tier2.evict(&key(&digest));
    assert_eq!(missing().await, 1, "P2: our copy is no proof");
}

#[tokio::test]
async fn an_outage_takes_nothing_from_what_is_here_and_is_no_miss() {
    // PXY-01, PXY-04, PXY-65, BS-READ-11, ERR-15
    let node = Node::new().await;
    let mut client = node.byte_stream().await;
    write(&mut client, whole_upload("", b"here")).await.unwrap();
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let here = Digest::of(Function::Sha256, b"here");
    assert_eq!(read(&mut client, whole(read_name(&here))).await.unwrap(), b"here");
    let there = Digest::of(Function::Sha256, b"there");
    assert_eq!(
        code(read(&mut client, whole(read_name(&there))).await),
        Code::Unavailable
    );
    let found = node
        .cas()
        .await
        .batch_read_blobs(batch_read(&[b"there", b"here"]))
        .await;
    let found = found.unwrap().into_inner().responses;
    let codes: Vec<_> = found
        .iter()
        .map(|found| found.status.as_ref().map_or(0, |status| status.code))
        .collect();
    assert_eq!(codes, [Code::Unavailable as i32, 0]);
    assert_eq!(found[1].data, "here");
}

fn action_call() -> Call {
    Call::of_node(InstanceName::default())
}

/// Puts a result into Tier 2, past the node.
async fn plant_result(node: &Node, encoded: &Bytes) {
    let key = ActionDigest(Digest::of(Function::Sha256, b"no action at all"));
    let result = RawActionResult(encoded.clone());
    node.tier2.put_action(&action_call(), &key, result).await.unwrap();
}

fn get() -> reapi::GetActionResultRequest {
    reapi::GetActionResultRequest {
        action_digest: Some(digest(b"no action at all")),
        ..Default::default()
    }
}

fn exits_with(exit_code: i32) -> reapi::ActionResult {
    reapi::ActionResult {
        exit_code,
        stdout_digest: Some(digest(b"stdout")),
        ..Default::default()
    }
}

#[tokio::test]
async fn nothing_is_demanded_of_an_action_but_its_digest() {
    // AC-UPD-03, AC-UPD-04, AC-UPD-17, AC-GET-17
    let node = Node::new().await;
    node.plant(b"stdout");
    let mut client = node.action_cache().await;
    let request = wire::UpdateActionResultRequest {
        action_digest: Some(digest(b"no action at all")),
        action_result: Some(exits_with(1).encode_to_vec().into()),
        ..Default::default()
    };
    client.update_action_result(request).await.unwrap();
    assert!(client.get_action_result(get()).await.is_ok());
}

#[tokio::test]
async fn without_a_lease_what_becomes_of_a_result_in_tier_2_is_seen_at_once() {
    // PXY-41, PXY-43, P2
    let node = Node::new().await;
    node.plant(b"stdout");
    let mut client = node.action_cache().await;
    assert_eq!(code(client.get_action_result(get()).await), Code::NotFound);
    for exit_code in [1, 2] {
        let encoded = Bytes::from(exits_with(exit_code).encode_to_vec());
        plant_result(&node, &encoded).await;
        let found = client.get_action_result(get()).await.unwrap();
        assert_eq!(found.into_inner().0, encoded);
    }
}

#[tokio::test]
async fn an_answer_with_inlined_bytes_is_that_callers_alone() {
    // PXY-45
    let node = Node::new().await;
    node.plant(b"stdout");
    let encoded = Bytes::from(exits_with(0).encode_to_vec());
    plant_result(&node, &encoded).await;
    let mut client = node.action_cache().await;
    let inlining = reapi::GetActionResultRequest {
        inline_stdout: true,
        ..get()
    };
    let found = client.get_action_result(inlining).await.unwrap().into_inner();
    let found = reapi::ActionResult::decode(found.0).unwrap();
    assert_eq!(found.stdout_raw, "stdout");
    let plain = client.get_action_result(get()).await.unwrap();
    assert_eq!(plain.into_inner().0, encoded);
}

#[tokio::test]
async fn a_tree_is_its_directories_and_not_their_files() {
    // TREE-24
    let node = Node::new().await;
    let directory = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "file".into(),
            digest: Some(digest(b"nobody has it")),
            ..Default::default()
        }],
        ..Default::default()
    };
    node.plant(&directory.encode_to_vec());
    let request = reapi::GetTreeRequest {
        root_digest: Some(digest(&directory.encode_to_vec())),
        ..Default::default()
    };
    let mut pages = node.cas().await.get_tree(request).await.unwrap().into_inner();
    assert_eq!(pages.message().await.unwrap().unwrap().directories, [directory]);
    assert!(pages.message().await.unwrap().is_none());
}
