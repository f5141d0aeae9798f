use mock_upstream::{Match, Mock, method};
use proto::reapi::{GetCapabilitiesRequest, ServerCapabilities};
use tonic::Code;

use crate::client::{Client, code};

async fn capabilities(mock: &Mock) -> ServerCapabilities {
    let request = GetCapabilitiesRequest::default();
    Client::of(mock)
        .capabilities
        .get_capabilities(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn capabilities_say_what_is_configured() {
    let mock = Mock::builder()
        .max_batch_bytes(1_000)
        .update_enabled(false)
        .start();
    let told = capabilities(&mock).await;
    let cache = told.cache_capabilities.unwrap();
    assert_eq!(cache.digest_functions, [1]); // CAP-03
    assert_eq!(cache.max_batch_total_size_bytes, 1_000);
    assert_eq!(cache.symlink_absolute_path_strategy, 2); // CAP-13
    assert!(!cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert_eq!(told.execution_capabilities, None); // CAP-02
    let (low, high) = (told.low_api_version.unwrap(), told.high_api_version.unwrap());
    assert_eq!((low.major, low.minor, high.major), (2, 0, 2)); // CAP-04

    mock.configure(|settings| settings.update_enabled = true);
    let cache = capabilities(&mock).await.cache_capabilities.unwrap();
    assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
    let own = ServerCapabilities::default();
    mock.configure(|settings| settings.capabilities = Some(own.clone()));
    assert_eq!(capabilities(&mock).await, own);
    assert_eq!(
        mock.calls()
            .matching(&Match::method(method::CAPABILITIES))
            .count(),
        3
    );
}

#[tokio::test]
async fn a_malformed_instance_has_no_capabilities() {
    let mock = Mock::builder().start();
    let request = GetCapabilitiesRequest {
        instance_name: "a/blobs".into(),
    };
    let answer = Client::of(&mock).capabilities.get_capabilities(request).await;
    assert_eq!(code(answer), Code::InvalidArgument); // INST-02
}
