//! All checks, by the part of the protocol that they are about.

mod action_contents;
mod action_read;
mod action_update;
mod asset;
mod batch_read;
mod batch_update;
mod bytestream;
mod capabilities;
mod chunks;
mod codes;
mod compressed;
mod digests;
mod functions;
mod instances;
mod metadata;
mod names;
mod presence;
mod query;
mod storage;
mod transport;
mod tree;
mod upload;

use crate::check::Check;

/// What the files of checks begin with.
mod prelude {
    pub(super) use std::sync::Arc;

    pub(super) use bytes::Bytes;
    pub(super) use prost::Message as _;
    pub(super) use proto::reapi::{self, ActionResult, Digest, OutputFile};
    pub(super) use tonic::Code;

    pub(super) use crate::check;
    pub(super) use crate::check::{Check, Stop, Verdict, expect, expect_eq};
    pub(super) use crate::target::{Blob, Due as _, Target, write_requests};

    /// What a request that can never succeed is refused with.
    pub(super) const INVALID: &[Code] = &[Code::InvalidArgument];

    /// Codes that clients try again, which help nobody where the request is at fault.
    pub(super) const RETRIED: &[Code] = &[
        Code::Cancelled,
        Code::Unknown,
        Code::DeadlineExceeded,
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Internal,
        Code::Unavailable,
    ];

    /// SHA-256 in the enumeration of digest functions.
    pub(super) const SHA256: i32 = 1;
}

/// Every check there is, each id once.
pub fn all() -> Vec<Check> {
    let mut all = [
        transport::CHECKS,
        instances::CHECKS,
        digests::CHECKS,
        functions::CHECKS,
        capabilities::CHECKS,
        metadata::CHECKS,
        storage::CHECKS,
        presence::CHECKS,
        batch_update::CHECKS,
        batch_read::CHECKS,
        names::CHECKS,
        bytestream::CHECKS,
        upload::CHECKS,
        query::CHECKS,
        tree::CHECKS,
        action_read::CHECKS,
        action_update::CHECKS,
        action_contents::CHECKS,
        codes::CHECKS,
        compressed::CHECKS,
        chunks::CHECKS,
        asset::CHECKS,
    ]
    .concat();
    for check in &mut all {
        check.again = functions::AGAIN.contains(&check.id);
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ids_are_unique() {
        let checks = super::all();
        let ids: BTreeSet<&str> = checks.iter().map(|check| check.id).collect();
        assert_eq!(ids.len(), checks.len());
        let again = checks.iter().filter(|check| check.again).count();
        assert_eq!(again, super::functions::AGAIN.len(), "all are there, each once");
    }
}
