//! Names of blobs: hash and length, by one of a few digest functions.

mod tree;

use std::fmt;
use std::str::FromStr;

use proto::reapi;
use proto::reapi::digest_function::Value;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// Of the longest hash; behind a shorter one are zeros.
const HASH_BYTES_MAX: usize = 32;

const GIT_SHA1_BYTES: usize = 20;

/// A digest function that the mock computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Function {
    /// Always offered, and meant where none is said.
    #[default]
    Sha256,
    /// Offered, as the others are, where [`crate::Settings::functions`] lists it. It is never meant unless it is said.
    Blake3,
    /// SHA-256 in a tree of kibibytes.
    Sha256Tree,
    /// What git computes for a blob.
    GitSha1,
}

impl Function {
    /// The digest of these bytes.
    pub fn of(self, bytes: &[u8]) -> Digest {
        let hash = match self {
            Function::Sha256 => Sha256::digest(bytes).into(),
            Function::Blake3 => blake3::hash(bytes).into(),
            Function::Sha256Tree => tree::hash(bytes),
            Function::GitSha1 => {
                let mut hasher = Sha1::new();
                hasher.update(format!("blob {}\0", bytes.len()));
                hasher.update(bytes);
                let mut hash = [0; HASH_BYTES_MAX];
                hash[..GIT_SHA1_BYTES].copy_from_slice(&hasher.finalize());
                hash
            }
        };
        Digest {
            function: self,
            hash,
            size_bytes: bytes.len() as u64,
        }
    }

    /// # Errors
    /// If no bytes can have this digest.
    pub fn parse(self, hash: &str, size_bytes: i64) -> Result<Digest, DigestError> {
        let malformed = || DigestError::Hash(hash.chars().take(2 * HASH_BYTES_MAX + 1).collect());
        // `hex` takes upper case too, which would give one blob two spellings.
        if !hash.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(malformed());
        }
        let mut bytes = [0; HASH_BYTES_MAX];
        hex::decode_to_slice(hash, &mut bytes[..self.hash_bytes()]).map_err(|_odd_length| malformed())?;
        let size = u64::try_from(size_bytes).map_err(|_negative| DigestError::NegativeSize(size_bytes))?;
        let digest = Digest {
            function: self,
            hash: bytes,
            size_bytes: size,
        };
        if (digest.hash == self.of(b"").hash) != (size == 0) {
            return Err(DigestError::HalfEmpty(size));
        }
        Ok(digest)
    }

    /// # Errors
    /// If it is absent, or no bytes can have it.
    pub fn from_wire(self, digest: Option<&reapi::Digest>) -> Result<Digest, DigestError> {
        let digest = digest.ok_or(DigestError::Absent)?;
        self.parse(&digest.hash, digest.size_bytes)
    }

    /// What a request says about its function: nothing, which leaves it to the length of the hash and so to SHA256, or
    /// one that is offered.
    pub(crate) fn asked(said: i32, others: &[Function]) -> Result<Function, DigestError> {
        if said == Value::Unknown as i32 {
            return Ok(Function::Sha256);
        }
        let mut offered = [Function::Sha256].into_iter().chain(others.iter().copied());
        let asked = offered.find(|function| function.number() == said);
        asked.ok_or(DigestError::Function(said))
    }

    /// The one of this name, in the lower case that names of resources have.
    pub(crate) fn named(name: &str) -> Option<Function> {
        let all = [
            Function::Sha256,
            Function::Blake3,
            Function::Sha256Tree,
            Function::GitSha1,
        ];
        all.into_iter().find(|function| function.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Function::Sha256 => "sha256",
            Function::Blake3 => "blake3",
            Function::Sha256Tree => "sha256tree",
            Function::GitSha1 => "gitsha1",
        }
    }

    fn hash_bytes(self) -> usize {
        match self {
            Function::Sha256 | Function::Blake3 | Function::Sha256Tree => HASH_BYTES_MAX,
            Function::GitSha1 => GIT_SHA1_BYTES,
        }
    }

    /// Its number on the wire.
    pub(crate) fn number(self) -> i32 {
        match self {
            Function::Sha256 => Value::Sha256 as i32,
            Function::Blake3 => Value::Blake3 as i32,
            Function::Sha256Tree => Value::Sha256tree as i32,
            Function::GitSha1 => Value::Gitsha1 as i32,
        }
    }
}

impl FromStr for Function {
    type Err = String;

    fn from_str(name: &str) -> Result<Function, String> {
        Function::named(name).ok_or_else(|| format!("{name:?} is no digest function that is computed here"))
    }
}

/// Names a blob by its function, hash and length. Well formed by construction, but not by proof: only
/// [`Digest::fits`] tells whether some bytes are the ones it names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    function: Function,
    hash: [u8; HASH_BYTES_MAX],
    size_bytes: u64,
}

/// Why a digest on the wire is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    #[error("a digest is missing")]
    Absent,
    #[error("hash {0:?} has not the lower-case hexadecimal digits of its function")]
    Hash(String),
    #[error("size {0} is negative")]
    NegativeSize(i64),
    #[error("size {0} does not go with that hash: one is the empty blob's, the other is not")]
    HalfEmpty(u64),
    #[error("digest function {0} is not offered")]
    Function(i32),
}

