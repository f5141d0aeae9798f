//! Digests as they stand in messages.

use proto::reapi;
use proto::reapi::digest_function::Value;
use tonic::Status;

use super::status::invalid;
use crate::digest::{ActionDigest, Digest, Function};

/// The digest function of a request. Unset means the old-style function whose hashes have the length of those in the
/// request; SHA-256 is the only one here, so that [`Digest::parse`] finds out by the length (DIG-11, DIG-12).
///
/// # Errors
/// INVALID_ARGUMENT for a function that this node does not announce.
pub(super) fn function(value: i32) -> Result<Function, Status> {
    match Value::try_from(value) {
        Ok(Value::Unknown | Value::Sha256) => Ok(Function::Sha256),
        Ok(
            Value::Sha1
            | Value::Md5
            | Value::Vso
            | Value::Sha384
            | Value::Sha512
            | Value::Murmur3
            | Value::Sha256tree
            | Value::Blake3
            | Value::Gitsha1,
        )
        | Err(_) => Err(invalid(format_args!("digest function {value} is not offered"))),
    }
}

/// How a function is announced.
pub(super) fn announced(function: Function) -> Value {
    match function {
        Function::Sha256 => Value::Sha256,
    }
}

/// Checks a digest that has to be there.
///
/// # Errors
/// INVALID_ARGUMENT for one that is absent or malformed (DIG-06).
pub(super) fn required(
    function: Function,
    digest: Option<&reapi::Digest>,
    what: &'static str,
) -> Result<Digest, Status> {
    let digest = digest.ok_or_else(|| invalid(format_args!("the {what} is absent")))?;
    parse(function, digest).map_err(|status| invalid(format_args!("{what}: {}", status.message())))
}

/// Checks the key of an action result.
///
/// # Errors
/// As [`required`].
pub(super) fn action(function: Function, digest: Option<&reapi::Digest>) -> Result<ActionDigest, Status> {
    required(function, digest, "action digest").map(ActionDigest)
}

/// Checks a digest.
///
/// # Errors
/// INVALID_ARGUMENT for a malformed one.
pub(super) fn parse(function: Function, digest: &reapi::Digest) -> Result<Digest, Status> {
    Digest::parse(function, &digest.hash, digest.size_bytes).map_err(invalid)
}

/// Checks all digests of a list; one malformed digest fails it.
///
/// # Errors
/// INVALID_ARGUMENT for a malformed one.
pub(super) fn all(function: Function, digests: &[reapi::Digest]) -> Result<Vec<Digest>, Status> {
    digests.iter().map(|digest| parse(function, digest)).collect()
}

/// A digest as it stands in messages.
pub(super) fn message(digest: &Digest) -> reapi::Digest {
    reapi::Digest {
        hash: digest.hash().to_hex(),
        // Every digest was parsed from an `int64` or is that of bytes in memory.
        size_bytes: i64::try_from(digest.size_bytes()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_announced_functions_are_taken_and_unset_means_sha256() {
        assert_eq!(function(0).unwrap(), Function::Sha256); // DIG-10, DIG-11
        assert_eq!(function(1).unwrap(), Function::Sha256); // DIG-13
        for value in [2, 3, 8, 9, 99, -1] {
            let status = function(value).unwrap_err(); // DIG-12, DIG-15, GEN-10
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{value}");
        }
    }

    #[test]
    fn an_absent_digest_is_not_the_empty_blob() {
        // DIG-06
        for digest in [None, Some(&reapi::Digest::default())] {
            let status = required(Function::Sha256, digest, "root digest").unwrap_err();
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains("root digest"), "{status}");
        }
    }

    #[test]
    fn a_digest_is_echoed_as_it_came() {
        let digest = message(&Digest::of(Function::Sha256, b"hello"));
        assert_eq!(message(&parse(Function::Sha256, &digest).unwrap()), digest); // CAS-FMB-02
    }
}
