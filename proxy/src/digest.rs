//! Names of blobs: digest function, hash and length, checked once where they enter.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// Digest functions that this node can compute, and so can announce and verify.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Function {
    /// SHA-256, what every client can speak.
    Sha256,
}

/// Bytes of the longest hash there is among the functions of [`Function`].
const HASH_BYTES: usize = 32;

impl Function {
    /// All functions, in the order in which they are announced.
    pub const ALL: [Function; 1] = [Function::Sha256];

    /// Lower-case name, as it stands in paths on disk and in metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Function::Sha256 => "sha256",
        }
    }

    /// Hexadecimal digits of a hash.
    pub fn hex_digits(self) -> usize {
        match self {
            Function::Sha256 => 64,
        }
    }

    /// A hasher at the beginning of a blob.
    pub fn hasher(self) -> Hasher {
        match self {
            Function::Sha256 => Hasher(Sha256::new()),
        }
    }

    /// The digest of the empty blob, which every cache has without being told.
    pub fn empty(self) -> Digest {
        Digest {
            function: self,
            hash: self.hasher().finish(),
            size_bytes: 0,
        }
    }
}

/// Computes a hash as bytes pass. A clone continues on its own from the same place.
#[derive(Clone)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes the next bytes of the blob.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all bytes taken.
    pub fn finish(self) -> Hash {
        Hash(self.0.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

/// The hash of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; HASH_BYTES]);

impl Hash {
    /// The raw bytes of the hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lower-case hexadecimal, the only spelling that REAPI knows.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    fn parse(text: &str) -> Option<Hash> {
        // `hex` takes upper case too; in REAPI that is no alias.
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; HASH_BYTES];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Hash(bytes))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names a blob by digest function, hash and length. Well formed by construction: only [`Digest::parse`] and
/// [`Digest::of`] make one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    function: Function,
    hash: Hash,
    size_bytes: u64,
}

impl Digest {
    /// Checks a digest as it stands in a message or a resource name.
    ///
    /// # Errors
    /// One variant per way to be malformed; all of them are the sender's fault.
    pub fn parse(function: Function, hash: &str, size_bytes: i64) -> Result<Digest, DigestError> {
        if hash.is_empty() {
            return Err(DigestError::NoHash);
        }
        if hash.len() != function.hex_digits() {
            return Err(DigestError::HashLength {
                expected: function.hex_digits(),
                found: hash.len(),
            });
        }
        let hash = Hash::parse(hash).ok_or(DigestError::HashDigits)?;
        let size_bytes =
            u64::try_from(size_bytes).map_err(|_| DigestError::NegativeSize { found: size_bytes })?;
        let digest = Digest {
            function,
            hash,
            size_bytes,
        };
        let empty = function.empty();
        if (digest.size_bytes == 0) != (digest.hash == empty.hash) {
            return Err(DigestError::EmptyMismatch);
        }
        Ok(digest)
    }

    /// The digest of bytes at hand.
    pub fn of(function: Function, bytes: &[u8]) -> Digest {
        let mut hasher = function.hasher();
        hasher.update(bytes);
        Digest {
            function,
            hash: hasher.finish(),
            size_bytes: bytes.len() as u64,
        }
    }

    /// The function that made the hash.
    pub fn function(&self) -> Function {
        self.function
    }

    /// The hash.
    pub fn hash(&self) -> &Hash {
        &self.hash
    }

    /// Length of the blob in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether this names the blob of no bytes, which is always present.
    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }
}

/// `hash/size`, the spelling of resource names.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.hash, self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Key of an action result. Also a digest, but never a blob's: the compiler keeps AC and CAS apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ActionDigest(pub Digest);

impl fmt::Display for ActionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why text and number are not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The digest or its hash is absent.
    #[error("the digest has no hash")]
    NoHash,
    /// The hash does not fit the function.
    #[error("the hash has {found} digits instead of {expected}")]
    HashLength {
        /// Digits that the function's hashes have.
        expected: usize,
        /// Digits that were there.
        found: usize,
    },
    /// Something other than `0-9a-f`.
    #[error("the hash is not lower-case hexadecimal")]
    HashDigits,
    /// A size below zero.
    #[error("the size {found} is negative")]
    NegativeSize {
        /// The size that was there.
        found: i64,
    },
    /// Size 0 with a hash other than the empty blob's, or the reverse: nothing can have such a digest.
    #[error("size 0 and the hash of the empty blob only go together")]
    EmptyMismatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[track_caller]
    fn check(hash: &str, size_bytes: i64, expected: Result<(), DigestError>) {
        assert_eq!(
            Digest::parse(Function::Sha256, hash, size_bytes).map(|_| ()),
            expected
        );
    }

    #[test]
    fn digest_of_bytes_is_what_parse_accepts() {
        assert_eq!(
            Digest::parse(Function::Sha256, HELLO, 5),
            Ok(Digest::of(Function::Sha256, b"hello"))
        );
        assert_eq!(
            Digest::of(Function::Sha256, b"hello").to_string(),
            format!("{HELLO}/5")
        );
    }

    #[test]
    fn digest_refuses_upper_case_and_foreign_digits() {
        check(&HELLO.to_uppercase(), 5, Err(DigestError::HashDigits)); // DIG-01
        check(&HELLO.replace('2', "g"), 5, Err(DigestError::HashDigits)); // DIG-03
        check(&"é".repeat(32), 5, Err(DigestError::HashDigits)); // 64 bytes, no hexadecimal
    }

    #[test]
    fn digest_refuses_a_hash_of_another_length() {
        check(
            "abc",
            5,
            Err(DigestError::HashLength {
                expected: 64,
                found: 3,
            }),
        ); // DIG-02
        check("", 0, Err(DigestError::NoHash)); // DIG-06
    }

    #[test]
    fn digest_refuses_a_negative_size() {
        check(HELLO, -1, Err(DigestError::NegativeSize { found: -1 })); // DIG-04
    }

    #[test]
    fn empty_size_and_empty_hash_only_go_together() {
        check(EMPTY, 0, Ok(())); // DIG-20
        check(HELLO, 0, Err(DigestError::EmptyMismatch)); // DIG-07
        check(EMPTY, 1, Err(DigestError::EmptyMismatch)); // DIG-07
        assert!(Function::Sha256.empty().is_empty());
    }
}
