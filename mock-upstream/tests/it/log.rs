use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt;
use h2::{Reason, SendStream};
use mock_upstream::{Act, After, Digest, Match, Mock, Outcome, Rule, Told, method};
use prost::Message;
use proto::bytestream::WriteRequest;
use proto::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, batch_update_blobs_request,
};
use tokio::task::JoinSet;
use tonic::Code;

use crate::client::{Client, code, part};

#[tokio::test]
async fn the_log_tells_what_was_asked_and_how_it_ended() {
    let mock = Mock::builder().start();
    let (kept, absent) = (mock.put_blob("a/b", "0123456789"), Digest::of(b"absent"));
    let mut client = Client::of(&mock);
    client.read(&kept.read_name("a/b"), 2, 3).await.unwrap();
    assert_eq!(
        code(client.read(&absent.read_name("a/b"), 0, 0).await),
        Code::NotFound
    );
    assert_eq!(code(client.read("nonsense", 0, 0).await), Code::InvalidArgument);
    let new = Digest::of(b"new");
    client
        .write(vec![part(&new.write_name("", "u"), 0, b"new", true)])
        .await
        .unwrap();
    let batch = BatchReadBlobsRequest {
        digests: vec![new.to_wire(), absent.to_wire()],
        ..BatchReadBlobsRequest::default()
    };
    client.cas.batch_read_blobs(batch).await.unwrap();
    let entry = batch_update_blobs_request::Request {
        digest: Some(absent.to_wire()),
        data: Bytes::from_static(b"absent"),
        ..batch_update_blobs_request::Request::default()
    };
    let batch = BatchUpdateBlobsRequest {
        requests: vec![entry],
        ..BatchUpdateBlobsRequest::default()
    };
    client.cas.batch_update_blobs(batch).await.unwrap();
    mock.finished(Match::any(), 6).await;

    let calls = mock.calls();
    let told: Vec<_> = calls
        .iter()
        .map(|c| {
            (
                c.index,
                c.method.as_str(),
                c.bytes_received,
                c.bytes_sent,
                c.outcome,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            (0, method::READ, 0, 3, Outcome::Ok),
            (1, method::READ, 0, 0, Outcome::Failed(Code::NotFound)),
            (2, method::READ, 0, 0, Outcome::Failed(Code::InvalidArgument)),
            (3, method::WRITE, 3, 0, Outcome::Ok),
            (4, method::BATCH_READ, 0, 3, Outcome::Ok),
            (5, method::BATCH_UPDATE, 6, 0, Outcome::Ok),
        ]
    );
    let first = calls.first().unwrap();
    assert_eq!(
        (first.instance.as_str(), first.offset, first.limit),
        ("a/b", 2, 3)
    );
    assert_eq!(first.digests, [kept]);
    assert_eq!(calls.iter().nth(4).unwrap().digests, [new, absent]);
    assert_eq!(mock.calls().method(method::READ).digest(&absent).count(), 1);
    assert_eq!(mock.calls().instance("a/b").count(), 2);
    assert_eq!(mock.calls().since(3).bytes_received(), 9);
    assert_eq!(
        mock.calls()
            .matching(&Match::method(method::READ).nth(2))
            .first()
            .unwrap()
            .index,
        1
    );
    assert_eq!(mock.mark(), 6);
}

#[tokio::test]
async fn the_log_tells_what_was_answered_about_each_blob_true_or_not() {
    let mock = Mock::builder().start();
    let (kept, absent) = (mock.put_blob("", "kept"), Digest::of(b"absent"));
    let mut client = Client::of(&mock);
    let find = FindMissingBlobsRequest {
        blob_digests: vec![kept.to_wire(), absent.to_wire()],
        ..FindMissingBlobsRequest::default()
    };
    client.cas.find_missing_blobs(find.clone()).await.unwrap();
    mock.add(Rule::new(Match::method(method::FIND_MISSING), Act::SayPresent));
    client.cas.find_missing_blobs(find).await.unwrap();
    client.read(&kept.read_name(""), 0, 0).await.unwrap();
    client.read(&absent.read_name(""), 0, 0).await.unwrap_err();
    let failing = Act::EntryStatus {
        code: Code::Unavailable,
    };
    mock.add(Rule::new(Match::any().digest(&kept), failing));
    let batch = BatchReadBlobsRequest {
        digests: vec![kept.to_wire(), absent.to_wire()],
        ..BatchReadBlobsRequest::default()
    };
    client.cas.batch_read_blobs(batch).await.unwrap();
    let new = Digest::of(b"new");
    let part = |uuid| vec![part(&new.write_name("", uuid), 0, b"new", true)];
    let short = Act::CommittedSize { size: 1 };
    mock.add(Rule::new(Match::method(method::WRITE), short).times(1));
    client.write(part("u")).await.unwrap();
    client.write(part("v")).await.unwrap();

    mock.finished(Match::any(), 7).await;
    let calls = mock.calls();
    let told: Vec<_> = calls.iter().map(|call| call.told.clone()).collect();
    let unavailable = Told::Failed(Code::Unavailable);
    let expected = [
        vec![(kept, Told::Present), (absent, Told::Missing)],
        vec![(kept, Told::Present), (absent, Told::Present)],
        vec![(kept, Told::Present)],
        vec![(absent, Told::Missing)],
        vec![(kept, unavailable), (absent, Told::Missing)],
        vec![],
        vec![(new, Told::Present)],
    ];
    assert_eq!(told, expected);
    assert_eq!(calls.first().unwrap().told(&absent), Some(Told::Missing));
    // One after another: each had ended when the next one arrived.
    let after: Vec<_> = calls.iter().map(|call| call.ended_before).collect();
    assert_eq!(after, (1..=7).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn arrived_waits_for_the_call_and_not_for_its_end() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::any(), After::Start);
    let mut client = Client::of(&mock);
    let watch = mock.clone();
    let look = async {
        watch.arrived(Match::read(&digest), 1).await;
        assert!(watch.finished(Match::read(&digest), 1).now_or_never().is_none());
        gate.release();
        watch.finished(Match::read(&digest), 1).await;
    };
    let (read, ()) = tokio::join!(client.read_blob(&digest), look);
    assert_eq!(read.unwrap(), b"content");
}

#[tokio::test]
async fn a_client_that_drops_its_call_has_reset_it() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::any(), After::Bytes(3));
    let mut client = Client::of(&mock);
    {
        let mut read = std::pin::pin!(client.read_blob(&digest));
        futures::future::select(&mut read, std::pin::pin!(gate.reached())).await;
    }
    mock.finished(Match::read(&digest), 1).await;
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Reset);
    assert_eq!(mock.calls().first().unwrap().bytes_sent, 3);
}

