//! The control port's client: what it says of a mock elsewhere is what the mock says of itself.

use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Act, After, Control, Digest, Match, Mock, Remote, RemoteError, Rule, method};
use prost::Message as _;
use proto::reapi::ActionResult;
use proto::wire;
use serde_json::json;
use tokio::net::TcpListener;
use tonic::Code;

use crate::client::{Client, code, part};
use crate::http::Http;

async fn remote() -> (Mock, Control, Remote) {
    let mock = Mock::builder().start();
    let control = Control::start(mock.clone(), "127.8.4.1:0").await.unwrap();
    let remote = Remote::connect(&format!("http://{}/", control.addr()))
        .await
        .unwrap();
    (mock, control, remote)
}

/// The same but for what times lose as fractions of milliseconds.
fn rounded(mut calls: Vec<mock_upstream::Call>) -> Vec<mock_upstream::Call> {
    let round = |time: &mut Duration| *time = Duration::from_micros(time.as_micros().try_into().unwrap());
    for call in &mut calls {
        round(&mut call.arrived_at);
        call.ended_at.iter_mut().for_each(round);
        call.fired.iter_mut().for_each(|firing| round(&mut firing.at));
    }
    calls
}

#[tokio::test]
async fn the_log_arrives_as_it_is_with_what_was_told_and_what_rules_did() {
    let (mock, _control, remote) = remote().await;
    let digest = mock.put_blob("", "content");
    let absent = Digest::of(b"absent");
    let wanted = Match::read(&digest);
    let broken = Rule::new(wanted.clone(), Act::status(Code::DataLoss))
        .named("broken")
        .times(1);
    remote.add(&broken).await.unwrap();
    let mut client = Client::of(&mock);
    assert_eq!(code(client.read_blob(&digest).await), Code::DataLoss);
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);
    assert_eq!(code(client.read_blob(&absent).await), Code::NotFound);
    let written = vec![part(&absent.write_name("a", "u"), 0, b"absent", true)];
    client.write(written).await.unwrap();
    let update = wire::UpdateActionResultRequest {
        action_digest: Some(digest.to_wire()),
        action_result: Some(
            ActionResult {
                exit_code: 7,
                ..ActionResult::default()
            }
            .encode_to_vec()
            .into(),
        ),
        ..wire::UpdateActionResultRequest::default()
    };
    client.actions.update_action_result(update).await.unwrap();
    remote.finished(&Match::any(), 5).await.unwrap();
    remote.fired("broken", 1).await.unwrap();

    let told = remote.log(0).await.unwrap();
    let (calls, theirs) = (mock.calls(), told.calls.clone());
    assert_eq!(
        rounded(theirs.into_iter().collect()),
        rounded(calls.into_iter().collect())
    );
    assert_eq!((told.next_call, told.firings.len()), (5, mock.firings().len()));
    assert!(told.now <= mock.now() && told.calls.iter().all(|call| call.arrived_at <= told.now));
    let since: Vec<u64> = remote
        .log(3)
        .await
        .unwrap()
        .calls
        .iter()
        .map(|call| call.index)
        .collect();
    assert_eq!(since, [3, 4]);
    assert!(told.calls.last().unwrap().result.is_some());
}

#[tokio::test]
async fn contents_are_changed_and_looked_at() {
    let (mock, _control, remote) = remote().await;
    let instance = "a b/ä&c";
    let digest = remote
        .put_blob(instance, Bytes::from_static(b"content"))
        .await
        .unwrap();
    assert_eq!(mock.blob(instance, &digest).unwrap(), "content");
    assert!(
        remote.has_blob(instance, &digest).await.unwrap() && !remote.has_blob("", &digest).await.unwrap()
    );
    remote
        .plant(instance, &digest, Bytes::from_static(b"else"))
        .await
        .unwrap();
    assert_eq!(mock.blob(instance, &digest).unwrap(), "else");
    assert!(
        remote.evict(instance, &digest).await.unwrap() && !remote.evict(instance, &digest).await.unwrap()
    );
    assert!(!remote.has_action("", &digest).await.unwrap());
    remote
        .put_action("", &digest, Bytes::from_static(b"result"))
        .await
        .unwrap();
    assert!(remote.has_action("", &digest).await.unwrap());
    assert_eq!(mock.action("", &digest).unwrap(), "result");
}

