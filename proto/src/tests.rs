use std::collections::BTreeSet;

use bytes::Bytes;
use prost::{Message, Name};
use prost_types::FileDescriptorSet;

use crate::hand_encoded::{bytes, digest, varint};
use crate::{FILE_DESCRIPTOR_SET, asset, bytestream, reapi, rpc, semver};

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn reapi_digest(hash: &str, size_bytes: i64) -> Option<reapi::Digest> {
    Some(reapi::Digest {
        hash: hash.to_owned(),
        size_bytes,
    })
}

#[test]
fn action_result_has_the_protocols_field_numbers() {
    // AC-RES-01
    let encoded = [
        bytes(2, bytes(1, "file")),
        bytes(3, bytes(1, "directory")),
        varint(4, 7),
        bytes(5, "out"),
        bytes(6, digest("aa", 3)),
        bytes(7, "err"),
        bytes(8, digest("bb", 4)),
        bytes(9, bytes(1, "worker")),
        bytes(10, bytes(1, "file link")),
        bytes(11, bytes(1, "directory link")),
        bytes(12, bytes(1, "link")),
    ]
    .concat();
    let link = |path: &str| reapi::OutputSymlink {
        path: path.to_owned(),
        ..Default::default()
    };
    let expected = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "file".to_owned(),
            ..Default::default()
        }],
        output_directories: vec![reapi::OutputDirectory {
            path: "directory".to_owned(),
            ..Default::default()
        }],
        exit_code: 7,
        stdout_raw: Bytes::from_static(b"out"),
        stdout_digest: reapi_digest("aa", 3),
        stderr_raw: Bytes::from_static(b"err"),
        stderr_digest: reapi_digest("bb", 4),
        execution_metadata: Some(reapi::ExecutedActionMetadata {
            worker: "worker".to_owned(),
            ..Default::default()
        }),
        output_file_symlinks: vec![link("file link")],
        output_directory_symlinks: vec![link("directory link")],
        output_symlinks: vec![link("link")],
    };
    assert_eq!(reapi::ActionResult::decode(encoded.as_slice()).unwrap(), expected);
}

#[test]
fn server_capabilities_have_the_protocols_field_numbers() {
    // CAP-27
    let encoded = [
        bytes(1, varint(4, 11)),
        bytes(2, varint(2, 1)),
        bytes(3, varint(1, 1)),
        bytes(4, varint(1, 2)),
        bytes(5, [varint(1, 2), varint(2, 12)].concat()),
    ]
    .concat();
    let version = |major, minor| {
        Some(semver::SemVer {
            major,
            minor,
            ..Default::default()
        })
    };
    let expected = reapi::ServerCapabilities {
        cache_capabilities: Some(reapi::CacheCapabilities {
            max_batch_total_size_bytes: 11,
            ..Default::default()
        }),
        execution_capabilities: Some(reapi::ExecutionCapabilities {
            exec_enabled: true,
            ..Default::default()
        }),
        deprecated_api_version: version(1, 0),
        low_api_version: version(2, 0),
        high_api_version: version(2, 12),
    };
    assert_eq!(
        reapi::ServerCapabilities::decode(encoded.as_slice()).unwrap(),
        expected
    );
}

#[test]
fn cache_capabilities_have_the_protocols_field_numbers() {
    // CAP-27; the enum values: CDC-35
    let encoded = [
        varint(1, 1),
        varint(1, 9),
        bytes(2, varint(1, 1)),
        bytes(3, bytes(1, [varint(1, 5), varint(2, 6)].concat())),
        varint(4, 4_000_000),
        varint(5, 2),
        varint(6, 1),
        varint(7, 3),
        varint(8, 1 << 40),
        varint(9, 1),
        varint(10, 1),
        bytes(11, [varint(1, 524_288), varint(2, 666)].concat()),
        bytes(12, [varint(1, 262_144), varint(2, 1024)].concat()),
    ]
    .concat();
    let expected = reapi::CacheCapabilities {
        digest_functions: vec![
            reapi::digest_function::Value::Sha256.into(),
            reapi::digest_function::Value::Blake3.into(),
        ],
        action_cache_update_capabilities: Some(reapi::ActionCacheUpdateCapabilities { update_enabled: true }),
        cache_priority_capabilities: Some(reapi::PriorityCapabilities {
            priorities: vec![reapi::priority_capabilities::PriorityRange {
                min_priority: 5,
                max_priority: 6,
            }],
        }),
        max_batch_total_size_bytes: 4_000_000,
        symlink_absolute_path_strategy: reapi::symlink_absolute_path_strategy::Value::Allowed.into(),
        supported_compressors: vec![reapi::compressor::Value::Zstd.into()],
        supported_batch_update_compressors: vec![reapi::compressor::Value::Brotli.into()],
        max_cas_blob_size_bytes: 1 << 40,
        split_blob_support: true,
        splice_blob_support: true,
        fast_cdc_2020_params: Some(reapi::FastCdc2020Params {
            avg_chunk_size_bytes: 524_288,
            seed: 666,
        }),
        rep_max_cdc_params: Some(reapi::RepMaxCdcParams {
            min_chunk_size_bytes: 262_144,
            horizon_size_bytes: 1024,
        }),
    };
    assert_eq!(
        reapi::CacheCapabilities::decode(encoded.as_slice()).unwrap(),
        expected
    );
    assert_eq!(
        reapi::chunking_function::Value::try_from(1),
        Ok(reapi::chunking_function::Value::FastCdc2020)
    );
    assert_eq!(
        reapi::chunking_function::Value::try_from(2),
        Ok(reapi::chunking_function::Value::RepMaxCdc)
    );
}

