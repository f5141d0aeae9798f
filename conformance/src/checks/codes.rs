//! Status codes, where no method's own rows judge them.

use std::time::Duration;

use super::prelude::*;
use crate::raw::framed;

pub(super) const CHECKS: &[Check] = &[
    check!("ERR-03", unknown_numbers),
    check!("ERR-04", malformed_is_invalid),
    check!("ERR-05", deadline_passed),
    check!("ERR-07", nothing_exists_already),
    check!("ERR-12", out_of_range_is_of_reads),
    check!("ERR-13", unknown_service),
    check!("ERR-18", same_request_same_code),
    check!("ERR-26", one_line),
];

async fn unknown_numbers(t: Arc<Target>) -> Verdict {
    let request = reapi::FindMissingBlobsRequest {
        instance_name: t.instance().into(),
        blob_digests: vec![Blob::random(10).digest],
        digest_function: 99,
    };
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.find_missing(request)
        .await
        .denied("FindMissingBlobs with function 99", codes)
}

async fn malformed_is_invalid(t: Arc<Target>) -> Verdict {
    let digest = Digest {
        hash: "xyz".into(),
        size_bytes: 3,
    };
    if t.updates_enabled().await? {
        let request = t.put_action_request(&digest, Bytes::new());
        t.put_action(request)
            .await
            .denied("UpdateActionResult of a malformed digest", INVALID)?;
    }
    let codes = &[Code::InvalidArgument, Code::Unimplemented];
    t.tree(t.tree_request(&digest))
        .await
        .denied("GetTree of a malformed digest", codes)
}

async fn deadline_passed(t: Arc<Target>) -> Verdict {
    /// Ten times the deadline: who has not answered by then leaves it to clients.
    const PATIENCE: Duration = Duration::from_secs(5);
    // An upload outlives any deadline while its client sends nothing more.
    let blob = t.random(2000);
    let mut requests = write_requests(&t.write_name(&blob.digest), &blob.bytes, 1000);
    let first = framed(&requests.remove(0).encode_to_vec());
    let path = "/google.bytestream.ByteStream/Write";
    let deadline = [("grpc-timeout", "500m")];
    let answer = t.post_and_wait(path, first, &deadline, PATIENCE).await?;
    let answer = answer.ok_or_else(|| Stop::NotOffered("deadlines are left to clients".into()))?;
    let step = "a Write whose deadline passed while it was open";
    expect_eq(step, &answer.code(), &Code::DeadlineExceeded)
}

async fn nothing_exists_already(t: Arc<Target>) -> Verdict {
    let action = Blob::random(30).digest;
    t.store_result(&action, &ActionResult::default()).await?;
    t.store_result(&action, &ActionResult::default()).await
}

async fn out_of_range_is_of_reads(t: Arc<Target>) -> Verdict {
    let codes = match t.data_of(vec![Blob::random(5).sized(-1)]).await {
        Ok(answers) => answers.into_iter().map(|(code, _)| code).collect(),
        Err(status) => vec![status.code()],
    };
    expect(!codes.contains(&Code::OutOfRange), || {
        "OUT_OF_RANGE for a size of -1".into()
    })
}

async fn unknown_service(t: Arc<Target>) -> Verdict {
    let answer = t
        .post_message("/build.bazel.remote.execution.v2.NoService/Do", &[])
        .await?;
    expect_eq(
        "a service that does not exist",
        &answer.code(),
        &Code::Unimplemented,
    )
}

async fn same_request_same_code(t: Arc<Target>) -> Verdict {
    let name = t.named("blobs/nothing/at/all");
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(
            t.read(&name, 0, 0)
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok),
        );
    }
    let stable = codes
        .iter()
        .all(|code| *code == codes[0] && !RETRIED.contains(code));
    expect(stable, || format!("four times the same bad Read: {codes:?}"))
}

async fn one_line(t: Arc<Target>) -> Verdict {
    let blob = Blob::random(200);
    let name = t.write_name(&blob.digest);
    let Err(status) = t.write(&name, &Blob::random(200).bytes, 1000).await else {
        return Err(Stop::NotOffered("wrong bytes are accepted".into()));
    };
    let text = status.message();
    expect(!text.contains('\n') && text.len() < 1000, || {
        format!("the text is {text:?}")
    })
}
