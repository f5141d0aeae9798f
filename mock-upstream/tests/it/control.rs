//! The control port, driven as a test in any language would.

use mock_upstream::{Control, Digest, Match, Mock, method};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tonic::Code;

use crate::client::{Client, code};
use crate::http::Http;

async fn controlled() -> (Mock, Control, Http) {
    let mock = Mock::builder().start();
    let control = Control::start(mock.clone(), "127.8.3.1:0").await.unwrap();
    let http = Http(control.addr());
    (mock, control, http)
}

#[tokio::test]
async fn rules_are_set_listed_and_cleared() {
    let (mock, control, http) = controlled().await;
    let digest = mock.put_blob("", "content");
    let rule = json!({
        "name": "busy",
        "on": "ByteStream.Read",
        "digest": digest.to_string(),
        "act": {"status": {"code": "RESOURCE_EXHAUSTED", "retry_after_ms": 5}},
        "times": 1,
    });
    let set = http.json("POST", "/rules", &rule.to_string()).await;
    let list = format!(r#"[{{"act": "hang", "times": 0}}, {}]"#, r#"{"act": "drop"}"#);
    let more = http.json("POST", "/rules", &list).await;
    assert_eq!(
        (set["ids"][0].as_u64(), more["ids"].as_array().unwrap().len()),
        (Some(1), 2)
    );
    let mut client = Client::of(&mock);
    assert_eq!(code(client.read_blob(&digest).await), Code::ResourceExhausted);
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);

    let rules = http.json("GET", "/rules", "").await;
    assert_eq!(rules[0]["rule"]["name"], "busy");
    assert_eq!(rules[0]["rule"]["act"]["status"]["code"], "RESOURCE_EXHAUSTED");
    assert_eq!((&rules[0]["met"], &rules[0]["ended"]), (&json!(1), &json!(true)));
    let calls = http.json("GET", "/calls?met=busy", "").await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(
        (&calls[0]["outcome"], &calls[0]["code"]),
        (&json!("failed"), &json!("RESOURCE_EXHAUSTED"))
    );
    assert_eq!(calls[0]["fired"][0]["act"], "status");

    http.json("DELETE", "/rules/1", "").await;
    assert_eq!(http.ask("DELETE", "/rules/1", b"").await.0, 404);
    http.json("DELETE", "/rules", "").await;
    assert_eq!(http.json("GET", "/rules", "").await, json!([]));
    let (status, text) = http.ask("POST", "/rules", br#"{"act": "hnag"}"#).await;
    assert_eq!(status, 400);
    assert!(
        String::from_utf8(text)
            .unwrap()
            .contains("unknown variant `hnag`")
    );
    let preset = http.json("POST", "/presets/flaky?seed=7", "").await;
    assert_eq!(preset["ids"].as_array().unwrap().len(), 5);
    assert_eq!(http.ask("POST", "/presets/calm", b"").await.0, 400);
    control.stop().await;
}

#[tokio::test]
async fn a_wait_answers_when_the_call_has_come_and_says_how_it_ended() {
    let (mock, _control, http) = controlled().await;
    let digest = mock.put_blob("", "content");
    http.json("POST", "/rules", r#"{"name": "stuck", "act": "hang"}"#)
        .await;
    let path = format!("/calls/wait?on=ByteStream.Read&digest={digest}");
    let mut client = Client::of(&mock);
    let (arrived, ()) = tokio::join!(http.json("GET", &path, ""), async {
        let mut read = std::pin::pin!(client.read_blob(&digest));
        let fired = http.json("GET", "/firings/wait?rule=stuck", "");
        // Dropped here: the client gives up what hangs.
        futures::future::select(&mut read, std::pin::pin!(fired)).await;
    });
    assert_eq!(arrived[0]["method"], method::READ);
    assert_eq!(arrived[0]["digests"], json!([digest.to_string()]));
    let ended = http.json("GET", &format!("{path}&state=finished"), "").await;
    assert_eq!(
        (&ended[0]["outcome"], &ended[0]["cancelled"]),
        (&json!("reset"), &json!(true))
    );
    assert!(ended[0]["ended_at_ms"].as_f64() >= ended[0]["arrived_at_ms"].as_f64());
    assert_eq!(
        http.json("GET", "/firings", "").await.as_array().unwrap().len(),
        1
    );
    let (status, _) = http
        .ask("GET", &format!("{path}&count=2&timeout_ms=1"), b"")
        .await;
    assert_eq!(status, 408);
    for wrong in [
        "/calls?digset=x",
        "/calls?on=Read",
        "/calls/wait?state=begun",
        "/calls?digest=x",
    ] {
        assert_eq!(http.ask("GET", wrong, b"").await.0, 400, "{wrong}");
    }
}

#[tokio::test]
async fn blobs_and_results_are_put_read_listed_and_deleted() {
    let (mock, _control, http) = controlled().await;
    let (status, body) = http.ask("PUT", "/blobs?instance=a%2Fb", b"\x00content").await;
    let digest = Digest::of(b"\x00content");
    assert_eq!(status, 200);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["digest"], digest.to_string());
    assert!(mock.blob("a/b", &digest).is_some());
    assert_eq!(
        http.json("GET", "/blobs?instance=a/b", "").await,
        json!([digest.to_string()])
    );
    assert_eq!(http.json("GET", "/blobs", "").await, json!([]));
    for kind in ["blobs", "actions"] {
        let path = format!("/{kind}/{digest}?instance=x");
        assert_eq!(http.ask("GET", &path, b"").await.0, 404);
        assert_eq!(http.ask("PUT", &path, b"wrong bytes").await.0, 204);
        assert_eq!(http.ask("GET", &path, b"").await, (200, b"wrong bytes".to_vec()));
        assert_eq!(
            http.json("GET", &format!("/{kind}?instance=x"), "").await,
            json!([digest.to_string()])
        );
        assert_eq!(http.ask("DELETE", &path, b"").await.0, 204);
        assert_eq!(http.ask("DELETE", &path, b"").await.0, 404);
    }
    assert_eq!(http.ask("GET", "/blobs/xyz/1", b"").await.0, 400);
}

#[tokio::test]
async fn settings_change_and_a_reset_takes_everything_back() {
    let (mock, _control, http) = controlled().await;
    let digest = mock.put_blob("", "content");
    let before = http.json("GET", "/settings", "").await;
    let changed = http.json("PATCH", "/settings", r#"{"max_batch_bytes": 1}"#).await;
    assert_eq!(
        (&changed["max_batch_bytes"], mock.settings().max_batch_bytes),
        (&json!(1), 1)
    );
    assert_eq!(
        http.ask("PATCH", "/settings", br#"{"max_batch": 1}"#).await.0,
        400
    );
    mock.fail(Match::any(), Code::Internal, 9);
    assert_eq!(code(Client::of(&mock).read_blob(&digest).await), Code::Internal);
    mock.finished(Match::any(), 1).await;
    http.json("POST", "/suspend", "").await;
    http.json("POST", "/reset", "").await;
    let state = http.json("GET", "/", "").await;
    assert_eq!(
        (&state["blobs"], &state["rules"], &state["next_call"]),
        (&json!(0), &json!(0), &json!(1))
    );
    assert_eq!(http.json("GET", "/settings", "").await, before);
    assert_eq!(http.json("GET", "/calls", "").await, json!([]));
    assert_eq!(code(Client::of(&mock).read_blob(&digest).await), Code::NotFound);
}

#[tokio::test]
async fn whoever_has_been_told_that_connections_are_refused_is_refused() {
    let mock = Mock::builder().start_tcp("127.8.3.2:0").await.unwrap();
    let control = Control::start(mock.clone(), "127.8.3.2:0").await.unwrap();
    let http = Http(control.addr());
    for _ in 0..3 {
        http.json("POST", "/presets/down", "").await;
        assert!(TcpStream::connect(mock.addr()).await.is_err());
        http.json("DELETE", "/rules", "").await;
        drop(TcpStream::connect(mock.addr()).await.unwrap());
    }
}
