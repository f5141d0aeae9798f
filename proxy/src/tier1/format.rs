//! What a blob's file looks like, and how rot in it is noticed.
//!
//! ```text
//! the blob                      so that an offset in the blob is an offset in the file
//! CRC32C of each 64 KiB block   4 bytes each, little-endian like all that follows
//! footer                        magic, version, function, block length, scope, hash, length, CRC32C of table and footer
//! ```
//!
//! Nothing here is synced. After a power cut a file may have lost its end (then it has the wrong length), pages of its
//! blob (then a block does not fit its checksum) or pages of the trailer (then that does not fit its own). The footer
//! names the blob, so that a whole file in the wrong place does not pass either. All of these are void, none is wrong.

use bytes::Bytes;
use parking_lot::Mutex;

use super::layout::ScopeTag;
use crate::digest::{Digest, Function};

/// Bytes under one checksum: what a read of one byte costs.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;

/// Length of the largest blob that is kept, whatever the configuration says: bounds the table of its checksums, which is
/// held in memory while the blob is read, to 4 MiB.
pub(super) const BLOB_BYTES_MAX: u64 = 64 << 30;

/// Bytes of one answer to a read; a caller who allows more gets this many.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"goregoT1";
const VERSION: u16 = 1;
const FOOTER_BYTES: usize = 8 + 2 + 2 + 4 + 32 + 32 + 8 + 4;

/// Checksums of the bytes appended so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Checksums {
    whole_blocks: Vec<u32>,
    tail: u32,
    len_bytes: u64,
}

/// What an append adds. Made without a lock on the checksums, taken in under it in no time.
pub(super) struct Extension {
    whole_blocks: Vec<u32>,
    tail: u32,
    len_bytes: u64,
}

impl Checksums {
    /// Bytes that the checksums speak of.
    pub(super) fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Takes in what an append added.
    pub(super) fn extend(&mut self, extension: Extension) {
        self.whole_blocks.extend(extension.whole_blocks);
        self.tail = extension.tail;
        self.len_bytes = extension.len_bytes;
    }

    /// The checksum of each block, the last one as far as it goes.
    pub(super) fn blocks(&self) -> Vec<u32> {
        let mut blocks = Vec::with_capacity(self.whole_blocks.len() + 1);
        blocks.extend(&self.whole_blocks);
        if tail_bytes(self.len_bytes) > 0 {
            blocks.push(self.tail);
        }
        blocks
    }

    /// The checksums of the blocks that a span touches, if it ends where these end or at the end of a block.
    pub(super) fn of_span(&self, span: &Span) -> Vec<u32> {
        let blocks = block_index(span.start)..block_index(span.end.next_multiple_of(BLOCK_BYTES as u64));
        blocks
            .map(|block| self.whole_blocks.get(block).copied().unwrap_or(self.tail))
            .collect()
    }
}

impl Extension {
    /// Computes what `bytes` add to `sums`. Only one append at a time may do this.
    pub(super) fn of(sums: &Mutex<Checksums>, bytes: &[u8]) -> Extension {
        let (mut tail, len_bytes) = {
            let sums = sums.lock();
            (sums.tail, sums.len_bytes)
        };
        let mut whole_blocks = Vec::with_capacity(bytes.len() / BLOCK_BYTES + 1);
        let mut in_tail = tail_bytes(len_bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK_BYTES - in_tail));
            tail = crc32c::crc32c_append(if in_tail == 0 { 0 } else { tail }, now);
            in_tail += now.len();
            if in_tail == BLOCK_BYTES {
                whole_blocks.push(tail);
                (in_tail, tail) = (0, 0);
            }
            rest = later;
        }
        Extension {
            whole_blocks,
            tail,
            len_bytes: len_bytes + bytes.len() as u64,
        }
    }
}

/// The blocks to read for an answer, and the answer's place in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Beginning of the first block.
    start: u64,
    /// End of the last block, or of the data.
    end: u64,
    /// First byte of the answer, counted from `start`.
    skip: usize,
    /// Bytes of the answer.
    take: usize,
}

