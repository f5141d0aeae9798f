use std::collections::BTreeMap;

use bytes::Bytes;
use mock_upstream::Digest;
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, Site, noise};

/// The rendered lines that begin with one of these names.
fn counted(site: &Site, names: &[&str]) -> BTreeMap<String, String> {
    let text = site.node.metrics.render().unwrap();
    text.lines()
        .filter(|line| names.iter().any(|name| line.starts_with(name)))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_known_sequence_of_calls_is_counted_exactly() {
    let site = Harness::new().start().await;
    let client = site.client();
    let (blob, other) = (noise(1000, 1), noise(2000, 2));
    let (digest, absent) = (site.mock.put_blob("", blob), Digest::of(b"absent"));
    client.read(&digest).await.unwrap(); // from Tier 2
    site.landed().await;
    client.read(&digest).await.unwrap(); // from Tier 1
    client.read(&digest).await.unwrap();
    assert_eq!(code(client.read(&absent).await), Code::NotFound);
    client.write(&other).await.unwrap();
    site.landed().await;
    client.batch_read(&[Digest::of(&other), absent]).await.unwrap(); // Tier 1, and a miss
    let action = Digest::of(b"action");
    assert_eq!(code(client.action(&action).await), Code::NotFound);
    client
        .put_action(&action, &Bytes::from_static(&[0x20, 1]))
        .await
        .unwrap();
    client.action(&action).await.unwrap();
    client.missing(&[digest, absent]).await.unwrap();
    drop(client);
    site.landed().await;

    let names = [
        "gorego_calls_total",
        "gorego_hits_total",
        "gorego_misses_total",
        "gorego_read_bytes_total",
        "gorego_flights",
        "gorego_uploads_",
        "gorego_blob_",
        "gorego_tier2_calls_total",
        "gorego_tier2_read",
        "gorego_tier2_written",
        "gorego_tier1_blobs",
        "gorego_bad_blobs",
    ];
    let mut counted = counted(&site, &names);
    // How often capabilities are asked for is the node's own affair.
    counted.retain(|name, _| !name.contains("GetCapabilities"));
    insta::assert_debug_snapshot!(counted);
}
