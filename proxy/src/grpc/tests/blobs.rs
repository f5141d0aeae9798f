//! Reads, and many blobs in one call.

use bytes::Bytes;
use proto::bytestream::ReadRequest;
use proto::reapi;
use tonic::Code;

use super::harness::*;
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;

fn find(digests: &[reapi::Digest]) -> reapi::FindMissingBlobsRequest {
    reapi::FindMissingBlobsRequest {
        blob_digests: digests.to_vec(),
        ..Default::default()
    }
}

fn batch_read(digests: &[reapi::Digest]) -> reapi::BatchReadBlobsRequest {
    reapi::BatchReadBlobsRequest {
        digests: digests.to_vec(),
        ..Default::default()
    }
}

fn update(digest: Option<reapi::Digest>, data: &[u8]) -> reapi::batch_update_blobs_request::Request {
    reapi::batch_update_blobs_request::Request {
        digest,
        data: Bytes::copy_from_slice(data),
        ..Default::default()
    }
}

fn batch_update(requests: Vec<reapi::batch_update_blobs_request::Request>) -> reapi::BatchUpdateBlobsRequest {
    reapi::BatchUpdateBlobsRequest {
        requests,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_read_is_the_part_that_offset_and_limit_name() {
    let node = Node::new().await;
    let blob: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = node.plant(&blob);
    let mut client = node.byte_stream().await;
    let size = i64::try_from(blob.len()).unwrap();
    let cases = [
        (0, 0, 0..blob.len()),                       // BS-READ-01, BS-READ-06
        (1, 0, 1..blob.len()),                       // BS-READ-16
        (10, 20, 10..30),                            // BS-READ-09
        (size - 5, 100, blob.len() - 5..blob.len()), // BS-READ-07
        (size, 0, blob.len()..blob.len()),           // BS-READ-02, BS-READ-03
    ];
    for (read_offset, read_limit, expected) in cases {
        let request = ReadRequest {
            resource_name: read_name(&digest),
            read_offset,
            read_limit,
        };
        let bytes = read(&mut client, request).await.unwrap();
        assert!(
            bytes == blob[expected],
            "offset {read_offset}, limit {read_limit}"
        );
    }
}

#[tokio::test]
async fn reads_that_cannot_be_say_why_before_any_message() {
    let node = Node::new().await;
    let hello = node.plant(b"hello");
    let lost = Digest::of(Function::Sha256, b"lost");
    let empty = Function::Sha256.empty();
    let mut client = node.byte_stream().await;
    let cases = [
        (read_name(&hello), 6, 0, Code::OutOfRange),       // BS-READ-04
        (read_name(&hello), -1, 0, Code::OutOfRange),      // BS-READ-05
        (read_name(&hello), 0, -1, Code::InvalidArgument), // BS-READ-08
        (read_name(&lost), 0, 0, Code::NotFound),          // BS-READ-10
        (format!("blobs/{}/6", hello.hash()), 0, 0, Code::NotFound), // BS-READ-12, DIG-05
        (read_name(&empty), 1, 0, Code::OutOfRange),       // BS-READ-18
        (String::new(), 0, 0, Code::InvalidArgument),      // RN-15
        (write_name(&hello), 0, 0, Code::InvalidArgument), // RN-01
    ];
    for (resource_name, read_offset, read_limit, expected) in cases {
        let request = ReadRequest {
            resource_name: resource_name.clone(),
            read_offset,
            read_limit,
        };
        let status = client.read(request).await.unwrap_err();
        assert_eq!(
            status.code(),
            expected,
            "{resource_name} from {read_offset}: {status}"
        );
    }
}

#[tokio::test]
async fn the_empty_blob_is_everywhere_even_while_tier_2_is_down() {
    // CAS-GEN-02, BS-READ-18, CAS-FMB-07, CAS-BRB-10, CAS-BUB-16, R13
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let request = ReadRequest {
        resource_name: read_name(&Function::Sha256.empty()),
        ..Default::default()
    };
    assert_eq!(read(&mut node.byte_stream().await, request).await.unwrap(), b"");
    let mut cas = node.cas().await;
    let missing = cas
        .find_missing_blobs(find(&[digest(b"")]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(missing.missing_blob_digests, []);
    let read = cas
        .batch_read_blobs(batch_read(&[digest(b"")]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        read.responses[0].status.as_ref().map_or(0, |status| status.code),
        0
    );
    let updated = cas
        .batch_update_blobs(batch_update(vec![update(Some(digest(b"")), b"")]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        updated.responses[0]
            .status
            .as_ref()
            .map_or(0, |status| status.code),
        0
    );
}

#[tokio::test]
async fn missing_is_exactly_what_tier_2_lacks() {
    let node = Node::new().await;
    node.plant(b"here");
    let mut cas = node.cas().await;
    let asked = [digest(b"lost"), digest(b"here"), digest(b"lost"), digest(b"")];
    let missing = cas
        .find_missing_blobs(find(&asked))
        .await
        .unwrap()
        .into_inner()
        .missing_blob_digests;
    assert!(!missing.is_empty() && missing.iter().all(|found| *found == digest(b"lost"))); // CAS-FMB-01 to 03
    let none = cas.find_missing_blobs(find(&[])).await.unwrap().into_inner();
    assert_eq!(none.missing_blob_digests, []); // CAS-FMB-04
}

#[tokio::test]
async fn presence_that_cannot_be_judged_is_an_error() {
    // CAS-FMB-09, PXY-01, PXY-02
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::Stalled));
    let mut cas = node.cas().await;
    assert_eq!(
        code(cas.find_missing_blobs(find(&[digest(b"x")])).await),
        Code::Unavailable
    );
}

#[tokio::test]
async fn a_question_of_fifteen_thousand_digests_is_answered() {
    // CAS-FMB-12
    let node = Node::new().await;
    let asked: Vec<_> = (0..15_000_u32)
        .map(|number| digest(&number.to_le_bytes()))
        .collect();
    let mut cas = node.cas().await;
    let missing = cas.find_missing_blobs(find(&asked)).await.unwrap().into_inner();
    assert_eq!(missing.missing_blob_digests.len(), asked.len());
}

#[tokio::test]
async fn entries_of_a_batch_update_succeed_and_fail_on_their_own() {
    let node = Node::new().await;
    let mut compressed = update(Some(digest(b"zstd")), b"zstd");
    compressed.compressor = reapi::compressor::Value::Zstd.into();
    let upper = reapi::Digest {
        hash: digest(b"upper").hash.to_uppercase(),
        size_bytes: 5,
    };
    let short = reapi::Digest {
        size_bytes: 6,
        ..digest(b"short")
    };
    let entries = vec![
        update(Some(digest(b"good")), b"good"),
        update(Some(digest(b"good")), b"evil"), // CAS-BUB-04
        update(Some(short), b"short"),          // CAS-BUB-05
        update(Some(upper), b"upper"),          // CAS-BUB-07
        compressed,                             // CAS-BUB-10
        update(Some(digest(b"good")), b"good"), // CAS-BUB-13
    ];
    let asked: Vec<_> = entries.iter().map(|entry| entry.digest.clone()).collect();
    let mut cas = node.cas().await;
    let answer = cas
        .batch_update_blobs(batch_update(entries))
        .await
        .unwrap()
        .into_inner();
    let echoed: Vec<_> = answer
        .responses
        .iter()
        .map(|response| response.digest.clone())
        .collect();
    assert_eq!(echoed, asked); // CAS-BUB-02, CAS-BUB-03
    let codes: Vec<_> = answer
        .responses
        .iter()
        .map(|response| response.status.clone().unwrap().code)
        .collect();
    assert_eq!(codes, [0, 3, 3, 3, 3, 0]); // CAS-BUB-01
    assert!(node.stored(&Digest::of(Function::Sha256, b"good"))); // CAS-BUB-19
    assert!(!node.stored(&Digest::of(Function::Sha256, b"short"))); // CAS-GEN-01
}

#[tokio::test]
async fn a_batch_that_cannot_be_answered_entry_by_entry_fails_whole() {
    let node = Node::new().await;
    let mut cas = node.cas().await;
    let nameless = batch_update(vec![update(None, b"x")]); // CAS-BUB-07
    assert_eq!(
        code(cas.batch_update_blobs(nameless).await),
        Code::InvalidArgument
    );
    let half = vec![7; usize::try_from(BATCH_BYTES_MAX / 2 + 1).unwrap()];
    let large = batch_update(vec![update(Some(digest(&half)), &half); 2]); // CAS-BUB-08
    assert_eq!(code(cas.batch_update_blobs(large).await), Code::InvalidArgument);
    assert!(!node.stored(&Digest::of(Function::Sha256, &half)));
    let empty = cas
        .batch_update_blobs(batch_update(vec![]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(empty.responses, []); // CAS-BUB-15
}

#[tokio::test]
async fn writes_fail_entry_by_entry_while_tier_2_is_down() {
    // P1, CAS-BUB-18
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let mut cas = node.cas().await;
    let request = batch_update(vec![
        update(Some(digest(b"good")), b"good"),
        update(Some(digest(b"x")), b"bad"),
    ]);
    let answer = cas.batch_update_blobs(request).await.unwrap().into_inner();
    let codes: Vec<_> = answer
        .responses
        .iter()
        .map(|response| response.status.clone().unwrap().code)
        .collect();
    assert_eq!(codes, [14, 3]);
}

#[tokio::test]
async fn every_digest_of_a_batch_read_has_its_own_answer() {
    let node = Node::new().await;
    node.plant(b"here");
    let short = reapi::Digest {
        hash: "abc".into(),
        size_bytes: 3,
    };
    let asked = [
        digest(b"here"),
        digest(b"lost"),
        short,
        digest(b""),
        digest(b"here"),
    ];
    let mut cas = node.cas().await;
    let answer = cas
        .batch_read_blobs(batch_read(&asked))
        .await
        .unwrap()
        .into_inner();
    let found: Vec<_> = answer
        .responses
        .iter()
        .map(|response| {
            (
                response.status.clone().map_or(0, |status| status.code),
                response.data.clone(),
            )
        })
        .collect();
    let here = Bytes::from_static(b"here");
    let none = Bytes::new();
    // CAS-BRB-02, 03, 10, 11, 12, 14
    assert_eq!(
        found,
        [
            (0, here.clone()),
            (5, none.clone()),
            (3, none.clone()),
            (0, none),
            (0, here)
        ]
    );
    for (response, asked) in answer.responses.iter().zip(&asked) {
        assert_eq!(response.digest.as_ref(), Some(asked)); // CAS-BRB-01
        assert_eq!(response.compressor, 0); // CAS-BRB-07
    }
    let empty = cas.batch_read_blobs(batch_read(&[])).await.unwrap().into_inner();
    assert_eq!(empty.responses, []); // CAS-BRB-16
}

#[tokio::test]
async fn trouble_with_a_blob_of_a_batch_is_not_its_absence() {
    // CAS-BRB-04
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::Stalled));
    let mut cas = node.cas().await;
    let answer = cas
        .batch_read_blobs(batch_read(&[digest(b"x")]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.responses[0].status.clone().unwrap().code, 14);
}

#[tokio::test]
async fn a_batch_read_is_held_against_its_limits_before_anything_is_read() {
    let node = Node::new().await;
    let mut cas = node.cas().await;
    let huge = |size_bytes| reapi::Digest {
        size_bytes,
        ..digest(b"x")
    };
    let half = i64::try_from(BATCH_BYTES_MAX / 2 + 1).unwrap();
    let cases = [
        ("twice the half", vec![huge(half), huge(half)]), // CAS-BRB-05
        ("an overflow", vec![huge(i64::MAX); 3]),         // DIG-08
        ("an answer of framing", vec![digest(b"tiny"); 40_000]), // CAS-BRB-06
    ];
    for (case, digests) in cases {
        assert_eq!(
            code(cas.batch_read_blobs(batch_read(&digests)).await),
            Code::InvalidArgument,
            "{case}"
        );
    }
    assert_eq!(node.tier2.log(), []);
    let many: Vec<_> = (0..4000_u32)
        .map(|number| digest(&number.to_le_bytes()))
        .collect();
    let answer = cas
        .batch_read_blobs(batch_read(&many))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.responses.len(), 4000); // CAS-BRB-15
}

#[tokio::test]
async fn instances_of_a_share_group_see_each_other_and_no_other_does() {
    // INST-07, INST-09
    let node = Node::new().await;
    let mut cas = node.cas().await;
    let request = reapi::BatchUpdateBlobsRequest {
        instance_name: "a".into(),
        ..batch_update(vec![update(Some(digest(b"shared")), b"shared")])
    };
    cas.batch_update_blobs(request).await.unwrap();
    let mut missing = async |instance: &str| {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: instance.into(),
            ..find(&[digest(b"shared")])
        };
        cas.find_missing_blobs(request)
            .await
            .unwrap()
            .into_inner()
            .missing_blob_digests
            .len()
    };
    assert_eq!(
        (
            missing("a").await,
            missing("b").await,
            missing("c").await,
            missing("").await
        ),
        (0, 0, 1, 1)
    );
    let request = ReadRequest {
        resource_name: format!("b/blobs/{}", Digest::of(Function::Sha256, b"shared")),
        ..Default::default()
    };
    assert_eq!(
        read(&mut node.byte_stream().await, request).await.unwrap(),
        b"shared"
    );
}
