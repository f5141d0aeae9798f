use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use proto::reapi::{
    self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
};
use tonic::{Code, Status};

use crate::client::{Client, code};

fn digest(hash: &str, size_bytes: i64) -> reapi::Digest {
    reapi::Digest {
        hash: hash.into(),
        size_bytes,
    }
}

async fn missing(
    client: &mut Client,
    instance: &str,
    digests: Vec<reapi::Digest>,
) -> Result<Vec<reapi::Digest>, Status> {
    let request = FindMissingBlobsRequest {
        instance_name: instance.into(),
        blob_digests: digests,
        ..FindMissingBlobsRequest::default()
    };
    Ok(client
        .cas
        .find_missing_blobs(request)
        .await?
        .into_inner()
        .missing_blob_digests)
}

#[tokio::test]
async fn find_missing_lists_exactly_what_is_not_there() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let here = mock.put_blob("a", "here").to_wire();
    let absent = Digest::of(b"absent").to_wire();
    let resized = digest(&here.hash, 5); // CAS-FMB-11
    let empty = Digest::of(b"").to_wire(); // CAS-FMB-07
    let asked = vec![
        here.clone(),
        absent.clone(),
        empty,
        resized.clone(),
        absent.clone(),
    ];
    let expected = [absent.clone(), resized.clone(), absent.clone()]; // CAS-FMB-03
    assert_eq!(missing(&mut client, "a", asked).await.unwrap(), expected);
    assert_eq!(
        missing(&mut client, "b", vec![here.clone()]).await.unwrap(),
        [here]
    );
    assert_eq!(missing(&mut client, "a", vec![]).await.unwrap(), []); // CAS-FMB-04
}

#[tokio::test]
async fn a_malformed_request_is_an_invalid_argument() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let good = Digest::of(b"good").to_wire();
    let short = &good.hash[..40];
    for (instance, asked) in [
        ("blobs", good.clone()),                      // INST-02
        ("a//b", good.clone()),                       // INST-05
        ("", digest(&good.hash.to_uppercase(), 4)),   // DIG-01
        ("", digest(short, 4)),                       // DIG-02
        ("", digest(&"g".repeat(64), 4)),             // DIG-03
        ("", digest(&good.hash, -1)),                 // DIG-04
        ("", digest("", 0)),                          // DIG-06
        ("", digest(&good.hash, 0)),                  // DIG-07
        ("", digest(&Digest::of(b"").hash_hex(), 1)), // DIG-07
    ] {
        let got = missing(&mut client, instance, vec![good.clone(), asked.clone()]).await;
        assert_eq!(code(got), Code::InvalidArgument, "{instance} {asked:?}"); // CAS-FMB-10
    }
    for (function, expected) in [
        (0, Code::Ok),
        (1, Code::Ok),
        (2, Code::InvalidArgument),
        (99, Code::InvalidArgument),
    ] {
        let request = FindMissingBlobsRequest {
            blob_digests: vec![good.clone()],
            digest_function: function,
            ..FindMissingBlobsRequest::default()
        };
        assert_eq!(
            code(client.cas.find_missing_blobs(request).await),
            expected,
            "DIG-15 {function}"
        );
    }
}

#[tokio::test]
async fn fifteen_thousand_digests_pass() {
    // CAS-FMB-12
    let mock = Mock::builder().start();
    let digests: Vec<_> = (0..15_000u32)
        .map(|n| Digest::of(&n.to_le_bytes()).to_wire())
        .collect();
    assert_eq!(
        missing(&mut Client::of(&mock), "", digests.clone())
            .await
            .unwrap(),
        digests
    );
}

fn entry(digest: Option<reapi::Digest>, data: &'static [u8]) -> batch_update_blobs_request::Request {
    batch_update_blobs_request::Request {
        digest,
        data: Bytes::from_static(data),
        ..batch_update_blobs_request::Request::default()
    }
}

async fn update(
    client: &mut Client,
    requests: Vec<batch_update_blobs_request::Request>,
) -> Result<Vec<(Option<reapi::Digest>, Code)>, Status> {
    let request = BatchUpdateBlobsRequest {
        requests,
        ..BatchUpdateBlobsRequest::default()
    };
    let responses = client
        .cas
        .batch_update_blobs(request)
        .await?
        .into_inner()
        .responses;
    Ok(responses
        .into_iter()
        .map(|response| (response.digest, Code::from_i32(response.status.unwrap().code)))
        .collect())
}

#[tokio::test]
async fn entries_of_an_update_succeed_and_fail_on_their_own() {
    let mock = Mock::builder()
        .settings(|settings| settings.max_blob_bytes = 20)
        .start();
    let mut client = Client::of(&mock);
    let good = Digest::of(b"good");
    let mut compressed = entry(Some(Digest::of(b"other").to_wire()), b"other");
    compressed.compressor = reapi::compressor::Value::Zstd as i32;
    let big = b"a blob that is over the limit";
    let cases = [
        ("CAS-BUB-01", entry(Some(good.to_wire()), b"good"), Code::Ok),
        (
            "CAS-BUB-04",
            entry(Some(Digest::of(b"xyz").to_wire()), b"xyy"),
            Code::InvalidArgument,
        ),
        (
            "CAS-BUB-05",
            entry(Some(digest(&good.hash_hex(), 5)), b"good"),
            Code::InvalidArgument,
        ),
        (
            "CAS-BUB-07",
            entry(Some(digest("nonsense", 4)), b"good"),
            Code::InvalidArgument,
        ),
        ("CAS-BUB-10", compressed, Code::InvalidArgument),
        ("CAS-BUB-13", entry(Some(good.to_wire()), b"good"), Code::Ok),
        (
            "CAS-BUB-16",
            entry(Some(Digest::of(b"").to_wire()), b""),
            Code::Ok,
        ),
        (
            "CAP-17",
            entry(Some(Digest::of(big).to_wire()), big),
            Code::InvalidArgument,
        ),
    ];
    let requests = cases.iter().map(|(_, request, _)| request.clone()).collect();
    let responses = update(&mut client, requests).await.unwrap();
    assert_eq!(responses.len(), cases.len()); // CAS-BUB-02
    for ((id, request, expected), (echoed, code)) in cases.into_iter().zip(responses) {
        assert_eq!((echoed, code), (request.digest, expected), "{id}");
    }
    assert_eq!(mock.blobs(""), [good]);
    assert_eq!(mock.counts().blob_bytes, 4);
    assert_eq!(update(&mut client, vec![]).await.unwrap(), []); // CAS-BUB-15
    let without = vec![entry(Some(good.to_wire()), b"good"), entry(None, b"")];
    assert_eq!(code(update(&mut client, without).await), Code::InvalidArgument); // CAS-BUB-07
}

