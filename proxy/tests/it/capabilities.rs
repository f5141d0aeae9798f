use mock_upstream::{Digest, Match, method};
use tonic::Code;

use crate::client::code;
use crate::harness::{Harness, idle, noise};

#[tokio::test(start_paused = true)]
async fn capabilities_are_answered_while_tier_2_is_down() {
    // CAP-25
    let site = Harness::new().start().await;
    site.mock.suspend().await.unwrap();
    let told = site.client().capabilities().await.unwrap();
    assert_eq!(told.digest_functions, [1]);
    assert!(told.action_cache_update_capabilities.unwrap().update_enabled);
}

#[tokio::test(start_paused = true)]
async fn what_tier_2_does_not_allow_is_not_announced_and_refused_without_asking() {
    // PXY-13, PXY-17
    let site = Harness::new()
        .mock(|settings| {
            settings.max_blob_bytes = 1000;
            settings.update_enabled = false;
        })
        .start()
        .await;
    let client = site.client();
    // The first question makes the node ask; it answers from what it knows.
    client.capabilities().await.unwrap();
    site.mock.finished(Match::method(method::CAPABILITIES), 1).await;
    idle().await;
    for down in [false, true] {
        if down {
            site.mock.suspend().await.unwrap();
        }
        let told = client.capabilities().await.unwrap();
        assert_eq!(told.max_cas_blob_size_bytes, 1000, "down: {down}");
        assert!(!told.action_cache_update_capabilities.unwrap().update_enabled);
    }
    site.mock.resume().await.unwrap();
    let mark = site.mock.mark();
    let blob = noise(1001, 1);
    assert_eq!(code(client.write(&blob).await), Code::InvalidArgument);
    let batch = client.batch_write(&[blob]).await.unwrap();
    assert_eq!(batch, [Code::InvalidArgument]);
    let update = client
        .put_action(&Digest::of(b"action"), &bytes::Bytes::new())
        .await;
    assert_eq!(code(update), Code::PermissionDenied);
    let asked = site.mock.calls().since(mark);
    let changes = [method::WRITE, method::BATCH_UPDATE, method::UPDATE_ACTION];
    assert!(!asked.iter().any(|call| changes.contains(&call.method.as_str())));
}
