//! Writes the wire format by hand, so that tests do not check the encoder with itself.

pub(crate) fn varint(number: u32, value: u64) -> Vec<u8> {
    [base128(u64::from(number) << 3), base128(value)].concat()
}

pub(crate) fn bytes(number: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [
        &base128(u64::from(number) << 3 | 2),
        &base128(value.len() as u64),
        value,
    ]
    .concat()
}

/// `value` in five bytes where fewer would do: valid, and no encoder's choice.
pub(crate) fn padded_varint(number: u32, value: u64) -> Vec<u8> {
    assert!(value < 1 << 28, "the fifth byte is for padding");
    let mut out = base128(u64::from(number) << 3);
    out.extend((0..4).map(|group| low_bits(value >> (7 * group)) | 0x80));
    out.push(0);
    out
}

pub(crate) fn digest(hash: &str, size_bytes: u64) -> Vec<u8> {
    [bytes(1, hash), varint(2, size_bytes)].concat()
}

fn base128(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
    out
}

fn low_bits(value: u64) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}
