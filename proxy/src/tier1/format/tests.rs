use proptest::prelude::*;

use super::*;
use crate::call::Scope;

const BLOCK: u64 = BLOCK_BYTES as u64;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

fn sums(pieces: &[&[u8]]) -> Checksums {
    let sums = Mutex::default();
    for piece in pieces {
        let extension = Extension::of(&sums, piece);
        sums.lock().extend(extension);
    }
    sums.into_inner()
}

fn tag(name: &str) -> ScopeTag {
    ScopeTag::of(&Scope::new(name))
}

#[track_caller]
fn check(from: u64, to: u64, len_max: usize, data_end: u64, expected: (u64, u64, u64, u64)) {
    let span = Span::new(from, to, len_max, data_end);
    let first = span.start + span.skip as u64;
    assert_eq!((span.start, span.end, first, first + span.take as u64), expected);
}

#[test]
fn a_read_takes_the_whole_blocks_around_it() {
    check(10, 20, 100, 50, (0, 50, 10, 20));
    check(10, 20, 100, 3 * BLOCK, (0, BLOCK, 10, 20));
    check(
        BLOCK,
        2 * BLOCK,
        BLOCK_BYTES,
        3 * BLOCK,
        (BLOCK, 2 * BLOCK, BLOCK, 2 * BLOCK),
    );
    check(
        BLOCK + 1,
        BLOCK + 2,
        9,
        BLOCK + 5,
        (BLOCK, BLOCK + 5, BLOCK + 1, BLOCK + 2),
    );
}

#[test]
fn an_answer_that_is_not_the_last_stops_at_the_end_of_a_block() {
    check(
        10,
        5 * BLOCK,
        2 * BLOCK_BYTES,
        5 * BLOCK,
        (0, 2 * BLOCK, 10, 2 * BLOCK),
    );
    check(10, 5 * BLOCK, 7, 5 * BLOCK, (0, BLOCK, 10, 17));
}

#[test]
fn nothing_is_asked_where_there_is_nothing() {
    assert!(Span::new(5, 5, 10, 50).is_empty());
    assert!(Span::new(50, 60, 10, 50).is_empty());
    assert!(Span::new(0, 0, 10, 0).is_empty());
    assert!(Span::new(0, 10, 0, 50).is_empty());
}

#[test]
fn a_trailer_fits_only_the_blob_it_was_written_for() {
    let blob = bytes(2 * BLOCK_BYTES + 100);
    let digest = Digest::of(Function::Sha256, &blob);
    let blocks = sums(&[&blob]).blocks();
    let written = trailer(&tag("a"), &digest, &blocks);
    assert_eq!(written.len(), trailer_bytes(&digest));
    assert_eq!(parse_trailer(&written, &tag("a"), &digest), Some(blocks));
    assert_eq!(parse_trailer(&written, &tag("b"), &digest), None);
    let other = Digest::of(Function::Sha256, &blob[1..]);
    assert_eq!(parse_trailer(&written, &tag("a"), &other), None);
    assert_eq!(parse_trailer(&[], &tag("a"), &digest), None);
}

#[test]
fn any_flipped_bit_of_a_trailer_is_noticed() {
    let blob = bytes(BLOCK_BYTES + 1);
    let digest = Digest::of(Function::Sha256, &blob);
    let mut written = trailer(&tag("a"), &digest, &sums(&[&blob]).blocks());
    for bit in 0..written.len() * 8 {
        written[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse_trailer(&written, &tag("a"), &digest), None, "bit {bit}");
        written[bit / 8] ^= 1 << (bit % 8);
    }
}

#[test]
fn an_absurd_length_costs_no_memory_and_does_not_overflow() {
    let hash = Digest::of(Function::Sha256, b"x").hash().to_hex();
    let digest = Digest::parse(Function::Sha256, &hash, i64::MAX).unwrap();
    assert!(file_bytes(&digest) > digest.size_bytes());
}

/// A length, and a part that is not empty within it.
fn part() -> impl Strategy<Value = (usize, usize, usize)> {
    (1..300_000_usize)
        .prop_flat_map(|len| (Just(len), 0..len))
        .prop_flat_map(|(len, from)| (Just(len), Just(from), from + 1..=len))
}

proptest! {
    #[test]
    fn checksums_do_not_depend_on_how_the_bytes_came(
        lens in prop::collection::vec(0_usize..100_000, 0..6),
    ) {
        let blob = bytes(lens.iter().sum());
        let mut rest = &blob[..];
        let pieces: Vec<&[u8]> = lens.iter().map(|len| {
            let (now, later) = rest.split_at(*len);
            rest = later;
            now
        }).collect();
        let expected: Vec<u32> = blob.chunks(BLOCK_BYTES).map(crc32c::crc32c).collect();
        prop_assert_eq!(sums(&pieces).blocks(), expected);
    }

    #[test]
    fn an_answer_begins_with_the_first_byte_asked_and_has_at_least_one(
        (len, from, to) in part(), len_max in 1_usize..300_000,
    ) {
        let blob = bytes(len);
        let checksums = sums(&[&blob]);
        let span = Span::new(from as u64, to as u64, len_max, len as u64);
        let read = blob[to_usize(span.start())..][..span.len()].to_vec();
        let all = checksums.blocks();
        prop_assert_eq!(span.blocks_of(&all), &checksums.of_span(&span)[..]);
        let answer = span.check(read, span.blocks_of(&all)).unwrap();
        prop_assert!(!answer.is_empty() && answer.len() <= len_max.min(to - from));
        prop_assert_eq!(&answer[..], &blob[from..from + answer.len()]);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_blocks_is_noticed(
        (len, at, _) in part(), bit in 0_u32..8,
    ) {
        let mut blob = bytes(len);
        let checksums = sums(&[&blob]);
        blob[at] ^= 1_u8 << bit;
        let span = Span::new(at as u64, at as u64 + 1, 1, len as u64);
        let read = blob[to_usize(span.start())..][..span.len()].to_vec();
        prop_assert_eq!(span.check(read, &checksums.of_span(&span)), None);
    }
}
