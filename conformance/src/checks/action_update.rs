//! UpdateActionResult.

use proto::reapi::{Action, Command, ResultsCachePolicy};

use super::action_read::{action, file, round_trip, whole_action, with_files};
use super::prelude::*;

pub(super) const CHECKS: &[Check] = &[
    check!("AC-UPD-01", read_back_and_replaced),
    check!("AC-UPD-03", input_root_is_not_asked_for),
    check!("AC-UPD-04", any_key),
    check!("AC-UPD-05", absent_fields),
    check!("AC-UPD-06", missing_outputs),
    check!("AC-UPD-09", not_enabled),
    check!("AC-UPD-10", last_counts_at_once),
    check!("AC-UPD-11", one_or_the_other),
    check!("AC-UPD-12", priority),
    check!("AC-UPD-13", inlined_bytes),
    check!("AC-UPD-14", accepted_means_returned, heavy),
    check!("AC-UPD-15", no_outputs),
    check!("AC-UPD-16", answer_is_the_result),
    check!("AC-UPD-17", do_not_cache),
    check!("RN-18", missing_reference_is_named),
];

fn with_exit_code(exit_code: i32) -> ActionResult {
    ActionResult {
        exit_code,
        ..Default::default()
    }
}

async fn read_back_and_replaced(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    for exit_code in [21, 22] {
        t.store_result(&action, &with_exit_code(exit_code)).await?;
        expect_eq(
            "the result read back",
            &t.result_of(&action).await?.exit_code,
            &exit_code,
        )?;
    }
    Ok(())
}

/// An Action and its Command, both stored.
async fn real_action(t: &Target, do_not_cache: bool, input_root: &Digest) -> Result<Digest, Stop> {
    let command = Command {
        arguments: vec!["true".into(), uuid::Uuid::new_v4().to_string()],
        ..Default::default()
    };
    let command = t.blob(command.encode_to_vec());
    let action = Action {
        command_digest: Some(command.digest.clone()),
        input_root_digest: Some(input_root.clone()),
        do_not_cache,
        ..Default::default()
    };
    let action = t.blob(action.encode_to_vec());
    t.put(&command).await?;
    t.put(&action).await?;
    Ok(action.digest)
}

async fn input_root_is_not_asked_for(t: Arc<Target>) -> Verdict {
    let action = real_action(&t, false, &t.random(77).digest).await?;
    t.store_result(&action, &with_exit_code(0)).await
}

async fn any_key(t: Arc<Target>) -> Verdict {
    t.store_result(&t.random(34).digest, &with_exit_code(0)).await
}

async fn absent_fields(t: Arc<Target>) -> Verdict {
    if !t.updates_enabled().await? {
        return Err(Stop::NotOffered(
            "updates of the action cache are not enabled".into(),
        ));
    }
    let mut request = t.put_action_request(&action(&t).await?, Bytes::new());
    request.action_result = None;
    t.put_action(request)
        .await
        .denied("UpdateActionResult without a result", INVALID)?;
    let mut request = t.put_action_request(&Digest::default(), Bytes::new());
    request.action_digest = None;
    t.put_action(request)
        .await
        .denied("UpdateActionResult without a digest", INVALID)
}

async fn missing_outputs(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    if !t.updates_enabled().await? {
        return Err(Stop::NotOffered(
            "updates of the action cache are not enabled".into(),
        ));
    }
    let result = with_files(vec![file("out", &t.random(50).digest)]);
    match t
        .put_action(t.put_action_request(&action, result.encode_to_vec()))
        .await
    {
        Ok(_) => Ok(()),
        answer => answer.denied(
            "UpdateActionResult with a missing output",
            &[Code::FailedPrecondition],
        ),
    }
}