/// A Write frame by frame: what tonic's client cannot do.
struct RawWrite {
    stream: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
    connection: JoinSet<()>,
    _client: h2::client::SendRequest<Bytes>,
}

impl RawWrite {
    async fn begin(mock: &Mock) -> RawWrite {
        let (client, connection) = h2::client::handshake(mock.connect().unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let mut client = client.ready().await.unwrap();
        let request = http::Request::post("http://mock/google.bytestream.ByteStream/Write")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, stream) = client.send_request(request, false).unwrap();
        RawWrite {
            stream,
            response,
            connection: tasks,
            _client: client,
        }
    }

    fn send(&mut self, message: &WriteRequest, end: bool) {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut frame).unwrap();
        self.stream.send_data(frame.freeze(), end).unwrap();
    }

    /// `grpc-status` and the message of the answer.
    async fn answer(self) -> (String, Bytes) {
        let response = self.response.await.unwrap();
        if let Some(status) = response.headers().get("grpc-status") {
            return (status.to_str().unwrap().to_owned(), Bytes::new());
        }
        let mut body = response.into_body();
        let mut data = BytesMut::new();
        while let Some(chunk) = body.data().await {
            data.extend_from_slice(&chunk.unwrap());
        }
        let trailers = body.trailers().await.unwrap().unwrap();
        (
            trailers["grpc-status"].to_str().unwrap().to_owned(),
            data.freeze(),
        )
    }
}

