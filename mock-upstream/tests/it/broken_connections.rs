//! Acts on the stream and on the connection under it.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::Reason;
use mock_upstream::{Act, After, Digest, Farewell, Match, Mock, Outcome, Preset, Rule, method};
use prost::Message;
use proto::bytestream::ReadRequest;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::client::{Client, code, part};

/// A connection of which every frame is seen.
struct Raw {
    client: h2::client::SendRequest<Bytes>,
    connection: JoinSet<Result<(), h2::Error>>,
}

impl Raw {
    async fn new(mock: &Mock) -> Raw {
        let (client, connection) = h2::client::handshake(mock.connect().unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        Raw {
            client,
            connection: tasks,
        }
    }

    /// Reads a blob to the end of the stream, or to what ended it.
    async fn read(&self, digest: &Digest) -> Result<usize, h2::Error> {
        let message = ReadRequest {
            resource_name: digest.read_name(""),
            ..ReadRequest::default()
        };
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut frame).unwrap();
        let request = http::Request::post("http://mock/google.bytestream.ByteStream/Read")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut client = self.client.clone().ready().await?;
        let (response, mut stream) = client.send_request(request, false)?;
        stream.send_data(frame.freeze(), true)?;
        let mut body = response.await?.into_body();
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            bytes += data?.len();
        }
        body.trailers().await?;
        Ok(bytes)
    }

    /// How the connection ended.
    async fn ended(&mut self) -> Result<(), h2::Error> {
        self.connection.join_next().await.unwrap().unwrap()
    }
}

fn blob(mock: &Mock) -> Digest {
    mock.put_blob("", vec![7; 100])
}

fn rule(act: Act, after: After) -> Rule {
    Rule::new(Match::any(), act).after(after).times(1)
}

fn refuse_connections() -> Rule {
    Rule::new(Match::method(method::CONNECT), Act::Refuse)
}

#[tokio::test]
async fn a_stream_is_reset_and_its_connection_lives() {
    for after in [After::Start, After::Bytes(10), After::End] {
        let mock = Mock::builder().start();
        let digest = blob(&mock);
        mock.add(rule(Act::ResetStream, after));
        let raw = Raw::new(&mock).await;
        let error = raw.read(&digest).await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Broken);
        assert!(raw.read(&digest).await.is_ok());
        assert_eq!(mock.calls().last().unwrap().connection, 0);
        assert!(mock.calls().first().unwrap().met("reset_stream"));
    }
}

#[tokio::test]
async fn a_connection_breaks_and_all_its_calls_with_it() {
    for act in [Act::Reset, Act::Close] {
        let mock = Mock::builder().start();
        let digest = blob(&mock);
        let gate = mock.hold(Match::any().nth(1), After::Bytes(1));
        mock.add(Rule::new(Match::any().nth(2), act).after(After::Bytes(10)));
        let mut raw = Raw::new(&mock).await;
        let second = async {
            gate.reached().await;
            raw.read(&digest).await
        };
        let (first, second) = tokio::join!(raw.read(&digest), second);
        assert!(first.is_err() && second.is_err());
        // The pipe has no reset; that it ended is enough.
        drop(raw.ended().await);
        mock.finished(Match::any(), 2).await;
        let outcomes: Vec<_> = mock.calls().iter().map(|call| call.outcome).collect();
        assert_eq!(outcomes, [Outcome::Broken, Outcome::Broken]);
        assert_eq!(mock.firings().len(), 1);
        assert_eq!(mock.firings()[0].moved, 10);
        assert!(Raw::new(&mock).await.read(&digest).await.is_ok());
    }
}

#[tokio::test]
async fn over_tcp_a_reset_is_one_and_a_close_is_none() {
    let mock = Mock::builder().start_tcp("127.8.2.1:0").await.unwrap();
    for (act, expected) in [(Act::Reset, Some(ErrorKind::ConnectionReset)), (Act::Close, None)] {
        mock.add(Rule::new(Match::method(method::CONNECT), act).times(1));
        let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
        let read = socket.read(&mut [0; 1]).await;
        match expected {
            Some(kind) => assert_eq!(read.unwrap_err().kind(), kind),
            None => assert_eq!(read.unwrap(), 0),
        }
    }
    let firings = mock.firings();
    let told: Vec<_> = firings.iter().map(|f| (f.act, f.call, f.connection)).collect();
    assert_eq!(told, [("reset", None, Some(0)), ("close", None, Some(1))]);
}

#[tokio::test]
async fn a_reset_during_a_call_over_tcp_reaches_the_client_and_the_next_connection_serves() {
    let mock = Mock::builder().start_tcp("127.8.2.2:0").await.unwrap();
    let digest = blob(&mock);
    mock.add(rule(Act::Reset, After::Bytes(10)));
    let endpoint = Endpoint::new(format!("http://{}", mock.addr())).unwrap();
    let mut client = Client::new(endpoint.connect_lazy());
    assert_ne!(code(client.read_blob(&digest).await), Code::Ok);
    assert_eq!(client.read_blob(&digest).await.unwrap().len(), 100);
    assert_eq!(mock.calls().last().unwrap().connection, 1);
    assert!(mock.calls().last().unwrap().peer.is_some());
}

