//! Acts that send other bytes than are stored.

use bytes::Bytes;
use mock_upstream::{Act, After, Digest, Match, Mock, Rule};
use proto::reapi::{BatchReadBlobsRequest, GetActionResultRequest, GetTreeRequest};

use crate::client::Client;

const CONTENT: &[u8] = b"0123456789";

/// What a Read and a BatchReadBlobs answer, and after how many bytes of the Read it was noted.
async fn answers(act: Act, after: After) -> (Vec<u8>, Bytes, Option<u64>) {
    let mock = Mock::builder().read_chunk_bytes(4).start();
    let digest = mock.put_blob("", CONTENT);
    mock.put_blob("", "abcdefghij");
    mock.put_blob("", "another length");
    mock.add(Rule::new(Match::any(), act).after(after));
    let mut client = Client::of(&mock);
    let read = client.read_blob(&digest).await.unwrap();
    let request = BatchReadBlobsRequest {
        digests: vec![digest.to_wire()],
        ..BatchReadBlobsRequest::default()
    };
    let batch = client.cas.batch_read_blobs(request).await.unwrap().into_inner();
    mock.finished(Match::any(), 2).await;
    let firings = mock.firings();
    let noted = firings.iter().find(|firing| firing.call == Some(0));
    (
        read,
        batch.responses[0].data.clone(),
        noted.map(|firing| firing.moved),
    )
}

#[track_caller]
fn check(answers: (Vec<u8>, Bytes, Option<u64>), expected: &[u8], noted: Option<u64>) {
    let (read, batch, found) = answers;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&read), text(expected));
    assert_eq!(text(&batch), text(expected));
    assert_eq!(found, noted);
}

#[tokio::test]
async fn a_byte_is_flipped_where_the_rule_says() {
    check(
        answers(Act::FlipByte, After::Start).await,
        b"\xcf123456789",
        Some(4),
    );
    check(
        answers(Act::FlipByte, After::Bytes(5)).await,
        b"01234\xca6789",
        Some(8),
    );
    check(
        answers(Act::FlipByte, After::End).await,
        b"012345678\xc6",
        Some(10),
    );
    check(answers(Act::FlipByte, After::Bytes(99)).await, CONTENT, None);
}

#[tokio::test]
async fn bytes_are_added() {
    let extra = Act::ExtraBytes { count: 3 };
    check(answers(extra, After::Start).await, b"0123456789ZZZ", Some(12));
}

#[tokio::test]
async fn another_blob_is_sent_of_the_same_length_if_there_is_one() {
    check(
        answers(Act::OtherBlob, After::Start).await,
        b"abcdefghij",
        Some(4),
    );
    check(
        answers(Act::OtherBlob, After::Bytes(6)).await,
        b"012345ghij",
        Some(8),
    );
}

#[tokio::test]
async fn a_chunk_comes_twice() {
    let mock = Mock::builder().read_chunk_bytes(4).start();
    let digest = mock.put_blob("", CONTENT);
    mock.add(Rule::new(Match::any(), Act::RepeatChunk).after(After::Bytes(8)));
    let mut client = Client::of(&mock);
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"01234567456789");
    assert!(mock.calls().last().unwrap().met("repeat_chunk"));
}

#[tokio::test]
async fn directories_and_action_results_are_corrupted_too() {
    let mock = Mock::builder().start();
    let (root, action) = (mock.put_blob("", "\n\x00"), Digest::of(b"action"));
    mock.put_action("", &action, vec![0x28, 1]);
    mock.add(Rule::new(Match::any(), Act::FlipByte).after(After::End));
    let mut client = Client::of(&mock);
    let tree = GetTreeRequest {
        root_digest: Some(root.to_wire()),
        ..GetTreeRequest::default()
    };
    let mut pages = client.cas.get_tree(tree).await.unwrap().into_inner();
    let page = pages.message().await.unwrap().unwrap();
    assert_eq!(page.directories, [&b"\n\xff"[..]]);
    let get = GetActionResultRequest {
        action_digest: Some(action.to_wire()),
        ..GetActionResultRequest::default()
    };
    let result = client.actions.get_action_result(get).await.unwrap().into_inner();
    assert_eq!(result.0, &[0x28, 0xfe][..]);
    assert_eq!(mock.calls().met("flip_byte").count(), 2);
}

#[tokio::test]
async fn a_rule_for_one_blob_leaves_the_others_of_its_batch_alone() {
    let mock = Mock::builder().start();
    let (hit, spared) = (mock.put_blob("", CONTENT), mock.put_blob("", "spared"));
    mock.add(Rule::new(Match::any().digest(&hit), Act::FlipByte));
    let request = BatchReadBlobsRequest {
        digests: vec![spared.to_wire(), hit.to_wire()],
        ..BatchReadBlobsRequest::default()
    };
    let answer = Client::of(&mock)
        .cas
        .batch_read_blobs(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.responses[0].data, "spared");
    assert_eq!(answer.responses[1].data, &b"\xcf123456789"[..]);
}
