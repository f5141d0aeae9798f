//! Copies of action results: how long they count, and what ends them.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{After, Digest, Match, Mock, method};
use prost::Message as _;
use proto::reapi;
use tokio::time::sleep;
use tonic::Code;

use crate::client::{Client, code};
use crate::harness::{Harness, is_pending};

const SECOND: Duration = Duration::from_secs(1);

/// A result that refers to nothing.
fn result(exit_code: i32) -> Bytes {
    let result = reapi::ActionResult {
        exit_code,
        ..Default::default()
    };
    result.encode_to_vec().into()
}

fn action() -> Digest {
    Digest::of(b"action")
}

async fn found(client: &Client) -> Result<Bytes, Code> {
    client.action(&action()).await.map_err(|status| status.code())
}

/// How often Tier 2 was asked for an action result.
fn questions(mock: &Mock) -> usize {
    mock.calls().method(method::GET_ACTION).count()
}

#[tokio::test(start_paused = true)]
async fn row_7_a_newer_result_in_tier_2_is_seen_after_the_lease_and_not_asked_for_within_it() {
    // R7, PXY-41
    let site = Harness::new().start().await;
    let client = site.client();
    site.mock.put_action("", &action(), result(1));
    for _ in 0..3 {
        assert_eq!(found(&client).await, Ok(result(1)));
    }
    site.mock.put_action("", &action(), result(2));
    sleep(59 * SECOND).await;
    assert_eq!(found(&client).await, Ok(result(1)));
    assert_eq!(questions(&site.mock), 1);
    sleep(SECOND).await;
    assert_eq!(found(&client).await, Ok(result(2)));
    site.mock.evict_action("", &action());
    sleep(60 * SECOND).await;
    assert_eq!(found(&client).await, Err(Code::NotFound));
    site.mock.put_action("", &action(), result(3));
    assert_eq!(
        found(&client).await,
        Ok(result(3)),
        "absence is not remembered: PXY-43"
    );
    assert_eq!(questions(&site.mock), 4);
    let hits = &site.node.metrics.reads.hits;
    let hits = ["1", "2"].map(|tier| hits.with_label_values(&[tier, "ac"]).get());
    assert_eq!(hits, [3, 3]);
}

#[tokio::test(start_paused = true)]
async fn with_a_lease_of_zero_tier_2_is_asked_every_time() {
    // R6, R7
    let site = Harness::new().set("ac.lease", "0s").start().await;
    let client = site.client();
    for number in 1..4 {
        site.mock.put_action("", &action(), result(number));
        assert_eq!(found(&client).await, Ok(result(number)));
    }
    assert_eq!(questions(&site.mock), 3);
    // Two at once are two questions: the answer to the first may be older than the second.
    let gate = site.mock.hold(Match::method(method::GET_ACTION), After::Start);
    let (one, other) = (site.client(), site.client());
    let both = async { tokio::join!(found(&one), found(&other)) };
    let ((first, second), ()) = tokio::join!(both, async {
        gate.reached_by(2).await;
        gate.release();
    });
    assert_eq!([first, second], [Ok(result(3)), Ok(result(3))]);
}

#[tokio::test(start_paused = true)]
async fn with_no_memory_for_copies_tier_2_is_asked_every_time() {
    let site = Harness::new().set("ac.memory", "0").start().await;
    site.mock.put_action("", &action(), result(1));
    for asked in 1..4 {
        assert_eq!(found(&site.client()).await, Ok(result(1)));
        assert_eq!(questions(&site.mock), asked);
    }
}

