//! Acts that answer something else than is due, or later.

use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Act, After, Announce, Digest, Match, Mock, Outcome, Rule, Until, method};
use prost::Message;
use proto::reapi::{
    ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest,
    GetActionResultRequest, GetCapabilitiesRequest, GetTreeRequest, OutputFile, batch_update_blobs_request,
};
use proto::rpc;
use tokio::time::Instant;
use tonic::Code;

use crate::client::{Client, code, part};

const CONTENT: &str = "0123456789";

/// A mock with one blob, its client, and a rule.
fn with(rule: Rule) -> (Mock, Client, Digest) {
    let mock = Mock::builder().read_chunk_bytes(4).start();
    let digest = mock.put_blob("", CONTENT);
    mock.add(rule);
    let client = Client::of(&mock);
    (mock, client, digest)
}

/// Rules that took effect, call by call.
fn fired(mock: &Mock) -> Vec<(Option<u64>, &'static str, u64)> {
    let firings = mock.firings();
    firings
        .iter()
        .map(|firing| (firing.call, firing.act, firing.moved))
        .collect()
}

async fn missing(client: &mut Client, digests: &[Digest]) -> Vec<Digest> {
    let request = FindMissingBlobsRequest {
        blob_digests: digests.iter().map(Digest::to_wire).collect(),
        ..FindMissingBlobsRequest::default()
    };
    let answer = client.cas.find_missing_blobs(request).await.unwrap().into_inner();
    let digests = answer.missing_blob_digests;
    digests
        .iter()
        .map(|digest| Digest::from_wire(Some(digest)).unwrap())
        .collect()
}

async fn batch_read(client: &mut Client, digests: &[Digest]) -> Vec<(Code, Bytes)> {
    let request = BatchReadBlobsRequest {
        digests: digests.iter().map(Digest::to_wire).collect(),
        ..BatchReadBlobsRequest::default()
    };
    let answer = client.cas.batch_read_blobs(request).await.unwrap().into_inner();
    let entry = |entry: proto::reapi::batch_read_blobs_response::Response| {
        (Code::from_i32(entry.status.unwrap_or_default().code), entry.data)
    };
    answer.responses.into_iter().map(entry).collect()
}

async fn batch_update(client: &mut Client, blobs: &[&'static str]) -> Vec<Code> {
    let entry = |blob: &&'static str| batch_update_blobs_request::Request {
        digest: Some(Digest::of(blob.as_bytes()).to_wire()),
        data: Bytes::from_static(blob.as_bytes()),
        ..batch_update_blobs_request::Request::default()
    };
    let request = BatchUpdateBlobsRequest {
        requests: blobs.iter().map(entry).collect(),
        ..BatchUpdateBlobsRequest::default()
    };
    let answer = client.cas.batch_update_blobs(request).await.unwrap().into_inner();
    let codes = answer.responses.into_iter();
    codes
        .map(|entry| Code::from_i32(entry.status.unwrap_or_default().code))
        .collect()
}

async fn get_action(client: &mut Client, action: &Digest) -> Result<Bytes, tonic::Status> {
    let request = GetActionResultRequest {
        action_digest: Some(action.to_wire()),
        ..GetActionResultRequest::default()
    };
    let answer = client.actions.get_action_result(request).await?;
    Ok(answer.into_inner().0)
}

async fn write(client: &mut Client, blob: &'static str) -> Result<i64, tonic::Status> {
    let digest = Digest::of(blob.as_bytes());
    let parts = vec![part(&digest.write_name("", "u"), 0, blob.as_bytes(), true)];
    client.write(parts).await
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_a_hang_takes_until_it_is_cleared() {
    let (mock, mut client, digest) = with(Rule::new(Match::any(), Act::Delay { ms: 1500 }).times(1));
    let before = Instant::now();
    client.read_blob(&digest).await.unwrap();
    assert_eq!(before.elapsed().as_millis(), 1500);

    let hang = mock.add(Rule::new(Match::any(), Act::Hang).after(After::Bytes(5)).times(1));
    let mut read = std::pin::pin!(client.read_blob(&digest));
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, &mut read).await.is_err());
    assert_eq!(mock.calls().last().unwrap().bytes_sent, 5);
    assert!(mock.remove(hang));
    assert_eq!(read.await.unwrap(), CONTENT.as_bytes());
    assert_eq!(fired(&mock), [(Some(0), "delay", 0), (Some(1), "hang", 5)]);
}

