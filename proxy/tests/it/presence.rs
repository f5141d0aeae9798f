use std::collections::HashSet;

use mock_upstream::{Digest, method};

use crate::harness::{Harness, noise};

#[tokio::test(start_paused = true)]
async fn fifteen_thousand_digests_are_asked_for_in_bounded_parts() {
    // CAS-FMB, PXY-16
    let site = Harness::new().start().await;
    let digests: Vec<Digest> = (0..15_000_u32)
        .map(|number| Digest::of(&number.to_le_bytes()))
        .collect();
    for number in (0..15_000_u32).step_by(3) {
        site.mock.put_blob("", number.to_le_bytes().to_vec());
    }
    let expected: Vec<Digest> = (0..15_000)
        .filter(|number| number % 3 != 0)
        .map(|number| digests[number])
        .collect();
    assert_eq!(site.client().missing(&digests).await.unwrap(), expected);
    let parts = site.mock.calls().method(method::FIND_MISSING);
    assert_eq!(parts.count(), 2);
    assert!(parts.iter().all(|call| call.digests.len() <= 10_000));
    let asked: HashSet<Digest> = parts.iter().flat_map(|call| call.digests.clone()).collect();
    assert_eq!(asked.len(), 15_000);
}

#[tokio::test(start_paused = true)]
async fn the_empty_blob_is_present_and_never_asked_for() {
    // CAS-GEN, DIG
    let site = Harness::new().start().await;
    let client = site.client();
    let (empty, absent) = (Digest::of(b""), Digest::of(b"absent"));
    assert_eq!(client.missing(&[empty]).await.unwrap(), []);
    assert!(site.mock.calls().method(method::FIND_MISSING).is_empty());
    let asked = [absent, empty, absent, empty];
    assert_eq!(client.missing(&asked).await.unwrap(), [absent]);
    let parts = site.mock.calls().method(method::FIND_MISSING);
    assert_eq!(parts.first().unwrap().digests, [absent], "each once");
    assert_eq!(client.read(&empty).await.unwrap(), "");
    assert!(site.mock.calls().digest(&empty).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_tier_1_is_no_proof_that_tier_2_has_the_blob() {
    // P2
    let site = Harness::new()
        .set("cas.lease", "0s")
        .set("repair", "off")
        .start()
        .await;
    let client = site.client();
    let blob = noise(1000, 1);
    let digest = Digest::of(&blob);
    client.write(&blob).await.unwrap();
    site.landed().await;
    assert_eq!(client.missing(&[digest]).await.unwrap(), []);
    site.mock.evict("", &digest);
    assert_eq!(client.missing(&[digest]).await.unwrap(), [digest]);
    site.mock.put_blob("", blob);
    assert_eq!(
        client.missing(&[digest]).await.unwrap(),
        [],
        "absence is not remembered"
    );
}
