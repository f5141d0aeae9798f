use std::time::Duration;

use futures::FutureExt as _;
use tonic::Code;

use super::*;
use crate::digest::Function;
use crate::metrics::Metrics;
use crate::task::TaskGroup;
use crate::tier2::UpstreamStatus;
use crate::tier2::health::outlook;
use crate::tier2::memory::{MemoryTier2, ReadPlan};

struct Harness {
    memory: Arc<MemoryTier2>,
    breaker: Breaker<Arc<MemoryTier2>>,
    outlook: Outlook,
    losses: Losses,
    metrics: Metrics,
    tasks: TaskGroup,
}

impl Harness {
    fn new() -> Harness {
        let (tasks, metrics) = (TaskGroup::new(), Metrics::new());
        let memory = Arc::new(MemoryTier2::new(1));
        let (announcer, outlook) = outlook();
        let ends = (announcer, outlook.clone());
        let losses = Losses::default();
        let breaker = Breaker::new(memory.clone(), ends, &losses, &tasks, &metrics.tier2.up);
        Harness {
            memory,
            breaker,
            outlook,
            losses,
            metrics,
            tasks,
        }
    }

    fn is_up(&self, service: Service) -> bool {
        let up = self.outlook.of(service) == Health::Up;
        let shown = self.metrics.tier2.up.with_label_values(&[service.label()]).get();
        assert_eq!(shown, i64::from(up));
        up
    }

    async fn find(&self) -> Result<Vec<Digest>, Tier2Error> {
        self.breaker.find_missing(&call(), &[hello()]).await
    }

    async fn action(&self) -> Result<RawActionResult, Tier2Error> {
        self.breaker.action(&call(), &ActionDigest(hello())).await
    }
}

fn call() -> Call {
    Call::of_node(InstanceName::default())
}

fn hello() -> Digest {
    Digest::of(Function::Sha256, b"hello")
}

