//! Bytes of blobs on their way: checked against their digest, cut into pieces, addressed by range.

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

use crate::digest::{Digest, Hash, Hasher};

/// Checks bytes against a digest as they pass. Does no I/O.
#[derive(Clone, Debug)]
pub struct Verifier {
    expected: Digest,
    hasher: Hasher,
    seen_bytes: u64,
}

impl Verifier {
    /// A verifier at the first byte of the blob.
    pub fn new(expected: Digest) -> Verifier {
        Verifier {
            expected,
            hasher: expected.function().hasher(),
            seen_bytes: 0,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`DigestMismatch::TooLong`] as soon as the count passes the digest's size; the bytes are not taken then.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), DigestMismatch> {
        let seen_bytes = self.seen_bytes + bytes.len() as u64;
        if seen_bytes > self.expected.size_bytes() {
            return Err(DigestMismatch::TooLong {
                expected: self.expected,
            });
        }
        self.hasher.update(bytes);
        self.seen_bytes = seen_bytes;
        Ok(())
    }

    /// Bytes taken so far.
    pub fn seen_bytes(&self) -> u64 {
        self.seen_bytes
    }

    /// Bytes still to come.
    pub fn remaining_bytes(&self) -> u64 {
        self.expected.size_bytes() - self.seen_bytes
    }

    /// Hash of the bytes taken so far, for comparing what was sent with what another fetch brings.
    pub fn prefix_hash(&self) -> Hash {
        self.hasher.clone().finish()
    }

    /// Says whether all bytes were there and right.
    ///
    /// # Errors
    /// [`DigestMismatch::TooShort`] or [`DigestMismatch::WrongHash`].
    pub fn finish(self) -> Result<Verified, DigestMismatch> {
        if self.seen_bytes < self.expected.size_bytes() {
            return Err(DigestMismatch::TooShort {
                expected: self.expected,
                found_bytes: self.seen_bytes,
            });
        }
        let found = self.hasher.finish();
        if found != *self.expected.hash() {
            return Err(DigestMismatch::WrongHash {
                expected: self.expected,
                found,
            });
        }
        Ok(Verified {
            digest: self.expected,
        })
    }
}

/// Proof that bytes matched a digest. Only [`Verifier::finish`] makes one; [`Verified::of`] goes through it.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    digest: Digest,
}

impl Verified {
    /// Checks bytes that are all at hand.
    ///
    /// # Errors
    /// As [`Verifier::update`] and [`Verifier::finish`].
    pub fn of(expected: Digest, bytes: &[u8]) -> Result<Verified, DigestMismatch> {
        let mut verifier = Verifier::new(expected);
        verifier.update(bytes)?;
        verifier.finish()
    }

    /// The digest that the bytes matched.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

/// How bytes did not fit their digest. Whose fault that is depends on who sent them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestMismatch {
    /// More bytes than the digest's size.
    #[error("more than {} bytes came for {expected}", expected.size_bytes())]
    TooLong {
        /// The digest that was promised.
        expected: Digest,
    },
    /// The end came before the digest's size.
    #[error("{found_bytes} bytes came for {expected}")]
    TooShort {
        /// The digest that was promised.
        expected: Digest,
        /// Bytes that came.
        found_bytes: u64,
    },
    /// The right number of wrong bytes.
    #[error("bytes with hash {found} came for {expected}")]
    WrongHash {
        /// The digest that was promised.
        expected: Digest,
        /// The hash of what came.
        found: Hash,
    },
}

