//! Transport, metadata, capabilities.

use std::time::Duration;

use http::HeaderMap;
use prost::Message as _;
use proto::REQUEST_METADATA_HEADER;
use proto::reapi::{
    ExecutionCapabilities, FastCdc2020Params, PriorityCapabilities, RequestMetadata, ServerCapabilities,
    priority_capabilities,
};
use proto::semver::SemVer;
use tonic::{Code, Status};

use super::{Bend, Violation, violation};

/// The metadata of a call, if it has some that can be decoded.
fn metadata(headers: &HeaderMap) -> Option<RequestMetadata> {
    let headers = tonic::metadata::MetadataMap::from_headers(headers.clone());
    let value = headers.get_bin(REQUEST_METADATA_HEADER)?;
    RequestMetadata::decode(value.to_bytes().ok()?).ok()
}

fn refused(is_disliked: impl Fn(&RequestMetadata) -> bool, headers: &HeaderMap) -> Option<Status> {
    metadata(headers)
        .filter(|metadata| is_disliked(metadata))
        .map(|_| Status::invalid_argument("disliked metadata"))
}

fn version(major: i32, minor: i32) -> Option<SemVer> {
    Some(SemVer {
        major,
        minor,
        ..SemVer::default()
    })
}

fn params(avg_chunk_size_bytes: u64) -> FastCdc2020Params {
    FastCdc2020Params {
        avg_chunk_size_bytes,
        ..FastCdc2020Params::default()
    }
}

fn average(all: &mut ServerCapabilities, bytes: u64) {
    if let Some(cache) = &mut all.cache_capabilities {
        cache.fast_cdc_2020_params = Some(params(bytes));
    }
}

/// Methods of services that there are.
fn is_known_service(path: &str) -> bool {
    [
        "ContentAddressableStorage/",
        "ActionCache/",
        "ByteStream/",
        "Capabilities/",
        "Fetch/",
        "Push/",
    ]
    .iter()
    .any(|service| path.contains(service))
}

