//! ActionCache: results pass as the bytes they came in.

use std::collections::HashMap;

use prost::Message;
use proto::{reapi, wire};
use tonic::Status;

use super::action_result::{Plan, Wanted, check};
use super::caller::Caller;
use super::chunk::MESSAGE_BYTES_MAX;
use super::digests;
use super::messages::PREFIX_BYTES;
use super::services::Services;
use super::status::{invalid, status_of};
use crate::tier2::RawActionResult;

/// Bytes that a result may have as a message of its own.
const RESULT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - PREFIX_BYTES;

/// Answers GetActionResult.
pub(super) async fn get(
    services: &Services,
    caller: &Caller,
    request: reapi::GetActionResultRequest,
) -> Result<wire::ActionResult, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    let action = digests::action(function, request.action_digest.as_ref())?;
    let found = services.tiered.action(&call, &action).await;
    let RawActionResult(encoded) = found.map_err(|error| status_of(&error, action))?;
    // A hit decodes; inlining is only a favour in any case.
    let Ok(result) = reapi::ActionResult::decode(encoded.clone()) else {
        return Ok(wire::ActionResult(encoded));
    };
    let wanted = Wanted {
        stdout: request.inline_stdout,
        stderr: request.inline_stderr,
        files: request.inline_output_files.into_iter().collect(),
    };
    let plan = Plan::new(function, &result, encoded.len(), &wanted, RESULT_BYTES_MAX);
    if plan.is_empty() {
        return Ok(wire::ActionResult(encoded));
    }
    let digests = plan.blobs();
    let mut blobs = HashMap::new();
    if !digests.is_empty() {
        let read = services.tiered.read_batch(&call, &digests).await;
        for (digest, bytes) in digests.into_iter().zip(read) {
            // What cannot be read stays out; the client can still fetch it by its digest (AC-GET-16).
            if let Ok(bytes) = bytes {
                services.calls.sent_bytes.inc_by(bytes.len() as u64);
                blobs.insert(digest, bytes);
            }
        }
    }
    Ok(wire::ActionResult(
        plan.apply(&encoded, &blobs).unwrap_or(encoded),
    ))
}

/// Answers UpdateActionResult.
pub(super) async fn update(
    services: &Services,
    caller: &Caller,
    request: wire::UpdateActionResultRequest,
) -> Result<wire::ActionResult, Status> {
    let call = caller.call(&request.instance_name)?;
    let function = digests::function(request.digest_function)?;
    let action = digests::action(function, request.action_digest.as_ref())?;
    let encoded = request
        .action_result
        .ok_or_else(|| Status::invalid_argument("the action result is absent"))?;
    let result = reapi::ActionResult::decode(encoded.clone())
        .map_err(|error| invalid(format_args!("the action result cannot be decoded: {error}")))?;
    check(function, &result)?;
    if encoded.len() > RESULT_BYTES_MAX {
        return Err(invalid(format_args!(
            "an action result of {} bytes could not be read back: {action}",
            encoded.len()
        )));
    }
    if !services.tiered.offers(&call.instance).update_enabled {
        return Err(Status::permission_denied(
            "tier 2 takes no action results from this node",
        ));
    }
    services
        .tiered
        .put_action(&call, &action, RawActionResult(encoded.clone()))
        .await
        .map_err(|error| status_of(&error, action))?;
    Ok(wire::ActionResult(encoded))
}