#[tokio::test(start_paused = true)]
async fn before_its_first_byte_or_after_the_last_a_hang_lasts_though_the_rule_ran_out() {
    for after in [After::Start, After::End] {
        let (mock, mut client, digest) = with(Rule::new(Match::any(), Act::Hang).after(after).times(1));
        let mut second = client.clone();
        let mut read = std::pin::pin!(client.read_blob(&digest));
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, &mut read).await.is_err());
        assert_eq!(second.read_blob(&digest).await.unwrap(), CONTENT.as_bytes());
        assert_eq!(mock.calls().first().unwrap().outcome, Outcome::Open);
        mock.heal();
        assert_eq!(read.await.unwrap(), CONTENT.as_bytes());
    }
}

#[tokio::test(start_paused = true)]
async fn a_drip_moves_bytes_at_its_rate_both_ways() {
    let rate = 2;
    let (mock, mut client, digest) = with(Rule::new(
        Match::any(),
        Act::Drip {
            bytes_per_second: rate,
        },
    ));
    let before = Instant::now();
    assert_eq!(client.read_blob(&digest).await.unwrap(), CONTENT.as_bytes());
    assert_eq!(before.elapsed().as_secs(), 5);
    let before = Instant::now();
    assert_eq!(write(&mut client, "four").await.unwrap(), 4);
    assert_eq!(before.elapsed().as_secs(), 2);
    assert_eq!(fired(&mock), [(Some(0), "drip", 0), (Some(1), "drip", 0)]);
}

#[tokio::test]
async fn a_status_comes_at_its_place_with_its_text_and_its_details() {
    let busy = Act::status_with_retry(Code::ResourceExhausted, 1250);
    let (mock, mut client, digest) = with(Rule::new(Match::any(), busy).times(1));
    let status = client.read_blob(&digest).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let details = rpc::Status::decode(status.details()).unwrap();
    let retry: rpc::RetryInfo = details.details[0].to_msg().unwrap();
    let delay = retry.retry_delay.unwrap();
    assert_eq!((delay.seconds, delay.nanos), (1, 250_000_000));

    let midway = Rule::new(Match::any(), Act::status(Code::DataLoss)).after(After::Bytes(6));
    let id = mock.add(midway);
    let status = client.read_blob(&digest).await.unwrap_err();
    assert_eq!((status.code(), status.details()), (Code::DataLoss, &[][..]));
    assert_eq!(mock.calls().last().unwrap().bytes_sent, 6);
    assert_eq!(code(write(&mut client, "new content").await), Code::DataLoss);
    mock.remove(id);
    mock.add(Rule::new(Match::any(), Act::status(Code::Internal)).after(After::End));
    assert_eq!(code(client.read_blob(&digest).await), Code::Internal);
    assert_eq!(mock.calls().last().unwrap().bytes_sent, 10);
    assert_eq!(code(write(&mut client, "new content").await), Code::Internal);
    assert_eq!(mock.blob("", &Digest::of(b"new content")), None);
    let moved: Vec<u64> = mock.firings().iter().map(|firing| firing.moved).collect();
    assert_eq!(moved, [0, 6, 11, 10, 11]);
}

#[tokio::test]
async fn entries_of_a_batch_get_their_code_and_the_others_are_spared() {
    let (mock, mut client, digest) = with(Rule::new(Match::any(), Act::Hang).times(0));
    let other = mock.put_blob("", "other");
    mock.add(Rule::new(
        Match::any().digest(&other),
        Act::EntryStatus { code: Code::Internal },
    ));
    let read = batch_read(&mut client, &[digest, other]).await;
    assert_eq!(read[0], (Code::Ok, Bytes::from(CONTENT)));
    assert_eq!(read[1], (Code::Internal, Bytes::new()));
    assert_eq!(
        batch_update(&mut client, &["new", "other"]).await,
        [Code::Ok, Code::Internal]
    );
    assert_eq!(
        fired(&mock),
        [(Some(0), "entry_status", 0), (Some(1), "entry_status", 0)]
    );
}

