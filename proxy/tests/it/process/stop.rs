use mock_upstream::{After, Digest, Match};
use rustix::process::Signal;
use tokio::net::TcpStream;
use tonic::Code;

use super::Binary;
use super::start::mock;
use crate::client::{code, rest};
use crate::harness::{MIB, noise};

#[tokio::test]
async fn a_signal_lets_calls_in_flight_come_to_their_end_and_the_exit_is_clean() {
    for signal in [Signal::TERM, Signal::INT] {
        let mock = mock().await;
        let (read, written) = (noise(2 * MIB, 1), noise(2 * MIB, 2));
        let digest = mock.put_blob("", read.clone());
        let binary = Binary::over(&mock.url());
        let mut node = binary.start().await;
        let half = mock.hold(Match::read(&digest), After::Bytes(MIB as u64));
        let commit = mock.hold(Match::write(&Digest::of(&written)), After::End);
        let (reader, writer) = (node.client().await, node.client().await);
        let mut stream = reader.open(&digest).await.unwrap();
        let mut upload = writer.upload(&writer.upload_name(&Digest::of(&written)));
        upload.send(&written, 0, MIB).await;
        upload.send(&written, MIB, 2 * MIB).await;
        half.reached().await;
        commit.reached().await;

        node.signal(signal);
        node.logged("stopping").await;
        half.release();
        commit.release();
        let mut got = Vec::new();
        rest(&mut stream, &mut got).await.unwrap();
        assert!(got == read);
        assert_eq!(upload.answer().await.unwrap(), 2 * MIB as u64);
        let (code, last) = node.ended().await;
        assert_eq!(code, Some(0), "{last}");
        assert_eq!(
            (&last["message"], &last["clean"]),
            (&"stopped".into(), &true.into()),
            "{last}"
        );
        assert_eq!(last["how"], "clean");
        assert_eq!(mock.blob("", &Digest::of(&written)), Some(written));
    }
}

#[tokio::test]
async fn nobody_is_accepted_any_more_once_a_node_drains() {
    let mock = mock().await;
    let digest = mock.put_blob("", noise(MIB, 3));
    let mut node = Binary::over(&mock.url()).start().await;
    let gate = mock.hold(Match::read(&digest), After::Bytes(1000));
    let client = node.client().await;
    let mut stream = client.open(&digest).await.unwrap();
    node.signal(Signal::TERM);
    node.logged("stopping").await;
    // A connection that the kernel had accepted by then is closed or told to go away.
    if TcpStream::connect(&node.grpc).await.is_ok() {
        let other = crate::client::Client::new(
            tonic::transport::Endpoint::new(format!("http://{}", node.grpc))
                .unwrap()
                .connect_lazy(),
            "",
        );
        assert_ne!(code(other.missing(&[digest]).await), Code::Ok);
    }
    gate.release();
    rest(&mut stream, &mut Vec::new()).await.unwrap();
    assert_eq!(node.ended().await.0, Some(0));
}

#[tokio::test]
async fn streams_that_stall_do_not_hold_the_exit_beyond_the_grace_period() {
    let mock = mock().await;
    let (held, large) = (noise(MIB, 4), noise(40 * MIB, 5));
    let digests = [mock.put_blob("", held), mock.put_blob("", large)];
    let binary = Binary::over(&mock.url()).set("GOREGO_SHUTDOWN_GRACE", "300ms");
    let mut node = binary.start().await;
    // One waits for Tier 2, the other for a client that reads no further, the third for more of an upload.
    let gate = mock.hold(Match::read(&digests[0]), After::Bytes(1000));
    let (one, two, three) = (node.client().await, node.client().await, node.client().await);
    let _waiting = one.open(&digests[0]).await.unwrap();
    let _unread = two.open(&digests[1]).await.unwrap();
    let blob = noise(MIB, 6);
    let mut upload = three.upload(&three.upload_name(&Digest::of(&blob)));
    upload.send(&blob, 0, MIB / 2).await;
    mock.arrived(Match::write(&Digest::of(&blob)), 1).await;
    node.signal(Signal::TERM);
    let (code, last) = node.ended().await;
    assert_eq!(code, Some(3), "{last}");
    assert_eq!(
        (&last["message"], &last["clean"]),
        (&"stopped".into(), &false.into()),
        "{last}"
    );
    drop(gate);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mock = mock().await;
    let digest = mock.put_blob("", noise(MIB, 7));
    let binary = Binary::over(&mock.url()).set("GOREGO_SHUTDOWN_GRACE", "1h");
    let mut node = binary.start().await;
    let gate = mock.hold(Match::read(&digest), After::Bytes(1000));
    let client = node.client().await;
    let _stream = client.open(&digest).await.unwrap();
    node.signal(Signal::TERM);
    node.logged("stopping").await;
    node.signal(Signal::TERM);
    let (code, last) = node.ended().await;
    assert_eq!(code, Some(3), "{last}");
    assert_eq!(last["how"], "second signal: nothing was waited for");
    drop(gate);
}

#[tokio::test]
async fn an_idle_node_with_idle_clients_ends_cleanly() {
    let mut node = Binary::new().start().await;
    let client = node.client().await;
    client.capabilities().await.unwrap();
    let _never_used = TcpStream::connect(&node.grpc).await.unwrap();
    node.signal(Signal::TERM);
    let (code, last) = node.ended().await;
    assert_eq!((code, &last["clean"]), (Some(0), &true.into()), "{last}");
}
