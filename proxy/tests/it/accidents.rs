//! A connection that breaks under a call, while Tier 2 is there: ours to repeat, the client sees nothing (R14).

use bytes::Bytes;
use mock_upstream::{Act, After, Digest, Match, Rule, method};
use prost::Message as _;
use proto::{reapi, rpc};
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, MIB, Site, noise};

fn some_result() -> Bytes {
    let result = reapi::ActionResult {
        exit_code: 3,
        ..Default::default()
    };
    result.encode_to_vec().into()
}

/// The next call of this method has its connection reset.
fn reset_once(site: &Site, method: &str) {
    site.mock
        .add(Rule::new(Match::method(method), Act::Reset).times(1));
}

#[tokio::test(start_paused = true)]
async fn calls_that_change_nothing_are_repeated() {
    let site = Harness::new().set("ac.lease", "0s").start().await;
    let client = site.client();
    let (small, large) = (noise(1000, 1), noise(3 * MIB, 2));
    let digests = [
        site.mock.put_blob("", small.clone()),
        site.mock.put_blob("", large.clone()),
    ];
    let action = Digest::of(b"an action");
    site.mock.put_action("", &action, some_result());

    reset_once(&site, method::FIND_MISSING);
    assert_eq!(client.missing(&digests).await.unwrap(), []);
    reset_once(&site, method::GET_ACTION);
    assert_eq!(client.action(&action).await.unwrap(), some_result());
    reset_once(&site, method::BATCH_READ);
    assert_eq!(client.batch_read(&digests[..1]).await.unwrap()[0].data, small);
    reset_once(&site, method::READ);
    assert!(client.read(&digests[1]).await.unwrap() == large);
    reset_once(&site, method::BATCH_UPDATE);
    assert_eq!(client.batch_write(&[noise(1000, 3)]).await.unwrap(), [Code::Ok]);

    let fired: u64 = site.mock.firings().len() as u64;
    assert_eq!(fired, 5);
    let repeats = &site.node.metrics.retries.repeated;
    for method in ["find_missing", "action", "read_batch", "read", "write_batch"] {
        assert_eq!(repeats.with_label_values(&[method]).get(), 1, "{method}");
    }
    assert_eq!(site.node.outlook.down_since(), None);
}

#[tokio::test(start_paused = true)]
async fn an_update_of_an_action_result_is_sent_once() {
    let site = Harness::new().start().await;
    reset_once(&site, method::UPDATE_ACTION);
    let action = Digest::of(b"an action");
    let update = site.client().put_action(&action, &some_result()).await;
    assert_eq!(code(update), Code::Unavailable);
    assert_eq!(site.mock.calls().method(method::UPDATE_ACTION).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_blob_goes_on_at_its_byte() {
    let site = Harness::new().start().await;
    let blob = noise(8 * MIB, 4);
    let digest = site.mock.put_blob("", blob.clone());
    let breaks = Rule::new(Match::read(&digest), Act::Reset).after(After::Bytes(MIB as u64 + 3));
    site.mock.add(breaks.times(1));
    let (from, len) = (MIB + 11, 4 * MIB);
    let (offset, limit) = (i64::try_from(from).unwrap(), i64::try_from(len).unwrap());
    let part = site.client().read_range(&digest, offset, limit).await;
    assert!(part.unwrap() == blob.slice(from..from + len));
    let reads: Vec<_> = site.mock.calls().method(method::READ).into_iter().collect();
    assert_eq!(reads.len(), 2);
    assert!(reads[1].offset > reads[0].offset, "{reads:?}");
    assert_eq!(site.node.metrics.reads.resumed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_is_begun_anew_once_with_what_was_staged() {
    let site = Harness::new().set("cas.write_lease", "0s").start().await;
    let blob = noise(3 * MIB, 5);
    let digest = Digest::of(&blob);
    let write = || Match::write(&digest);
    for after in [After::Start, After::Bytes(MIB as u64), After::End] {
        site.mock.evict("", &digest);
        let mark = site.mock.mark();
        site.mock
            .add(Rule::new(write(), Act::Reset).after(after).times(1));
        let written = site.client().write(&blob).await;
        assert_eq!(written.unwrap(), 3 * MIB as u64, "{after:?}");
        assert!(site.mock.blob("", &digest).unwrap() == blob);
        let sent = site.mock.calls().since(mark).method(method::WRITE).count();
        assert_eq!(sent, 2, "{after:?}");
    }
    assert_eq!(site.node.metrics.uploads.repeated.get(), 3);
    assert_eq!(site.node.metrics.uploads.taken_over.get(), 0);

    site.mock.evict("", &digest);
    site.mock.add(Rule::new(write(), Act::Reset).times(2));
    let mark = site.mock.mark();
    assert_eq!(code(site.client().write(&blob).await), Code::Unavailable);
    assert_eq!(site.mock.calls().since(mark).method(method::WRITE).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_told_when_to_come_again_is_the_client() {
    // PXY-08
    let site = Harness::new().start().await;
    let client = site.client();
    let digest = Digest::of(b"content");
    for busy in [Code::ResourceExhausted, Code::Unavailable] {
        let mark = site.mock.mark();
        let later = Act::status_with_retry(busy, 1500);
        site.mock
            .add(Rule::new(Match::method(method::FIND_MISSING).digest(&digest), later).times(1));
        let status = client.missing(&[digest]).await.unwrap_err();
        assert_eq!(status.code(), busy);
        let details = rpc::Status::decode(status.details()).unwrap();
        assert!(details.details[0].type_url.ends_with("RetryInfo"), "{details:?}");
        let asked = site.mock.calls().since(mark).digest(&digest).count();
        assert_eq!(asked, 1);
    }
}
