//! GetActionResult and UpdateActionResult.

use bytes::Bytes;
use prost::Message;
use proto::{reapi, wire};
use tonic::Code;

use super::harness::*;
use crate::call::{Call, InstanceName};
use crate::digest::{ActionDigest, Digest, Function};
use crate::tier2::{Offers, RawActionResult, Tier2, Tier2Error};

fn result() -> reapi::ActionResult {
    reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "out/file".into(),
            digest: Some(digest(b"bytes of the file")),
            ..Default::default()
        }],
        stdout_digest: Some(digest(b"stdout")),
        stderr_digest: Some(digest(b"")),
        exit_code: 3,
        ..Default::default()
    }
}

/// The encoded result with a field that no version of the protocol has yet.
fn encoded() -> Bytes {
    let mut encoded = result().encode_to_vec();
    prost::encoding::bytes::encode(1000, &Bytes::from_static(b"future"), &mut encoded);
    encoded.into()
}

fn update(action: &[u8], result: impl Into<Option<Bytes>>) -> wire::UpdateActionResultRequest {
    wire::UpdateActionResultRequest {
        action_digest: Some(digest(action)),
        action_result: result.into(),
        ..Default::default()
    }
}

fn get(action: &[u8]) -> reapi::GetActionResultRequest {
    reapi::GetActionResultRequest {
        action_digest: Some(digest(action)),
        ..Default::default()
    }
}

async fn node_with_blobs() -> Node {
    let node = Node::new().await;
    node.plant(b"bytes of the file");
    node.plant(b"stdout");
    node
}

#[tokio::test]
async fn a_result_is_read_back_byte_for_byte() {
    // AC-UPD-01, AC-RES-02, AC-GET-18
    let node = node_with_blobs().await;
    let mut client = node.action_cache().await;
    let updated = client
        .update_action_result(update(b"action", encoded()))
        .await
        .unwrap();
    assert_eq!(updated.into_inner().0, encoded());
    let found = node
        .action_cache()
        .await
        .get_action_result(get(b"action"))
        .await
        .unwrap();
    assert_eq!(found.into_inner().0, encoded());
}

#[tokio::test]
async fn a_result_belongs_to_its_action_size_and_instance() {
    let node = node_with_blobs().await;
    let mut client = node.action_cache().await;
    client
        .update_action_result(update(b"action", encoded()))
        .await
        .unwrap();
    let mut other_size = get(b"action");
    other_size.action_digest.as_mut().unwrap().size_bytes += 1; // AC-GET-10
    let other_instance = reapi::GetActionResultRequest {
        instance_name: "c".into(), // INST-08
        ..get(b"action")
    };
    for request in [get(b"other"), other_size, other_instance] {
        assert_eq!(code(client.get_action_result(request).await), Code::NotFound); // AC-GET-01
    }
}

#[tokio::test]
async fn what_is_asked_for_is_inlined() {
    // AC-GET-11 to 15, AC-GET-20
    let node = node_with_blobs().await;
    let mut client = node.action_cache().await;
    client
        .update_action_result(update(b"action", encoded()))
        .await
        .unwrap();
    let request = reapi::GetActionResultRequest {
        inline_stdout: true,
        inline_stderr: true,
        inline_output_files: vec!["out/file".into(), "no such file".into()],
        ..get(b"action")
    };
    let found = client.get_action_result(request).await.unwrap().into_inner();
    let mut expected = result();
    expected.stdout_raw = Bytes::from_static(b"stdout");
    expected.output_files[0].contents = Bytes::from_static(b"bytes of the file");
    assert_eq!(found.parse().unwrap(), expected);
    assert!(found.0.windows(6).any(|window| window == b"future"));
}

#[tokio::test]
async fn an_outage_is_never_a_miss() {
    // AC-GET-08, AC-GET-09
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let mut client = node.action_cache().await;
    assert_eq!(
        code(client.get_action_result(get(b"action")).await),
        Code::Unavailable
    );
    let updated = client.update_action_result(update(b"action", encoded())).await;
    assert_eq!(code(updated), Code::Unavailable); // P1
}

#[tokio::test]
async fn an_update_that_makes_no_sense_is_refused() {
    // AC-UPD-05, AC-UPD-14, GEN-10
    let nameless = wire::UpdateActionResultRequest {
        action_digest: None,
        ..update(b"action", encoded())
    };
    let without_digest = reapi::ActionResult {
        output_files: vec![reapi::OutputFile::default()],
        ..Default::default()
    };
    let large = reapi::ActionResult {
        stdout_raw: vec![7; 4 << 20].into(),
        ..Default::default()
    };
    let cases = [
        ("no action digest", nameless),
        ("no result", update(b"action", None)),
        ("no message", update(b"action", Bytes::from_static(b"\xff\xff"))),
        (
            "no digest of a file",
            update(b"action", Bytes::from(without_digest.encode_to_vec())),
        ),
        (
            "too large to read back",
            update(b"action", Bytes::from(large.encode_to_vec())),
        ),
    ];
    let node = Node::new().await;
    let mut client = node.action_cache().await;
    for (case, request) in cases {
        assert_eq!(
            code(client.update_action_result(request).await),
            Code::InvalidArgument,
            "{case}"
        );
    }
    assert_eq!(node.tier2.count("put_action"), 0);
    client
        .update_action_result(update(b"action", Bytes::new()))
        .await
        .unwrap(); // AC-UPD-15
}

#[tokio::test]
async fn updates_are_refused_where_tier_2_takes_none() {
    // AC-UPD-09
    let node = Node::new().await;
    node.tier2.set_offers(Offers {
        update_enabled: false,
        ..Offers::default()
    });
    let mut client = node.action_cache().await;
    let result = client.update_action_result(update(b"action", encoded())).await;
    assert_eq!(code(result), Code::PermissionDenied);
}

#[tokio::test]
async fn a_stored_result_that_nobody_can_use_is_a_miss() {
    // AC-GET-07, P3
    let node = node_with_blobs().await;
    let mut faulty = vec![result(); 3];
    faulty[0].output_files[0].digest = None;
    faulty[1].stdout_digest.as_mut().unwrap().hash.pop();
    faulty[2].output_files[0].contents = Bytes::from_static(b"other bytes");
    let mut stored: Vec<Bytes> = faulty
        .iter()
        .map(|result| result.encode_to_vec().into())
        .collect();
    stored.push(Bytes::from_static(b"\xff"));
    let key = ActionDigest(Digest::of(Function::Sha256, b"action"));
    let mut client = node.action_cache().await;
    for (number, bytes) in stored.into_iter().enumerate() {
        node.tier2
            .put_action(&call(), &key, RawActionResult(bytes))
            .await
            .unwrap();
        let found = client.get_action_result(get(b"action")).await;
        assert_eq!(code(found), Code::NotFound, "case {number}");
    }
}

#[tokio::test]
async fn hits_and_misses_of_action_results_are_counted_and_failures_are_neither() {
    let node = node_with_blobs().await;
    let mut client = node.action_cache().await;
    client.get_action_result(get(b"action")).await.unwrap_err();
    let stored = client.update_action_result(update(b"action", encoded())).await;
    assert!(stored.is_ok());
    client.get_action_result(get(b"action")).await.unwrap();
    node.tier2.fail_with(Some(Tier2Error::Stalled));
    client.get_action_result(get(b"action")).await.unwrap_err();
    assert_eq!(node.metrics.reads.hits.with_label_values(&["2", "ac"]).get(), 1);
    assert_eq!(node.metrics.reads.misses.with_label_values(&["ac"]).get(), 1);
}

fn call() -> Call {
    Call::of_node(InstanceName::default())
}
