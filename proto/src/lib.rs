//! The protocol: messages, servers and clients, generated from the `.proto` files beside this crate. No logic.
//!
//! | module | package |
//! | --- | --- |
//! | [`reapi`] | `build.bazel.remote.execution.v2`, without Execution |
//! | [`bytestream`] | `google.bytestream` |
//! | [`asset`] | `build.bazel.remote.asset.v1` |
//! | [`semver`] | `build.bazel.semver` |
//! | [`rpc`] | `google.rpc`: `Status` and the error details in use |
//! | [`wire`] | twins of some of `reapi`, that keep nested messages as bytes |
//!
//! Decoding into a generated type drops every field that this crate does not know, and encoding chooses one of several
//! valid forms. Whoever only passes an action result or a directory on must do neither: use [`wire`] there.
//!
//! Fields of type `bytes` are [`bytes::Bytes`]: cut from the received buffer, not copied.

pub mod wire;

/// All files of this crate and what they import, encoded as a `FileDescriptorSet`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The header that carries an encoded [`reapi::RequestMetadata`].
pub const REQUEST_METADATA_HEADER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

pub use generated::build::bazel::remote::asset::v1 as asset;
pub use generated::build::bazel::remote::execution::v2 as reapi;
pub use generated::build::bazel::semver;
pub use generated::google::{bytestream, rpc};

#[expect(
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    reason = "generated code follows the generators' taste"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}

#[cfg(test)]
mod hand_encoded;
#[cfg(test)]
mod tests;