async fn missing_reference_is_named(t: Arc<Target>) -> Verdict {
    let (action, output) = (action(&t).await?, t.random(50).digest);
    let result = with_files(vec![file("out", &output)]);
    let Err(status) = t
        .put_action(t.put_action_request(&action, result.encode_to_vec()))
        .await
    else {
        return Err(Stop::NotOffered(
            "results with missing outputs are accepted".into(),
        ));
    };
    let details = proto::rpc::Status::decode(status.details())
        .unwrap_or_default()
        .details;
    let subject = format!("blobs/{}/{}", output.hash, output.size_bytes);
    let named = details
        .iter()
        .filter_map(|detail| proto::rpc::PreconditionFailure::decode(detail.value.as_slice()).ok())
        .flat_map(|failure| failure.violations)
        .any(|violation| violation.r#type == "MISSING" && violation.subject == subject);
    expect(named, || {
        format!("{:?} with {} details", status.code(), details.len())
    })
}

async fn not_enabled(t: Arc<Target>) -> Verdict {
    if t.updates_enabled().await? {
        return Err(Stop::NotOffered("updates of the action cache are enabled".into()));
    }
    let codes = &[
        Code::PermissionDenied,
        Code::Unimplemented,
        Code::FailedPrecondition,
    ];
    let request = t.put_action_request(&t.random(30).digest, Bytes::new());
    t.put_action(request)
        .await
        .denied("UpdateActionResult where updates are not enabled", codes)
}

async fn last_counts_at_once(t: Arc<Target>) -> Verdict {
    let (action, elsewhere) = (action(&t).await?, t.elsewhere().await?);
    for exit_code in 31..37 {
        t.store_result(&action, &with_exit_code(exit_code)).await?;
        let came = elsewhere.result_of(&action).await?.exit_code;
        expect_eq("the result on another connection", &came, &exit_code)?;
    }
    Ok(())
}

async fn one_or_the_other(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    let blob = t.stored(30).await?;
    let result = |count: i32| {
        let files = (0..count)
            .map(|i| file(&format!("{count}-{i}"), &blob.digest))
            .collect();
        ActionResult {
            exit_code: count,
            ..with_files(files)
        }
    };
    t.store_result(&action, &result(20)).await?;
    let write = async {
        for count in [25, 30, 20, 25, 30] {
            t.store_result(&action, &result(count)).await?;
        }
        Ok::<_, Stop>(())
    };
    let read = async {
        for _ in 0..20 {
            let came = t.result_of(&action).await?;
            let due = result(came.exit_code);
            expect(came == due, || {
                format!(
                    "a mixture: {} outputs of result {}",
                    came.output_files.len(),
                    came.exit_code
                )
            })?;
        }
        Ok(())
    };
    let (written, seen) = futures::join!(write, read);
    written.and(seen)
}

async fn priority(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    t.store_result(&action, &with_exit_code(0)).await?;
    let mut request = t.put_action_request(&action, with_exit_code(9).encode_to_vec());
    request.results_cache_policy = Some(ResultsCachePolicy { priority: 7 });
    t.put_action(request)
        .await
        .due("UpdateActionResult with a priority")
        .map(|_| ())
}

async fn inlined_bytes(t: Arc<Target>) -> Verdict {
    let stdout = t.stored(40).await?;
    let result = ActionResult {
        stdout_raw: stdout.bytes.clone(),
        stdout_digest: Some(stdout.digest),
        exit_code: 41,
        ..Default::default()
    };
    expect_eq(
        "a result with inlined stdout",
        &round_trip(&t, &result).await?.exit_code,
        &41,
    )
}

async fn accepted_means_returned(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    // Just under 4 MiB, the limit of a message, and what surrounds it over that.
    let result = ActionResult {
        stderr_raw: vec![b'e'; 4 * 1024 * 1024 - 300].into(),
        ..Default::default()
    };
    let request = t.put_action_request(&action, result.encode_to_vec());
    match t.put_action(request).await {
        Ok(_) => t.result_of(&action).await.map(|_| ()),
        // The transport may have refused it first.
        answer => answer.denied(
            "UpdateActionResult of almost 4 MiB",
            &[Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted],
        ),
    }
}

async fn no_outputs(t: Arc<Target>) -> Verdict {
    let action = whole_action(&t, 45).await?;
    t.store_result(&action, &ActionResult::default()).await?;
    expect_eq(
        "a result without anything",
        &t.result_of(&action).await?,
        &ActionResult::default(),
    )
}

async fn answer_is_the_result(t: Arc<Target>) -> Verdict {
    let action = action(&t).await?;
    t.store_result(&action, &with_exit_code(0)).await?;
    let request = t.put_action_request(&action, with_exit_code(51).encode_to_vec());
    let came = t.put_action(request).await.due("UpdateActionResult")?;
    expect_eq(
        "the answer to an update",
        &crate::calls::decoded(came)?.exit_code,
        &51,
    )
}

async fn do_not_cache(t: Arc<Target>) -> Verdict {
    let root = t.stored(20).await?.digest;
    let action = real_action(&t, true, &root).await?;
    t.store_result(&action, &with_exit_code(61)).await?;
    expect_eq(
        "the result of an uncacheable action",
        &t.result_of(&action).await?.exit_code,
        &61,
    )
}
