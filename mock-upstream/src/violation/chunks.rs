//! SplitBlob and SpliceBlob.

use proto::reapi::{SpliceBlobRequest, SpliceBlobResponse, SplitBlobRequest, SplitBlobResponse};
use tonic::{Code, Status};

use super::{Bend, Violation, violation};
use crate::contents::Contents;
use crate::digest::Digest;

fn is_code<T>(answer: &Result<T, Status>, code: Code) -> bool {
    answer.as_ref().is_err_and(|status| status.code() == code)
}

fn size(request: &SplitBlobRequest) -> i64 {
    request.blob_digest.as_ref().map_or(0, |digest| digest.size_bytes)
}

fn spliced(request: &SpliceBlobRequest) -> i64 {
    request.blob_digest.as_ref().map_or(0, |digest| digest.size_bytes)
}

/// Accepts a splice that was refused, and stores what its chunks make.
fn accept(
    request: &SpliceBlobRequest,
    answer: &mut Result<SpliceBlobResponse, Status>,
    contents: &mut Contents,
) {
    if answer.is_err()
        && let Ok(digest) = Digest::from_wire(request.blob_digest.as_ref())
    {
        contents.put(
            &request.instance_name,
            digest,
            bytes::Bytes::from_static(b"spliced"),
        );
        *answer = Ok(SpliceBlobResponse {
            blob_digest: request.blob_digest.clone(),
        });
    }
}