pub(super) const VIOLATIONS: &[Violation] = &[
    violation(
        "GEN-01",
        "an empty request is called unimplemented",
        &[Bend::FindIn(|request, _| {
            let empty = request.blob_digests.is_empty();
            if empty {
                Err(Status::unimplemented("not here"))
            } else {
                Ok(())
            }
        })],
    ),
    violation(
        "GEN-02",
        "an unknown method is UNKNOWN",
        &[Bend::Call(|path, _| {
            path.ends_with("/DoNothingOfTheKind")
                .then(|| Status::unknown("no such method"))
        })],
    ),
    violation(
        "GEN-08",
        "deadlines are refused",
        &[Bend::Call(|path, headers| {
            let with_deadline = headers.contains_key("grpc-timeout") && !path.ends_with("FindMissingBlobs");
            with_deadline.then(|| Status::invalid_argument("no deadlines here"))
        })],
    ),
    violation(
        "CAS-FMB-16",
        "long questions exhaust their deadline",
        &[Bend::Call(|path, headers| {
            let short = headers.get("grpc-timeout").is_some_and(|value| value == "20S");
            (short && path.ends_with("FindMissingBlobs")).then(|| Status::deadline_exceeded("too long"))
        })],
    ),
    violation(
        "GEN-12",
        "uncompressed messages are refused when they say so",
        &[Bend::Call(|_, headers| {
            let identity = headers
                .get("grpc-encoding")
                .is_some_and(|value| value == "identity");
            identity.then(|| Status::unimplemented("gzip only"))
        })],
    ),
    violation(
        "ERR-13",
        "an unknown service is NOT_FOUND",
        &[Bend::Call(|path, _| {
            (!is_known_service(path)).then(|| Status::not_found("no such service"))
        })],
    ),
    violation(
        "META-01",
        "a client that names its tool must name its action",
        &[Bend::Call(|_, headers| {
            refused(|m| m.tool_details.is_some() && m.action_id.is_empty(), headers)
        })],
    ),
    violation(
        "META-03",
        "undecodable metadata is an internal error",
        &[Bend::Call(|_, headers| {
            let odd = headers.contains_key(REQUEST_METADATA_HEADER) && metadata(headers).is_none();
            odd.then(|| Status::internal("metadata"))
        })],
    ),
    violation(
        "META-04",
        "metadata with a target is refused",
        &[Bend::Call(|_, headers| {
            refused(|m| !m.target_id.is_empty(), headers)
        })],
    ),
    violation(
        "META-05",
        "an action id that is no hash is refused",
        &[Bend::Call(|_, headers| {
            refused(|m| m.action_id.bytes().any(|c| !c.is_ascii_hexdigit()), headers)
        })],
    ),
    violation(
        "META-06",
        "metadata of more than 4 KiB is refused",
        &[Bend::Call(|_, headers| {
            refused(|m| m.encoded_len() > 4096, headers)
        })],
    ),
    violation(
        "META-07",
        "the resource name in a header is refused",
        &[Bend::Call(|_, headers| {
            let named = headers.contains_key("build.bazel.remote.execution.v2.resource-name");
            named.then(|| Status::invalid_argument("a strange header"))
        })],
    ),
    violation(
        "META-08",
        "metadata with line breaks is refused",
        &[Bend::Call(|_, headers| {
            refused(|m| m.tool_invocation_id.contains('\n'), headers)
        })],
    ),
    violation(
        "CAP-02",
        "no cache capabilities are announced",
        &[Bend::Capabilities(|all, _| all.cache_capabilities = None)],
    ),
    violation(
        "CAP-03",
        "SHA256 is not announced",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.digest_functions.clear();
            }
        })],
    ),
    violation(
        "CAP-04",
        "the lowest API version is 2.1",
        &[Bend::Capabilities(|all, _| all.low_api_version = version(2, 1))],
    ),
    violation(
        "CAP-05",
        "the deprecated API version is above the lowest",
        &[Bend::Capabilities(|all, _| {
            all.deprecated_api_version = version(2, 2)
        })],
    ),
    violation(
        "CAP-06",
        "a version has numbers and a prerelease",
        &[Bend::Capabilities(|all, _| {
            if let Some(high) = &mut all.high_api_version {
                high.prerelease = "beta".to_owned();
            }
        })],
    ),
    violation(
        "CAP-07",
        "the highest API version is below the lowest",
        &[Bend::Capabilities(|all, _| all.high_api_version = version(1, 9))],
    ),
    violation(
        "CAP-08",
        "updates are called disabled, and work",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.action_cache_update_capabilities = None;
            }
        })],
    ),
    violation(
        "AC-UPD-09",
        "updates that are disabled are an internal error",
        &[
            Bend::Capabilities(|all, _| {
                if let Some(cache) = &mut all.cache_capabilities {
                    cache.action_cache_update_capabilities = None;
                }
            }),
            Bend::PutIn(|_, _| Err(Status::internal("read only"))),
        ],
    ),
    violation(
        "CAP-09",
        "a priority range is upside down",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.cache_priority_capabilities = Some(PriorityCapabilities {
                    priorities: vec![priority_capabilities::PriorityRange {
                        min_priority: 5,
                        max_priority: 1,
                    }],
                });
            }
        })],
    ),
    violation(
        "CAP-11",
        "no batch limit is announced",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.max_batch_total_size_bytes = 0;
            }
        })],
    ),
    violation(
        "CAP-13",
        "the strategy for symlinks is unknown",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.symlink_absolute_path_strategy = 0;
            }
        })],
    ),
    violation(
        "CAP-15",
        "deflate is announced, and does not work",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.supported_compressors.push(2);
            }
        })],
    ),
    violation(
        "CAP-16",
        "zstd works in batches as announced or not, the other way round",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                let listed = &mut cache.supported_batch_update_compressors;
                if listed.contains(&1) {
                    listed.clear()
                } else {
                    listed.push(1)
                }
            }
        })],
    ),
    violation(
        "CAP-18",
        "splitting works as announced or not, the other way round",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.split_blob_support ^= true;
                cache.splice_blob_support ^= true;
            }
        })],
    ),
    violation(
        "CAP-20",
        "split and splice are announced without FastCDC, or FastCDC without them",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.fast_cdc_2020_params = match cache.fast_cdc_2020_params {
                    Some(_) => None,
                    None => Some(params(512 * 1024)),
                };
            }
        })],
    ),
    violation(
        "CAP-21",
        "the average chunk has 512 bytes",
        &[Bend::Capabilities(|all, _| average(all, 512))],
    ),
    violation(
        "CAP-22",
        "the average chunk has 500000 bytes",
        &[Bend::Capabilities(|all, _| average(all, 500_000))],
    ),
    violation(
        "CAP-25",
        "capabilities take one second and a half",
        &[Bend::CapabilitiesLate(Duration::from_millis(1500))],
    ),
    violation(
        "ERR-05",
        "a call whose deadline has passed is CANCELLED",
        &[Bend::Late(Code::Cancelled)],
    ),
    violation(
        "CAP-23",
        "the least chunk has 16 bytes",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.rep_max_cdc_params = Some(proto::reapi::RepMaxCdcParams {
                    min_chunk_size_bytes: 16,
                    ..Default::default()
                });
            }
        })],
    ),
    violation(
        "CAP-24",
        "the batch limit changes from call to call",
        &[Bend::Capabilities(|all, contents| {
            contents.turns += 1;
            if let Some(cache) = &mut all.cache_capabilities {
                cache.max_batch_total_size_bytes -= i64::try_from(contents.turns).unwrap_or(0);
            }
        })],
    ),
    violation(
        "CAP-26",
        "execution is announced with an unknown digest function",
        &[Bend::Capabilities(|all, _| {
            all.execution_capabilities = Some(ExecutionCapabilities::default())
        })],
    ),
    violation(
        "DIG-19",
        "UNKNOWN is announced as a digest function",
        &[Bend::Capabilities(|all, _| {
            if let Some(cache) = &mut all.cache_capabilities {
                cache.digest_functions.push(0);
            }
        })],
    ),
];
