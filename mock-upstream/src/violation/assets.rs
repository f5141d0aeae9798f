//! Remote Asset.

use std::time::Duration;

use proto::asset::{FetchBlobResponse, PushBlobRequest, PushBlobResponse};
use proto::rpc;
use tonic::{Code, Status};

use super::{Bend, Violation, violation};
use crate::assets::{Kind, Qualifiers, Wanted};
use crate::digest::Digest;

/// Whether the answer has no content, for want of it.
fn is_miss(answer: &FetchBlobResponse) -> bool {
    let status = answer.status.as_ref();
    status.is_some_and(|status| status.code == Code::NotFound as i32)
}

/// Nothing can be pushed, so that what a Fetch alone has to do is judged.
const NO_PUSH: Bend = Bend::PushIn(|_, _| Err(Status::unimplemented("assets are not pushed here")));

fn say_ok(
    is_meant: impl Fn(&PushBlobRequest) -> bool,
    asked: &PushBlobRequest,
    answer: &mut Result<PushBlobResponse, Status>,
) {
    if is_meant(asked) && answer.is_err() {
        *answer = Ok(PushBlobResponse {});
    }
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "ASSET-FETCH-01",
        "a fetch without a URI is a miss",
        &[Bend::FetchOut(|asked, answer, _| {
            if asked.uris.is_empty() && answer.is_err() {
                let status = Some(rpc::Status {
                    code: Code::NotFound as i32,
                    ..Default::default()
                });
                *answer = Ok(FetchBlobResponse {
                    status,
                    ..Default::default()
                });
            }
        })],
    ),
    violation(
        "ASSET-FETCH-02",
        "only the first URI is looked at",
        &[Bend::FetchIn(|request, _| {
            request.uris.truncate(1);
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-03",
        "of a qualifier that stands twice the first counts",
        &[Bend::FetchIn(|request, _| {
            request.qualifiers.dedup_by(|a, b| a.name == b.name);
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-04",
        "a header that stands twice is refused",
        &[Bend::FetchIn(|request, _| {
            let headers = request.qualifiers.iter().map(|qualifier| &qualifier.name);
            let mut headers: Vec<_> = headers.filter(|name| name.starts_with("http_header")).collect();
            let all = headers.len();
            headers.dedup();
            match headers.len() < all {
                true => Err(Status::invalid_argument("a header stands twice")),
                false => Ok(()),
            }
        })],
    ),
    violation(
        "ASSET-FETCH-05",
        "qualifiers in another order are others",
        &[Bend::FetchIn(|request, _| {
            if !request.qualifiers.is_sorted_by_key(|qualifier| &qualifier.name) {
                request.uris = vec!["other:".to_owned()];
            }
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-06",
        "a qualifier that nobody can have is a miss, though nothing can be pushed",
        &[NO_PUSH],
    ),
    violation(
        "ASSET-FETCH-07",
        "a refusal of qualifiers does not name them",
        &[
            NO_PUSH,
            Bend::FetchIn(|request, _| match request.qualifiers.is_empty() {
                true => Ok(()),
                false => Err(Status::invalid_argument("qualifiers")),
            }),
        ],
    ),
    violation(
        "ASSET-FETCH-11",
        "canonical ids are passed over",
        &[Bend::FetchIn(|request, _| {
            let qualifiers = &mut request.qualifiers;
            qualifiers.retain(|qualifier| qualifier.name != "bazel.canonical_id");
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-17",
        "the age of content is passed over",
        &[Bend::FetchIn(|request, _| {
            request.oldest_content_accepted = None;
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-19",
        "what was fetched without a function is called BLAKE3",
        &[Bend::FetchOut(|asked, answer, _| {
            if asked.digest_function == 0
                && let Ok(answer) = answer
            {
                answer.digest_function = 9;
            }
        })],
    ),
    violation(
        "ASSET-FETCH-20",
        "a function that nobody knows is taken for the default one",
        &[Bend::FetchIn(|request, _| {
            if request.digest_function == 99 {
                request.digest_function = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "ASSET-FETCH-21",
        "what was fetched is gone at once",
        &[Bend::FetchOut(|asked, answer, contents| {
            if let Ok(answer) = answer
                && let Ok(digest) = Digest::from_wire(answer.blob_digest.as_ref())
            {
                contents.evict(&asked.instance_name, &digest);
            }
        })],
    ),
    violation(
        "ASSET-FETCH-23",
        "the answer names no URI",
        &[Bend::FetchOut(|_, answer, _| {
            if let Ok(answer) = answer {
                answer.uri.clear();
            }
        })],
    ),
    violation(
        "ASSET-FETCH-25",
        "a fetched directory has lost its root",
        &[Bend::FetchDirectoryOut(|asked, answer, contents| {
            if let Ok(answer) = answer
                && let Ok(digest) = Digest::from_wire(answer.root_directory_digest.as_ref())
            {
                contents.evict(&asked.instance_name, &digest);
            }
        })],
    ),
    violation(
        "ASSET-FETCH-26",
        "what nobody pushed is an internal error",
        &[Bend::FetchOut(|_, answer, _| {
            if answer.as_ref().is_ok_and(is_miss) {
                *answer = Err(Status::internal("no such asset"));
            }
        })],
    ),
    violation(
        "ASSET-FETCH-29",
        "a fetch of nothing is an internal error",
        &[Bend::FetchIn(|request, _| match request.uris.is_empty() {
            true => Err(Status::internal("nothing to fetch")),
            false => Ok(()),
        })],
    ),
    violation(
        "ASSET-PUSH-01",
        "of the URIs of a push the first counts",
        &[Bend::PushIn(|request, _| {
            request.uris.truncate(1);
            Ok(())
        })],
    ),
    violation(
        "ASSET-PUSH-02",
        "a push of an absent blob makes one up",
        &[Bend::PushIn(|request, contents| {
            if let Ok(digest) = Digest::from_wire(request.blob_digest.as_ref())
                && !contents.has(&request.instance_name, &digest)
            {
                contents.put(&request.instance_name, digest, Vec::new().into());
            }
            Ok(())
        })],
    ),
    violation(
        "ASSET-PUSH-05",
        "qualifiers behind the first are passed over",
        &[Bend::FetchIn(|request, _| {
            request.qualifiers.truncate(1);
            Ok(())
        })],
    ),
    violation(
        "ASSET-PUSH-06",
        "mappings do not expire",
        &[Bend::PushIn(|request, _| {
            request.expire_at = None;
            Ok(())
        })],
    ),
    violation(
        "ASSET-PUSH-08",
        "a push that was refused is OK",
        &[Bend::PushOut(|asked, answer, _| {
            say_ok(|asked| asked.digest_function == 99, asked, answer);
        })],
    ),
    violation(
        "ASSET-PUSH-09",
        "a push has to say its function",
        &[Bend::PushIn(|request, _| match request.digest_function {
            0 if request.blob_digest.is_some() => Err(Status::invalid_argument("no function")),
            _said => Ok(()),
        })],
    ),
    violation(
        "ASSET-PUSH-10",
        "a push without a URI is OK",
        &[Bend::PushOut(|asked, answer, _| {
            say_ok(
                |asked| asked.uris.is_empty() && asked.blob_digest.is_some(),
                asked,
                answer,
            );
        })],
    ),
    violation(
        "ASSET-PUSH-11",
        "a pushed blob is fetched as a directory",
        &[Bend::FetchDirectoryOut(|asked, answer, contents| {
            let wanted = Wanted {
                instance: &asked.instance_name,
                kind: Kind::Blob,
                uris: &asked.uris,
                qualifiers: &Qualifiers::new(),
                oldest: None,
            };
            let blob = contents.assets.fetch(&wanted, Duration::ZERO, |_| true);
            if let (Ok(answer), Some(mapping)) = (answer, blob) {
                answer.status = None;
                answer.root_directory_digest = Some(mapping.digest.to_wire());
            }
        })],
    ),
    violation(
        "ASSET-PUSH-12",
        "mappings are found in every instance",
        &[Bend::FetchIn(|request, _| {
            request.instance_name.clear();
            Ok(())
        })],
    ),
    violation(
        "ASSET-PUSH-13",
        "an empty push is an internal error",
        &[Bend::PushDirectoryIn(|request, _| {
            match request.uris.is_empty() {
                true => Err(Status::internal("nothing to push")),
                false => Ok(()),
            }
        })],
    ),
];
