mod peer;
mod pool;
mod reads;
mod small;
mod tls;
mod whole;
mod writes;

use super::*;
use crate::metrics::Metrics;
use crate::tier2::health::{Announcer, Health, outlook};
use peer::{Door, End, Peer};

/// A client and its far end.
struct Harness {
    tier2: RemoteTier2,
    peer: Peer,
    announcer: Announcer,
    metrics: Metrics,
    tasks: TaskGroup,
}

impl Harness {
    fn new() -> Harness {
        Harness::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut RemoteOptions)) -> Harness {
        let (tasks, metrics) = (TaskGroup::new(), Metrics::new());
        let peer = Peer::new(&tasks);
        let (announcer, outlook) = outlook();
        let mut options = options(Endpoint {
            tls: false,
            host: "tier2.example".to_owned(),
            port: 8980,
        });
        change(&mut options);
        let tier2 =
            RemoteTier2::new(options, Box::new(peer.clone()), outlook, &tasks, &metrics.tier2).unwrap();
        Harness {
            tier2,
            peer,
            announcer,
            metrics,
            tasks,
        }
    }
}

fn options(endpoint: Endpoint) -> RemoteOptions {
    RemoteOptions {
        endpoint,
        instances: InstanceMap::default(),
        connections: 1,
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        commit_timeout: Duration::from_secs(60),
        node_id: "node1".to_owned(),
    }
}

fn call_as(instance: &str) -> Call {
    Call::of_node(InstanceName::parse(instance).unwrap())
}

fn call() -> Call {
    call_as("")
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(Function::Sha256, bytes)
}

fn is_code<A>(result: &Result<A, Tier2Error>, code: Code) -> bool {
    matches!(result, Err(Tier2Error::Answered(status)) if status.code == code)
}

#[track_caller]
fn assert_took(since: Instant, seconds: u64) {
    let took = since.elapsed();
    let expected = Duration::from_secs(seconds);
    // Timers fire a millisecond late at most.
    let fits = took >= expected && took < expected + Duration::from_millis(50);
    assert!(fits, "{took:?} passed instead of {expected:?}");
}
