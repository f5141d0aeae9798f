//! ByteStream.Write and QueryWriteStatus.

use bytes::Bytes;
use futures::StreamExt;
use proto::bytestream::{QueryWriteStatusRequest, WriteRequest};
use tonic::{Code, Status};

use super::harness::*;
use crate::digest::{Digest, Function};
use crate::tier2::Tier2Error;

fn hello() -> Digest {
    Digest::of(Function::Sha256, b"hello")
}

/// Requests that carry these pieces, as most clients write them: the name in the first, the finish in the last.
fn requests(digest: &Digest, pieces: &[&[u8]]) -> Vec<WriteRequest> {
    let mut write_offset = 0;
    let last = pieces.len() - 1;
    let request = |(index, piece): (usize, &&[u8])| {
        let request = WriteRequest {
            resource_name: if index == 0 {
                write_name(digest)
            } else {
                String::new()
            },
            write_offset,
            finish_write: index == last,
            data: Bytes::copy_from_slice(piece),
        };
        write_offset += i64::try_from(piece.len()).unwrap();
        request
    };
    pieces.iter().enumerate().map(request).collect()
}

#[tokio::test]
async fn an_upload_is_stored_however_its_client_cuts_it() {
    let whole: &[&[u8]] = &[b"hello"];
    let named = {
        let mut requests = requests(&hello(), &[b"hel", b"lo"]);
        requests[1].resource_name = write_name(&hello()); // BS-WRITE-02
        requests
    };
    let cases = [
        ("whole", requests(&hello(), whole)),
        ("bytes", requests(&hello(), &[b"h", b"e", b"l", b"l", b"o"])), // BS-WRITE-21
        (
            "empty requests",
            requests(&hello(), &[b"", b"hel", b"", b"lo", b""]),
        ), // BS-WRITE-06, BS-WRITE-19
        ("named twice", named),
    ];
    for (case, requests) in cases {
        let node = Node::new().await;
        let response = write(&mut node.byte_stream().await, requests).await.unwrap();
        assert_eq!(response.committed_size, 5, "{case}"); // BS-WRITE-13
        assert!(node.stored(&hello()), "{case}"); // BS-WRITE-28
    }
}

#[tokio::test]
async fn the_empty_blob_is_taken_even_while_tier_2_is_down() {
    // BS-WRITE-20
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let empty = Function::Sha256.empty();
    let response = write(&mut node.byte_stream().await, requests(&empty, &[b""]))
        .await
        .unwrap();
    assert_eq!(response.committed_size, 0);
}

#[tokio::test]
async fn a_wrong_upload_is_refused_and_nothing_of_it_is_stored() {
    let changed = |change: fn(&mut Vec<WriteRequest>)| {
        let mut requests = requests(&hello(), &[b"hel", b"lo"]);
        change(&mut requests);
        requests
    };
    let cases = [
        ("no request", vec![]),
        ("no name", changed(|requests| requests[0].resource_name.clear())), // BS-WRITE-01
        (
            "another name",
            changed(|requests| requests[1].resource_name.push('x')),
        ), // BS-WRITE-02
        ("starts midway", changed(|requests| requests[0].write_offset = 3)), // BS-WRITE-03
        (
            "a negative offset",
            changed(|requests| requests[0].write_offset = -1),
        ),
        ("a gap", changed(|requests| requests[1].write_offset = 4)), // BS-WRITE-05
        ("an overlap", changed(|requests| requests[1].write_offset = 0)), // BS-WRITE-05
        (
            "goes on after the finish",
            changed(|requests| requests[0].finish_write = true),
        ), // BS-WRITE-07, 09
        (
            "ends without a finish",
            changed(|requests| requests[1].finish_write = false),
        ), // BS-WRITE-08
        ("too short", requests(&hello(), &[b"hell"])),               // BS-WRITE-09
        ("too long", requests(&hello(), &[b"hello", b"!"])),         // BS-WRITE-10
        ("other bytes", requests(&hello(), &[b"jello"])),            // BS-WRITE-11, BS-WRITE-12
        (
            "a read name",
            changed(|requests| requests[0].resource_name = read_name(&hello())),
        ), // RN-02
    ];
    for (case, requests) in cases {
        let node = Node::new().await;
        let status = write(&mut node.byte_stream().await, requests).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{case}: {status}");
        assert!(!node.stored(&hello()), "{case}"); // CAS-GEN-07
    }
}