#[tokio::test]
async fn an_early_end_is_ok_and_short() {
    let (mock, mut client, digest) = with(Rule::new(Match::any(), Act::EndEarly).after(After::Bytes(6)));
    assert_eq!(client.read_blob(&digest).await.unwrap(), b"012345");
    assert_eq!(
        batch_read(&mut client, &[digest]).await,
        [(Code::Ok, Bytes::from("012345"))]
    );
    let (new, name) = (
        Digest::of(b"abcdefghij"),
        Digest::of(b"abcdefghij").write_name("", "u"),
    );
    let parts = vec![part(&name, 0, b"abcdef", false), part("", 6, b"ghij", true)];
    assert_eq!(client.write(parts).await.unwrap(), 6);
    assert_eq!(mock.blob("", &new), None);
    assert_eq!(missing(&mut client, &[new]).await, []);
    mock.finished(Match::any(), 4).await;
    assert_eq!(
        fired(&mock),
        [
            (Some(0), "end_early", 6),
            (Some(1), "end_early", 0),
            (Some(2), "end_early", 6),
            (Some(3), "end_early", 0)
        ]
    );
    let request = GetTreeRequest {
        root_digest: Some(mock.put_blob("", "").to_wire()),
        ..GetTreeRequest::default()
    };
    let mut pages = client.cas.get_tree(request).await.unwrap().into_inner();
    assert!(pages.message().await.unwrap().is_none());
    assert!(mock.calls().last().unwrap().met("end_early"));
}

#[tokio::test]
async fn a_wrong_committed_size_is_said_of_what_is_committed() {
    let (mock, mut client, _) = with(Rule::new(Match::any(), Act::CommittedSize { size: -7 }));
    assert_eq!(write(&mut client, "new").await.unwrap(), -7);
    assert_eq!(mock.blob("", &Digest::of(b"new")).unwrap(), "new");
    let name = Digest::of(b"new").write_name("", "u");
    assert_eq!(client.write_status(&name).await.unwrap(), (-7, true));
    assert_eq!(fired(&mock).len(), 2);
}

#[tokio::test]
async fn what_is_absent_is_called_present_and_the_reverse() {
    let (mock, mut client, here) = with(Rule::new(Match::any(), Act::SayPresent));
    let absent = Digest::of(b"absent");
    let name = absent.write_name("", "u");
    assert_eq!(missing(&mut client, &[here, absent]).await, []);
    assert_eq!(client.write_status(&name).await.unwrap(), (6, true));
    assert_eq!(fired(&mock).len(), 2);
    // Where it is true, nothing was done.
    assert_eq!(missing(&mut client, &[here]).await, []);
    assert_eq!(fired(&mock).len(), 2);

    mock.heal();
    mock.add(Rule::new(Match::any(), Act::SayMissing));
    let action = Digest::of(b"action");
    mock.put_action("", &action, "");
    assert_eq!(missing(&mut client, &[here, absent]).await, [here, absent]);
    assert_eq!(code(client.read_blob(&here).await), Code::NotFound);
    assert_eq!(batch_read(&mut client, &[here]).await[0].0, Code::NotFound);
    assert_eq!(code(get_action(&mut client, &action).await), Code::NotFound);
    let status = client.write_status(&here.write_name("", "u")).await.unwrap();
    assert_eq!(status, (0, false));
    assert_eq!(
        mock.firings()
            .iter()
            .filter(|firing| firing.act == "say_missing")
            .count(),
        5
    );
}

#[tokio::test]
async fn capabilities_lie_and_fail() {
    let lie = Announce {
        update_enabled: Some(false),
        max_batch_bytes: Some(10),
        max_blob_bytes: Some(20),
        digest_functions: Some(vec![9]),
        compressors: Some(vec![1]),
        no_cache: false,
    };
    let (mock, mut client, _) = with(Rule::new(Match::any(), Act::Capabilities(lie)).times(1));
    let mut ask = async || {
        let asked = client
            .capabilities
            .get_capabilities(GetCapabilitiesRequest::default())
            .await;
        asked.map(|answer| answer.into_inner().cache_capabilities)
    };
    let told = ask().await.unwrap().unwrap();
    assert_eq!(
        (told.max_batch_total_size_bytes, told.max_cas_blob_size_bytes),
        (10, 20)
    );
    assert_eq!(
        (told.digest_functions, told.supported_compressors),
        (vec![9], vec![1])
    );
    assert!(!told.action_cache_update_capabilities.unwrap().update_enabled);
    let no_cache = Announce {
        no_cache: true,
        ..Announce::default()
    };
    mock.add(Rule::new(Match::any(), Act::Capabilities(no_cache)).times(1));
    assert_eq!(ask().await.unwrap(), None);
    mock.add(
        Rule::new(
            Match::method(method::CAPABILITIES),
            Act::status(Code::Unimplemented),
        )
        .times(1),
    );
    assert_eq!(code(ask().await), Code::Unimplemented);
    assert!(ask().await.unwrap().is_some());
    let calls: Vec<_> = fired(&mock).iter().map(|(call, _, _)| *call).collect();
    assert_eq!(calls, [Some(0), Some(1), Some(2)]);
}

