//! What clients say of themselves, in front of Tier 2s that take offence at it.

use bytes::Bytes;
use mock_upstream::{Digest, Mock, Violation, method};
use prost::Message as _;
use proto::REQUEST_METADATA_HEADER;
use proto::reapi::RequestMetadata;
use proto::wire::UpdateActionResultRequest;
use proto::wire::action_cache_client::ActionCacheClient;
use tonic::metadata::BinaryMetadataValue;
use tonic::{Code, Request};

use crate::client::code;
use crate::harness::{Harness, Site};

/// A Tier 2 that breaks this requirement.
async fn over(id: &str) -> Site {
    let violation = Violation::of(id).unwrap();
    Harness::new()
        .start_over(Mock::builder().violates(violation).start())
        .await
}

/// An update of a result, with this as the client's metadata.
async fn update(site: &Site, metadata: &[u8]) -> Code {
    let mut request = Request::new(UpdateActionResultRequest {
        action_digest: Some(Digest::of(metadata).to_wire()),
        action_result: Some(Bytes::from_static(&[0x20, 1])),
        ..Default::default()
    });
    let value = BinaryMetadataValue::from_bytes(metadata);
    request.metadata_mut().insert_bin(REQUEST_METADATA_HEADER, value);
    code(
        ActionCacheClient::new(site.channel())
            .update_action_result(request)
            .await,
    )
}

fn invocation(id: &str) -> Vec<u8> {
    let metadata = RequestMetadata {
        tool_invocation_id: id.to_owned(),
        ..Default::default()
    };
    metadata.encode_to_vec()
}

fn dropped(site: &Site, reason: &str) -> u64 {
    let calls = &site.node.metrics.calls;
    calls.metadata_dropped.with_label_values(&[reason]).get()
}

#[tokio::test(start_paused = true)]
async fn metadata_that_tier_2_would_refuse_does_not_reach_it() {
    // META-03, META-06
    for (id, metadata, reason) in [
        ("META-03", vec![0xff; 20], "undecodable"),
        ("META-06", invocation(&"x".repeat(8000)), "too_large"),
    ] {
        let site = over(id).await;
        assert_eq!(update(&site, &metadata).await, Code::Ok, "{id}");
        assert_eq!(dropped(&site, reason), 1);
        assert_eq!(update(&site, &invocation("one")).await, Code::Ok);
        assert_eq!(dropped(&site, reason), 1);
        let calls = site.mock.calls().method(method::UPDATE_ACTION);
        let told: Vec<_> = calls.iter().map(|call| call.invocation.as_str()).collect();
        assert_eq!(told, ["", "one"], "what is well formed goes along");
    }
}
