//! GetActionResult and UpdateActionResult.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use proto::reapi::{self, ActionResult, OutputFile};
use proto::wire;
use tonic::{Code, Status};

use crate::check;
use crate::check::{Check, Verdict, expect};
use crate::target::{Blob, Target, refused, refused_with};

pub(super) const CHECKS: &[Check] = &[
    check!("AC-GET-01", no_entry),
    check!("AC-GET-10", other_size),
    check!("AC-GET-15", inlining),
    check!("AC-UPD-01", last_write_wins),
    check!("AC-UPD-05", absent_fields),
    check!("AC-UPD-15", no_outputs),
    check!("AC-RES-02", unknown_fields),
];

async fn update(target: &Target, action: &reapi::Digest, result: Bytes) -> Result<(), Status> {
    let request = wire::UpdateActionResultRequest {
        instance_name: target.instance().into(),
        action_digest: Some(action.clone()),
        action_result: Some(result),
        ..Default::default()
    };
    target
        .action_cache()
        .update_action_result(request)
        .await
        .map(|_| ())
}

async fn get(target: &Target, action: &reapi::Digest) -> Result<Bytes, Status> {
    let request = reapi::GetActionResultRequest {
        instance_name: target.instance().into(),
        action_digest: Some(action.clone()),
        ..Default::default()
    };
    Ok(target
        .action_cache()
        .get_action_result(request)
        .await?
        .into_inner()
        .0)
}

/// The key of a fresh action, which is in the CAS as a client has to put it there.
async fn action(target: &Target) -> Result<reapi::Digest, check::Stop> {
    let action = Blob::random(40);
    target.put(&action).await?;
    Ok(action.digest)
}

async fn result_with(target: &Target, output: &Blob) -> Result<ActionResult, check::Stop> {
    target.put(output).await?;
    let file = OutputFile {
        path: "out".into(),
        digest: Some(output.digest.clone()),
        ..Default::default()
    };
    Ok(ActionResult {
        output_files: vec![file],
        ..Default::default()
    })
}

async fn no_entry(target: Arc<Target>) -> Verdict {
    let action = action(&target).await?;
    refused_with("GetActionResult", get(&target, &action).await, &[Code::NotFound])
}

async fn other_size(target: Arc<Target>) -> Verdict {
    let action = action(&target).await?;
    let result = result_with(&target, &Blob::random(100)).await?;
    update(&target, &action, result.encode_to_vec().into())
        .await
        .map_err(refused("UpdateActionResult"))?;
    let other = reapi::Digest {
        size_bytes: action.size_bytes + 1,
        ..action
    };
    refused_with(
        "GetActionResult",
        get(&target, &other).await,
        &[Code::NotFound, Code::InvalidArgument],
    )
}

async fn inlining(target: Arc<Target>) -> Verdict {
    let (action, output) = (action(&target).await?, Blob::random(200));
    let result = result_with(&target, &output).await?;
    update(&target, &action, result.encode_to_vec().into())
        .await
        .map_err(refused("UpdateActionResult"))?;
    let request = reapi::GetActionResultRequest {
        instance_name: target.instance().into(),
        action_digest: Some(action),
        inline_output_files: vec!["out".into(), "no/such/path".into()],
        ..Default::default()
    };
    let answer = target
        .action_cache()
        .get_action_result(request)
        .await
        .map_err(refused("GetActionResult"))?;
    let parsed = answer.into_inner().parse();
    let parsed =
        parsed.map_err(|error| check::Stop::Failed(format!("no ActionResult came: {error}").into()))?;
    let Some(file) = parsed.output_files.first() else {
        return Err(check::Stop::Failed("the output file is gone".into()));
    };
    let right = file.contents.is_empty() || file.contents == output.bytes;
    expect(right && file.digest == Some(output.digest), || {
        format!("{} bytes inlined", file.contents.len())
    })
}

async fn last_write_wins(target: Arc<Target>) -> Verdict {
    let action = action(&target).await?;
    for _ in 0..2 {
        let output = Blob::random(100);
        let result = result_with(&target, &output).await?;
        update(&target, &action, result.encode_to_vec().into())
            .await
            .map_err(refused("UpdateActionResult"))?;
        let came = get(&target, &action).await.map_err(refused("GetActionResult"))?;
        let came = ActionResult::decode(came);
        let digest = came
            .ok()
            .and_then(|came| came.output_files.first().and_then(|file| file.digest.clone()));
        expect(digest == Some(output.digest), || {
            format!("the result names {digest:?}")
        })?;
    }
    Ok(())
}

async fn absent_fields(target: Arc<Target>) -> Verdict {
    let request = wire::UpdateActionResultRequest {
        instance_name: target.instance().into(),
        ..Default::default()
    };
    let digest = Some(action(&target).await?);
    let without_result = wire::UpdateActionResultRequest {
        action_digest: digest,
        ..request.clone()
    };
    let without_digest = wire::UpdateActionResultRequest {
        action_result: Some(Bytes::new()),
        ..request.clone()
    };
    for request in [without_result, without_digest] {
        let answer = target.action_cache().update_action_result(request).await;
        refused_with("UpdateActionResult", answer, &[Code::InvalidArgument])?;
    }
    Ok(())
}

async fn no_outputs(target: Arc<Target>) -> Verdict {
    let action = action(&target).await?;
    let result = ActionResult {
        exit_code: 3,
        ..Default::default()
    };
    update(&target, &action, result.encode_to_vec().into())
        .await
        .map_err(refused("UpdateActionResult"))?;
    let came = ActionResult::decode(get(&target, &action).await.map_err(refused("GetActionResult"))?);
    expect(came.as_ref().is_ok_and(|came| came.exit_code == 3), || {
        format!("{came:?} came")
    })
}

async fn unknown_fields(target: Arc<Target>) -> Verdict {
    let action = action(&target).await?;
    let mut bytes = result_with(&target, &Blob::random(100)).await?.encode_to_vec();
    let future = [0xc2, 0x3e, 0x01, 0x2a]; // field 1000, length-delimited, one byte
    bytes.extend_from_slice(&future);
    update(&target, &action, bytes.into())
        .await
        .map_err(refused("UpdateActionResult"))?;
    let came = get(&target, &action).await.map_err(refused("GetActionResult"))?;
    expect(came.windows(future.len()).any(|window| window == future), || {
        "field 1000 is lost".into()
    })
}