impl Span {
    /// The blocks for the first bytes of `from..to`, at most `len_max` of them, where data ends at `data_end`. An answer
    /// that does not reach `to` stops at a block's end if it can, so that the next one need not read that block again.
    pub(super) fn new(from: u64, to: u64, len_max: usize, data_end: u64) -> Span {
        let block = BLOCK_BYTES as u64;
        let to = to.min(data_end);
        let from = from.min(to);
        let mut until = to.min(from.saturating_add(len_max.min(READ_BYTES_MAX) as u64));
        let last_block = until - until % block;
        if until < to && last_block > from {
            until = last_block;
        }
        let start = from - from % block;
        Span {
            start,
            end: until.next_multiple_of(block).min(data_end).max(start),
            skip: to_usize(from - start),
            take: to_usize(until - from),
        }
    }

    /// Whether there is nothing to answer.
    pub(super) fn is_empty(&self) -> bool {
        self.take == 0
    }

    /// Offset to read at.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Bytes to read.
    pub(super) fn len(&self) -> usize {
        to_usize(self.end - self.start)
    }

    /// The checksums of this span in a table of all.
    pub(super) fn blocks_of<'a>(&self, all: &'a [u32]) -> &'a [u32] {
        let first = block_index(self.start);
        let end = block_index(self.end.next_multiple_of(BLOCK_BYTES as u64));
        all.get(first..end).unwrap_or_default()
    }

    /// Checks what was read against a checksum for each block, and cuts the answer out. `None`: the bytes are not those
    /// that were written.
    pub(super) fn check(&self, read: Vec<u8>, blocks: &[u32]) -> Option<Bytes> {
        let whole = read.len() == self.len() && blocks.len() == read.len().div_ceil(BLOCK_BYTES);
        let right = || {
            let found = read.chunks(BLOCK_BYTES).map(crc32c::crc32c);
            found.eq(blocks.iter().copied())
        };
        if !whole || !right() {
            return None;
        }
        Some(Bytes::from(read).slice(self.skip..self.skip + self.take))
    }
}

/// Whether a blob is short enough for its checksums to be held.
pub(super) fn can_hold(digest: &Digest) -> bool {
    digest.size_bytes() <= BLOB_BYTES_MAX
}

/// Length of a whole file.
pub(super) fn file_bytes(digest: &Digest) -> u64 {
    digest.size_bytes().saturating_add(trailer_bytes(digest) as u64)
}

/// Length of what follows the blob.
pub(super) fn trailer_bytes(digest: &Digest) -> usize {
    let blocks = to_usize(digest.size_bytes().div_ceil(BLOCK_BYTES as u64));
    blocks
        .saturating_mul(size_of::<u32>())
        .saturating_add(FOOTER_BYTES)
}

/// What follows the blob.
pub(super) fn trailer(scope: &ScopeTag, digest: &Digest, blocks: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(trailer_bytes(digest));
    bytes.extend(blocks.iter().flat_map(|block| block.to_le_bytes()));
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(function_code(digest.function()).to_le_bytes());
    bytes.extend(BLOCK_BYTES_ON_DISK.to_le_bytes());
    bytes.extend(scope.as_bytes());
    bytes.extend(digest.hash().as_bytes());
    bytes.extend(digest.size_bytes().to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The checksums of a trailer. `None`: it is not the one that was written for this blob.
pub(super) fn parse_trailer(bytes: &[u8], scope: &ScopeTag, digest: &Digest) -> Option<Vec<u32>> {
    let table = bytes.get(..bytes.len().checked_sub(FOOTER_BYTES)?)?;
    let blocks: Vec<u32> = table
        .chunks_exact(size_of::<u32>())
        .map(|block| u32::from_le_bytes([block[0], block[1], block[2], block[3]]))
        .collect();
    // A trailer holds nothing but the table that is not known beforehand; so it fits if it is what we would write.
    (trailer(scope, digest, &blocks) == bytes).then_some(blocks)
}

const BLOCK_BYTES_ON_DISK: u32 = 64 * 1024;
const _: () = assert!(BLOCK_BYTES_ON_DISK as usize == BLOCK_BYTES);

fn function_code(function: Function) -> u16 {
    match function {
        Function::Sha256 => 1,
    }
}

fn tail_bytes(len_bytes: u64) -> usize {
    to_usize(len_bytes % BLOCK_BYTES as u64)
}

fn block_index(offset: u64) -> usize {
    to_usize(offset / BLOCK_BYTES as u64)
}

/// For offsets within a read or a table, which are far below any `usize` there is; what is not is never read.
fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
