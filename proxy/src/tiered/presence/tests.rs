use std::time::Duration;

use futures::future::join_all;
use tokio::time::advance;
use tonic::Code;

use super::*;
use crate::call::{Cause, InstanceName, Scope, Via};
use crate::digest::Function;
use crate::metrics::Metrics;
use crate::tier2::memory::MemoryTier2;
use crate::tier2::{Tier2Error, UpstreamStatus};

const OPTIONS: PresenceOptions = PresenceOptions {
    lease: Duration::from_secs(300),
    write_lease: Duration::from_secs(5),
};

struct Rig {
    presence: Presence,
    tier2: Arc<MemoryTier2>,
    metrics: Metrics,
}

fn rig() -> Rig {
    let metrics = Metrics::new();
    let tier2 = Arc::new(MemoryTier2::default());
    let presence = Presence::new(
        Arc::new(tier2.clone()),
        Arc::new(BadBlobs::new(metrics.reads.bad_blobs.clone())),
        OPTIONS,
        Signs::none(),
        &TaskGroup::new(),
        metrics.presence.clone(),
    );
    Rig {
        presence,
        tier2,
        metrics,
    }
}

fn call(scope: &str) -> Call {
    Call {
        scope: Scope::new(scope),
        instance: InstanceName::parse(scope).unwrap(),
        deadline: None,
        cause: Cause::Client(None),
        via: Via::default(),
    }
}

fn digest(number: u32) -> Digest {
    Digest::of(Function::Sha256, &number.to_le_bytes())
}

impl Rig {
    fn plant(&self, scope: &str, numbers: std::ops::Range<u32>) -> Vec<Digest> {
        let plant = |number: u32| {
            let digest = digest(number);
            self.tier2
                .plant(call(scope).blob(&digest), number.to_le_bytes().to_vec());
            digest
        };
        numbers.map(plant).collect()
    }

    async fn missing(&self, scope: &str, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        self.presence.missing(&call(scope), digests, OPTIONS.lease).await
    }

