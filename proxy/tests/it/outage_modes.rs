//! What is answered while Tier 2 is down, by mode: R13's table, row by row.

use std::time::Duration;

use bytes::Bytes;
use gorego::tier2::health::Service;
use mock_upstream::{Act, After, Digest, Match, Rule, method};
use prost::Message as _;
use proto::reapi;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::client::{Client, code, parts, rest};
use crate::harness::{Harness, MIB, Site, noise};

const MODES: [&str; 3] = ["fail", "serve_tier1", "bypass"];

/// A node whose Tier 2 is gone, and knows it.
struct Outage {
    site: Site,
    client: Client,
    /// In both tiers.
    here: Digest,
    bytes: Bytes,
    /// In Tier 2 alone.
    far: Digest,
    /// An action result that refers to `here`, asked for before.
    usable: Digest,
    result: Bytes,
    /// One that refers to `far`.
    torn: Digest,
}

fn result_of(output: &Digest) -> Bytes {
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "out".to_owned(),
            digest: Some(output.to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    result.encode_to_vec().into()
}

impl Outage {
    /// All is well so far.
    async fn before(harness: Harness) -> Outage {
        let site = harness.start().await;
        let client = site.client();
        let (bytes, other) = (noise(4 * MIB, 1), noise(1000, 2));
        let here = site.mock.put_blob("", bytes.clone());
        let far = site.mock.put_blob("", other);
        let result = result_of(&here);
        let (usable, torn) = (Digest::of(b"usable"), Digest::of(b"torn"));
        site.mock.put_action("", &usable, result.clone());
        site.mock.put_action("", &torn, result_of(&far));
        assert!(client.read(&here).await.unwrap() == bytes);
        for action in [&usable, &torn] {
            client.action(action).await.unwrap();
        }
        site.landed().await;
        Outage {
            site,
            client,
            here,
            bytes,
            far,
            usable,
            result,
            torn,
        }
    }

    async fn begin(&self) {
        self.site.mock.suspend().await.unwrap();
        let noticed = self.client.missing(&[Digest::of(b"never asked for")]).await;
        assert!(noticed.is_err());
        for service in Service::ALL {
            self.site.node.outlook.down(service).await;
        }
    }

    async fn now(mode: &'static str) -> Outage {
        let outage = Outage::before(Harness::new().set("tier2.when_down", mode)).await;
        outage.begin().await;
        outage
    }

    async fn end(&self) {
        self.site.mock.resume().await.unwrap();
        self.site.tier2_is_up().await;
    }

    async fn batch_read(&self, digests: &[Digest]) -> Vec<Code> {
        let read = self.client.batch_read(digests).await.unwrap();
        let code = |status: Option<proto::rpc::Status>| Code::from(status.unwrap_or_default().code);
        read.into_iter().map(|entry| code(entry.status)).collect()
    }
}

fn outcome<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(start_paused = true)]
async fn get_action_result() {
    use Code::{NotFound, Ok, Unavailable};
    for (mode, usable, torn, unknown) in [
        ("fail", Unavailable, Unavailable, Unavailable),
        ("serve_tier1", Ok, Unavailable, Unavailable),
        ("bypass", NotFound, NotFound, NotFound),
    ] {
        let outage = Outage::now(mode).await;
        for _ in 0..2 {
            let found = outage.client.action(&outage.usable).await;
            assert_eq!(outcome(found), usable, "{mode}");
            let found = outage.client.action(&outage.torn).await;
            assert_eq!(outcome(found), torn, "{mode}");
            let found = outage.client.action(&Digest::of(b"unknown")).await;
            assert_eq!(outcome(found), unknown, "{mode}");
        }
        outage.end().await;
        assert_eq!(outage.client.action(&outage.usable).await.unwrap(), outage.result);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_an_action_result_counts_if_it_was_valid_then_and_the_outage_is_not_too_long() {
    let harness = || {
        let harness = Harness::new().set("tier2.when_down", "serve_tier1");
        harness.set("tier2.max_outage", "10m")
    };
    let outage = Outage::before(harness()).await;
    outage.begin().await;
    let began = Instant::now();
    for after in [0, 61, 599] {
        tokio::time::sleep_until(began + Duration::from_secs(after)).await;
        assert_eq!(outage.client.action(&outage.usable).await.unwrap(), outage.result);
    }
    tokio::time::sleep_until(began + Duration::from_secs(601)).await;
    let found = outage.client.action(&outage.usable).await;
    assert_eq!(code(found), Code::Unavailable);

    let outage = Outage::before(harness()).await;
    tokio::time::sleep(Duration::from_secs(61)).await;
    outage.begin().await;
    let found = outage.client.action(&outage.usable).await;
    assert_eq!(code(found), Code::Unavailable, "past its lease when it began");
}

#[tokio::test(start_paused = true)]
async fn find_missing() {
    use Code::{FailedPrecondition, Ok, Unavailable};
    for (mode, before, other) in [
        ("fail", Unavailable, Unavailable),
        ("serve_tier1", Ok, Unavailable),
        ("bypass", FailedPrecondition, FailedPrecondition),
    ] {
        let outage = Outage::before(Harness::new().set("tier2.when_down", mode)).await;
        let leased = [outage.here, outage.far];
        assert_eq!(outage.client.missing(&leased).await.unwrap(), []);
        outage.begin().await;
        for _ in 0..2 {
            let found = outage.client.missing(&leased).await;
            assert_eq!(outcome(found), before, "{mode}");
            let found = outage.client.missing(&[outage.here, Digest::of(b"new")]).await;
            assert_eq!(outcome(found), other, "{mode}");
            tokio::time::sleep(Duration::from_secs(600)).await;
        }
        // No lease outlives the outage.
        outage.site.mock.evict("", &outage.far);
        outage.end().await;
        assert_eq!(
            outage.client.missing(&leased).await.unwrap(),
            [outage.far],
            "{mode}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn presence_counts_if_it_was_under_a_lease_then_and_the_outage_is_not_too_long() {
    let outage = Outage::before(Harness::new().set("tier2.when_down", "serve_tier1")).await;
    assert_eq!(outage.client.missing(&[outage.here]).await.unwrap(), []);
    outage.begin().await;
    tokio::time::sleep(Duration::from_secs(3590)).await;
    assert_eq!(outage.client.missing(&[outage.here]).await.unwrap(), []);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        code(outage.client.missing(&[outage.here]).await),
        Code::Unavailable
    );

    let outage = Outage::before(Harness::new().set("tier2.when_down", "serve_tier1")).await;
    assert_eq!(outage.client.missing(&[outage.here]).await.unwrap(), []);
    tokio::time::sleep(Duration::from_secs(301)).await;
    outage.begin().await;
    assert_eq!(
        code(outage.client.missing(&[outage.here]).await),
        Code::Unavailable
    );
}

#[tokio::test(start_paused = true)]
async fn reads_and_batches_of_them() {
    use Code::{Ok, Unavailable};
    for (mode, told) in [("fail", Unavailable), ("serve_tier1", Ok), ("bypass", Ok)] {
        let outage = Outage::now(mode).await;
        let small = noise(500, 3);
        let asked = Instant::now();
        let read = outage.client.read(&outage.here).await;
        assert_eq!(outcome(read), told, "{mode}");
        let part = outage.client.read_range(&outage.here, 5, 10).await;
        assert_eq!(outcome(part), told, "{mode}");
        assert_eq!(code(outage.client.read(&outage.far).await), Unavailable, "{mode}");
        assert_eq!(code(outage.client.tree(&outage.far).await), Unavailable, "{mode}");
        outage.end().await;
        let small = outage.site.mock.put_blob("", small);
        outage.client.read(&small).await.unwrap();
        outage.site.landed().await;
        outage.begin().await;
        let read = outage.batch_read(&[small, outage.far, Digest::of(b"")]).await;
        assert_eq!(read, [told, Unavailable, Ok], "{mode}");
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_stored_is_refused_and_in_bypass_so_that_no_client_repeats_it() {
    // P1, P6
    use Code::{FailedPrecondition, Unavailable};
    for (mode, told) in [
        ("fail", Unavailable),
        ("serve_tier1", Unavailable),
        ("bypass", FailedPrecondition),
    ] {
        let outage = Outage::now(mode).await;
        let asked = Instant::now();
        // Also of what both tiers have.
        for blob in [noise(MIB, 4), outage.bytes.clone()] {
            assert_eq!(code(outage.client.write(&blob).await), told, "{mode}");
        }
        let batch = [noise(1000, 5), Bytes::new()];
        let written = outage.client.batch_write(&batch).await.unwrap();
        assert_eq!(written, [told, Code::Ok], "{mode}");
        let update = outage.client.put_action(&outage.usable, &outage.result).await;
        assert_eq!(code(update), told, "{mode}");
        assert!(asked.elapsed() < Duration::from_millis(50), "{mode}");
        outage.end().await;
        let missing = [Digest::of(&noise(MIB, 4)), Digest::of(&noise(1000, 5))];
        assert_eq!(outage.client.missing(&missing).await.unwrap(), missing, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn capabilities_and_readiness() {
    for (mode, is_ready) in [("fail", false), ("serve_tier1", true), ("bypass", true)] {
        let outage = Outage::now(mode).await;
        let told = outage.client.capabilities().await.unwrap();
        assert!(
            told.action_cache_update_capabilities.unwrap().update_enabled,
            "{mode}"
        );
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(outage.site.node.readiness.now(), Ok(()), "{mode}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(outage.site.node.readiness.now().is_ok(), is_ready, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_no_tier_2_is_answered_in_every_mode() {
    for mode in MODES {
        let outage = Outage::now(mode).await;
        let client = &outage.client;
        let empty = Digest::of(b"");
        assert_eq!(client.missing(&[empty]).await.unwrap(), [], "{mode}");
        assert_eq!(client.missing(&[]).await.unwrap(), []);
        assert_eq!(client.read(&empty).await.unwrap(), Bytes::new());
        assert_eq!(client.write(&Bytes::new()).await.unwrap(), 0);
        assert_eq!(client.batch_write(&[Bytes::new()]).await.unwrap(), [Code::Ok]);
        assert_eq!(client.batch_write(&[]).await.unwrap(), []);
        assert_eq!(outage.batch_read(&[empty]).await, [Code::Ok]);
        assert_eq!(outage.batch_read(&[]).await, []);
        let malformed = parts("uploads/u/blobs/x", 0, &outage.bytes);
        assert_eq!(
            code(client.write_parts(malformed).await),
            Code::InvalidArgument,
            "{mode}"
        );
        let off = client.read_range(&outage.here, -1, 0).await;
        assert_eq!(code(off), Code::OutOfRange, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_sends_tier_1s_bytes_runs_on() {
    for mode in MODES {
        let outage = Outage::before(Harness::new().set("tier2.when_down", mode)).await;
        let mut stream = outage.client.open(&outage.here).await.unwrap();
        let mut got = stream.message().await.unwrap().unwrap().data.to_vec();
        outage.begin().await;
        rest(&mut stream, &mut got).await.unwrap();
        assert!(got == outage.bytes, "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_call_that_notices_an_outage_is_answered_like_those_after_it() {
    let bypass = || Outage::before(Harness::new().set("tier2.when_down", "bypass"));
    let outage = bypass().await;
    outage.site.mock.suspend().await.unwrap();
    let found = outage.client.action(&Digest::of(b"unknown")).await;
    assert_eq!(code(found), Code::NotFound);

    let outage = bypass().await;
    outage.site.mock.suspend().await.unwrap();
    let written = outage.client.write(&noise(MIB, 6)).await;
    assert_eq!(code(written), Code::FailedPrecondition);

    let outage = bypass().await;
    outage.site.mock.suspend().await.unwrap();
    let update = outage.client.put_action(&outage.usable, &outage.result).await;
    assert_eq!(code(update), Code::FailedPrecondition);

    // Midway as well.
    let outage = bypass().await;
    let blob = noise(2 * MIB, 7);
    let gate = outage
        .site
        .mock
        .hold(Match::write(&Digest::of(&blob)), After::Bytes(MIB as u64));
    let cut = async {
        gate.reached().await;
        outage.site.mock.suspend().await.unwrap();
    };
    let (written, ()) = tokio::join!(outage.client.write(&blob), cut);
    assert_eq!(code(written), Code::FailedPrecondition);

    let served = Outage::before(
        Harness::new()
            .set("tier2.when_down", "serve_tier1")
            .set("ac.lease", "5s"),
    )
    .await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    served.site.mock.suspend().await.unwrap();
    // Our copy is current still; only whether its output is there has to be asked.
    let found = served.client.action(&served.usable).await;
    assert_eq!(found.unwrap(), served.result);
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_tier_2_is_passed_on_in_every_mode_while_it_is_there() {
    // P5: bypass is for outages, not for errors.
    for mode in MODES {
        let outage = Outage::before(Harness::new().set("tier2.when_down", mode)).await;
        let action = Digest::of(b"unknown");
        for answer in [Code::Internal, Code::ResourceExhausted] {
            outage
                .site
                .mock
                .fail(Match::method(method::GET_ACTION), answer, 1);
            assert_eq!(code(outage.client.action(&action).await), answer, "{mode}");
        }
        // The probe has another key, and is answered.
        let busy = Match::method(method::GET_ACTION).digest(&action);
        outage
            .site
            .mock
            .add(Rule::new(busy, Act::status(Code::Unavailable)));
        assert_eq!(
            code(outage.client.action(&action).await),
            Code::Unavailable,
            "{mode}"
        );
        assert_eq!(outage.site.node.outlook.down_since(), None);
    }
}
