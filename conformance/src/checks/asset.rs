//! Remote Asset: what was pushed is fetched. No check needs an origin, so no host is ever asked for anything.

use std::slice::from_ref;

use prost_types::Timestamp;
use proto::asset::fetch_client::FetchClient;
use proto::asset::push_client::PushClient;
use proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, PushBlobRequest,
    PushDirectoryRequest, Qualifier,
};
use proto::reapi::{Directory, DirectoryNode, FileNode};
use proto::rpc::{self, BadRequest};
use tonic::{Response, Status};

use super::prelude::*;
use crate::trace;

pub(super) const CHECKS: &[Check] = &[
    check!("ASSET-FETCH-01", no_uri),
    check!("ASSET-FETCH-02", dead_mirror),
    check!("ASSET-FETCH-03", qualifier_twice),
    check!("ASSET-FETCH-04", header_twice),
    check!("ASSET-FETCH-05", order_of_qualifiers),
    check!("ASSET-FETCH-06", unsupported_qualifier),
    check!("ASSET-FETCH-07", refusal_names_the_qualifiers),
    check!("ASSET-FETCH-11", canonical_ids),
    check!("ASSET-FETCH-17", too_old),
    check!("ASSET-FETCH-19", function_unsaid),
    check!("ASSET-FETCH-20", function_of_nobody),
    check!("ASSET-FETCH-21", fetched_can_be_read),
    check!("ASSET-FETCH-23", names_the_uri),
    check!("ASSET-FETCH-25", directory_can_be_walked),
    check!("ASSET-FETCH-26", never_pushed),
    check!("ASSET-FETCH-29", unoffered_is_unimplemented),
    check!("ASSET-PUSH-01", by_any_uri),
    check!("ASSET-PUSH-02", absent_blob),
    check!("ASSET-PUSH-05", unpushed_qualifier),
    check!("ASSET-PUSH-06", expired),
    check!("ASSET-PUSH-08", refused_by_status),
    check!("ASSET-PUSH-09", push_without_function),
    check!("ASSET-PUSH-10", absent_fields),
    check!("ASSET-PUSH-11", blobs_and_directories),
    check!("ASSET-PUSH-12", instances),
    check!("ASSET-PUSH-13", one_service_alone),
];

/// Long ago, and a time that no clock has reached.
const PAST: Timestamp = Timestamp { seconds: 1, nanos: 0 };
const FAR: Timestamp = Timestamp {
    seconds: 253_000_000_000,
    nanos: 0,
};

/// A URI of this check's own, at a name that is reserved for not being there.
fn uri() -> String {
    format!("https://assets.invalid/{}", uuid::Uuid::new_v4())
}

fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier {
        name: name.into(),
        value: value.into(),
    }
}

/// A FetchBlob of this instance.
fn fetch_of(t: &Target, uris: &[&str], qualifiers: &[Qualifier]) -> FetchBlobRequest {
    FetchBlobRequest {
        instance_name: t.instance().into(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        qualifiers: qualifiers.to_vec(),
        ..Default::default()
    }
}

/// A PushBlob of this instance.
fn push_of(t: &Target, uris: &[&str], qualifiers: &[Qualifier], blob: &Digest) -> PushBlobRequest {
    PushBlobRequest {
        instance_name: t.instance().into(),
        uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
        qualifiers: qualifiers.to_vec(),
        blob_digest: Some(blob.clone()),
        digest_function: SHA256,
        ..Default::default()
    }
}

/// What is there to be judged, where the method is offered.
fn offered<T>(what: &str, answer: Result<T, Status>) -> Result<Result<T, Status>, Stop> {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => {
            Err(Stop::NotOffered(format!("{what} is not implemented")))
        }
        answer => Ok(answer),
    }
}

/// As [`offered`]; a server may also let only those push whom it trusts.
fn may_push<T>(answer: Result<T, Status>) -> Result<Result<T, Status>, Stop> {
    match offered("Push", answer)? {
        Err(status) if [Code::PermissionDenied, Code::Unauthenticated].contains(&status.code()) => Err(
            Stop::NotOffered(format!("this caller may not push: {}", trace::status(&status))),
        ),
        answer => Ok(answer),
    }
}

