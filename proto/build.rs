//! Generates the protocol's types and services from `proto/`, without a `protoc` on the machine.

use std::{env, error::Error, path::PathBuf};

use tonic_prost_build::{Builder, Config, FileDescriptorSet};

const INCLUDE_DIR: &str = "proto";
const REAPI_FILE: &str = "build/bazel/remote/execution/v2/remote_execution.proto";
const FILES: [&str; 5] = [
    REAPI_FILE,
    "build/bazel/remote/asset/v1/remote_asset.proto",
    "build/bazel/semver/semver.proto",
    "google/bytestream/bytestream.proto",
    "google/rpc/error_details.proto",
];

/// Services that have a twin in `wire`, and the messages that are replaced there.
const TWIN_SERVICES: [&str; 2] = ["ActionCache", "ContentAddressableStorage"];
const TWIN_MESSAGES: [&str; 3] = ["ActionResult", "UpdateActionResultRequest", "GetTreeResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={INCLUDE_DIR}");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);

    let mut compiler = protox::Compiler::new([INCLUDE_DIR])?;
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_files(FILES)?;
    let descriptors = compiler.file_descriptor_set();
    // Comments become docs, but reflection has no use for them.
    let bare = compiler.include_source_info(false).encode_file_descriptor_set();
    fs_err::write(out_dir.join("descriptors.bin"), bare)?;

    generate_all(descriptors.clone())?;
    generate_twins(descriptors, out_dir.join("twins"))?;
    Ok(())
}

fn generate_all(descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut config = Config::new();
    // `Any` holds error details; with names and this domain they pack and unpack as other implementations expect.
    config
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com");
    builder()
        .bytes(".")
        .include_file("modules.rs")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// A second pass over two services only: every message is taken from elsewhere, so nothing but traits, servers and
/// clients comes out.
fn generate_twins(mut descriptors: FileDescriptorSet, out_dir: PathBuf) -> Result<(), Box<dyn Error>> {
    fs_err::create_dir_all(&out_dir)?;
    descriptors.file.retain(|file| file.name() == REAPI_FILE);
    for file in &mut descriptors.file {
        file.service
            .retain(|service| TWIN_SERVICES.contains(&service.name()));
    }
    let package = ".build.bazel.remote.execution.v2";
    let mut twins = builder().out_dir(out_dir).extern_path(package, "crate::reapi");
    for message in TWIN_MESSAGES {
        twins = twins.extern_path(format!("{package}.{message}"), format!("crate::wire::{message}"));
    }
    twins.compile_fds(descriptors)?;
    Ok(())
}

fn builder() -> Builder {
    tonic_prost_build::configure().emit_rerun_if_changed(false)
}