/// Sum of the chunks' sizes.
fn sum(request: &SpliceBlobRequest) -> i64 {
    let sizes = request.chunk_digests.iter().map(|chunk| chunk.size_bytes);
    sizes.fold(0, i64::saturating_add)
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "CDC-01",
        "splitting that is not announced is an internal error",
        &[
            Bend::Capabilities(|all, _| {
                if let Some(cache) = &mut all.cache_capabilities {
                    cache.split_blob_support = false;
                    cache.splice_blob_support = false;
                    cache.fast_cdc_2020_params = None;
                }
            }),
            Bend::SplitIn(|_, _| Err(Status::internal("not here"))),
        ],
    ),
    violation(
        "CDC-02",
        "two chunks of a split are exchanged",
        &[Bend::SplitOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && size(asked) == 100_000
            {
                answer.chunk_digests.swap(0, 1);
            }
        })],
    ),
    violation(
        "CDC-03",
        "a chunk of a split is missing",
        &[Bend::SplitOut(|asked, answer, contents| {
            let first = answer
                .as_ref()
                .ok()
                .and_then(|answer| answer.chunk_digests.first());
            if size(asked) == 110_000
                && let Ok(chunk) = Digest::from_wire(first)
            {
                contents.evict(&asked.instance_name, &chunk);
            }
        })],
    ),
    violation(
        "CDC-04",
        "a chunk of a split is there once",
        &[
            Bend::SplitOut(|asked, answer, contents| {
                if size(asked) == 120_000 {
                    let chunks = answer
                        .iter()
                        .flat_map(|answer: &SplitBlobResponse| &answer.chunk_digests);
                    contents.marks.extend(chunks.map(|chunk| chunk.hash.clone()));
                }
            }),
            Bend::ReadIn(|request, contents| {
                let gone = contents
                    .marks
                    .iter()
                    .any(|hash| request.resource_name.contains(hash));
                if gone {
                    Err(Status::not_found("the chunk"))
                } else {
                    Ok(())
                }
            }),
        ],
    ),
    violation(
        "CDC-06",
        "a split of an absent blob is INTERNAL",
        &[Bend::SplitOut(|asked, answer, _| {
            if is_code(answer, Code::NotFound) && size(asked) == 130_000 {
                *answer = Err(Status::internal("no such file"));
            }
        })],
    ),
    violation(
        "CDC-07",
        "a split of an absent blob has no chunks",
        &[Bend::SplitOut(|asked, answer, _| {
            if is_code(answer, Code::NotFound) && size(asked) == 140_000 {
                *answer = Ok(SplitBlobResponse::default());
            }
        })],
    ),
    violation(
        "CDC-10",
        "an unsaid chunking function is refused",
        &[Bend::SplitIn(|request, _| match request.chunking_function {
            0 => Err(Status::invalid_argument("which function?")),
            _said => Ok(()),
        })],
    ),
    violation(
        "CDC-11",
        "a split says a function that nobody knows",
        &[Bend::SplitOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && size(asked) == 150_000
            {
                answer.chunking_function = 42;
            }
        })],
    ),
    violation(
        "CAP-19",
        "a split does not say that it cut as announced",
        &[Bend::SplitOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && size(asked) == 160_000
            {
                answer.chunking_function = 0;
            }
        })],
    ),
    violation(
        "CDC-12",
        "a chunking function nobody knows is an internal error",
        &[Bend::SplitIn(|request, _| match request.chunking_function {
            99 => Err(Status::internal("99")),
            _known => Ok(()),
        })],
    ),
    violation(
        "CDC-13",
        "a split of 170,000 bytes is one chunk",
        &[Bend::SplitOut(|asked, answer, _| {
            if let Ok(answer) = answer
                && size(asked) == 170_000
            {
                answer.chunk_digests = asked.blob_digest.iter().cloned().collect();
            }
        })],
    ),
    violation(
        "CDC-14",
        "a small blob cannot be split, which is an internal error",
        &[Bend::SplitIn(|request, _| match size(request) {
            100 => Err(Status::internal("too small")),
            _other => Ok(()),
        })],
    ),
    violation(
        "CDC-18",
        "the second split leaves a chunk out",
        &[Bend::SplitOut(|asked, answer, contents| {
            contents.turns += u64::from(size(asked) == 180_000);
            if let Ok(answer) = answer
                && contents.turns == 2
            {
                answer.chunk_digests.pop();
            }
        })],
    ),
    violation(
        "CDC-35",
        "the second chunking function is refused",
        &[Bend::SplitIn(|request, _| match request.chunking_function {
            2 => Err(Status::invalid_argument("2")),
            _other => Ok(()),
        })],
    ),
    violation(
        "CDC-40",
        "the first chunk of RepMaxCDC is twice the least",
        &[Bend::SplitOut(|asked, answer, contents| {
            let Ok(answer) = answer else { return };
            let bytes = |digest| {
                let digest = Digest::from_wire(Some(digest)).ok()?;
                contents.blob(&asked.instance_name, &digest)
            };
            if asked.chunking_function == 2
                && let [one, two, ..] = &answer.chunk_digests[..]
                && let (Some(one), Some(two)) = (bytes(one), bytes(two))
            {
                let both = [one, two].concat();
                let digest = Digest::of(&both);
                contents.put(&asked.instance_name, digest, both.into());
                answer.chunk_digests.splice(..2, [digest.to_wire()]);
            }
        })],
    ),
    violation(
        "CDC-43",
        "chunks cannot be read in batches",
        &[
            Bend::SplitOut(|_, answer, contents| {
                let chunks = answer
                    .iter()
                    .flat_map(|answer: &SplitBlobResponse| &answer.chunk_digests);
                contents.marks.extend(chunks.map(|chunk| chunk.hash.clone()));
            }),
            Bend::BatchReadIn(|request, contents| {
                let chunk = request
                    .digests
                    .iter()
                    .any(|digest| contents.marks.contains(&digest.hash));
                if chunk {
                    Err(Status::invalid_argument("a chunk"))
                } else {
                    Ok(())
                }
            }),
        ],
    ),
    violation(
        "CDC-19",
        "a splice without a digest is an internal error",
        &[Bend::SpliceIn(|request, _| {
            let without = request.blob_digest.is_none();
            if without {
                Err(Status::internal("no digest"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "CDC-20",
        "a splice of an absent chunk is INTERNAL",
        &[Bend::SpliceOut(|asked, answer, _| {
            if is_code(answer, Code::NotFound) && spliced(asked) == 200 {
                *answer = Err(Status::internal("no such file"));
            }
        })],
    ),
    violation(
        "CDC-21",
        "a splice is not verified",
        &[Bend::SpliceOut(|asked, answer, contents| {
            if sum(asked) == spliced(asked) && is_code(answer, Code::InvalidArgument) && spliced(asked) == 300
            {
                accept(asked, answer, contents);
            }
        })],
    ),
    violation(
        "CDC-22",
        "chunks that do not add up are a miss",
        &[Bend::SpliceOut(|asked, answer, _| {
            if sum(asked) != spliced(asked) && is_code(answer, Code::InvalidArgument) && sum(asked) < 10_000 {
                *answer = Err(Status::not_found("they do not add up"));
            }
        })],
    ),
    violation(
        "CDC-23",
        "a chunk counts once",
        &[Bend::SpliceIn(|request, _| {
            let mut seen = std::collections::HashSet::new();
            request
                .chunk_digests
                .retain(|chunk| seen.insert(chunk.hash.clone()));
            Ok(())
        })],
    ),
    violation(
        "CDC-24",
        "a spliced blob is acknowledged and dropped",
        &[Bend::SpliceOut(|asked, answer, contents| {
            if spliced(asked) == 500
                && answer.is_ok()
                && let Ok(digest) = Digest::from_wire(asked.blob_digest.as_ref())
            {
                contents.evict(&asked.instance_name, &digest);
            }
        })],
    ),
    violation(
        "CDC-26",
        "a splice of what is there is an internal error",
        &[Bend::SpliceIn(|request, contents| {
            there(request, contents, 600, Code::Internal)
        })],
    ),
    violation(
        "CDC-28",
        "a splice of what is there is ALREADY_EXISTS",
        &[Bend::SpliceIn(|request, contents| {
            there(request, contents, 700, Code::AlreadyExists)
        })],
    ),
    violation(
        "CDC-31",
        "a splice cannot be repeated",
        &[Bend::SpliceIn(|request, contents| {
            there(request, contents, 800, Code::FailedPrecondition)
        })],
    ),
    violation(
        "CDC-30",
        "a splice over the limit of blobs is out of room",
        &[Bend::SpliceOut(|_, answer, _| {
            if answer
                .as_ref()
                .is_err_and(|status| status.message().contains("over the limit of"))
            {
                *answer = Err(Status::resource_exhausted("no room"));
            }
        })],
    ),
    violation(
        "CDC-32",
        "chunks are taken from any instance",
        &[Bend::SpliceOut(|asked, answer, contents| {
            let elsewhere = |contents: &Contents| {
                let names = contents.names();
                asked.chunk_digests.iter().all(|chunk| {
                    Digest::from_wire(Some(chunk))
                        .is_ok_and(|chunk| names.iter().any(|name| contents.has(name, &chunk)))
                })
            };
            if is_code(answer, Code::NotFound) && elsewhere(contents) {
                accept(asked, answer, contents);
            }
        })],
    ),
    violation(
        "CDC-33",
        "a split offers the chunks of a splice, whatever their size",
        &[
            Bend::SpliceOut(|asked, _, contents| {
                contents
                    .marks
                    .extend(asked.blob_digest.iter().map(|digest| digest.hash.clone()));
            }),
            Bend::SplitOut(|asked, answer, contents| {
                let marked = asked
                    .blob_digest
                    .as_ref()
                    .filter(|digest| contents.marks.contains(&digest.hash));
                if let (Ok(answer), Some(digest)) = (answer, marked) {
                    answer.chunk_digests = vec![digest.clone()];
                }
            }),
        ],
    ),
    violation(
        "CDC-34",
        "chunks whose sizes overflow are an internal error",
        &[Bend::SpliceIn(|request, _| {
            let overflows = sum(request) == i64::MAX;
            if overflows {
                Err(Status::internal("overflow"))
            } else {
                Ok(())
            }
        })],
    ),
];

/// Refuses a splice of a blob that is there.
fn there(request: &SpliceBlobRequest, contents: &Contents, size: i64, code: Code) -> Result<(), Status> {
    let digest = Digest::from_wire(request.blob_digest.as_ref());
    if spliced(request) == size && digest.is_ok_and(|digest| contents.has(&request.instance_name, &digest)) {
        return Err(Status::new(code, "it is here"));
    }
    Ok(())
}
