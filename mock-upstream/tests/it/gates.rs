use std::time::Duration;

use mock_upstream::{After, Match, Mock, Outcome, method};
use proto::bytestream::ReadRequest;
use proto::reapi::FindMissingBlobsRequest;
use tonic::Code;

use crate::client::{Client, code, part};

fn read_request(name: String) -> ReadRequest {
    ReadRequest {
        resource_name: name,
        ..ReadRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_stops_after_exactly_as_many_bytes_as_the_gate_says() {
    let mock = Mock::builder().read_chunk_bytes(4).start();
    let digest = mock.put_blob("", "0123456789");
    let gate = mock.hold(Match::read(&digest), After::Bytes(6));
    let mut client = Client::of(&mock);
    let mut messages = client
        .bytestream
        .read(read_request(digest.read_name("")))
        .await
        .unwrap()
        .into_inner();
    gate.reached().await;
    assert_eq!(mock.calls().first().unwrap().bytes_sent, 6);
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Open);
    let mut got = Vec::new();
    while got.len() < 6 {
        got.extend_from_slice(&messages.message().await.unwrap().unwrap().data);
    }
    assert_eq!(got, b"012345");
    // With virtual time an hour passes only when nothing else is left to happen.
    assert!(
        tokio::time::timeout(Duration::from_secs(3600), messages.message())
            .await
            .is_err()
    );
    gate.release();
    while let Some(message) = messages.message().await.unwrap() {
        got.extend_from_slice(&message.data);
    }
    assert_eq!(got, b"0123456789");
    mock.finished(Match::read(&digest), 1).await;
    assert_eq!(mock.calls().last().unwrap().outcome, Outcome::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_read_held_at_its_start_has_no_headers_and_held_at_its_end_no_status() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let start = mock.hold(Match::read(&digest), After::Start);
    let end = mock.hold(Match::read(&digest), After::End);
    let mut client = Client::of(&mock);
    let mut headers = std::pin::pin!(client.bytestream.read(read_request(digest.read_name(""))));
    assert!(
        tokio::time::timeout(Duration::from_secs(3600), &mut headers)
            .await
            .is_err()
    );
    assert_eq!((start.count(), end.count()), (1, 0));
    start.release();
    let mut messages = headers.await.unwrap().into_inner();
    assert_eq!(messages.message().await.unwrap().unwrap().data, "content");
    end.reached().await;
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Open);
    end.release();
    assert!(messages.message().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_write_stops_once_the_bytes_are_in_and_again_before_the_commit() {
    let mock = Mock::builder().start();
    let digest = mock_upstream::Digest::of(b"0123456789");
    let name = digest.write_name("", "u");
    let midway = mock.hold(Match::write(&digest), After::Bytes(5));
    let commit = mock.hold(Match::write(&digest), After::End);
    let mut client = Client::of(&mock);
    let parts = vec![part(&name, 0, b"012345", false), part("", 6, b"6789", true)];
    let mut write = std::pin::pin!(client.write(parts));
    assert!(
        tokio::time::timeout(Duration::from_secs(3600), &mut write)
            .await
            .is_err()
    );
    assert_eq!((midway.count(), commit.count()), (1, 0));
    assert_eq!(mock.calls().first().unwrap().bytes_received, 6);
    drop(midway);
    assert!(
        tokio::time::timeout(Duration::from_secs(3600), &mut write)
            .await
            .is_err()
    );
    assert_eq!(commit.count(), 1);
    assert_eq!(mock.calls().first().unwrap().bytes_received, 10);
    assert_eq!(mock.blob("", &digest), None);
    drop(commit);
    assert_eq!(write.await.unwrap(), 10);
    assert_eq!(mock.blob("", &digest).unwrap(), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn a_gate_for_the_second_call_lets_the_others_pass() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::read(&digest).nth(2), After::Bytes(1_000_000));
    let mut client = Client::of(&mock);
    client.read_blob(&digest).await.unwrap();
    let mut second = client.clone();
    let mut held = std::pin::pin!(second.read_blob(&digest));
    assert!(
        tokio::time::timeout(Duration::from_secs(3600), &mut held)
            .await
            .is_err()
    );
    client.read_blob(&digest).await.unwrap();
    mock.finished(Match::read(&digest), 2).await;
    assert_eq!(gate.count(), 1);
    drop(gate);
    assert_eq!(held.await.unwrap(), b"content");
}

#[tokio::test(start_paused = true)]
async fn unary_calls_are_held_before_their_answer_and_see_what_happened_meanwhile() {
    let mock = Mock::builder().start();
    let digest = mock_upstream::Digest::of(b"content");
    let gate = mock.hold(Match::method(method::FIND_MISSING), After::End);
    let mut client = Client::of(&mock);
    let request = FindMissingBlobsRequest {
        blob_digests: vec![digest.to_wire()],
        ..FindMissingBlobsRequest::default()
    };
    let find = client.cas.find_missing_blobs(request);
    let change = async {
        gate.reached().await;
        mock.put_blob("", "content");
        gate.release();
    };
    let (found, ()) = tokio::join!(find, change);
    assert!(found.unwrap().into_inner().missing_blob_digests.is_empty());
}

#[tokio::test(start_paused = true)]
async fn scripted_failures_come_as_often_as_asked_and_have_no_effect() {
    let mock = Mock::builder().start();
    let digest = mock_upstream::Digest::of(b"content");
    let name = digest.write_name("", "u");
    mock.fail(Match::write(&digest), Code::Unavailable, 2);
    let mut client = Client::of(&mock);
    for expected in [Code::Unavailable, Code::Unavailable, Code::Ok] {
        assert_eq!(mock.blob("", &digest), None);
        assert_eq!(
            code(client.write(vec![part(&name, 0, b"content", true)]).await),
            expected
        );
    }
    mock.fail(Match::any(), Code::DataLoss, u64::MAX);
    assert_eq!(code(client.read_blob(&digest).await), Code::DataLoss);
    mock.heal();
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);
    let failed = mock.calls().outcome(Outcome::Failed(Code::Unavailable));
    assert_eq!(failed.method(method::WRITE).count(), 2);
}
