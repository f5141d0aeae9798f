//! The youngest bytes of a fetch, in memory, for readers that keep up.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::blob::Verifier;

/// What a segment costs beside its bytes: the hasher's state, counters and pointers. Counted, so that a Tier 2 that
/// sends a byte at a time cannot make a ring many times as large as it says.
const SEGMENT_OVERHEAD_BYTES: usize = 512;

/// Bytes that arrived in one piece, and the hash of everything before them: a reader that has to go on elsewhere takes
/// the check of its bytes along.
#[derive(Debug)]
pub(super) struct Segment {
    start: u64,
    bytes: Bytes,
    before: Verifier,
}

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The verifier of the blob's first `offset` bytes, if that place lies in this segment or at its end.
    pub(super) fn verifier_at(&self, offset: u64) -> Option<Verifier> {
        let len = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let mut verifier = self.before.clone();
        verifier.update(self.bytes.get(..len)?).ok()?;
        Some(verifier)
    }
}

/// A window onto a blob that only moves forward. Holds at most its capacity, except that one piece always fits.
#[derive(Debug)]
pub(super) struct Ring {
    segments: VecDeque<Arc<Segment>>,
    end: u64,
    cost_bytes: usize,
    capacity_bytes: usize,
}

impl Ring {
    /// A window at the beginning of a blob.
    pub(super) fn new(capacity_bytes: usize) -> Ring {
        Ring {
            segments: VecDeque::new(),
            end: 0,
            cost_bytes: 0,
            capacity_bytes,
        }
    }

    /// Offset of the first byte held.
    pub(super) fn start(&self) -> u64 {
        self.segments.front().map_or(self.end, |segment| segment.start)
    }

    /// Offset behind the last byte held.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Whether a piece of `len` bytes can be pushed.
    pub(super) fn fits(&self, len: usize) -> bool {
        self.segments.is_empty() || self.cost_bytes + len + SEGMENT_OVERHEAD_BYTES <= self.capacity_bytes
    }

    /// Adds the next piece. `before` has seen everything up to it.
    pub(super) fn push(&mut self, bytes: Bytes, before: Verifier) {
        if bytes.is_empty() {
            return;
        }
        let segment = Segment {
            start: self.end,
            bytes,
            before,
        };
        self.end = segment.end();
        self.cost_bytes += segment.bytes.len() + SEGMENT_OVERHEAD_BYTES;
        self.segments.push_back(Arc::new(segment));
    }

    /// Where the oldest piece ends, the one that leaves next.
    pub(super) fn oldest_end(&self) -> Option<u64> {
        self.segments.front().map(|segment| segment.end())
    }

    /// Lets the oldest piece go.
    pub(super) fn drop_oldest(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            self.cost_bytes -= segment.bytes.len() + SEGMENT_OVERHEAD_BYTES;
        }
    }

    /// Lets everything go.
    pub(super) fn clear(&mut self) {
        self.segments.clear();
        self.cost_bytes = 0;
    }

    /// Bytes from `offset` on, at most `len_max`, uncopied, with the segment that they are part of.
    pub(super) fn slice(&self, offset: u64, len_max: usize) -> Option<(Bytes, Arc<Segment>)> {
        let segment = self.segments.get(self.index_of(offset)?)?;
        let from = usize::try_from(offset - segment.start).ok()?;
        let to = segment.bytes.len().min(from.saturating_add(len_max));
        Some((segment.bytes.slice(from..to), segment.clone()))
    }

    /// Like [`Ring::slice`], with small pieces put together by copying, so that a write to disk is worth its call.
    pub(super) fn gather(&self, offset: u64, len_max: usize) -> Option<Bytes> {
        let (first, segment) = self.slice(offset, len_max)?;
        if first.len() >= len_max / 2 || segment.end() == self.end {
            return Some(first);
        }
        let mut gathered = BytesMut::with_capacity(len_max);
        gathered.extend_from_slice(&first);
        while gathered.len() < len_max {
            let Some((next, _)) = self.slice(offset + gathered.len() as u64, len_max - gathered.len()) else {
                break;
            };
            gathered.extend_from_slice(&next);
        }
        Some(gathered.freeze())
    }

    fn index_of(&self, offset: u64) -> Option<usize> {
        if offset < self.start() || offset >= self.end {
            return None;
        }
        self.segments
            .partition_point(|segment| segment.start <= offset)
            .checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Digest, Function};

    const BYTES: &[u8] = b"abcdefgh";

    fn ring(cuts: &[usize]) -> Ring {
        let mut verifier = Verifier::new(Digest::of(Function::Sha256, BYTES));
        let mut ring = Ring::new(1 << 20);
        let mut from = 0;
        for cut in cuts {
            let piece = Bytes::from_static(&BYTES[from..*cut]);
            ring.push(piece.clone(), verifier.clone());
            verifier.update(&piece).unwrap();
            from = *cut;
        }
        ring
    }

    #[test]
    fn every_offset_in_the_window_yields_its_byte_and_no_other_does() {
        let mut ring = ring(&[3, 4, 8]);
        ring.drop_oldest();
        for offset in 0..10 {
            let found = ring.slice(offset, 1).map(|(bytes, _)| bytes[0]);
            let expected = (3..8)
                .contains(&offset)
                .then(|| BYTES[usize::try_from(offset).unwrap()]);
            assert_eq!(found, expected, "offset {offset}");
        }
        assert_eq!((ring.start(), ring.end()), (3, 8));
    }

    #[test]
    fn gathering_puts_small_pieces_together_within_its_bound() {
        let ring = ring(&[1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(ring.gather(1, 4).unwrap(), &BYTES[1..5]);
        assert_eq!(ring.gather(6, 4).unwrap(), &BYTES[6..]);
        assert_eq!(ring.gather(8, 4), None);
    }

    #[test]
    fn a_reader_takes_the_check_of_its_prefix_along() {
        let ring = ring(&[3, 8]);
        let (_, segment) = ring.slice(4, 2).unwrap();
        let mut verifier = segment.verifier_at(6).unwrap();
        verifier.update(&BYTES[6..]).unwrap();
        assert!(verifier.finish().is_ok());
        assert!(segment.verifier_at(2).is_none());
        assert!(segment.verifier_at(9).is_none());
    }

    #[test]
    fn a_ring_counts_what_tiny_pieces_really_cost_and_takes_one_piece_of_any_length() {
        let mut ring = Ring::new(4096);
        let before = Verifier::new(Digest::of(Function::Sha256, BYTES));
        assert!(ring.fits(1 << 20));
        let mut pushed = 0;
        while ring.fits(1) {
            ring.push(Bytes::from_static(b"x"), before.clone());
            pushed += 1;
        }
        assert_eq!(pushed, 4096 / (SEGMENT_OVERHEAD_BYTES + 1));
        ring.clear();
        assert!(ring.fits(1 << 20));
        assert_eq!((ring.start(), ring.end()), (pushed as u64, pushed as u64));
    }
}