#[tokio::test]
async fn what_is_dropped_is_acknowledged_and_not_there() {
    let (mock, mut client, _) = with(Rule::new(Match::any(), Act::Drop));
    assert_eq!(write(&mut client, "new").await.unwrap(), 3);
    assert_eq!(batch_update(&mut client, &["batched"]).await, [Code::Ok]);
    let action = Digest::of(b"action");
    let update = proto::wire::UpdateActionResultRequest {
        action_digest: Some(action.to_wire()),
        action_result: Some(Bytes::new()),
        ..proto::wire::UpdateActionResultRequest::default()
    };
    client.actions.update_action_result(update).await.unwrap();
    assert_eq!(mock.blobs("").len(), 1);
    assert_eq!(mock.actions(""), []);
    assert_eq!(fired(&mock).len(), 3);
}

#[tokio::test]
async fn a_blob_is_evicted_between_two_calls() {
    let (mock, mut client, digest) = with(
        Rule::new(Match::method(method::FIND_MISSING), Act::Evict)
            .after(After::End)
            .times(1),
    );
    assert_eq!(missing(&mut client, &[digest]).await, []);
    assert_eq!(missing(&mut client, &[digest]).await, [digest]);
    assert_eq!(code(client.read_blob(&digest).await), Code::NotFound);
    assert_eq!(fired(&mock), [(Some(0), "evict", 0)]);

    // During a Read: what was begun is finished.
    let digest = mock.put_blob("", CONTENT);
    mock.add(Rule::new(Match::read(&digest), Act::Evict).after(After::Bytes(4)));
    assert_eq!(client.read_blob(&digest).await.unwrap(), CONTENT.as_bytes());
    assert_eq!(code(client.read_blob(&digest).await), Code::NotFound);
    assert_eq!(fired(&mock).len(), 2);

    let action = Digest::of(b"action");
    mock.put_action("", &action, "");
    mock.add(Rule::new(Match::any(), Act::Evict));
    assert_eq!(code(get_action(&mut client, &action).await), Code::NotFound);
    assert_eq!(mock.calls().last().unwrap().fired.len(), 1);
}

#[tokio::test]
async fn an_action_result_outlives_its_outputs() {
    let (mock, mut client, digest) = with(Rule::new(Match::any(), Act::EvictOutputs));
    let result = ActionResult {
        output_files: vec![OutputFile {
            path: "out".into(),
            digest: Some(digest.to_wire()),
            ..OutputFile::default()
        }],
        ..ActionResult::default()
    };
    let action = Digest::of(b"action");
    mock.put_action("", &action, result.encode_to_vec());
    assert_eq!(
        get_action(&mut client, &action).await.unwrap(),
        result.encode_to_vec()
    );
    assert_eq!(missing(&mut client, &[digest]).await, [digest]);
    assert_eq!(fired(&mock), [(Some(0), "evict_outputs", 0)]);
    // Nothing is left to evict.
    get_action(&mut client, &action).await.unwrap();
    assert_eq!(fired(&mock).len(), 1);
}

#[tokio::test]
async fn a_size_limit_that_nobody_announced_meets_large_calls_only() {
    let (mock, mut client, digest) = with(Rule::new(
        Match::method(method::BATCH_READ).min_bytes(11),
        Act::status(Code::InvalidArgument),
    ));
    let other = mock.put_blob("", "x");
    assert_eq!(batch_read(&mut client, &[digest]).await.len(), 1);
    let request = BatchReadBlobsRequest {
        digests: vec![digest.to_wire(), other.to_wire()],
        ..BatchReadBlobsRequest::default()
    };
    assert_eq!(
        code(client.cas.batch_read_blobs(request).await),
        Code::InvalidArgument
    );
    assert_eq!(fired(&mock), [(Some(1), "status", 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_ends_when_its_time_is_over_or_its_call_comes() {
    let fail = Rule::new(Match::any(), Act::status(Code::Internal));
    let (mock, mut client, digest) = with(fail.clone().lasting(Duration::from_secs(10)));
    assert_eq!(code(client.read_blob(&digest).await), Code::Internal);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);
    mock.add(fail.until(Until::Call(Match::method(method::FIND_MISSING))));
    assert_eq!(code(client.read_blob(&digest).await), Code::Internal);
    assert_eq!(missing(&mut client, &[digest]).await, []);
    assert_eq!(code(client.read_blob(&digest).await), Code::Ok);
}