#[tokio::test]
async fn a_request_after_the_finish_spoils_the_upload() {
    // BS-WRITE-07
    let node = Node::new().await;
    let mut extra = requests(&hello(), &[b"hello"]);
    extra.push(WriteRequest {
        write_offset: 5,
        ..Default::default()
    });
    let bytes: Vec<u8> = extra
        .iter()
        .flat_map(|request| framed(&prost::Message::encode_to_vec(request)))
        .collect();
    let code = node
        .raw()
        .await
        .send("/google.bytestream.ByteStream/Write", bytes)
        .await;
    assert_eq!(code, Some(Code::InvalidArgument));
}

#[tokio::test]
async fn a_blob_that_is_there_is_acknowledged_while_its_client_still_sends() {
    // BS-WRITE-14, BS-WRITE-15, BS-WRITE-16
    let node = Node::new().await;
    node.tier2.ack_early();
    let blob = vec![7; 3 << 20];
    let digest = node.plant(&blob);
    let first = requests(&digest, &[&blob[..1 << 20], b"rest"]).remove(0);
    let endless = futures::stream::iter([first]).chain(futures::stream::pending());
    let response = node
        .byte_stream()
        .await
        .write(endless)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.committed_size, 3 << 20);
}

#[tokio::test]
async fn early_answers_leave_the_connection_as_it_was() {
    // BS-WRITE-16: a client sees no error in any of N early answers.
    let node = Node::new().await;
    node.tier2.ack_early();
    let blob = vec![7; 1 << 20];
    let digest = node.plant(&blob);
    let pieces: Vec<&[u8]> = blob.chunks(64 * 1024).collect();
    let client = node.byte_stream().await;
    let writes = (0..64).map(|client_number| {
        let mut client = client.clone();
        let mut requests = requests(&digest, &pieces);
        // An upload of its own: the newest stream of a name would take it over.
        requests[0].resource_name = format!("uploads/{client_number}/blobs/{digest}");
        async move { write(&mut client, requests).await }
    });
    for response in futures::future::join_all(writes).await {
        assert_eq!(response.unwrap().committed_size, 1 << 20);
    }
}

#[tokio::test]
async fn a_refusal_does_not_wait_for_the_bytes() {
    // BS-WRITE-26, BS-WRITE-31, BS-WRITE-32
    let node = Node::new().await;
    let huge = format!("uploads/u/blobs/{}/{}", hello().hash(), 1_u64 << 62);
    for name in [huge, "uploads/u/blobs/x".to_owned()] {
        let first = WriteRequest {
            resource_name: name,
            ..Default::default()
        };
        let endless = futures::stream::iter([first]).chain(futures::stream::pending());
        let result: Result<_, Status> = node.byte_stream().await.write(endless).await;
        assert_eq!(code(result), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn no_upload_is_acknowledged_while_tier_2_is_down() {
    // P1
    let node = Node::new().await;
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    let result = write(&mut node.byte_stream().await, requests(&hello(), &[b"hello"])).await;
    assert_eq!(code(result), Code::Unavailable);
}

#[tokio::test]
async fn a_query_tells_whether_the_blob_is_there() {
    let node = Node::new().await;
    node.plant(b"hello");
    let mut client = node.byte_stream().await;
    let mut query = async |resource_name: String| {
        let answer = client
            .query_write_status(QueryWriteStatusRequest { resource_name })
            .await;
        answer
            .map(|answer| (answer.get_ref().committed_size, answer.get_ref().complete))
            .map_err(|status| status.code())
    };
    let lost = Digest::of(Function::Sha256, b"lost");
    assert_eq!(query(write_name(&hello())).await, Ok((5, true))); // BS-QWS-03
    assert_eq!(query(write_name(&lost)).await, Ok((0, false))); // BS-QWS-05
    assert_eq!(query(write_name(&Function::Sha256.empty())).await, Ok((0, true))); // BS-QWS-15
    assert_eq!(query(read_name(&hello())).await, Err(Code::InvalidArgument)); // BS-QWS-12
    assert_eq!(query(String::new()).await, Err(Code::InvalidArgument)); // RN-15
    node.tier2.fail_with(Some(Tier2Error::down("gone")));
    assert_eq!(query(write_name(&lost)).await, Err(Code::Unavailable)); // BS-QWS-14
}