    fn asked(&self) -> usize {
        self.tier2.count("find_missing")
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_blobs_asked_about_twice_cause_one_call() {
    let rig = rig();
    let digests = rig.plant("main", 0..1000);
    for _ in 0..2 {
        assert_eq!(rig.missing("main", &digests).await.unwrap(), []);
        advance(Duration::from_secs(10)).await;
    }
    assert_eq!(rig.asked(), 1);
    assert_eq!(rig.metrics.presence.by_lease.get(), 1000);
    assert_eq!(rig.metrics.presence.leases.get(), 1000);
}

#[tokio::test(start_paused = true)]
async fn p2_a_lease_ends_with_its_time_and_missing_is_never_remembered() {
    let rig = rig();
    let digests = rig.plant("main", 0..1);
    let absent = digest(7);
    let both = [digests[0], absent];
    assert_eq!(rig.missing("main", &both).await.unwrap(), [absent]);
    assert_eq!(rig.missing("main", &both).await.unwrap(), [absent]);
    assert_eq!(
        rig.tier2.log().last().unwrap().digests,
        [absent],
        "only what has no lease"
    );
    rig.tier2.evict(&call("main").blob(&digests[0]));
    advance(OPTIONS.lease - Duration::from_millis(1)).await;
    assert_eq!(rig.missing("main", &digests).await.unwrap(), []);
    advance(Duration::from_millis(1)).await;
    assert_eq!(rig.missing("main", &digests).await.unwrap(), digests, "row 5");
}

#[tokio::test(start_paused = true)]
async fn a_question_says_how_old_its_evidence_may_be() {
    let rig = rig();
    let digests = rig.plant("main", 0..1);
    let ask = |freshness| {
        let presence = rig.presence.clone();
        let digests = digests.clone();
        async move { presence.missing(&call("main"), &digests, freshness).await }
    };
    assert_eq!(ask(Duration::ZERO).await.unwrap(), []);
    advance(Duration::from_secs(4)).await;
    assert_eq!(ask(OPTIONS.write_lease).await.unwrap(), []);
    assert_eq!(rig.asked(), 1);
    advance(Duration::from_secs(1)).await;
    assert_eq!(ask(OPTIONS.write_lease).await.unwrap(), []);
    assert_eq!(rig.asked(), 2);
    assert_eq!(ask(Duration::ZERO).await.unwrap(), []);
    assert_eq!(rig.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn p5_a_question_that_cannot_be_asked_is_an_error_and_live_leases_are_answered() {
    let rig = rig();
    let leased = rig.plant("main", 0..2);
    rig.missing("main", &leased).await.unwrap();
    rig.tier2.fail_with(Some(Tier2Error::Stalled));
    assert_eq!(rig.missing("main", &leased).await.unwrap(), []);
    let both = [leased[0], digest(9)];
    let answer = rig.missing("main", &both).await;
    assert!(
        matches!(answer, Err(CallError::Tier2(Tier2Error::Stalled))),
        "{answer:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r5_clients_that_ask_at_the_same_time_share_a_call_within_their_scope() {
    let rig = rig();
    let digests = rig.plant("a", 0..100);
    rig.plant("b", 0..50);
    let ask = |scope: &'static str| rig.missing(scope, &digests);
    let asks = (0..50).map(|number| ask(if number % 2 == 0 { "a" } else { "b" }));
    let answers = join_all(asks).await;
    for (number, answer) in answers.into_iter().enumerate() {
        let missing = if number % 2 == 0 { &[][..] } else { &digests[50..] };
        assert_eq!(answer.unwrap(), missing);
    }
    assert_eq!(rig.asked(), 2, "one for each scope");
}

#[tokio::test(start_paused = true)]
async fn r5_a_call_that_failed_for_all_is_repeated_once_for_each_unless_it_may_pass() {
    let refused = Tier2Error::Answered(UpstreamStatus {
        code: Code::PermissionDenied,
        message: "not you".to_owned(),
        details: bytes::Bytes::new(),
    });
    for (error, calls) in [(refused, 4), (Tier2Error::Stalled, 1)] {
        let rig = rig();
        rig.tier2.fail_with(Some(error));
        let asks = (0..3).map(|number| {
            let digest = digest(number);
            let presence = rig.presence.clone();
            async move { presence.missing(&call("main"), &[digest], OPTIONS.lease).await }
        });
        let answers = join_all(asks).await;
        assert!(answers.iter().all(Result::is_err));
        assert_eq!(rig.asked(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_asks_alone_is_not_asked_for_twice() {
    let rig = rig();
    rig.tier2.fail_with(Some(Tier2Error::NotFound));
    assert!(rig.missing("main", &[digest(1)]).await.is_err());
    assert_eq!(rig.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_clients_deadline_is_its_own() {
    let rig = rig();
    let digests = rig.plant("main", 0..1);
    let late = Call {
        deadline: Some(Instant::now()),
        ..call("main")
    };
    let hurried = rig.presence.missing(&late, &digests, OPTIONS.lease);
    let patient = rig.missing("main", &digests);
    let (hurried, patient) = tokio::join!(hurried, patient);
    assert!(matches!(hurried, Err(CallError::DeadlineExceeded)), "{hurried:?}");
    assert_eq!(patient.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn r10_a_bad_blob_is_missing_whatever_its_lease_says() {
    let rig = rig();
    let digests = rig.plant("main", 0..2);
    rig.missing("main", &digests).await.unwrap();
    let key = call("main").blob(&digests[0]);
    rig.presence.0.bad.condemn(&key);
    assert_eq!(rig.presence.evidence(&key), None);
    assert_eq!(rig.missing("main", &digests).await.unwrap(), [digests[0]]);
    assert_eq!(rig.asked(), 1, "Tier 2 would say that it is there");
}

#[tokio::test(start_paused = true)]
async fn the_empty_blob_and_empty_lists_are_answered_here() {
    let rig = rig();
    rig.tier2.fail_with(Some(Tier2Error::Stalled));
    let empty = Function::Sha256.empty();
    assert_eq!(rig.missing("main", &[]).await.unwrap(), []);
    assert_eq!(rig.missing("main", &[empty, empty]).await.unwrap(), []);
    assert_eq!(rig.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn leases_are_nothing_to_another_scope() {
    // R1
    let rig = rig();
    let digests = rig.plant("a", 0..3);
    rig.missing("a", &digests).await.unwrap();
    assert_eq!(rig.missing("b", &digests).await.unwrap(), digests);
}
