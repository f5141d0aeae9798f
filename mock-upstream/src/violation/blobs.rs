//! Digests, instances, presence and batches.

use prost::Message as _;
use proto::reapi::{
    self, Digest as WireDigest, Directory, batch_read_blobs_response, batch_update_blobs_response,
};
use proto::rpc;
use tonic::{Code, Status};

use super::{Bend, Violation, violation};
use crate::contents::Contents;
use crate::digest::{Digest, Function};

const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn status(code: Code) -> Option<rpc::Status> {
    Some(rpc::Status {
        code: code as i32,
        ..rpc::Status::default()
    })
}

fn is(status: Option<&rpc::Status>, code: Code) -> bool {
    status.map_or(0, |status| status.code) == code as i32
}

/// Entries of an update with the code `from` get the code `to`, where `concerns` says so.
fn recode(
    asked: &reapi::BatchUpdateBlobsRequest,
    answer: &mut Result<reapi::BatchUpdateBlobsResponse, Status>,
    (from, to): (Code, Code),
    concerns: impl Fn(&reapi::batch_update_blobs_request::Request) -> bool,
) {
    let Ok(answer) = answer else { return };
    for (entry, response) in asked.requests.iter().zip(&mut answer.responses) {
        if is(response.status.as_ref(), from) && concerns(entry) {
            response.status = status(to);
        }
    }
}

/// Responses of a read with this code.
fn with_code(
    answer: &mut Result<reapi::BatchReadBlobsResponse, Status>,
    code: Code,
) -> impl Iterator<Item = &mut batch_read_blobs_response::Response> {
    let responses = answer.iter_mut().flat_map(|answer| &mut answer.responses);
    responses.filter(move |response| is(response.status.as_ref(), code))
}

fn well_formed(digest: &WireDigest) -> bool {
    Digest::from_wire(Some(digest)).is_ok()
}

fn is_stored(contents: &Contents, instance: &str, digest: &WireDigest) -> bool {
    Digest::from_wire(Some(digest)).is_ok_and(|digest| contents.has(instance, &digest))
}

/// Stores what an entry brought under the digest that it claimed.
fn store_all(asked: &reapi::BatchUpdateBlobsRequest, contents: &mut Contents) {
    let function = Function::asked(asked.digest_function, &[Function::Blake3]).unwrap_or_default();
    for entry in &asked.requests {
        if let Ok(digest) = function.from_wire(entry.digest.as_ref()) {
            contents.put(&asked.instance_name, digest, entry.data.clone());
        }
    }
}