#[tokio::test]
async fn goaway_lets_streams_in_flight_finish() {
    let mock = Mock::builder().start();
    let digest = blob(&mock);
    mock.add(rule(
        Act::GoAway {
            streams: Farewell::Finish,
        },
        After::Bytes(10),
    ));
    let mut raw = Raw::new(&mock).await;
    assert!(raw.read(&digest).await.is_ok());
    raw.ended().await.unwrap();
    assert!(raw.read(&digest).await.is_err());
    assert_eq!(mock.calls().count(), 1);
    assert!(mock.calls().first().unwrap().met("go_away"));
}

#[tokio::test]
async fn goaway_disowns_streams_in_flight() {
    let mock = Mock::builder().start();
    let digest = blob(&mock);
    mock.add(rule(
        Act::GoAway {
            streams: Farewell::Disown,
        },
        After::Bytes(10),
    ));
    let raw = Raw::new(&mock).await;
    let error = raw.read(&digest).await.unwrap_err();
    assert!(error.is_go_away() && error.is_remote(), "{error}");
    assert_eq!(error.reason(), Some(Reason::NO_ERROR));
    mock.finished(Match::any(), 1).await;
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Broken);
    assert!(mock.calls().first().unwrap().met("go_away"));
}

#[tokio::test]
async fn goaway_comes_when_no_stream_is_in_flight() {
    let mock = Mock::builder().start();
    let digest = blob(&mock);
    mock.add(rule(
        Act::GoAway {
            streams: Farewell::Answered,
        },
        After::Start,
    ));
    let mut raw = Raw::new(&mock).await;
    assert!(raw.read(&digest).await.is_ok());
    raw.ended().await.unwrap();
    assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Ok);
    assert!(mock.calls().first().unwrap().met("go_away"));
}

#[tokio::test(start_paused = true)]
async fn a_starved_upload_stops_when_the_window_is_used_up_and_others_on_the_connection_too() {
    const WINDOW: usize = 65_535;
    static LARGE: [u8; 3 * WINDOW] = [7; 3 * WINDOW];
    let builder = Mock::builder().settings(|settings| settings.window_bytes = 65_535);
    let mock = builder.start();
    mock.add(Rule::new(Match::method(method::WRITE), Act::Starve).times(1));
    let mut client = Client::of(&mock);
    let digest = Digest::of(&LARGE);
    let name = digest.write_name("", "u");
    let pieces = (0..LARGE.len()).step_by(10_000).map(|offset| {
        let piece = &LARGE[offset..LARGE.len().min(offset + 10_000)];
        let last = offset + piece.len() == LARGE.len();
        part(&name, i64::try_from(offset).unwrap(), piece, last)
    });
    let hour = Duration::from_secs(3600);
    let mut second = client.clone();
    let mut write = std::pin::pin!(client.write(pieces.collect()));
    assert!(tokio::time::timeout(hour, &mut write).await.is_err());
    let received = mock.calls().first().unwrap().bytes_received;
    assert!((30_000..=WINDOW as u64).contains(&received), "{received}");
    let other = Digest::of(b"other");
    let small = second.write(vec![part(&other.write_name("", "u"), 0, b"other", true)]);
    assert!(tokio::time::timeout(hour, small).await.is_err());
    // On another connection all is well.
    let mut elsewhere = Client::of(&mock);
    let parts = vec![part(&other.write_name("", "v"), 0, b"other", true)];
    assert_eq!(elsewhere.write(parts).await.unwrap(), 5);
    assert!(mock.calls().first().unwrap().met("starve"));
}

