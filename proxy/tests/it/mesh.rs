//! Several nodes over one Tier 2.

mod model;
mod promises;

use std::time::Duration;

use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use prost::Message as _;
use proto::reapi;
use tokio::time::sleep;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, Site, noise};

/// Longer than any lease.
const AGES: Duration = Duration::from_secs(3600);

const AC_LEASE: Duration = Duration::from_secs(60);

async fn nodes(mock: &Mock, count: usize, harness: impl Fn() -> Harness) -> Vec<Site> {
    let mut sites = Vec::new();
    for _ in 0..count {
        sites.push(harness().start_over(mock.clone()).await);
    }
    sites
}

fn result(stdout: &Digest) -> Bytes {
    let result = reapi::ActionResult {
        stdout_digest: Some(stdout.to_wire()),
        ..Default::default()
    };
    result.encode_to_vec().into()
}

#[tokio::test(start_paused = true)]
async fn what_one_node_wrote_the_others_see_at_once() {
    // P1, P2
    let mock = Mock::builder().start();
    let sites = nodes(&mock, 3, Harness::new).await;
    for (seed, writer) in (0_u64..).zip(&sites) {
        let blob = noise(1000, seed);
        let (digest, action) = (Digest::of(&blob), Digest::of(&seed.to_le_bytes()));
        for site in &sites {
            // That it was missing a moment ago is not remembered.
            assert_eq!(site.client().missing(&[digest]).await.unwrap(), [digest]);
            assert_eq!(code(site.client().action(&action).await), Code::NotFound);
        }
        writer.client().write(&blob).await.unwrap();
        let written = result(&digest);
        writer.client().put_action(&action, &written).await.unwrap();
        for site in &sites {
            let client = site.client();
            assert_eq!(client.action(&action).await.unwrap(), written);
            assert_eq!(client.missing(&[digest]).await.unwrap(), []);
            assert!(client.read(&digest).await.unwrap() == blob);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_eviction_in_tier_2_is_seen_through_every_node_after_the_lease() {
    // P2, P3
    let mock = Mock::builder().start();
    let keeps_nothing = || Harness::new().set("tier1.max_blob_size", "1");
    let sites = nodes(&mock, 2, keeps_nothing).await;
    let blob = noise(1000, 1);
    let (digest, action) = (Digest::of(&blob), Digest::of(b"action"));
    sites[0].client().write(&blob).await.unwrap();
    sites[0]
        .client()
        .put_action(&action, &result(&digest))
        .await
        .unwrap();
    for site in &sites {
        assert_eq!(site.client().missing(&[digest]).await.unwrap(), []);
        assert_eq!(site.client().action(&action).await.unwrap(), result(&digest));
    }
    assert!(mock.evict("", &digest));
    sleep(AGES).await;
    for site in &sites {
        assert_eq!(site.client().missing(&[digest]).await.unwrap(), [digest]);
        assert_eq!(code(site.client().action(&action).await), Code::NotFound);
        assert_eq!(code(site.client().read(&digest).await), Code::NotFound);
    }
    // Brought back through one, it is there through the other.
    sites[1].client().write(&blob).await.unwrap();
    for site in &sites {
        assert_eq!(site.client().missing(&[digest]).await.unwrap(), []);
        assert_eq!(site.client().action(&action).await.unwrap(), result(&digest));
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_node_holds_it_gives_back_to_tier_2_for_all() {
    // P2, P3: whoever asks first finds it missing, until the node that has a copy is asked.
    let mock = Mock::builder().start();
    let sites = nodes(&mock, 2, Harness::new).await;
    let [holder, other] = [&sites[0], &sites[1]].map(Site::client);
    let blob = noise(1000, 1);
    let (digest, action) = (Digest::of(&blob), Digest::of(b"action"));
    holder.write(&blob).await.unwrap();
    holder.put_action(&action, &result(&digest)).await.unwrap();
    sites[0].landed().await;
    assert!(mock.evict("", &digest));
    sleep(AGES).await;
    assert_eq!(other.missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(code(other.action(&action).await), Code::NotFound);
    assert_eq!(holder.action(&action).await.unwrap(), result(&digest));
    assert_eq!(other.missing(&[digest]).await.unwrap(), []);
    assert_eq!(other.action(&action).await.unwrap(), result(&digest));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_another_node_wrote_is_seen_after_the_lease_and_by_its_writer_at_once() {
    // R7, PXY-41
    let mock = Mock::builder().start();
    let sites = nodes(&mock, 2, Harness::new).await;
    let [one, other] = [&sites[0], &sites[1]].map(Site::client);
    let action = Digest::of(b"action");
    let results = [1, 2, 3].map(|seed| result(&mock.put_blob("", noise(1000, seed))));
    one.put_action(&action, &results[0]).await.unwrap();
    assert_eq!(other.action(&action).await.unwrap(), results[0]);
    // In turns: each reads its own at once, and the other's when its copy has aged.
    for (written, writer, reader) in [(1, &other, &one), (2, &one, &other)] {
        writer.put_action(&action, &results[written]).await.unwrap();
        assert_eq!(writer.action(&action).await.unwrap(), results[written]);
        sleep(AC_LEASE).await;
        assert_eq!(reader.action(&action).await.unwrap(), results[written]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_starts_again_or_is_gone_takes_nothing_from_the_others() {
    // P9
    let mock = Mock::builder().start();
    let mut sites = nodes(&mock, 2, Harness::new).await;
    let blob = noise(1000, 1);
    let (digest, action) = (Digest::of(&blob), Digest::of(b"action"));
    let (first, second) = (sites.remove(0), sites.remove(0));
    first.client().write(&blob).await.unwrap();
    first
        .client()
        .put_action(&action, &result(&digest))
        .await
        .unwrap();
    let (stopped, _ended) = first.stop().await;
    assert_eq!(second.client().action(&action).await.unwrap(), result(&digest));
    assert!(second.client().read(&digest).await.unwrap() == blob);
    mock.evict_action("", &action);
    let again = stopped.start().await;
    assert_eq!(
        code(again.client().action(&action).await),
        Code::NotFound,
        "copies are not carried over a restart"
    );
}