#[tokio::test(start_paused = true)]
async fn an_own_update_is_read_back_at_once_by_everybody_and_costs_no_question() {
    // R7, PXY-42, AC-UPD-10
    let site = Harness::new().start().await;
    site.mock.put_action("", &action(), result(1));
    assert_eq!(found(&site.client()).await, Ok(result(1)));
    for number in 2..4 {
        site.client()
            .put_action(&action(), &result(number))
            .await
            .unwrap();
        assert_eq!(found(&site.client()).await, Ok(result(number)));
    }
    assert_eq!(questions(&site.mock), 1);
    assert_eq!(site.node.metrics.actions.copies.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_clients_that_ask_at_once_cost_one_question_which_outlives_the_first_of_them() {
    // R5
    let site = Harness::new().start().await;
    site.mock.put_action("", &action(), result(1));
    let gate = site.mock.hold(Match::method(method::GET_ACTION), After::Start);
    let first = site.client();
    {
        let mut leaves = pin!(found(&first));
        assert!(is_pending(&mut leaves, SECOND).await);
    }
    let clients: Vec<Client> = (0..20).map(|_| site.client()).collect();
    let mut all = pin!(futures::future::join_all(clients.iter().map(found)));
    assert!(is_pending(&mut all, SECOND).await);
    gate.release();
    assert!(all.await.into_iter().all(|found| found == Ok(result(1))));
    assert_eq!(questions(&site.mock), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_goes_down_waits_for_no_question() {
    // P10
    let site = Harness::new().start().await;
    let _gate = site.mock.hold(Match::method(method::GET_ACTION), After::Start);
    let client = site.client();
    assert!(is_pending(&mut pin!(found(&client)), SECOND).await);
    drop(client);
    let began = tokio::time::Instant::now();
    let (_stopped, ended) = site.stop().await;
    assert_eq!(ended, gorego::life::Ended::Clean);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_may_be_one_client_s_fault_is_not_told_to_another_and_an_outage_is() {
    // R5
    let site = Harness::new().start().await;
    let client = site.client();
    site.mock.put_action("", &action(), result(1));
    let asked = Match::method(method::GET_ACTION);
    site.mock.fail(asked.clone(), Code::InvalidArgument, 1);
    assert_eq!(
        found(&client).await,
        Ok(result(1)),
        "asked again in the client's name"
    );
    assert_eq!(questions(&site.mock), 2);
    sleep(61 * SECOND).await;
    site.mock.fail(asked.clone(), Code::InvalidArgument, 2);
    assert_eq!(found(&client).await, Err(Code::InvalidArgument));
    assert_eq!(questions(&site.mock), 4);
    sleep(61 * SECOND).await;
    site.mock.fail(asked, Code::Internal, 1);
    assert_eq!(found(&client).await, Err(Code::Internal));
    assert_eq!(questions(&site.mock), 5);
}

#[tokio::test(start_paused = true)]
async fn a_question_sent_before_an_update_does_not_answer_with_what_was_before_it() {
    // R7, PXY-42: the update ends first; what Tier 2 then answers to the question is the older result.
    let site = Harness::new().start().await;
    let (reader, writer) = (site.client(), site.client());
    site.mock.put_action("", &action(), result(1));
    let question = site.mock.hold(Match::method(method::GET_ACTION), After::Start);
    let mut early = pin!(found(&reader));
    assert!(is_pending(&mut early, SECOND).await);
    writer.put_action(&action(), &result(2)).await.unwrap();
    assert_eq!(
        found(&writer).await,
        Ok(result(2)),
        "nobody joins the question from before"
    );
    site.mock.put_action("", &action(), result(1));
    question.release();
    assert_eq!(early.await, Ok(result(2)));
    assert_eq!(found(&reader).await, Ok(result(2)), "nor was its answer kept");
    assert_eq!(questions(&site.mock), 1);
}

#[tokio::test(start_paused = true)]
async fn a_question_sent_during_an_update_leaves_no_copy_of_what_was_before_it() {
    // R7: the question ends first, or last.
    for question_ends_first in [true, false] {
        let site = Harness::new().start().await;
        let (reader, writer) = (site.client(), site.client());
        site.mock.put_action("", &action(), result(1));
        let update = site.mock.hold(Match::method(method::UPDATE_ACTION), After::End);
        let (key, written) = (action(), result(2));
        let mut writing = pin!(writer.put_action(&key, &written));
        assert!(is_pending(&mut writing, SECOND).await);
        if question_ends_first {
            assert_eq!(found(&reader).await, Ok(result(1)), "not acknowledged yet");
            update.release();
            writing.await.unwrap();
        } else {
            let question = site.mock.hold(Match::method(method::GET_ACTION), After::Start);
            let mut reading = pin!(found(&reader));
            assert!(is_pending(&mut reading, SECOND).await);
            update.release();
            writing.await.unwrap();
            site.mock.put_action("", &action(), result(1));
            question.release();
            assert_eq!(reading.await, Ok(result(2)));
        }
        assert_eq!(found(&reader).await, Ok(result(2)));
        assert_eq!(questions(&site.mock), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_not_ok_drops_our_copy() {
    // R7
    let site = Harness::new().start().await;
    let client = site.client();
    client.put_action(&action(), &result(1)).await.unwrap();
    site.mock
        .fail(Match::method(method::UPDATE_ACTION), Code::Internal, 1);
    assert_eq!(
        code(client.put_action(&action(), &result(2)).await),
        Code::Internal
    );
    // It may have been stored all the same.
    site.mock.put_action("", &action(), result(2));
    assert_eq!(found(&client).await, Ok(result(2)));
    assert_eq!(questions(&site.mock), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_every_answer_is_outdated_by_updates_still_gets_one() {
    // R7, P10
    let site = Harness::new().set("ac.memory", "0").start().await;
    let (reader, writer) = (site.client(), site.client());
    site.mock.put_action("", &action(), result(0));
    let mut reading = pin!(found(&reader));
    for number in 1..=3 {
        let nth = Match::method(method::GET_ACTION);
        let question = site.mock.hold(nth, After::Start);
        assert!(is_pending(&mut reading, SECOND).await, "{number}");
        writer.put_action(&action(), &result(number)).await.unwrap();
        question.release();
    }
    assert_eq!(reading.await, Ok(result(3)));
    assert_eq!(questions(&site.mock), 4);
}

#[tokio::test(start_paused = true)]
async fn one_scope_never_sees_another_s_copy() {
    // R1
    let site = Harness::new().start().await;
    site.client_of("a")
        .put_action(&action(), &result(1))
        .await
        .unwrap();
    assert_eq!(found(&site.client_of("a")).await, Ok(result(1)));
    assert_eq!(found(&site.client_of("b")).await, Err(Code::NotFound));
}