impl Digest {
    /// The SHA-256 of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Function::Sha256.of(bytes)
    }

    /// A SHA-256, as [`Function::parse`].
    ///
    /// # Errors
    /// If no bytes can have this digest.
    pub fn parse(hash: &str, size_bytes: i64) -> Result<Digest, DigestError> {
        Function::Sha256.parse(hash, size_bytes)
    }

    /// A SHA-256, as [`Function::from_wire`].
    ///
    /// # Errors
    /// If it is absent, or no bytes can have it.
    pub fn from_wire(digest: Option<&reapi::Digest>) -> Result<Digest, DigestError> {
        Function::Sha256.from_wire(digest)
    }

    /// What its hash was computed with.
    pub fn function(&self) -> Function {
        self.function
    }

    /// The message that stands for it.
    pub fn to_wire(&self) -> reapi::Digest {
        reapi::Digest {
            hash: self.hash_hex(),
            size_bytes: i64::try_from(self.size_bytes).unwrap_or(i64::MAX),
        }
    }

    /// Whether it names the empty blob, which every store has.
    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// Whether these bytes are the ones it names.
    pub fn fits(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.size_bytes && *self == self.function.of(bytes)
    }

    /// Length of the blob.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// 64 lower-case digits, 40 of GITSHA1.
    pub fn hash_hex(&self) -> String {
        hex::encode(&self.hash[..self.function.hash_bytes()])
    }

    /// Name for `ByteStream.Read`.
    pub fn read_name(&self, instance: &str) -> String {
        format!("{}blobs/{self}", prefix(instance))
    }

    /// Name for `ByteStream.Write` and `QueryWriteStatus`.
    pub fn write_name(&self, instance: &str, uuid: &str) -> String {
        format!("{}uploads/{uuid}/blobs/{self}", prefix(instance))
    }
}

fn prefix(instance: &str) -> String {
    match instance {
        "" => String::new(),
        name => format!("{name}/"),
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.function != Function::Sha256 {
            write!(f, "{}/", self.function.name())?;
        }
        write!(f, "{}/{}", self.hash_hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<DigestError> for tonic::Status {
    fn from(error: DigestError) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_well_formed_digests_parse() {
        let hash = |text: &str| Err(DigestError::Hash(text.into()));
        let upper = ZEROS.replace('0', "A");
        // DIG-01..04, DIG-06, DIG-07
        check(ZEROS, 1, Ok(()));
        check(EMPTY, 0, Ok(()));
        check(&upper, 1, hash(&upper));
        check(&ZEROS[1..], 1, hash(&ZEROS[1..]));
        check("", 1, hash(""));
        check("é", 1, hash("é"));
        check(ZEROS, -1, Err(DigestError::NegativeSize(-1)));
        check(ZEROS, 0, Err(DigestError::HalfEmpty(0)));
        check(EMPTY, 5, Err(DigestError::HalfEmpty(5)));
    }

    #[track_caller]
    fn check(hash: &str, size_bytes: i64, expected: Result<(), DigestError>) {
        assert_eq!(Digest::parse(hash, size_bytes).map(|_| ()), expected);
    }

    #[test]
    fn functions_are_said_by_number_and_only_sha256_may_be_left_unsaid() {
        let others = [Function::Blake3, Function::GitSha1];
        assert_eq!(Function::asked(0, &others), Ok(Function::Sha256));
        assert_eq!(Function::asked(1, &[]), Ok(Function::Sha256));
        assert_eq!(Function::asked(9, &others), Ok(Function::Blake3));
        assert_eq!(Function::asked(10, &others), Ok(Function::GitSha1));
        for (said, others) in [(9, &[][..]), (8, &others), (99, &others), (-1, &others)] {
            assert_eq!(Function::asked(said, others), Err(DigestError::Function(said)));
        }
    }

    #[test]
    fn a_blake3_digest_is_another_name_with_an_empty_blob_of_its_own() {
        let (one, other) = (Function::Blake3.of(b"abc"), Digest::of(b"abc"));
        assert!(one.fits(b"abc") && one != other);
        assert_eq!(one.read_name("a"), format!("a/blobs/blake3/{}/3", one.hash_hex()));
        assert_eq!(Function::Blake3.of(b"").hash_hex()[..8], *"af1349b9"); // DIG-20
        assert_eq!(
            Function::Blake3.parse(EMPTY, 0).map(|_| ()),
            Err(DigestError::HalfEmpty(0))
        );
        assert_ne!(Function::Sha256.parse(&one.hash_hex(), 3), Ok(one)); // DIG-18
    }

    #[test]
    fn gitsha1_is_what_git_says() {
        let digest = Function::GitSha1.of(b"hello\n");
        assert_eq!(digest.hash_hex(), "ce013625030ba8dba906f756967f9e9ca394464a");
        assert_eq!(
            digest.read_name(""),
            format!("blobs/gitsha1/{}/6", digest.hash_hex())
        );
        assert_eq!(Function::GitSha1.parse(&digest.hash_hex(), 6), Ok(digest));
        assert_eq!(
            Function::GitSha1.parse(ZEROS, 6),
            Err(DigestError::Hash(ZEROS.into()))
        );
    }

    #[test]
    fn a_digest_fits_its_own_bytes_only() {
        let digest = Digest::of(b"abc");
        assert!(digest.fits(b"abc"));
        assert!(!digest.fits(b"abd"));
        assert!(!digest.fits(b"abcd"));
        assert_eq!(Digest::from_wire(Some(&digest.to_wire())), Ok(digest));
    }
}
