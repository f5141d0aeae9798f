//! What clients say of themselves in headers.

use proto::reapi::{RequestMetadata, ToolDetails};
use tonic::metadata::{BinaryMetadataValue, MetadataValue};

use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("META-01", tool_details),
    check!("META-02", without),
    check!("META-03", undecodable),
    check!("META-04", all_fields),
    check!("META-05", any_action_id),
    check!("META-06", long_header),
    check!("META-07", resource_name_header),
    check!("META-08", line_breaks),
];

/// Demands that a call works with these bytes as its metadata.
async fn borne(t: &Target, metadata: &[u8]) -> Verdict {
    let t = t.with_headers(|headers| {
        headers.insert_bin(
            proto::REQUEST_METADATA_HEADER,
            BinaryMetadataValue::from_bytes(metadata),
        );
    });
    let absent = Blob::random(10).digest;
    let missing = t
        .missing(vec![absent.clone()])
        .await
        .due("FindMissingBlobs with metadata")?;
    expect_eq("FindMissingBlobs with metadata", &missing, &vec![absent])
}

fn tool() -> Option<ToolDetails> {
    Some(ToolDetails {
        tool_name: "bazel".into(),
        tool_version: "7.7.1".into(),
    })
}

async fn tool_details(t: Arc<Target>) -> Verdict {
    let metadata = RequestMetadata {
        tool_details: tool(),
        ..Default::default()
    };
    borne(&t, &metadata.encode_to_vec()).await
}

async fn without(t: Arc<Target>) -> Verdict {
    let absent = Blob::random(10).digest;
    let missing = t
        .missing(vec![absent.clone()])
        .await
        .due("FindMissingBlobs without metadata")?;
    expect_eq("FindMissingBlobs without metadata", &missing, &vec![absent])
}

async fn undecodable(t: Arc<Target>) -> Verdict {
    let odd = t.with_headers(|headers| {
        let value = BinaryMetadataValue::from_bytes(&[0xff; 20]);
        headers.insert_bin(proto::REQUEST_METADATA_HEADER, value);
    });
    match odd.missing(vec![Blob::random(10).digest]).await {
        Ok(_) => Ok(()),
        answer => answer.denied("FindMissingBlobs with undecodable metadata", INVALID),
    }
}

async fn all_fields(t: Arc<Target>) -> Verdict {
    let metadata = RequestMetadata {
        tool_details: tool(),
        action_id: "a".repeat(64),
        tool_invocation_id: uuid::Uuid::new_v4().to_string(),
        correlated_invocations_id: uuid::Uuid::new_v4().to_string(),
        action_mnemonic: "Genrule".into(),
        target_id: "//a:b".into(),
        configuration_id: "c".repeat(64),
    };
    borne(&t, &metadata.encode_to_vec()).await
}

async fn any_action_id(t: Arc<Target>) -> Verdict {
    for action_id in ["capabilities", "input", "lease-extension", "@repo//with spaces"] {
        let metadata = RequestMetadata {
            action_id: action_id.into(),
            ..Default::default()
        };
        borne(&t, &metadata.encode_to_vec()).await?;
    }
    Ok(())
}

async fn long_header(t: Arc<Target>) -> Verdict {
    let metadata = RequestMetadata {
        correlated_invocations_id: "x".repeat(8000),
        ..Default::default()
    };
    borne(&t, &metadata.encode_to_vec()).await
}

async fn resource_name_header(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let name = t.read_name(&blob.digest);
    let value = MetadataValue::try_from(&name).map_err(|error| Stop::Broken(error.to_string()))?;
    let t = t.with_headers(|headers| {
        headers.insert("build.bazel.remote.execution.v2.resource-name", value);
    });
    t.reads_as(&name, &blob.bytes).await
}

async fn line_breaks(t: Arc<Target>) -> Verdict {
    let metadata = RequestMetadata {
        tool_invocation_id: "one\ntwo\r\n{\"level\":\"error\"}\u{0}".into(),
        ..Default::default()
    };
    borne(&t, &metadata.encode_to_vec()).await
}
