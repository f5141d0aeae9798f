use mock_upstream::{Digest, method};
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, noise};

#[tokio::test(start_paused = true)]
async fn one_instance_never_reads_what_tier_1_holds_for_another() {
    // R1
    let site = Harness::new().start().await;
    let (a, b) = (site.client_of("a"), site.client_of("b"));
    let blob = noise(1000, 1);
    let digest = Digest::of(&blob);
    a.write(&blob).await.unwrap();
    site.landed().await;
    assert_eq!(a.read(&digest).await.unwrap(), blob);
    assert_eq!(code(b.read(&digest).await), Code::NotFound);
    assert_eq!(b.missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(code(site.client().read(&digest).await), Code::NotFound);

    // Once Tier 2 has it for the other instance too, it is read for that instance.
    site.mock.put_blob("b", blob.clone());
    assert_eq!(b.read(&digest).await.unwrap(), blob);
    let reads = site.mock.calls().method(method::READ).instance("b");
    assert_eq!(reads.count(), 2);
    assert!(site.mock.calls().method(method::READ).instance("a").is_empty());
    site.landed().await;
    assert_eq!(site.kept(), 2, "a copy each");
}

#[tokio::test(start_paused = true)]
async fn uploads_of_two_instances_are_two_uploads() {
    // R1, R12
    let site = Harness::new().start().await;
    let (a, b) = (site.client_of("a"), site.client_of("b"));
    let blob = noise(500_000, 2);
    let (first, second) = tokio::join!(a.write(&blob), b.write(&blob));
    assert_eq!((code(first), code(second)), (Code::Ok, Code::Ok));
    for instance in ["a", "b"] {
        assert_eq!(site.mock.blob(instance, &Digest::of(&blob)), Some(blob.clone()));
    }
}

#[tokio::test(start_paused = true)]
async fn instances_of_a_share_group_share_what_the_node_holds() {
    // R1
    let site = Harness::new()
        .set("instances", "{a: team, b: team}")
        .set("tier2.instance", "main")
        .start()
        .await;
    let blob = noise(1000, 3);
    let digest = site.mock.put_blob("main", blob.clone());
    assert_eq!(site.client_of("a").read(&digest).await.unwrap(), blob);
    site.landed().await;
    assert_eq!(site.client_of("b").read(&digest).await.unwrap(), blob);
    assert_eq!(site.mock.calls().method(method::READ).count(), 1);
    assert_eq!(site.client_of("c").read(&digest).await.unwrap(), blob);
    assert_eq!(
        site.mock.calls().method(method::READ).instance("main").count(),
        2,
        "an instance outside of the group shares nothing"
    );
}