fn answered(code: Code) -> Tier2Error {
    Tier2Error::Answered(UpstreamStatus {
        code,
        message: String::new(),
        details: Bytes::new(),
    })
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_known_when_the_call_that_noticed_it_fails_and_then_nothing_but_probes_is_sent() {
    // P6
    let harness = Harness::new();
    assert!(harness.is_up(Service::Cas) && harness.is_up(Service::ActionCache));
    harness.memory.fail_with(Some(Tier2Error::Stalled));
    let start = Instant::now();
    assert!(matches!(harness.find().await, Err(Tier2Error::Stalled)));
    assert_eq!(start.elapsed(), Duration::ZERO, "probed at once");
    assert!(!harness.is_up(Service::Cas));

    tokio::time::sleep(Duration::from_millis(10_100)).await;
    assert!(
        !harness.is_up(Service::ActionCache),
        "silence is not one service's"
    );
    assert_eq!(harness.memory.count("probe"), 2 * 41, "every 250 ms each");
    let asked = Instant::now();
    let blob = (
        Verified::of(hello(), b"hello").unwrap(),
        Bytes::from_static(b"hello"),
    );
    let body = || futures::stream::pending().boxed();
    let range = ByteRange::whole(&hello());
    let read = harness.breaker.read(&call(), &hello(), range).now_or_never();
    assert!(matches!(read, Some(Err(Tier2Error::Down(_)))));
    let written = harness.breaker.write(&call(), &hello(), body()).now_or_never();
    assert!(matches!(written, Some(Err(Tier2Error::Down(_)))));
    assert!(harness.find().await.is_err() && harness.action().await.is_err());
    let key = ActionDigest(hello());
    let result = RawActionResult(Bytes::new());
    assert!(harness.breaker.put_action(&call(), &key, result).await.is_err());
    let read = harness.breaker.read_batch(&call(), &[hello(), hello()]).await;
    assert!(matches!(
        read[..],
        [Err(Tier2Error::Down(_)), Err(Tier2Error::Down(_))]
    ));
    let written = harness.breaker.write_batch(&call(), vec![blob]).await;
    assert!(matches!(written[..], [Err(Tier2Error::Down(_))]));
    assert_eq!(asked.elapsed(), Duration::ZERO);
    let sent = harness.memory.log();
    let sent = sent.iter().filter(|sent| sent.method != "probe").count();
    assert_eq!(sent, 1, "the call that noticed");

    harness.memory.fail_with(None);
    let returned = Instant::now();
    let mut outlook = harness.outlook.clone();
    while outlook.down_since().is_some() {
        outlook.changed().await;
    }
    assert!(returned.elapsed() <= Duration::from_millis(250));
    assert!(harness.is_up(Service::Cas) && harness.is_up(Service::ActionCache));
    assert!(harness.find().await.is_ok());
    assert_eq!(harness.tasks.stop(Duration::from_secs(1)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn an_accident_is_no_outage_and_its_call_fails_as_it_did() {
    let harness = Harness::new();
    harness.memory.plant(call().blob(&hello()), &b"hello"[..]);
    harness
        .memory
        .plan_reads([ReadPlan::BreakAt(0, Tier2Error::down("reset"))]);
    let range = ByteRange::whole(&hello());
    let read = harness.breaker.read(&call(), &hello(), range).await;
    assert!(matches!(read, Err(Tier2Error::Down(_))));
    assert!(harness.is_up(Service::Cas) && harness.is_up(Service::ActionCache));
    assert!(harness.memory.count("probe") >= 1);
    assert!(harness.breaker.read(&call(), &hello(), range).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn unavailable_speaks_for_the_service_that_says_it_and_other_answers_for_none() {
    let harness = Harness::new();
    harness.memory.fail_with(Some(answered(Code::Internal)));
    assert!(harness.find().await.is_err() && harness.action().await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.memory.count("probe"), 0);

    harness.memory.fail_with(Some(answered(Code::Unavailable)));
    assert!(harness.action().await.is_err());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!harness.is_up(Service::ActionCache));
    assert!(harness.is_up(Service::Cas));
}

#[tokio::test(start_paused = true)]
async fn a_break_midway_is_a_doubt_and_an_absence_is_none() {
    let harness = Harness::new();
    let range = ByteRange::whole(&hello());
    let absent = harness.breaker.read(&call(), &hello(), range).await;
    assert!(matches!(absent, Err(Tier2Error::NotFound)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(harness.memory.count("probe"), 0);

    harness.memory.plant(call().blob(&hello()), &b"hello"[..]);
    let mut stream = harness.breaker.read(&call(), &hello(), range).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    harness.memory.fail_with(Some(Tier2Error::Stalled));
    assert!(stream.next().await.unwrap().is_err());
    harness.outlook.down(Service::Cas).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_failures_at_once_are_settled_by_a_probe_or_two() {
    let harness = Harness::new();
    harness.memory.fail_with(Some(Tier2Error::down("refused")));
    let calls = (0..100).map(|_| harness.find());
    let found = futures::future::join_all(calls).await;
    assert!(found.iter().all(Result::is_err));
    assert!(harness.memory.count("probe") <= 4, "for both services");
}

#[tokio::test(start_paused = true)]
async fn the_loss_of_the_last_connection_is_probed_at_once_and_further_ones_at_a_bounded_pace() {
    // R4, R13
    let harness = Harness::new();
    tokio::task::yield_now().await;
    harness.losses.add();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(harness.memory.count("probe"), 2, "of each service");
    for _ in 0..10_000 {
        harness.losses.add();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let probes = harness.memory.count("probe");
    assert!((20..=22).contains(&probes), "{probes} in ten seconds");
    assert!(harness.is_up(Service::Cas) && harness.is_up(Service::ActionCache));

    harness.memory.fail_with(Some(Tier2Error::down("refused")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let lost = Instant::now();
    harness.losses.none_made();
    harness.outlook.down(Service::Cas).await;
    harness.outlook.down(Service::ActionCache).await;
    assert_eq!(lost.elapsed(), Duration::ZERO);

    // What probes find out in an outage says nothing once it is over.
    for _ in 0..20 {
        harness.losses.none_made();
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    harness.memory.fail_with(None);
    let mut outlook = harness.outlook.clone();
    while outlook.down_since().is_some() {
        outlook.changed().await;
    }
    let probes = harness.memory.count("probe");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.memory.count("probe"), probes);
}
