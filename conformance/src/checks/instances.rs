//! Instance names.

use super::prelude::*;
use crate::function::Function;

pub(super) const CHECKS: &[Check] = &[
    check!("INST-02", reserved_words),
    check!("INST-03", slashes),
    check!("INST-04", no_leading_slash),
    check!("INST-05", empty_segments),
    check!("INST-07", names_and_fields_agree),
    check!("INST-08", results_stay_in_their_instance),
    check!("INST-10", capabilities_hold_in_their_instance),
];

async fn reserved_words(t: Arc<Target>) -> Verdict {
    for instance in [
        "blobs",
        "a/uploads/b",
        "actions",
        "compressed-blobs/x",
        "a/capabilities",
    ] {
        let answer = t.at(instance).missing(vec![Blob::random(8).digest]).await;
        answer.denied(&format!("FindMissingBlobs in instance {instance}"), INVALID)?;
    }
    Ok(())
}

async fn slashes(t: Arc<Target>) -> Verdict {
    let other = t.other_instance("/b/c").await?;
    let blob = other.stored(100).await?;
    other.reads_as(&other.read_name(&blob.digest), &blob.bytes).await
}

async fn no_leading_slash(t: Arc<Target>) -> Verdict {
    let blob = t.stored(100).await?;
    let name = format!("/{}", t.read_name(&blob.digest));
    t.read(&name, 0, 0)
        .await
        .denied("Read of a name with a leading slash", INVALID)
}

async fn empty_segments(t: Arc<Target>) -> Verdict {
    for instance in ["/a", "a/", "a//b", "/"] {
        let answer = t.at(instance).missing(vec![Blob::random(8).digest]).await;
        answer.denied(&format!("FindMissingBlobs in instance {instance:?}"), INVALID)?;
    }
    Ok(())
}

async fn names_and_fields_agree(t: Arc<Target>) -> Verdict {
    let other = t.other_instance("/b").await?;
    let blob = other.stored(100).await?;
    other.is_present(&blob.digest).await
}

async fn results_stay_in_their_instance(t: Arc<Target>) -> Verdict {
    let other = t.other_instance("").await?;
    let action = Blob::random(30).digest;
    let result = ActionResult {
        exit_code: 4,
        ..Default::default()
    };
    t.store_result(&action, &result).await?;
    let answer = other.action(other.action_request(&action)).await;
    answer.denied("GetActionResult in another instance", &[Code::NotFound])
}

async fn capabilities_hold_in_their_instance(t: Arc<Target>) -> Verdict {
    let other = t.other_instance("").await?;
    let cache = other.cache().await?;
    for function in Function::NEW {
        if cache.digest_functions.contains(&function.number()) {
            let other = other.under(function);
            let missing = other.missing(vec![other.random(20).digest]).await;
            missing.due("FindMissingBlobs by a function that the instance announces")?;
        }
    }
    let enabled = cache
        .action_cache_update_capabilities
        .is_some_and(|update| update.update_enabled);
    let key = super::action_read::action(&other).await?;
    let request = other.put_action_request(&key, ActionResult::default().encode_to_vec());
    match (enabled, other.put_action(request).await) {
        (true, answer) => answer
            .due("UpdateActionResult in an instance that enables it")
            .map(|_| ()),
        (false, answer) => answer.denied(
            "UpdateActionResult in an instance that does not enable it",
            &[Code::PermissionDenied],
        ),
    }
}