const HALF: &[u8] = b"01234";

/// A mock with a Write under way, of which half has arrived.
async fn half_written() -> (Mock, Digest, RawWrite) {
    let mock = Mock::builder().start();
    let digest = Digest::of(b"0123456789");
    let gate = mock.hold(Match::write(&digest), After::Bytes(HALF.len() as u64));
    let mut write = RawWrite::begin(&mock).await;
    write.send(&part(&digest.write_name("", "u"), 0, HALF, false), false);
    gate.reached().await;
    (mock, digest, write)
}

async fn outcome(mock: &Mock, digest: &Digest) -> Outcome {
    mock.finished(Match::write(digest), 1).await;
    assert_eq!(mock.blob("", digest), None);
    let calls = mock.calls();
    assert_eq!(calls.first().unwrap().bytes_received, HALF.len() as u64);
    calls.first().unwrap().outcome
}

#[tokio::test]
async fn a_reset_write_is_a_reset_whatever_its_reason() {
    // tonic hides CANCEL, hyper hides NO_ERROR.
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        let (mock, digest, mut write) = half_written().await;
        write.stream.send_reset(reason);
        assert_eq!(outcome(&mock, &digest).await, Outcome::Reset, "{reason:?}");
    }
}

#[tokio::test]
async fn a_write_reset_at_a_gate_is_a_reset() {
    let mock = Mock::builder().start();
    let digest = Digest::of(b"0123456789");
    let gate = mock.hold(Match::write(&digest), After::End);
    let mut write = RawWrite::begin(&mock).await;
    write.send(&part(&digest.write_name("", "u"), 0, b"0123456789", true), false);
    gate.reached().await;
    write.stream.send_reset(Reason::CANCEL);
    mock.finished(Match::write(&digest), 1).await;
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Reset);
    gate.release();
    assert_eq!(mock.blob("", &digest), None);
}

#[tokio::test]
async fn a_write_that_ends_without_finish_write_is_half_closed_and_stores_nothing() {
    // BS-WRITE-08
    let (mock, digest, mut write) = half_written().await;
    write.stream.send_data(Bytes::new(), true).unwrap();
    let (status, message) = write.answer().await;
    assert_eq!(outcome(&mock, &digest).await, Outcome::HalfClosed);
    assert_eq!(status, "0");
    assert_eq!(&message[5..], [0x08, 5]); // committed_size = 5
}

#[tokio::test]
async fn a_lost_connection_is_neither_reset_nor_half_closed() {
    let (mock, digest, mut write) = half_written().await;
    write.connection.shutdown().await;
    assert_eq!(outcome(&mock, &digest).await, Outcome::ConnectionLost);
}

#[tokio::test]
async fn the_connection_of_each_call_is_known() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    for mut client in [Client::of(&mock), Client::of(&mock)] {
        client.read_blob(&digest).await.unwrap();
        client.read_blob(&digest).await.unwrap();
    }
    let connections: Vec<_> = mock.calls().iter().map(|call| call.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1]);
}

#[tokio::test]
async fn a_cleared_log_keeps_the_calls_that_are_open_and_goes_on_counting() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", "content");
    let gate = mock.hold(Match::read(&digest).nth(2), After::Start);
    let mut client = Client::of(&mock);
    client.read_blob(&digest).await.unwrap();
    let mut second = client.clone();
    let change = async {
        gate.reached().await;
        client.read_blob(&digest).await.unwrap();
        mock.finished(Match::any(), 2).await;
        mock.clear_log();
        let kept: Vec<_> = mock.calls().iter().map(|call| call.index).collect();
        assert_eq!((kept, mock.mark()), (vec![1], 3));
        gate.release();
    };
    let (read, ()) = tokio::join!(second.read_blob(&digest), change);
    read.unwrap();
    mock.finished(Match::any(), 1).await;
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Ok);
}