#[test]
fn byte_stream_has_the_protocols_field_numbers() {
    let encoded = [bytes(1, "name"), varint(2, 5), varint(3, 1), bytes(10, "data")].concat();
    let expected = bytestream::WriteRequest {
        resource_name: "name".to_owned(),
        write_offset: 5,
        finish_write: true,
        data: Bytes::from_static(b"data"),
    };
    assert_eq!(
        bytestream::WriteRequest::decode(encoded.as_slice()).unwrap(),
        expected
    );
}

#[test]
fn bytes_are_cut_from_the_received_buffer() {
    let message = Bytes::from(bytes(10, [7; 1000]));
    let data = bytestream::ReadResponse::decode(message.clone()).unwrap().data;
    assert_eq!(data.len(), 1000);
    assert_eq!(data.as_ptr(), message[message.len() - 1000..].as_ptr());
}

#[test]
fn error_details_pack_under_the_names_that_clients_look_for() {
    let violation = rpc::precondition_failure::Violation {
        r#type: "MISSING".to_owned(),
        subject: "blobs/aa/1".to_owned(),
        description: String::new(),
    };
    let failure = rpc::PreconditionFailure {
        violations: vec![violation],
    };
    let packed = prost_types::Any::from_msg(&failure).unwrap();
    assert_eq!(
        packed.type_url,
        "type.googleapis.com/google.rpc.PreconditionFailure"
    );
    assert_eq!(packed.to_msg::<rpc::PreconditionFailure>().unwrap(), failure);
    assert_eq!(
        rpc::RetryInfo::type_url(),
        "type.googleapis.com/google.rpc.RetryInfo"
    );
    assert_eq!(
        rpc::BadRequest::type_url(),
        "type.googleapis.com/google.rpc.BadRequest"
    );
}

#[test]
fn descriptor_set_names_every_service_and_nothing_else() {
    // GEN-01
    let described: BTreeSet<String> = descriptors()
        .file
        .iter()
        .flat_map(|file| {
            file.service
                .iter()
                .map(|service| format!("{}.{}", file.package(), service.name()))
        })
        .collect();
    let expected = [
        "build.bazel.remote.asset.v1.Fetch",
        "build.bazel.remote.asset.v1.Push",
        "build.bazel.remote.execution.v2.ActionCache",
        "build.bazel.remote.execution.v2.Capabilities",
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
        "google.bytestream.ByteStream",
    ];
    assert_eq!(described, expected.map(str::to_owned).into());
}

#[test]
fn servers_are_mounted_under_the_protocols_names() {
    // GEN-01
    let served = [
        asset::fetch_server::SERVICE_NAME,
        asset::push_server::SERVICE_NAME,
        bytestream::byte_stream_server::SERVICE_NAME,
        reapi::action_cache_server::SERVICE_NAME,
        reapi::capabilities_server::SERVICE_NAME,
        reapi::content_addressable_storage_server::SERVICE_NAME,
    ];
    let expected = [
        "build.bazel.remote.asset.v1.Fetch",
        "build.bazel.remote.asset.v1.Push",
        "google.bytestream.ByteStream",
        "build.bazel.remote.execution.v2.ActionCache",
        "build.bazel.remote.execution.v2.Capabilities",
        "build.bazel.remote.execution.v2.ContentAddressableStorage",
    ];
    assert_eq!(served, expected);
}

#[test]
fn descriptor_set_holds_what_its_files_import() {
    let set = descriptors();
    let present: BTreeSet<&str> = set.file.iter().map(|file| file.name()).collect();
    let imported: BTreeSet<&str> = set
        .file
        .iter()
        .flat_map(|file| &file.dependency)
        .map(String::as_str)
        .collect();
    assert!(imported.is_subset(&present), "{imported:?} in {present:?}");
    assert!(
        set.file.iter().all(|file| file.source_code_info.is_none()),
        "comments are not for reflection"
    );
}