pub(super) const VIOLATIONS: &[Violation] = &[
    // Transport, as batches show it.
    violation(
        "GEN-05",
        "a batch of more than 3 MiB is too large for the transport",
        &[Bend::UpdateIn(|request, _| {
            let total: usize = request.requests.iter().map(|entry| entry.data.len()).sum();
            let many = (2..1000).contains(&request.requests.len());
            if many && (3_000_000..=3_670_016).contains(&total) {
                return Err(Status::resource_exhausted("message too large"));
            }
            Ok(())
        })],
    ),
    violation(
        "GEN-06",
        "an answer of more than 3 MiB is padded beyond 4 MiB",
        &[Bend::BatchReadOut(|_, answer, _| {
            let Ok(answer) = answer else { return };
            let total: usize = answer.responses.iter().map(|response| response.data.len()).sum();
            if let Some(first) = answer.responses.first_mut().filter(|_| total > 3_000_000) {
                first.status = Some(rpc::Status {
                    message: "p".repeat(1_500_000),
                    ..rpc::Status::default()
                });
            }
        })],
    ),
    violation(
        "GEN-10",
        "an entry without a digest is an internal error",
        &[Bend::UpdateIn(|request, _| {
            let without = request.requests.iter().any(|entry| entry.digest.is_none());
            if without {
                Err(Status::internal("no digest"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "GEN-17",
        "what a batch brought is not found by streams at first",
        &[
            Bend::UpdateOut(|asked, _, contents| {
                let marks = asked.requests.iter().filter(|entry| entry.data.len() == 500);
                let marks = marks.filter_map(|entry| Some(entry.digest.as_ref()?.hash.clone()));
                contents.marks.extend(marks);
            }),
            Bend::ReadIn(|request, contents| {
                let late = contents
                    .marks
                    .iter()
                    .find(|hash| request.resource_name.contains(*hash))
                    .cloned();
                match late {
                    Some(hash) => {
                        contents.marks.remove(&hash);
                        Err(Status::not_found("not here yet"))
                    }
                    None => Ok(()),
                }
            }),
        ],
    ),
    // Instances.
    violation(
        "INST-02",
        "a reserved word in an instance name is taken for the default instance",
        &[Bend::FindIn(|request, _| {
            if crate::name::check_instance(&request.instance_name).is_err()
                && request
                    .instance_name
                    .split('/')
                    .all(|segment| !segment.is_empty())
            {
                request.instance_name.clear();
            }
            Ok(())
        })],
    ),
    violation(
        "INST-05",
        "empty segments in an instance name are passed over",
        &[Bend::FindIn(|request, _| {
            let segments = request
                .instance_name
                .split('/')
                .filter(|segment| !segment.is_empty());
            request.instance_name = segments.collect::<Vec<_>>().join("/");
            Ok(())
        })],
    ),
    violation(
        "INST-07",
        "the last segment of an instance name is lost in request fields",
        &[Bend::FindIn(|request, _| {
            if let Some((head, _)) = request.instance_name.rsplit_once('/') {
                request.instance_name = head.to_owned();
            }
            Ok(())
        })],
    ),
    // Digests.
    violation(
        "DIG-02",
        "hashes of another length are passed over",
        &[Bend::FindIn(|request, _| {
            request
                .blob_digests
                .retain(|digest| !matches!(digest.hash.len(), 63 | 65));
            Ok(())
        })],
    ),
    violation(
        "DIG-03",
        "a hash that is not hexadecimal is merely absent",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::InvalidArgument) {
                if response
                    .digest
                    .as_ref()
                    .is_some_and(|digest| digest.hash.contains('g'))
                {
                    response.status = status(Code::NotFound);
                }
            }
        })],
    ),
    violation(
        "DIG-04",
        "negative sizes are passed over",
        &[Bend::FindIn(|request, _| {
            request.blob_digests.retain(|digest| digest.size_bytes >= 0);
            Ok(())
        })],
    ),
    violation(
        "DIG-05",
        "a batch reads by hash, whatever the size",
        &[Bend::BatchReadOut(|asked, answer, contents| {
            for response in with_code(answer, Code::NotFound) {
                let hash = response.digest.as_ref().map_or("", |digest| digest.hash.as_str());
                if let Some(bytes) = contents.by_hash(&asked.instance_name, hash) {
                    response.data = bytes;
                    response.status = None;
                }
            }
        })],
    ),
    violation(
        "DIG-07",
        "any digest of size 0 is the empty blob",
        &[Bend::FindIn(|request, _| {
            for digest in request
                .blob_digests
                .iter_mut()
                .filter(|digest| digest.size_bytes == 0)
            {
                EMPTY.clone_into(&mut digest.hash);
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-08",
        "sizes are summed with wrap-around",
        &[Bend::BatchReadIn(|request, _| {
            // The sum of three of the largest sizes is positive again.
            if request.digests.len() == 3
                && request.digests.iter().all(|digest| digest.size_bytes == i64::MAX)
            {
                request.digests.clear();
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-09",
        "function 1 is refused in batches",
        &[Bend::UpdateIn(|request, _| match request.digest_function {
            1 => Err(Status::invalid_argument("no such function")),
            _other => Ok(()),
        })],
    ),
    violation(
        "DIG-11",
        "blobs that came without a function are not those of SHA256",
        &[Bend::FindOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.digest_function == 1
            {
                let named = asked.blob_digests.iter().filter(|digest| digest.size_bytes > 0);
                answer.missing_blob_digests = named.cloned().collect();
            }
        })],
    ),
    violation(
        "DIG-15",
        "SHA256TREE, which is not offered, is taken for the default function",
        &[Bend::FindIn(|request, _| {
            if request.digest_function == 8 {
                request.digest_function = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "DIG-17",
        "digests of another length are passed over in mixed questions",
        &[Bend::FindIn(|request, _| {
            request.blob_digests.retain(|digest| digest.hash.len() != 40);
            Ok(())
        })],
    ),
    violation(
        "DIG-20",
        "the empty blob is missing where the function is said",
        &[Bend::FindOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.digest_function != 0
            {
                let empty = asked.blob_digests.iter().filter(|digest| digest.size_bytes == 0);
                answer.missing_blob_digests.extend(empty.cloned());
            }
        })],
    ),
    violation(
        "DIG-23",
        "what looks like a Directory is decoded and encoded again",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::Ok) {
                if let Ok(directory) = Directory::decode(response.data.clone())
                    && directory != Directory::default()
                {
                    response.data = directory.encode_to_vec().into();
                }
            }
        })],
    ),
    violation(
        "ERR-03",
        "a function nobody knows is UNKNOWN",
        &[Bend::FindIn(|request, _| match request.digest_function {
            99 => Err(Status::unknown("99")),
            _other => Ok(()),
        })],
    ),
    violation(
        "ERR-12",
        "a negative size is OUT_OF_RANGE",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::InvalidArgument) {
                if response
                    .digest
                    .as_ref()
                    .is_some_and(|digest| digest.size_bytes == -1)
                {
                    response.status = status(Code::OutOfRange);
                }
            }
        })],
    ),
    // Storage.
    violation(
        "CAS-GEN-01",
        "a refused entry is stored all the same",
        &[Bend::UpdateOut(|asked, answer, contents| {
            let refused = answer.as_ref().is_ok_and(|answer| {
                answer
                    .responses
                    .iter()
                    .any(|response| is(response.status.as_ref(), Code::InvalidArgument))
            });
            if refused {
                store_all(asked, contents);
            }
        })],
    ),
    violation(
        "CAS-GEN-02",
        "an instance without blobs has no empty blob either",
        &[Bend::BatchReadOut(|asked, answer, contents| {
            if contents.blobs(&asked.instance_name).is_empty() && !asked.instance_name.is_empty() {
                for response in with_code(answer, Code::Ok) {
                    response.status = status(Code::NotFound);
                }
            }
        })],
    ),
    violation(
        "CAS-GEN-04",
        "a batch of many blobs evicts its first",
        &[Bend::UpdateOut(|asked, _, contents| {
            if asked.requests.len() == 200
                && let Ok(first) = Digest::from_wire(asked.requests[0].digest.as_ref())
            {
                contents.evict(&asked.instance_name, &first);
            }
        })],
    ),
    violation(
        "CAS-GEN-06",
        "what a batch brought is present, and cannot be read by streams",
        &[
            Bend::UpdateOut(|asked, _, contents| {
                let marks = asked.requests.iter().filter(|entry| entry.data.len() == 300);
                contents
                    .marks
                    .extend(marks.filter_map(|entry| Some(entry.digest.as_ref()?.hash.clone())));
            }),
            Bend::ReadIn(|request, contents| {
                let hidden = contents
                    .marks
                    .iter()
                    .any(|hash| request.resource_name.contains(hash));
                if hidden {
                    Err(Status::not_found("not by this way"))
                } else {
                    Ok(())
                }
            }),
        ],
    ),
    violation(
        "CAS-GEN-07",
        "an upload under way can be read",
        &[Bend::ReadOut(|asked, answer, contents| {
            let hash = asked.resource_name.rsplit('/').nth(1).unwrap_or_default();
            if answer.is_err()
                && contents
                    .unfinished(|name| name.contains(hash))
                    .is_some_and(|held| held > 0)
            {
                *answer = Ok(bytes::Bytes::from_static(b"half"));
            }
        })],
    ),
    violation(
        "CAS-GEN-09",
        "streaming what a batch brought is a conflict",
        &[
            Bend::UpdateOut(|asked, _, contents| {
                let hashes = asked
                    .requests
                    .iter()
                    .filter_map(|entry| Some(entry.digest.as_ref()?.hash.clone()));
                contents.marks.extend(hashes);
            }),
            Bend::WriteIn(|request, contents| {
                let again = contents
                    .marks
                    .iter()
                    .any(|hash| request.resource_name.contains(hash));
                if again {
                    Err(Status::aborted("it is here in another form"))
                } else {
                    Ok(())
                }
            }),
        ],
    ),
    // FindMissingBlobs.
    violation(
        "CAS-FMB-01",
        "one of two missing blobs is called present",
        &[Bend::FindOut(|asked, answer, contents| {
            if let Ok(answer) = answer
                && asked.blob_digests.len() == 2
                && is_stored(contents, &asked.instance_name, &asked.blob_digests[0])
            {
                answer.missing_blob_digests.clear();
            }
        })],
    ),
    violation(
        "CAS-FMB-02",
        "a digest is listed that nobody asked for",
        &[Bend::FindOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && (9..100).contains(&asked.blob_digests.len())
            {
                answer
                    .missing_blob_digests
                    .push(Digest::of(b"invented").to_wire());
            }
        })],
    ),
    violation(
        "CAS-FMB-03",
        "duplicate digests are refused",
        &[Bend::FindIn(|request, _| {
            let first = request.blob_digests.first().cloned();
            let twice = request
                .blob_digests
                .iter()
                .skip(1)
                .any(|digest| Some(digest) == first.as_ref());
            if twice {
                Err(Status::invalid_argument("twice the same"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CAS-FMB-04",
        "an empty question is refused",
        &[Bend::FindIn(|request, _| {
            let empty = request.blob_digests.is_empty();
            if empty {
                Err(Status::invalid_argument("nothing asked"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CAS-FMB-07",
        "the empty blob is missing",
        &[Bend::FindOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.digest_function == 0
            {
                let empty = asked.blob_digests.iter().filter(|digest| digest.hash == EMPTY);
                answer.missing_blob_digests.extend(empty.cloned());
            }
        })],
    ),
    violation(
        "CAS-FMB-08",
        "sizes over a tebibyte are refused",
        &[Bend::FindIn(|request, _| {
            let huge = request
                .blob_digests
                .iter()
                .any(|digest| digest.size_bytes > 1 << 41);
            if huge {
                Err(Status::invalid_argument("too large"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CAS-FMB-10",
        "malformed digests are passed over",
        &[Bend::FindIn(|request, _| {
            if request.blob_digests.len() == 2 && well_formed(&request.blob_digests[0]) {
                request.blob_digests.retain(well_formed);
            }
            Ok(())
        })],
    ),
    violation(
        "CAS-FMB-11",
        "a right hash with a wrong size is present",
        &[Bend::FindOut(|asked, answer, contents| {
            if let Ok(answer) = answer {
                answer
                    .missing_blob_digests
                    .retain(|digest| contents.by_hash(&asked.instance_name, &digest.hash).is_none());
            }
        })],
    ),
    violation(
        "CAS-FMB-12",
        "questions about more than 12,000 digests are refused",
        &[Bend::FindIn(|request, _| match request.blob_digests.len() {
            0..12_000 => Ok(()),
            12_000.. => Err(Status::invalid_argument("too many")),
        })],
    ),
    violation(
        "CAS-FMB-13",
        "a blob is present as soon as its upload begins",
        &[Bend::FindOut(|_, answer, contents| {
            if let Ok(answer) = answer {
                let begun = |digest: &WireDigest| contents.unfinished(|name| name.contains(&digest.hash));
                answer
                    .missing_blob_digests
                    .retain(|digest| begun(digest).is_none());
            }
        })],
    ),
    violation(
        "CAS-FMB-14",
        "a blob is called missing when it was asked for thrice",
        &[Bend::FindOut(|asked, answer, contents| {
            contents.turns += u64::from(asked.blob_digests.len() == 1);
            if let Ok(answer) = answer
                && contents.turns >= 3
                && asked.blob_digests.len() == 1
            {
                answer.missing_blob_digests.clone_from(&asked.blob_digests);
            }
        })],
    ),
    // BatchUpdateBlobs.
    violation(
        "CAS-BUB-01",
        "a batch fails as a whole on one bad entry",
        &[Bend::UpdateOut(|asked, answer, _| {
            let bad = answer.as_ref().is_ok_and(|answer| {
                answer
                    .responses
                    .iter()
                    .any(|response| !is(response.status.as_ref(), Code::Ok))
            });
            if bad && asked.requests.len() > 1 {
                *answer = Err(Status::invalid_argument("one is bad"));
            }
        })],
    ),
    violation(
        "CAS-BUB-02",
        "one of twenty entries gets no response",
        &[Bend::UpdateOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.responses.len() == 20
            {
                answer.responses.pop();
            }
        })],
    ),
    violation(
        "CAS-BUB-03",
        "responses come in reverse order",
        &[Bend::UpdateOut(|_, answer, _| {
            if let Ok(answer) = answer {
                answer.responses.reverse();
            }
        })],
    ),
    violation(
        "CAS-BUB-04",
        "an entry with a wrong hash is accepted",
        &[Bend::UpdateOut(|asked, answer, contents| {
            let right_size = |entry: &reapi::batch_update_blobs_request::Request| {
                entry
                    .digest
                    .as_ref()
                    .is_some_and(|digest| usize::try_from(digest.size_bytes) == Ok(entry.data.len()))
                    && entry.digest.as_ref().is_some_and(well_formed)
                    && asked.requests.len() == 1
            };
            recode(asked, answer, (Code::InvalidArgument, Code::Ok), right_size);
            if asked.requests.len() == 1 && asked.requests.iter().all(right_size) {
                store_all(asked, contents);
            }
        })],
    ),
    violation(
        "CAS-BUB-05",
        "an entry with a wrong size is accepted",
        &[Bend::UpdateOut(|asked, answer, _| {
            recode(asked, answer, (Code::InvalidArgument, Code::Ok), |entry| {
                let digest = Digest::of(&entry.data).to_wire();
                entry.digest.as_ref().is_some_and(|named| {
                    named.hash == digest.hash && named.size_bytes + 1 == digest.size_bytes
                })
            });
        })],
    ),
    violation(
        "CAS-BUB-07",
        "upper case is accepted in batches",
        &[Bend::UpdateIn(|request, _| {
            for digest in request
                .requests
                .iter_mut()
                .filter_map(|entry| entry.digest.as_mut())
            {
                digest.hash.make_ascii_lowercase();
            }
            Ok(())
        })],
    ),
    violation(
        "CAS-BUB-08",
        "the batch limit is not kept for updates",
        &[Bend::UpdateOut(|asked, answer, _| {
            let total: usize = asked.requests.iter().map(|entry| entry.data.len()).sum();
            if answer.is_err() && total > 3_670_016 {
                let responses = asked
                    .requests
                    .iter()
                    .map(|entry| batch_update_blobs_response::Response {
                        digest: entry.digest.clone(),
                        status: None,
                    });
                *answer = Ok(reapi::BatchUpdateBlobsResponse {
                    responses: responses.collect(),
                });
            }
        })],
    ),
    violation(
        "CAS-BUB-10",
        "the compressor of an entry is not looked at",
        &[Bend::UpdateIn(|request, _| {
            for entry in request
                .requests
                .iter_mut()
                .filter(|entry| matches!(entry.compressor, 2 | 3))
            {
                entry.compressor = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "CAS-BUB-13",
        "the second of two equal entries is ABORTED",
        &[Bend::UpdateOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.requests.len() == 2
                && asked.requests[0] == asked.requests[1]
            {
                answer.responses[1].status = status(Code::Aborted);
            }
        })],
    ),
    violation(
        "CAS-BUB-14",
        "an entry that is there is ALREADY_EXISTS",
        &[
            Bend::UpdateIn(|request, contents| {
                contents.marks.clear();
                for digest in request.requests.iter().filter_map(|entry| entry.digest.as_ref()) {
                    if digest.size_bytes > 0 && is_stored(contents, &request.instance_name, digest) {
                        contents.marks.insert(digest.hash.clone());
                    }
                }
                Ok(())
            }),
            Bend::UpdateOut(|asked, answer, contents| {
                recode(asked, answer, (Code::Ok, Code::AlreadyExists), |entry| {
                    entry
                        .digest
                        .as_ref()
                        .is_some_and(|digest| contents.marks.contains(&digest.hash))
                });
            }),
        ],
    ),
    violation(
        "CAS-BUB-15",
        "an empty batch is refused",
        &[Bend::UpdateIn(|request, _| {
            let empty = request.requests.is_empty();
            if empty {
                Err(Status::invalid_argument("nothing to do"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CAS-BUB-16",
        "the empty blob is refused in batches",
        &[Bend::UpdateOut(|asked, answer, _| {
            recode(asked, answer, (Code::Ok, Code::InvalidArgument), |entry| {
                entry.data.is_empty()
            });
        })],
    ),
    violation(
        "CAS-BUB-18",
        "a short entry is an internal error",
        &[Bend::UpdateOut(|asked, answer, _| {
            recode(asked, answer, (Code::InvalidArgument, Code::Internal), |entry| {
                entry.digest.as_ref().is_some_and(|digest| {
                    usize::try_from(digest.size_bytes).is_ok_and(|size| size > entry.data.len())
                })
            });
        })],
    ),
    violation(
        "CAS-BUB-19",
        "entries are acknowledged and dropped",
        &[Bend::UpdateOut(|asked, _, contents| {
            if let [entry] = asked.requests.as_slice()
                && entry.data.len() == 300
                && let Ok(digest) = Digest::from_wire(entry.digest.as_ref())
            {
                contents.evict(&asked.instance_name, &digest);
            }
        })],
    ),
    violation(
        "CAP-10",
        "the batch limit is taken for the first size that is too large",
        &[Bend::UpdateIn(|request, _| {
            let total: usize = request.requests.iter().map(|entry| entry.data.len()).sum();
            if total == 3_670_016 && request.requests.len() == 1 {
                return Err(Status::invalid_argument("over the limit"));
            }
            Ok(())
        })],
    ),
    violation(
        "CAP-12",
        "more than 3,000 entries are too many for the transport",
        &[Bend::UpdateIn(|request, _| match request.requests.len() {
            0..3000 => Ok(()),
            3000.. => Err(Status::resource_exhausted("message too large")),
        })],
    ),
    // BatchReadBlobs.
    violation(
        "CAS-BRB-01",
        "one of ten digests gets no response",
        &[Bend::BatchReadOut(|_, answer, _| {
            if let Ok(answer) = answer
                && answer.responses.len() == 10
            {
                answer.responses.pop();
            }
        })],
    ),
    violation(
        "CAS-BRB-02",
        "a batch fails as a whole on one absent blob",
        &[Bend::BatchReadOut(|asked, answer, _| {
            if asked.digests.len() > 1 && with_code(answer, Code::NotFound).next().is_some() {
                *answer = Err(Status::not_found("one is absent"));
            }
        })],
    ),
    violation(
        "CAS-BRB-03",
        "an absent blob is INTERNAL in batches",
        &[Bend::BatchReadOut(|_, answer, contents| {
            for response in with_code(answer, Code::NotFound) {
                let known = |hash: &str| {
                    contents.by_hash("", hash).is_some()
                        || contents.unfinished(|name| name.contains(hash)).is_some()
                };
                if response
                    .digest
                    .as_ref()
                    .is_some_and(|digest| !known(&digest.hash))
                {
                    response.status = status(Code::Internal);
                }
            }
        })],
    ),
    violation(
        "CAS-BRB-05",
        "the batch limit is not kept for reads",
        &[Bend::BatchReadOut(|asked, answer, _| {
            let few = asked.digests.len() == 2;
            if few && answer.is_err() && asked.digests.iter().all(well_formed) {
                *answer = Ok(reapi::BatchReadBlobsResponse::default());
            }
        })],
    ),
    violation(
        "CAS-BRB-07",
        "plain data is called zstd",
        &[Bend::BatchReadOut(|asked, answer, _| {
            if asked.acceptable_compressors.is_empty() {
                for response in with_code(answer, Code::Ok).filter(|response| response.data.len() == 2000) {
                    response.compressor = 1;
                }
            }
        })],
    ),
    violation(
        "CAS-BRB-08",
        "unknown compressors are refused in the list of acceptable ones",
        &[Bend::BatchReadIn(|request, _| {
            let unknown = request.acceptable_compressors.iter().any(|number| *number > 3);
            if unknown {
                Err(Status::invalid_argument("no such compressor"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CAS-BRB-09",
        "batches cut blobs off at 64 KiB",
        &[Bend::BatchReadOut(|asked, answer, _| {
            if asked.digests.len() < 10 {
                for response in with_code(answer, Code::Ok) {
                    response.data.truncate(65_536);
                }
            }
        })],
    ),
    violation(
        "CAS-BRB-10",
        "the empty blob is absent from batches",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::Ok).filter(|response| response.data.is_empty()) {
                response.status = status(Code::NotFound);
            }
        })],
    ),
    violation(
        "CAS-BRB-11",
        "a digest that is asked for twice comes empty the second time",
        &[Bend::BatchReadOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && asked.digests.len() == 2
                && asked.digests[0] == asked.digests[1]
            {
                answer.responses[1].data.clear();
            }
        })],
    ),
    violation(
        "CAS-BRB-12",
        "a malformed digest is merely absent",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::InvalidArgument) {
                response.status = status(Code::NotFound);
            }
        })],
    ),
    violation(
        "CAS-BRB-14",
        "an absent blob comes with data",
        &[Bend::BatchReadOut(|_, answer, _| {
            for response in with_code(answer, Code::NotFound) {
                if response
                    .digest
                    .as_ref()
                    .is_some_and(|digest| digest.size_bytes == 64)
                {
                    response.data = bytes::Bytes::from_static(b"not found");
                }
            }
        })],
    ),
    violation(
        "CAS-BRB-15",
        "more than 3,000 digests are refused in one read",
        &[Bend::BatchReadIn(|request, _| match request.digests.len() {
            0..3000 => Ok(()),
            3000.. => Err(Status::invalid_argument("too many")),
        })],
    ),
    violation(
        "CAS-BRB-16",
        "an empty read is refused",
        &[Bend::BatchReadIn(|request, _| {
            let empty = request.digests.is_empty();
            if empty {
                Err(Status::invalid_argument("nothing asked"))
            } else {
                Ok(())
            }
        })],
    ),
];