async fn fetch(t: &Target, request: FetchBlobRequest) -> Result<Result<FetchBlobResponse, Status>, Stop> {
    let what = format!("FetchBlob of {:?}", request.uris);
    let answer = FetchClient::new(t.channel()).fetch_blob(t.request(request)).await;
    let answer = answer.map(Response::into_inner);
    t.trace().note(what, &answer, |answer| {
        format!(
            "{} {}",
            trace::code(crate::calls::code(answer.status.as_ref())),
            trace::digests([answer.blob_digest.as_ref()].into_iter())
        )
    });
    offered("Fetch", answer)
}

async fn fetch_directory(t: &Target, uri: &str) -> Result<Result<FetchDirectoryResponse, Status>, Stop> {
    let request = FetchDirectoryRequest {
        instance_name: t.instance().into(),
        uris: vec![uri.to_owned()],
        ..Default::default()
    };
    let answer = FetchClient::new(t.channel())
        .fetch_directory(t.request(request))
        .await;
    let answer = answer.map(Response::into_inner);
    t.trace().note("FetchDirectory".into(), &answer, |answer| {
        format!(
            "{} {}",
            trace::code(crate::calls::code(answer.status.as_ref())),
            trace::digests([answer.root_directory_digest.as_ref()].into_iter())
        )
    });
    offered("Fetch", answer)
}

async fn push(t: &Target, request: PushBlobRequest) -> Result<Result<(), Status>, Stop> {
    let what = format!(
        "PushBlob {} as {:?}",
        trace::digests([request.blob_digest.as_ref()].into_iter()),
        request.uris
    );
    let answer = PushClient::new(t.channel()).push_blob(t.request(request)).await;
    let answer = answer.map(|_| ());
    t.trace().note(what, &answer, |()| String::new());
    may_push(answer)
}

/// A fresh blob, pushed to these places.
async fn pushed(t: &Target, uris: &[&str], qualifiers: &[Qualifier]) -> Result<Blob, Stop> {
    let blob = t.stored(120).await?;
    push(t, push_of(t, uris, qualifiers, &blob.digest))
        .await?
        .due("PushBlob")?;
    Ok(blob)
}

/// What came of a fetch: its code, wherever that stands, and the digest.
fn outcome(answer: Result<FetchBlobResponse, Status>) -> (Code, Option<Digest>) {
    match answer {
        Err(status) => (status.code(), None),
        Ok(answer) => {
            let code = crate::calls::code(answer.status.as_ref());
            (code, answer.blob_digest.filter(|_| code == Code::Ok))
        }
    }
}

/// Demands that a fetch gives this blob.
async fn gives(t: &Target, request: FetchBlobRequest, blob: &Blob) -> Verdict {
    let came = outcome(fetch(t, request).await?);
    expect_eq(
        "FetchBlob of what was pushed",
        &came,
        &(Code::Ok, Some(blob.digest.clone())),
    )
}

/// Demands that a fetch gives nothing, whatever it says.
async fn gives_nothing(t: &Target, why: &str, request: FetchBlobRequest) -> Verdict {
    let (code, digest) = outcome(fetch(t, request).await?);
    expect(code != Code::Ok, || format!("{why}, and {digest:?} came"))
}

async fn no_uri(t: Arc<Target>) -> Verdict {
    let request = fetch_of(&t, &[], &[qualifier("resource_type", "application/octet-stream")]);
    fetch(&t, request)
        .await?
        .denied("FetchBlob without a URI", INVALID)
}

async fn dead_mirror(t: Arc<Target>) -> Verdict {
    let (dead, alive) = (uri(), uri());
    let blob = pushed(&t, &[&alive], &[]).await?;
    gives(&t, fetch_of(&t, &[&dead, &alive], &[]), &blob).await
}

async fn qualifier_twice(t: Arc<Target>) -> Verdict {
    let twice = [qualifier("suite.one", "1"), qualifier("suite.one", "1")];
    fetch(&t, fetch_of(&t, &[&uri()], &twice))
        .await?
        .denied("FetchBlob with a qualifier that stands twice", INVALID)
}

