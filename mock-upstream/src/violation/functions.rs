//! The second digest function.

use proto::reapi;
use tonic::Status;

use super::{Bend, Violation, violation};
use crate::contents::Contents;
use crate::digest::Function;

fn is_blake3(said: i32) -> bool {
    said == Function::Blake3.number()
}

fn announce(all: &mut reapi::ServerCapabilities, function: i32) {
    if let Some(cache) = &mut all.cache_capabilities {
        cache.digest_functions.push(function);
    }
}

/// Whether there is a BLAKE3 blob of this hash.
fn has_blake3(contents: &Contents, instance: &str, digest: &reapi::Digest) -> bool {
    let digest = Function::Blake3.from_wire(Some(digest));
    digest.is_ok_and(|digest| contents.has(instance, &digest))
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "DIG-12",
        "a BLAKE3 blob is found where no function is said",
        &[Bend::FindOut(|asked, answer, contents| {
            if asked.digest_function == 0
                && let Ok(answer) = answer
            {
                let missing = &mut answer.missing_blob_digests;
                missing.retain(|digest| !has_blake3(contents, &asked.instance_name, digest));
            }
        })],
    ),
    violation(
        "DIG-18",
        "an action that is not there as BLAKE3 is looked for as SHA256",
        &[Bend::GetIn(|request, contents| {
            let action = Function::Blake3.from_wire(request.action_digest.as_ref());
            let there = |action| contents.action(&request.instance_name, &action).is_some();
            if is_blake3(request.digest_function) && !action.is_ok_and(there) {
                request.digest_function = 0;
            }
            Ok(())
        })],
    ),
    violation(
        "RN-07",
        "a function behind a compressor is refused",
        &[Bend::ReadIn(|request, _| {
            match request.resource_name.contains("compressed-blobs/zstd/blake3/") {
                true => Err(Status::invalid_argument("no such function")),
                false => Ok(()),
            }
        })],
    ),
    violation(
        "TREE-26",
        "children in a tree of BLAKE3 are looked for as SHA256",
        &[Bend::TreeOut(|asked, answer, _| {
            if is_blake3(asked.digest_function)
                && let Ok(pages) = answer
            {
                pages.truncate(1);
                for page in pages {
                    page.directories.truncate(1);
                }
            }
        })],
    ),
    violation(
        "CDC-05",
        "chunks of a BLAKE3 blob have digests of SHA256",
        &[Bend::SplitOut(|asked, answer, contents| {
            if is_blake3(asked.digest_function)
                && let Ok(answer) = answer
            {
                for chunk in &mut answer.chunk_digests {
                    let digest = Function::Blake3.from_wire(Some(chunk));
                    let bytes = digest
                        .ok()
                        .and_then(|digest| contents.blob(&asked.instance_name, &digest));
                    if let Some(bytes) = bytes {
                        let other = Function::Sha256.of(&bytes);
                        contents.put(&asked.instance_name, other, bytes);
                        *chunk = other.to_wire();
                    }
                }
            }
        })],
    ),
    violation(
        "DIG-21",
        "SHA256TREE is announced, and is plain SHA256",
        &[
            Bend::Capabilities(|all, _| announce(all, 8)),
            Bend::UpdateIn(|request, _| {
                if request.digest_function == 8 {
                    request.digest_function = 0;
                }
                Ok(())
            }),
        ],
    ),
    violation(
        "DIG-22",
        "GITSHA1 is announced, and its hashes are too short",
        &[
            Bend::Capabilities(|all, _| announce(all, 10)),
            Bend::UpdateIn(|request, _| {
                if request.digest_function == 10 {
                    request.digest_function = 0;
                }
                Ok(())
            }),
        ],
    ),
];