/// A part of a blob, within it by construction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// All of a blob.
    pub fn whole(digest: &Digest) -> ByteRange {
        ByteRange {
            start: 0,
            end: digest.size_bytes(),
        }
    }

    /// From `start` to the end of the blob, or up to `limit_bytes` of it.
    ///
    /// # Errors
    /// [`OutOfRange`] if `start` lies behind the end. `start` at the end is an empty range.
    pub fn within(digest: &Digest, start: u64, limit_bytes: Option<u64>) -> Result<ByteRange, OutOfRange> {
        let size_bytes = digest.size_bytes();
        if start > size_bytes {
            return Err(OutOfRange { start, size_bytes });
        }
        let end = limit_bytes.map_or(size_bytes, |limit| start.saturating_add(limit).min(size_bytes));
        Ok(ByteRange { start, end })
    }

    /// First byte, counted from the beginning of the blob.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// First byte that is no longer wanted.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Bytes in the range.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether no byte is wanted.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Whether the range reaches the end of the blob, so that the hash decides over its last piece.
    pub fn reaches_end_of(&self, digest: &Digest) -> bool {
        self.end == digest.size_bytes()
    }

    /// What is left of the range when `bytes` of it were had.
    ///
    /// # Panics
    /// If `bytes` is more than [`ByteRange::len`].
    pub fn skip(&self, bytes: u64) -> ByteRange {
        assert!(bytes <= self.len(), "{bytes} bytes of {} were had", self.len());
        ByteRange {
            start: self.start + bytes,
            end: self.end,
        }
    }
}

/// A read began behind the end of its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("offset {start} lies behind the end of a blob of {size_bytes} bytes")]
pub struct OutOfRange {
    /// The offset asked for.
    pub start: u64,
    /// The blob's length.
    pub size_bytes: u64,
}

/// One step of an upload towards Tier 2. `Last` carries the proof that all bytes fit; a stream that ends without it, or
/// with an error, is aborted: Tier 2 must never take it for a blob.
pub enum Piece {
    /// Bytes with more to come.
    Data(Bytes),
    /// The last bytes (none, for an empty rest), and the proof.
    Last(Bytes, Verified),
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Piece::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Piece::Last(bytes, proof) => write!(f, "Last({} bytes, {})", bytes.len(), proof.digest()),
        }
    }
}

/// The pieces of one upload, from the first byte on.
pub type PieceStream = Pin<Box<dyn Stream<Item = Result<Piece, Aborted>> + Send>>;

/// The source of an upload gave up: hang-up, mismatch or stall. What was sent of it upstream is taken back by a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upload was given up before its end")]
pub struct Aborted;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;

    fn hello() -> Digest {
        Digest::of(Function::Sha256, b"hello")
    }

    #[test]
    fn verifier_accepts_the_right_bytes_in_any_cut() {
        let mut verifier = Verifier::new(hello());
        for byte in b"hello" {
            verifier.update(&[*byte]).unwrap();
        }
        assert_eq!(verifier.remaining_bytes(), 0);
        assert_eq!(verifier.finish().unwrap().digest(), &hello());
    }

    #[test]
    fn verifier_refuses_the_byte_too_many_at_once() {
        let mut verifier = Verifier::new(hello());
        verifier.update(b"hell").unwrap();
        assert_eq!(
            verifier.update(b"oo"),
            Err(DigestMismatch::TooLong { expected: hello() })
        );
        assert_eq!(verifier.seen_bytes(), 4);
    }

    #[test]
    fn verifier_refuses_short_and_altered_bytes() {
        let mut verifier = Verifier::new(hello());
        verifier.update(b"hell").unwrap();
        assert_eq!(
            verifier.clone().finish(),
            Err(DigestMismatch::TooShort {
                expected: hello(),
                found_bytes: 4
            })
        );
        verifier.update(b"a").unwrap();
        assert!(matches!(verifier.finish(), Err(DigestMismatch::WrongHash { .. })));
    }

    #[test]
    fn range_ends_with_the_blob_and_counts_the_limit_from_its_start() {
        let range = |start, limit| ByteRange::within(&hello(), start, limit).map(|r| (r.start(), r.end()));
        assert_eq!(range(0, None), Ok((0, 5)));
        assert_eq!(range(1, Some(2)), Ok((1, 3))); // BS-READ-09
        assert_eq!(range(3, Some(u64::MAX)), Ok((3, 5))); // BS-READ-07
        assert_eq!(range(5, None), Ok((5, 5))); // BS-READ-02
        assert_eq!(
            range(6, None),
            Err(OutOfRange {
                start: 6,
                size_bytes: 5
            })
        ); // BS-READ-04
    }

    #[test]
    fn skipping_moves_the_start_and_keeps_the_end() {
        let range = ByteRange::within(&hello(), 1, Some(3)).unwrap().skip(2);
        assert_eq!((range.start(), range.end(), range.len()), (3, 4, 1));
        assert!(range.skip(1).is_empty());
    }
}
