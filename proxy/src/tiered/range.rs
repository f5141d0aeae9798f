//! Which reads share a fetch and which read Tier 2 on their own. Pure.

use crate::blob::ByteRange;
use crate::digest::Digest;

/// How far ahead of a fetch a reader of a part may be and still wait for it: about what a second of Tier 2 brings, and
/// cheaper than a read of its own.
pub(super) const NEAR_BYTES: u64 = 16 << 20;

/// How far a fetch has come and what of it can still be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    /// Offset of the first byte in memory.
    pub(super) ring_start: u64,
    /// Offset behind the last byte that readers may have.
    pub(super) released: u64,
    /// Bytes from the beginning that are on disk and go on growing; 0 without a disk.
    pub(super) staged: u64,
}

impl Progress {
    /// Nothing fetched yet.
    pub(super) const NONE: Progress = Progress {
        ring_start: 0,
        released: 0,
        staged: 0,
    };
}

/// Whether a read shares a fetch that has come so far.
///
/// A read that reaches the end of the blob waits for the fetch however far ahead it starts, because only the fetch can
/// say whether its last bytes are right. A read of a part cannot be verified anyway, and waits only for what is near.
pub(super) fn joins(range: ByteRange, digest: &Digest, progress: Progress) -> bool {
    let start = range.start();
    if start < progress.released {
        return start >= progress.ring_start || start < progress.staged;
    }
    range.reaches_end_of(digest) || start - progress.released <= NEAR_BYTES
}

/// Whether a read is worth a fetch of the whole blob: reads that reach its end are, since that is how a blob gets
/// verified and into Tier 1. A part is read as such: fetching gigabytes for a few bytes would serve nobody.
pub(super) fn starts_flight(range: ByteRange, digest: &Digest) -> bool {
    range.reaches_end_of(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;

    const MIB: u64 = 1 << 20;

    fn hundred_mib() -> Digest {
        let hash = Digest::of(Function::Sha256, b"any").hash().to_hex();
        Digest::parse(Function::Sha256, &hash, 100 << 20).unwrap()
    }

    #[track_caller]
    fn check(start: u64, limit: Option<u64>, progress: Progress, expected: bool) {
        let range = ByteRange::within(&hundred_mib(), start, limit).unwrap();
        assert_eq!(joins(range, &hundred_mib(), progress), expected);
    }

    fn at(ring_start: u64, released: u64, staged: u64) -> Progress {
        Progress {
            ring_start,
            released,
            staged,
        }
    }

    #[test]
    fn a_part_waits_for_a_fetch_only_when_it_is_near() {
        check(20 * MIB, Some(1), at(0, 4 * MIB, 0), true);
        check(20 * MIB + 1, Some(1), at(0, 4 * MIB, 0), false);
        check(20 * MIB, Some(1), Progress::NONE, false);
    }

    #[test]
    fn a_read_that_reaches_the_end_waits_for_its_verification_from_anywhere() {
        check(99 * MIB, None, Progress::NONE, true);
        check(99 * MIB, Some(MIB), Progress::NONE, true);
        check(98 * MIB, Some(MIB), Progress::NONE, false);
    }

    #[test]
    fn bytes_that_have_passed_are_joined_only_while_they_can_be_read() {
        check(0, None, at(0, 4 * MIB, 0), true);
        check(0, None, at(2 * MIB, 4 * MIB, 0), false);
        check(0, None, at(2 * MIB, 4 * MIB, 2 * MIB), true);
        check(3 * MIB, Some(1), at(2 * MIB, 4 * MIB, 0), true);
    }
}