async fn header_twice(t: Arc<Target>) -> Verdict {
    let header = qualifier("http_header:Accept", "*/*");
    let once = outcome(fetch(&t, fetch_of(&t, &[&uri()], from_ref(&header))).await?).0;
    if once == Code::InvalidArgument {
        return Err(Stop::NotOffered("headers are not supported".into()));
    }
    let twice = outcome(fetch(&t, fetch_of(&t, &[&uri()], &[header.clone(), header])).await?).0;
    expect(twice != Code::InvalidArgument, || {
        format!("a header that stands once is {once:?}, and twice it is {twice:?}")
    })
}

async fn order_of_qualifiers(t: Arc<Target>) -> Verdict {
    let (uri, one, two) = (uri(), qualifier("suite.one", "1"), qualifier("suite.two", "2"));
    let blob = pushed(&t, &[&uri], &[one.clone(), two.clone()]).await?;
    gives(&t, fetch_of(&t, &[&uri], &[two, one]), &blob).await
}

/// The refusal of a qualifier that nobody supports, where nothing can be pushed.
async fn refusal(t: &Target) -> Result<(String, Result<FetchBlobResponse, Status>), Stop> {
    let push = PushClient::new(t.channel())
        .push_blob(t.request(PushBlobRequest::default()))
        .await;
    if push.map_or_else(|status| status.code(), |_| Code::Ok) != Code::Unimplemented {
        return Err(Stop::NotOffered(
            "Push is offered, so any qualifier may be pushed".into(),
        ));
    }
    let name = format!("suite.{}", uuid::Uuid::new_v4().simple());
    let answer = fetch(t, fetch_of(t, &[&uri()], &[qualifier(&name, "1")])).await?;
    Ok((name, answer))
}

async fn unsupported_qualifier(t: Arc<Target>) -> Verdict {
    let (_, answer) = refusal(&t).await?;
    answer.denied("FetchBlob with a qualifier of nobody", INVALID)
}

async fn refusal_names_the_qualifiers(t: Arc<Target>) -> Verdict {
    let (name, answer) = refusal(&t).await?;
    let Err(status) = answer else {
        return Err(Stop::NotOffered("the qualifier is not refused".into()));
    };
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    let named = details
        .iter()
        .filter_map(|detail| detail.to_msg::<BadRequest>().ok())
        .flat_map(|detail| detail.field_violations)
        .any(|violation| violation.field == "qualifiers.name" && violation.description.contains(&name));
    expect(named, || {
        format!(
            "{} details came, of which none has a violation of {name}",
            details.len()
        )
    })
}

async fn canonical_ids(t: Arc<Target>) -> Verdict {
    let (uri, id) = (uri(), |id| qualifier("bazel.canonical_id", id));
    pushed(&t, &[&uri], &[id("one")]).await?;
    gives_nothing(
        &t,
        "one canonical id was pushed, another asked for",
        fetch_of(&t, &[&uri], &[id("two")]),
    )
    .await
}

async fn too_old(t: Arc<Target>) -> Verdict {
    let uri = uri();
    pushed(&t, &[&uri], &[]).await?;
    let request = FetchBlobRequest {
        oldest_content_accepted: Some(FAR),
        ..fetch_of(&t, &[&uri], &[])
    };
    gives_nothing(&t, "content from the far future was asked for", request).await
}

async fn function_unsaid(t: Arc<Target>) -> Verdict {
    let uri = uri();
    pushed(&t, &[&uri], &[]).await?;
    let answer = fetch(&t, fetch_of(&t, &[&uri], &[])).await?.due("FetchBlob")?;
    expect([0, SHA256].contains(&answer.digest_function), || {
        format!(
            "digest_function is {}, where none was said",
            answer.digest_function
        )
    })
}

async fn function_of_nobody(t: Arc<Target>) -> Verdict {
    let request = FetchBlobRequest {
        digest_function: 99,
        ..fetch_of(&t, &[&uri()], &[])
    };
    fetch(&t, request)
        .await?
        .denied("FetchBlob with function 99", INVALID)
}

async fn fetched_can_be_read(t: Arc<Target>) -> Verdict {
    let uri = uri();
    let blob = pushed(&t, &[&uri], &[]).await?;
    let (_, digest) = outcome(fetch(&t, fetch_of(&t, &[&uri], &[])).await?);
    let digest = digest.ok_or_else(|| Stop::Broken("FetchBlob gave nothing to read".into()))?;
    t.reads_as(&t.read_name(&digest), &blob.bytes).await
}