#[tokio::test]
async fn a_gate_holds_until_it_is_released_and_says_who_came() {
    let (mock, control, remote) = remote().await;
    let digest = mock.put_blob("", "content");
    let gate = remote.hold(Match::read(&digest), After::Bytes(3)).await.unwrap();
    let mut client = Client::of(&mock);
    let let_go = async {
        gate.reached().await.unwrap();
        assert_eq!(mock.calls().first().unwrap().bytes_sent, 3);
        let http = Http(control.addr());
        let listed = http.json("GET", "/gates", "").await;
        assert_eq!(listed, json!([{ "id": 1, "reached": 1 }]));
        gate.release().await.unwrap();
        gate.release().await.unwrap();
    };
    let (read, ()) = tokio::join!(client.read_blob(&digest), let_go);
    assert_eq!(read.unwrap(), b"content");
}

#[tokio::test]
async fn a_reset_opens_all_gates() {
    let (mock, control, remote) = remote().await;
    let http = Http(control.addr());
    for open in [("POST", "/reset"), ("DELETE", "/gates")] {
        let digest = mock.put_blob("", "content");
        let gate = remote
            .hold(Match::method(method::READ), After::End)
            .await
            .unwrap();
        let mut client = Client::of(&mock);
        let let_go = async {
            gate.reached().await.unwrap();
            http.json(open.0, open.1, "").await;
        };
        let (read, ()) = tokio::join!(client.read_blob(&digest), let_go);
        assert_eq!(read.unwrap(), b"content");
        assert_eq!(http.json("GET", "/gates", "").await, json!([]));
    }
    for (request, body, status) in [
        ("/gates", r#"{"calls": {"on": "Read"}}"#, 400),
        ("/gates", r#"{"at": "end", "after_bytes": 1}"#, 400),
        ("/gates/9/wait", "", 404),
    ] {
        let method = if body.is_empty() { "GET" } else { "POST" };
        assert_eq!(
            http.ask(method, request, body.as_bytes()).await.0,
            status,
            "{request} {body}"
        );
    }
}

#[tokio::test]
async fn an_outage_and_its_end_can_be_ordered() {
    let mock = Mock::builder().start_tcp("127.8.4.2:0").await.unwrap();
    let control = Control::start(mock.clone(), "127.8.4.2:0").await.unwrap();
    let remote = Remote::connect(&format!("http://{}", control.addr()))
        .await
        .unwrap();
    let connects = || async { tokio::net::TcpStream::connect(mock.addr()).await.is_ok() };
    remote.suspend().await.unwrap();
    assert!(!connects().await);
    remote.resume().await.unwrap();
    assert!(connects().await);
    remote.suspend().await.unwrap();
    remote.reset().await.unwrap();
    assert!(connects().await);
    remote
        .add(&Rule::new(Match::method(method::CONNECT), Act::Refuse))
        .await
        .unwrap();
    assert!(!connects().await);
    remote.heal().await.unwrap();
    assert!(connects().await);
}

#[tokio::test]
async fn what_is_no_control_port_is_told_from_what_is_not_there() {
    let nobody = TcpListener::bind("127.8.4.3:0").await.unwrap();
    let address = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let error = Remote::connect(&address).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let (_mock, control, remote) = remote().await;
    let rule = Rule::new(Match::method(method::WRITE), Act::FlipByte);
    let error = remote.add(&rule).await.unwrap_err();
    assert!(
        error.to_string().contains("cannot be done to ByteStream.Write"),
        "{error}"
    );
    control.stop().await;
    let error = remote.heal().await.unwrap_err();
    assert!(matches!(error, RemoteError::Unreachable { .. }), "{error}");
}