#[tokio::test]
async fn refused_connections_are_refused_by_the_kernel_until_the_rule_is_gone() {
    let mock = Mock::builder().start_tcp("127.8.2.3:0").await.unwrap();
    let kept = TcpStream::connect(mock.addr()).await.unwrap();
    let refuse = mock.add(refuse_connections());
    mock.settled().await;
    let error = TcpStream::connect(mock.addr()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(mock.connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(mock.firings().iter().all(|firing| firing.act == "refuse"));
    assert!(!mock.firings().is_empty());
    mock.remove(refuse);
    mock.settled().await;
    drop(TcpStream::connect(mock.addr()).await.unwrap());
    drop(kept);

    mock.add(refuse_connections());
    mock.settled().await;
    mock.suspend().await.unwrap();
    mock.heal();
    mock.resume().await.unwrap();
    drop(TcpStream::connect(mock.addr()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_accepted_and_never_answered_until_the_rule_is_cleared() {
    let mock = Mock::builder().start();
    let digest = blob(&mock);
    mock.add(Rule::new(Match::method(method::CONNECT), Act::Hang));
    let mut client = Client::of(&mock);
    let mut read = std::pin::pin!(client.read_blob(&digest));
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut read).await.is_err());
    assert_eq!(mock.calls().count(), 0);
    mock.fired("hang", 1).await;
    mock.heal();
    assert_eq!(read.await.unwrap().len(), 100);
}

#[tokio::test]
async fn idle_connections_are_reset_on_command() {
    let mock = Mock::builder().start_tcp("127.8.2.4:0").await.unwrap();
    let mut socket = TcpStream::connect(mock.addr()).await.unwrap();
    // Settings: the connection is served.
    assert!(socket.read(&mut [0; 1]).await.unwrap() > 0);
    assert_eq!(mock.reset_connections(), 1);
    let mut rest = Vec::new();
    let error = socket.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// The codes of 60 reads under a preset.
async fn codes(preset: Preset, seed: u64) -> Vec<Code> {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", vec![7; 100_000]);
    mock.put_blob("", "another");
    mock.preset(preset, seed);
    let mut codes = Vec::new();
    for _ in 0..60 {
        let read = Client::of(&mock).read_blob(&digest).await;
        codes.push(match read {
            Ok(bytes) if !digest.fits(&bytes) => Code::DataLoss,
            read => code(read),
        });
        mock.finished(Match::any(), codes.len()).await;
    }
    let met = mock.calls().iter().filter(|call| !call.fired.is_empty()).count();
    let bad = codes.iter().filter(|code| **code != Code::Ok).count();
    assert!(met >= bad && bad > 0, "{met} of 60 met a rule, {bad} failed");
    codes
}

#[tokio::test]
async fn presets_hold_what_their_names_promise_and_a_seed_repeats_them() {
    let flaky = codes(Preset::Flaky, 7).await;
    assert_eq!(flaky, codes(Preset::Flaky, 7).await);
    assert_ne!(flaky, codes(Preset::Flaky, 8).await);
    assert!(flaky.contains(&Code::Ok) && flaky.contains(&Code::ResourceExhausted));
    let corrupt = codes(Preset::Corrupt, 7).await;
    assert!(
        corrupt
            .iter()
            .all(|code| [Code::Ok, Code::DataLoss].contains(code))
    );
}

#[tokio::test]
async fn a_server_that_goes_down_refuses_and_resets() {
    let mock = Mock::builder().start();
    let digest = blob(&mock);
    let mut client = Client::of(&mock);
    client.read_blob(&digest).await.unwrap();
    mock.preset(Preset::Down, 7);
    assert_ne!(code(client.read_blob(&digest).await), Code::Ok);
    assert!(mock.calls().last().unwrap().met("down-reset"));
    assert_eq!(code(client.read_blob(&digest).await), Code::Unavailable);
    assert_eq!(mock.calls().count(), 2);
    mock.fired("down-refuse", 1).await;
    mock.heal();
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);
}

#[tokio::test(start_paused = true)]
async fn a_slow_server_is_slow_a_hung_one_hangs_and_a_forgetful_one_forgets() {
    let mock = Mock::builder().start();
    let digest = mock.put_blob("", vec![7; 512 * 1024]);
    let mut client = Client::of(&mock);
    mock.preset(Preset::Slow, 7);
    let before = tokio::time::Instant::now();
    client.read_blob(&digest).await.unwrap();
    assert!(
        (2_100..2_200).contains(&before.elapsed().as_millis()),
        "{:?}",
        before.elapsed()
    );
    assert!(mock.calls().last().unwrap().met("slow-drip"));

    mock.heal();
    mock.preset(Preset::Hung, 7);
    let hour = Duration::from_secs(3600);
    assert!(
        tokio::time::timeout(hour, client.read_blob(&digest))
            .await
            .is_err()
    );
    assert!(mock.calls().last().unwrap().met("hung-hang"));

    mock.heal();
    mock.preset(Preset::Forgetful, 7);
    let mut lost = 0;
    for round in 0..40 {
        let content = vec![round; 10];
        let digest = Digest::of(&content);
        let message = proto::bytestream::WriteRequest {
            resource_name: digest.write_name("", "u"),
            finish_write: true,
            data: content.into(),
            ..proto::bytestream::WriteRequest::default()
        };
        assert_eq!(client.write(vec![message]).await.unwrap(), 10);
        lost += usize::from(mock.blob("", &digest).is_none());
    }
    mock.finished(Match::method(method::WRITE), 40).await;
    let writes = mock.calls().method(method::WRITE);
    let guilty = writes.iter().filter(|call| !call.fired.is_empty()).count();
    assert_eq!(lost, guilty);
    assert!((5..35).contains(&lost), "{lost}");
}

#[tokio::test]
async fn a_tiny_message_limit_refuses_larger_messages() {
    let builder = Mock::builder().settings(|settings| settings.max_message_bytes = 100);
    let mock = builder.start();
    let content = [7; 200];
    let digest = Digest::of(&content);
    let mut client = Client::of(&mock);
    let large = proto::bytestream::WriteRequest {
        resource_name: digest.write_name("", "u"),
        data: Bytes::copy_from_slice(&content),
        ..proto::bytestream::WriteRequest::default()
    };
    assert_eq!(code(client.write(vec![large]).await), Code::OutOfRange);
}
