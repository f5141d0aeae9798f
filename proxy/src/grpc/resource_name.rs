//! Resource names of ByteStream: instance name, form and digest in one path. Pure: text in, names or a reason out.
//!
//! ```text
//! read   [instance/]blobs/[function/]hash/size
//! write  [instance/]uploads/uuid/blobs/[function/]hash/size[/anything…]
//! ```
//!
//! Names are taken literally: nothing is decoded or normalised.

use crate::call::{InstanceName, InstanceNameError};
use crate::digest::{Digest, DigestError, Function};

/// Bytes that a name may have. REAPI sets no bound; an upload is remembered by its whole name.
const NAME_BYTES_MAX: usize = 4 * 1024;

/// Names of digest functions that REAPI knows, so that one we lack is told from a hash.
const KNOWN_FUNCTIONS: [&str; 10] = [
    "sha256",
    "sha1",
    "md5",
    "vso",
    "sha384",
    "sha512",
    "murmur3",
    "sha256tree",
    "blake3",
    "gitsha1",
];

/// What a read name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadName {
    pub instance: InstanceName,
    pub digest: Digest,
}

impl ReadName {
    /// Takes a read name apart.
    ///
    /// # Errors
    /// One variant of [`NameError`] per way to be malformed; all of them are the client's fault.
    pub(super) fn parse(name: &str) -> Result<ReadName, NameError> {
        let (instance, form, rest) = split(name, &["blobs", "compressed-blobs"])?;
        if form != "blobs" {
            return Err(NameError::Compressor);
        }
        let (digest, tail) = digest(rest)?;
        if tail.is_some() {
            return Err(NameError::Tail);
        }
        Ok(ReadName { instance, digest })
    }
}

/// What a write name says. The upload's identity is the whole name, as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WriteName {
    pub instance: InstanceName,
    pub digest: Digest,
}

impl WriteName {
    /// Takes a write name apart, from the left: metadata after the size may hold anything.
    ///
    /// # Errors
    /// As [`ReadName::parse`].
    pub(super) fn parse(name: &str) -> Result<WriteName, NameError> {
        let (instance, _uploads, rest) = split(name, &["uploads"])?;
        let (uuid, rest) = rest.split_once('/').ok_or(NameError::Form)?;
        if uuid.is_empty() {
            return Err(NameError::Uuid);
        }
        let (form, rest) = rest.split_once('/').ok_or(NameError::Form)?;
        match form {
            "blobs" => {}
            "compressed-blobs" => return Err(NameError::Compressor),
            _ => return Err(NameError::Form),
        }
        let (digest, _metadata) = digest(rest)?;
        Ok(WriteName { instance, digest })
    }
}

/// Cuts a name at the first segment that is one of `forms`. Reserved words cannot occur in an instance name, so the first
/// match decides.
fn split<'a>(name: &'a str, forms: &[&'a str]) -> Result<(InstanceName, &'a str, &'a str), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong);
    }
    let mut start = 0;
    for segment in name.split('/') {
        let end = start + segment.len();
        if forms.contains(&segment) {
            let rest = name.get(end + 1..).ok_or(NameError::Form)?;
            let instance = match start {
                0 => "",
                // Without the slash before the form; a name that begins with a slash leaves a lone one.
                1 => return Err(NameError::Instance(InstanceNameError::Slashes)),
                _ => &name[..start - 1],
            };
            return Ok((InstanceName::parse(instance)?, segment, rest));
        }
        start = end + 1;
    }
    Err(NameError::Form)
}

/// Reads `[function/]hash/size` and returns what follows it.
fn digest(text: &str) -> Result<(Digest, Option<&str>), NameError> {
    let mut function = Function::Sha256;
    let mut text = text;
    if let Some((segment, rest)) = text.split_once('/')
        && KNOWN_FUNCTIONS.contains(&segment.to_ascii_lowercase().as_str())
    {
        // Redundant for an old-style function, but some clients send it (RN-06).
        function = Function::ALL
            .into_iter()
            .find(|function| function.name() == segment)
            .ok_or(NameError::Function)?;
        text = rest;
    }
    let (hash, rest) = text.split_once('/').ok_or(NameError::Form)?;
    let (size, tail) = match rest.split_once('/') {
        Some((size, tail)) => (size, Some(tail)),
        None => (rest, None),
    };
    Ok((Digest::parse(function, hash, decimal(size)?)?, tail))
}

/// Plain decimal: no sign, no leading zero, within `int64`.
fn decimal(text: &str) -> Result<i64, NameError> {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    if !plain {
        return Err(NameError::Size);
    }
    text.parse().map_err(|_| NameError::Size)
}

/// Why text is no resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NameError {
    #[error("the resource name is empty")]
    Empty,
    #[error("the resource name has more than {NAME_BYTES_MAX} bytes")]
    TooLong,
    #[error(
        "the resource name has neither the form [instance/]blobs/hash/size nor [instance/]uploads/uuid/blobs/hash/size, as the call needs"
    )]
    Form,
    #[error("the resource name has something after the size")]
    Tail,
    #[error("the resource name has an empty uuid")]
    Uuid,
    #[error("the resource name asks for compression, which this node does not announce")]
    Compressor,
    #[error("the resource name has a digest function that this node does not announce")]
    Function,
    #[error("the size in the resource name is not a plain decimal number")]
    Size,
    #[error("the resource name holds no digest: {0}")]
    Digest(#[from] DigestError),
    #[error("the resource name begins with no instance name: {0}")]
    Instance(#[from] InstanceNameError),
}

#[cfg(test)]
mod tests;