async fn names_the_uri(t: Arc<Target>) -> Verdict {
    let (alive, dead) = (uri(), uri());
    pushed(&t, &[&alive], &[]).await?;
    let answer = fetch(&t, fetch_of(&t, &[&alive, &dead], &[]))
        .await?
        .due("FetchBlob")?;
    expect_eq("the URI that gave the content", &answer.uri, &alive)
}

/// A directory with a file and an empty directory, stored; its root and all that is below.
async fn stored_directory(t: &Target) -> Result<(Blob, Vec<Digest>), Stop> {
    let (file, leaf) = (t.stored(60).await?, t.blob(""));
    let root = Directory {
        files: vec![FileNode {
            name: "file".into(),
            digest: Some(file.digest.clone()),
            ..Default::default()
        }],
        directories: vec![DirectoryNode {
            name: "leaf".into(),
            digest: Some(leaf.digest.clone()),
        }],
        ..Default::default()
    };
    let root = t.blob(root.encode_to_vec());
    t.put(&root).await?;
    let all = vec![root.digest.clone(), file.digest, leaf.digest];
    Ok((root, all))
}

async fn directory_can_be_walked(t: Arc<Target>) -> Verdict {
    let (uri, (root, all)) = (uri(), stored_directory(&t).await?);
    let request = PushDirectoryRequest {
        instance_name: t.instance().into(),
        uris: vec![uri.clone()],
        root_directory_digest: Some(root.digest.clone()),
        digest_function: SHA256,
        ..Default::default()
    };
    let answer = PushClient::new(t.channel())
        .push_directory(t.request(request))
        .await;
    let answer = answer.map(|_| ());
    t.trace()
        .note("PushDirectory".into(), &answer, |()| String::new());
    may_push(answer)?.due("PushDirectory")?;
    let answer = fetch_directory(&t, &uri).await?.due("FetchDirectory")?;
    let digest = answer.root_directory_digest.unwrap_or_default();
    expect_eq("the root of the directory", &digest, &root.digest)?;
    let missing = t.missing(all).await.due("FindMissingBlobs of the directory")?;
    expect(missing.is_empty(), || {
        format!("{missing:?} of the directory is missing")
    })?;
    let walked = offered("GetTree", t.tree(t.tree_request(&digest)).await)?;
    walked.due("GetTree of the fetched root").map(|_| ())
}

async fn never_pushed(t: Arc<Target>) -> Verdict {
    // A server with an origin to ask tells of that in an answer that is OK.
    let in_answer = [
        Code::NotFound,
        Code::PermissionDenied,
        Code::Aborted,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
    ];
    match fetch(&t, fetch_of(&t, &[&uri()], &[])).await? {
        Ok(answer) => {
            let code = crate::calls::code(answer.status.as_ref());
            expect(in_answer.contains(&code), || {
                format!("what is nowhere is {code:?}")
            })
        }
        answer => answer.denied("FetchBlob of what is nowhere", &[Code::NotFound]),
    }
}

/// The code of an empty request.
async fn nothing(t: &Target, method: &str) -> Result<Code, Stop> {
    let path = format!("/build.bazel.remote.asset.v1.{method}");
    Ok(t.post_message(&path, &[]).await?.code())
}

async fn unoffered_is_unimplemented(t: Arc<Target>) -> Verdict {
    // No URI: a server with the service refuses this, and has nothing to fetch.
    let code = nothing(&t, "Fetch/FetchBlob").await?;
    let right = [Code::Unimplemented, Code::InvalidArgument].contains(&code);
    expect(right, || format!("a fetch of nothing is {code:?}"))
}

async fn by_any_uri(t: Arc<Target>) -> Verdict {
    let (one, two, known) = (uri(), uri(), qualifier("suite.one", "1"));
    let blob = pushed(&t, &[&one, &two], from_ref(&known)).await?;
    for uri in [&one, &two] {
        gives(&t, fetch_of(&t, &[uri], from_ref(&known)), &blob).await?;
    }
    Ok(())
}

async fn absent_blob(t: Arc<Target>) -> Verdict {
    let (uri, absent) = (uri(), t.random(130).digest);
    let answer = push(&t, push_of(&t, &[&uri], &[], &absent)).await?;
    if answer.is_err() {
        let codes = &[Code::InvalidArgument, Code::FailedPrecondition];
        return answer.denied("PushBlob of an absent blob", codes);
    }
    gives_nothing(&t, "an absent blob was pushed", fetch_of(&t, &[&uri], &[])).await
}

