//! Whatever arrives, the answer is the client's fault, and the node lives on.

use proptest::prelude::*;
use prost::Message;
use proto::reapi;
use tonic::Code;

use super::harness::*;

const PATHS: [&str; 10] = [
    "/google.bytestream.ByteStream/Read",
    "/google.bytestream.ByteStream/Write",
    "/google.bytestream.ByteStream/QueryWriteStatus",
    "/build.bazel.remote.execution.v2.ActionCache/GetActionResult",
    "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult",
    "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree",
];

#[tokio::test]
async fn no_malformed_body_is_the_nodes_fault() {
    // GEN-10, ERR-14
    let bodies = [
        ("nothing", vec![]),
        ("half a prefix", vec![0, 0]),
        ("half a message", vec![0, 0, 0, 0, 9, 1]),
        ("a message too large", vec![0, 255, 255, 255, 255]),
        ("a flag from nowhere", vec![7, 0, 0, 0, 0]),
        ("a message that cannot be decoded", framed(b"\xff\xff\xff")),
        ("text that is none", framed(b"\x0a\x02\xff\xfe")),
        ("a field cut short", framed(b"\x0a\x7f")),
        ("groups without an end", framed(&[0x0b; 200])),
    ];
    let node = Node::new().await;
    let mut raw = node.raw().await;
    for path in PATHS {
        for (case, body) in &bodies {
            let code = raw.send(path, body.clone()).await;
            assert_eq!(code, Some(Code::InvalidArgument), "{case} to {path}");
        }
    }
}

#[tokio::test]
async fn compressed_messages_are_refused_as_not_implemented() {
    // GEN-12
    let node = Node::new().await;
    let mut raw = node.raw().await;
    for path in PATHS {
        let code = raw
            .send_with(path, vec![1, 0, 0, 0, 1, 0], |request| {
                request.header("grpc-encoding", "gzip")
            })
            .await;
        assert_eq!(code, Some(Code::Unimplemented), "{path}");
    }
}

#[tokio::test]
async fn health_and_reflection_have_no_faults_either() {
    let node = Node::new().await;
    let mut raw = node.raw().await;
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for garbage in [framed(b"\xff\xff\xff"), vec![0, 0], vec![7; 9]] {
        let code = raw.send("/grpc.health.v1.Health/Check", garbage.clone()).await;
        assert_eq!(code, Some(Code::InvalidArgument));
        let code = raw.send(reflection, garbage).await;
        assert!(matches!(code, Some(Code::Ok | Code::InvalidArgument)), "{code:?}");
    }
}

#[tokio::test]
async fn what_is_not_grpc_is_told_so() {
    let node = Node::new().await;
    let mut raw = node.raw().await;
    let code = raw
        .send_with(PATHS[0], framed(b""), |request| {
            let mut request = request;
            request
                .headers_mut()
                .unwrap()
                .insert("content-type", "text/html".parse().unwrap());
            request
        })
        .await;
    assert_eq!(code, None);
    let code = raw
        .send_with(PATHS[0], framed(b""), |request| {
            request.header("grpc-timeout", "soon")
        })
        .await;
    assert_eq!(code, Some(Code::InvalidArgument));
}

#[tokio::test]
async fn absent_and_malformed_fields_are_invalid_in_every_call() {
    // GEN-10, INST-05, DIG-01 to 07, DIG-15
    let bad_digests = [
        None,
        Some(reapi::Digest::default()),
        Some(reapi::Digest {
            hash: "abc".into(),
            size_bytes: 1,
        }),
        Some(reapi::Digest {
            size_bytes: -1,
            ..digest(b"x")
        }),
        Some(reapi::Digest {
            hash: digest(b"x").hash.to_uppercase(),
            size_bytes: 1,
        }),
        Some(reapi::Digest {
            size_bytes: 0,
            ..digest(b"x")
        }),
    ];
    let mut requests = Vec::new();
    for bad in bad_digests {
        let get = reapi::GetActionResultRequest {
            action_digest: bad.clone(),
            ..Default::default()
        };
        let update = reapi::UpdateActionResultRequest {
            action_digest: bad.clone(),
            action_result: Some(reapi::ActionResult::default()),
            ..Default::default()
        };
        let tree = reapi::GetTreeRequest {
            root_digest: bad.clone(),
            ..Default::default()
        };
        let find = reapi::FindMissingBlobsRequest {
            blob_digests: bad.clone().into_iter().collect(),
            ..Default::default()
        };
        requests.push((PATHS[3], get.encode_to_vec()));
        requests.push((PATHS[4], update.encode_to_vec()));
        requests.push((PATHS[9], tree.encode_to_vec()));
        if bad.is_some() {
            requests.push((PATHS[6], find.encode_to_vec())); // CAS-FMB-10
        }
    }
    let instance = |name: &str| {
        [
            &[0x0a],
            [u8::try_from(name.len()).unwrap()].as_slice(),
            name.as_bytes(),
        ]
        .concat()
    };
    for path in &PATHS[3..] {
        for name in ["/a", "a/", "a//b", "a/blobs/b", "a\u{1}"] {
            requests.push((path, instance(name)));
        }
    }
    let node = Node::new().await;
    let mut raw = node.raw().await;
    for (path, message) in requests {
        let code = raw.send(path, framed(&message)).await;
        assert_eq!(code, Some(Code::InvalidArgument), "{message:?} to {path}");
    }
    assert_eq!(node.tier2.log(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn random_bytes_never_find_a_fault(
        bodies in proptest::collection::vec((0..PATHS.len(), any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..20),
    ) {
        // GEN-10, ERR-03, ERR-14
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let codes = runtime.block_on(async {
            let node = Node::new().await;
            let mut raw = node.raw().await;
            let mut codes = Vec::new();
            for (path, whole, bytes) in bodies {
                let body = if whole { framed(&bytes) } else { bytes };
                codes.push(raw.send(PATHS[path], body).await);
            }
            codes
        });
        for code in codes {
            prop_assert!(!matches!(code, None | Some(Code::Internal | Code::Unknown)), "{code:?}");
        }
    }
}
