//! SHA256TREE: SHA-256 of at most a kibibyte; of more, the hashes of two parts, the left of which is the largest power of two
//! below the whole, put through the block cipher of SHA-256.

use sha2::block_api::compress256;
use sha2::{Digest as _, Sha256};

const LEAF_BYTES: usize = 1024;

/// Not that of SHA-256, so that no parent is a leaf.
const STATE: [u32; 8] = [
    0xcbbb_9d5d,
    0x629a_292a,
    0x9159_015a,
    0x152f_ecd8,
    0x6733_2667,
    0x8eb4_4a87,
    0xdb0c_2e0d,
    0x47b5_481d,
];

pub(super) fn hash(bytes: &[u8]) -> [u8; 32] {
    if bytes.len() <= LEAF_BYTES {
        return Sha256::digest(bytes).into();
    }
    let middle = bytes.len().next_power_of_two() / 2;
    let (left, right) = bytes.split_at(middle);
    let mut block = [0; 64];
    block[..32].copy_from_slice(&hash(left));
    block[32..].copy_from_slice(&hash(right));
    let mut state = STATE;
    compress256(&mut state, &[block]);
    let mut parent = [0; 32];
    for ((word, before), place) in state.into_iter().zip(STATE).zip(parent.chunks_exact_mut(4)) {
        // The compression adds what it began with, which this function leaves out.
        place.copy_from_slice(&word.wrapping_sub(before).to_be_bytes());
    }
    parent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_specification_hold() {
        let content: Vec<u8> = (0..=250).cycle().take(102_400).collect();
        for (len, expected) in [
            (
                1025,
                "36c0998b21839ef74300b9de47d96d1f62323dc81f2b4231e98ce70cd6ffe750",
            ),
            (
                2048,
                "b584996386f01793751c5cf0c39561f51b7e9924b818943b3cb2f6928cea0fa9",
            ),
            (
                3073,
                "517d20c0e5835f060a1bd6388ed68574f63424bdac2a2c3a35a5c2ef859d8fe2",
            ),
            (
                102_400,
                "0668d69e5331840d2f1823d717b7b3f5d1fdc8a09504cddb692b87ff83d50e5f",
            ),
        ] {
            assert_eq!(hex::encode(hash(&content[..len])), expected, "{len}");
        }
        let short = &content[..LEAF_BYTES];
        assert_eq!(hash(short), <[u8; 32]>::from(Sha256::digest(short)));
    }
}