async fn unpushed_qualifier(t: Arc<Target>) -> Verdict {
    let (uri, one, two) = (uri(), qualifier("suite.one", "1"), qualifier("suite.two", "2"));
    pushed(&t, &[&uri], from_ref(&one)).await?;
    gives_nothing(
        &t,
        "a qualifier was not pushed",
        fetch_of(&t, &[&uri], &[one, two]),
    )
    .await
}

async fn expired(t: Arc<Target>) -> Verdict {
    let (uri, blob) = (uri(), t.stored(140).await?);
    let until = |expire_at| PushBlobRequest {
        expire_at: Some(expire_at),
        ..push_of(&t, &[&uri], &[], &blob.digest)
    };
    // A push that is of no use any more may be refused.
    if let Err(status) = push(&t, until(PAST)).await? {
        return Err::<(), _>(status).denied("PushBlob that has expired", INVALID);
    }
    gives_nothing(&t, "the mapping has expired", fetch_of(&t, &[&uri], &[])).await?;
    push(&t, until(FAR)).await?.due("PushBlob with a later end")?;
    gives(&t, fetch_of(&t, &[&uri], &[]), &blob).await
}

async fn refused_by_status(t: Arc<Target>) -> Verdict {
    let codes = &[
        Code::InvalidArgument,
        Code::ResourceExhausted,
        Code::Unavailable,
        Code::Internal,
    ];
    let request = PushBlobRequest {
        digest_function: 99,
        ..push_of(&t, &[&uri()], &[], &t.stored(150).await?.digest)
    };
    push(&t, request)
        .await?
        .denied("PushBlob with function 99", codes)
}

async fn push_without_function(t: Arc<Target>) -> Verdict {
    let (uri, blob) = (uri(), t.stored(160).await?);
    let request = PushBlobRequest {
        digest_function: 0,
        ..push_of(&t, &[&uri], &[], &blob.digest)
    };
    push(&t, request).await?.due("PushBlob without a function")?;
    gives(&t, fetch_of(&t, &[&uri], &[]), &blob).await
}

async fn absent_fields(t: Arc<Target>) -> Verdict {
    let digest = t.stored(170).await?.digest;
    let without_uri = push_of(&t, &[], &[], &digest);
    let without_digest = PushBlobRequest {
        blob_digest: None,
        ..push_of(&t, &[&uri()], &[], &digest)
    };
    let malformed = push_of(&t, &[&uri()], &[], &t.random(5).sized(-5));
    for (what, request) in [
        ("PushBlob without a URI", without_uri),
        ("PushBlob without a digest", without_digest),
        ("PushBlob of a size of -5", malformed),
    ] {
        push(&t, request).await?.denied(what, INVALID)?;
    }
    Ok(())
}

async fn blobs_and_directories(t: Arc<Target>) -> Verdict {
    let (uri, (root, _)) = (uri(), stored_directory(&t).await?);
    push(&t, push_of(&t, &[&uri], &[], &root.digest))
        .await?
        .due("PushBlob")?;
    let Ok(answer) = fetch_directory(&t, &uri).await? else {
        return Ok(());
    };
    let code = crate::calls::code(answer.status.as_ref());
    expect(code != Code::Ok, || {
        "a pushed blob was fetched as a directory".into()
    })
}

async fn instances(t: Arc<Target>) -> Verdict {
    let (uri, other) = (uri(), t.other_instance("").await?);
    pushed(&t, &[&uri], &[]).await?;
    gives_nothing(
        &t,
        "another instance was pushed to",
        fetch_of(&other, &[&uri], &[]),
    )
    .await
}

async fn one_service_alone(t: Arc<Target>) -> Verdict {
    for method in ["Fetch/FetchDirectory", "Push/PushBlob", "Push/PushDirectory"] {
        let code = nothing(&t, method).await?;
        let right = [
            Code::Unimplemented,
            Code::InvalidArgument,
            Code::PermissionDenied,
            Code::Unauthenticated,
        ];
        expect(right.contains(&code), || {
            format!("{method} of nothing is {code:?}")
        })?;
    }
    Ok(())
}
