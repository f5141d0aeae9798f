use futures::StreamExt as _;
use tonic::Code;

use super::*;
use crate::digest::Function;
use crate::metrics::Metrics;
use crate::tier2::UpstreamStatus;
use crate::tier2::health::{Announcer, outlook};
use crate::tier2::memory::{MemoryTier2, ReadPlan};

struct Harness {
    memory: Arc<MemoryTier2>,
    retried: Retried<Arc<MemoryTier2>>,
    announcer: Announcer,
    metrics: Metrics,
}

impl Harness {
    fn new() -> Harness {
        let (metrics, memory) = (Metrics::new(), Arc::new(MemoryTier2::new(1)));
        let (announcer, outlook) = outlook();
        memory.plant(call().blob(&hello()), &b"hello"[..]);
        Harness {
            retried: Retried::new(memory.clone(), outlook, metrics.retries.clone()),
            memory,
            announcer,
            metrics,
        }
    }

    fn breaks(&self, times: usize, error: &Tier2Error) {
        let plans = vec![ReadPlan::BreakAt(0, error.clone()); times];
        self.memory.plan_reads(plans);
    }

    async fn read(&self) -> Result<Bytes, Tier2Error> {
        let range = ByteRange::whole(&hello());
        let stream = self.retried.read(&call(), &hello(), range).await?;
        let chunks: Vec<_> = stream.collect().await;
        Ok(chunks
            .into_iter()
            .map(Result::unwrap)
            .collect::<Vec<_>>()
            .concat()
            .into())
    }

    fn repeats(&self, method: &str) -> u64 {
        self.metrics.retries.repeated.with_label_values(&[method]).get()
    }
}

fn call() -> Call {
    Call::of_node(InstanceName::default())
}

fn hello() -> Digest {
    Digest::of(Function::Sha256, b"hello")
}

fn reset() -> Tier2Error {
    Tier2Error::down("reset")
}

fn unavailable(details: &'static [u8]) -> Tier2Error {
    Tier2Error::Answered(UpstreamStatus {
        code: Code::Unavailable,
        message: String::new(),
        details: Bytes::from_static(details),
    })
}

#[tokio::test(start_paused = true)]
async fn an_accident_is_not_seen_and_the_first_repeat_comes_at_once() {
    let harness = Harness::new();
    for error in [reset(), unavailable(b"")] {
        let start = Instant::now();
        harness.breaks(1, &error);
        assert_eq!(harness.read().await.unwrap(), "hello");
        assert_eq!(start.elapsed(), Duration::ZERO);
        harness.breaks(2, &error);
        assert_eq!(harness.read().await.unwrap(), "hello");
        assert!(start.elapsed() <= PAUSE);
    }
    assert_eq!(harness.repeats("read"), 6);
}

#[tokio::test(start_paused = true)]
async fn repeats_have_an_end_and_the_last_error_is_told() {
    let harness = Harness::new();
    harness.memory.fail_with(Some(reset()));
    assert!(matches!(harness.read().await, Err(Tier2Error::Down(_))));
    assert_eq!(harness.memory.count("read"), 3);
    let found = harness.retried.find_missing(&call(), &[hello()]).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))));
    assert_eq!(harness.memory.count("find_missing"), 3);
    let found = harness.retried.action(&call(), &ActionDigest(hello())).await;
    assert!(matches!(found, Err(Tier2Error::Down(_))));
    assert_eq!(harness.memory.count("action"), 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_not() {
    let harness = Harness::new();
    harness.breaks(1, &Tier2Error::Stalled);
    assert!(matches!(harness.read().await, Err(Tier2Error::Stalled)));
    harness.breaks(1, &unavailable(b"\x08\x0e")); // PXY-08: it says when to come again
    assert!(matches!(harness.read().await, Err(Tier2Error::Answered(_))));
    harness.memory.fail_with(Some(reset()));
    let key = ActionDigest(hello());
    let result = RawActionResult(Bytes::new());
    assert!(harness.retried.put_action(&call(), &key, result).await.is_err());
    assert_eq!(harness.memory.count("put_action"), 1);
    // Nor in an outage, nor when the caller's time is up.
    harness.announcer.announce(
        Service::Cas,
        Health::Down {
            since: Instant::now(),
        },
    );
    assert!(harness.read().await.is_err());
    harness.announcer.announce(Service::Cas, Health::Up);
    let late = Call {
        deadline: Some(Instant::now()),
        ..call()
    };
    let read = harness
        .retried
        .read(&late, &hello(), ByteRange::whole(&hello()))
        .await;
    assert!(read.is_err());
    assert_eq!(harness.memory.count("read"), 4);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_only_what_failed_is_repeated() {
    let harness = Harness::new();
    let absent = Digest::of(Function::Sha256, b"absent");
    harness.breaks(1, &reset());
    let read = harness
        .retried
        .read_batch(&call(), &[absent, hello(), hello()])
        .await;
    assert!(
        matches!(&read[..], [Err(Tier2Error::NotFound), Ok(_), Ok(_)]),
        "{read:?}"
    );
    let log = harness.memory.log();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].digests, [hello(), hello()]);
}

#[tokio::test(start_paused = true)]
async fn a_tier_2_that_breaks_every_call_gets_a_tenth_more_of_them() {
    let harness = Harness::new();
    harness.memory.fail_with(Some(reset()));
    // At one instant, so that time adds nothing.
    let calls = (0..1000).map(|_| async { harness.retried.find_missing(&call(), &[hello()]).await.is_err() });
    let failed = futures::future::join_all(calls).await;
    assert!(failed.into_iter().all(|failed| failed));
    let sent = harness.memory.count("find_missing");
    assert!((1100..=1115).contains(&sent), "{sent}");
    assert!(harness.metrics.retries.refused.get() > 800);
}