#[tokio::test]
async fn batches_over_the_limit_fail_whole() {
    // CAS-BUB-08, CAS-BRB-05, DIG-08
    let mock = Mock::builder().max_batch_bytes(8).start();
    let mut client = Client::of(&mock);
    let (four, five) = (Digest::of(b"four"), Digest::of(b"fives"));
    let entries = |last: Digest, data| {
        vec![
            entry(Some(four.to_wire()), b"four"),
            entry(Some(last.to_wire()), data),
        ]
    };
    assert_eq!(
        code(update(&mut client, entries(five, b"fives")).await),
        Code::InvalidArgument
    );
    assert_eq!(mock.counts().blobs, 0);
    assert_eq!(code(update(&mut client, entries(four, b"four")).await), Code::Ok);
    mock.put_blob("", "fives");
    for (digests, expected) in [
        (vec![four.to_wire(), four.to_wire()], Code::Ok),
        (vec![four.to_wire(), five.to_wire()], Code::InvalidArgument),
        (vec![digest(&four.hash_hex(), i64::MAX); 3], Code::InvalidArgument),
    ] {
        assert_eq!(code(read_batch(&mut client, digests).await), expected);
    }
}

async fn read_batch(
    client: &mut Client,
    digests: Vec<reapi::Digest>,
) -> Result<Vec<(reapi::Digest, Bytes, Code)>, Status> {
    let request = BatchReadBlobsRequest {
        digests,
        ..BatchReadBlobsRequest::default()
    };
    let responses = client.cas.batch_read_blobs(request).await?.into_inner().responses;
    let told = responses.into_iter().map(|response| {
        (
            response.digest.unwrap(),
            response.data,
            Code::from_i32(response.status.unwrap().code),
        )
    });
    Ok(told.collect())
}

#[tokio::test]
async fn a_batch_read_answers_for_every_digest() {
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let here = mock.put_blob("", "here").to_wire();
    let cases = [
        (here.clone(), "here", Code::Ok),
        (Digest::of(b"absent").to_wire(), "", Code::NotFound), // CAS-BRB-03
        (digest(&here.hash, 5), "", Code::NotFound),           // DIG-05
        (Digest::of(b"").to_wire(), "", Code::Ok),             // CAS-BRB-10
        (digest("nonsense", 4), "", Code::InvalidArgument),    // CAS-BRB-12
        (here.clone(), "here", Code::Ok),                      // CAS-BRB-11
    ];
    let asked = cases.iter().map(|(digest, ..)| digest.clone()).collect();
    let answered = read_batch(&mut client, asked).await.unwrap();
    let expected = cases.map(|(digest, data, code)| (digest, Bytes::from(data), code));
    assert_eq!(answered, expected);
    assert_eq!(read_batch(&mut client, vec![]).await.unwrap(), []); // CAS-BRB-16
    let many: Vec<_> = (0..4_000).map(|_| here.clone()).collect();
    assert_eq!(read_batch(&mut client, many).await.unwrap().len(), 4_000); // CAS-BRB-15
}

#[tokio::test]
async fn a_full_batch_of_small_blobs_fits_into_a_message() {
    // GEN-05, CAP-12: 4000 blobs, together as large as a batch may be.
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let bytes_each = 3_670_016 / 4_000;
    let requests = (0..4_000u32).map(|n| {
        let mut data = n.to_le_bytes().to_vec();
        data.resize(bytes_each, 0);
        let digest = Digest::of(&data);
        batch_update_blobs_request::Request {
            digest: Some(digest.to_wire()),
            data: data.into(),
            ..batch_update_blobs_request::Request::default()
        }
    });
    let responses = update(&mut client, requests.collect()).await.unwrap();
    assert!(responses.iter().all(|(_, code)| *code == Code::Ok));
    let digests = mock.blobs("").iter().map(Digest::to_wire).collect();
    assert_eq!(read_batch(&mut client, digests).await.unwrap().len(), 4_000); // CAS-BRB-06
}

#[tokio::test]
async fn split_and_splice_are_not_offered() {
    // GEN-02, CDC-01
    let mock = Mock::builder().start();
    let mut client = Client::of(&mock);
    let split = client.cas.split_blob(reapi::SplitBlobRequest::default()).await;
    assert_eq!(code(split), Code::Unimplemented);
    let splice = client.cas.splice_blob(reapi::SpliceBlobRequest::default()).await;
    assert_eq!(code(splice), Code::Unimplemented);
}
