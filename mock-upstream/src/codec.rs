//! zstd, with bounds. Pure.

use std::io::Read as _;

use bytes::Bytes;

/// One stream that decodes to these bytes.
pub(crate) fn encode(bytes: &[u8]) -> Bytes {
    // Encoding into memory has nothing that could fail.
    zstd::encode_all(bytes, 0).unwrap_or_default().into()
}

/// What a stream decodes to, if that has `size` bytes. No bytes at all stand for the empty blob.
///
/// # Errors
/// What is wrong with the stream. Decoding stops behind `size`, whatever else there is.
pub(crate) fn decode(stream: &[u8], size: u64) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    if !stream.is_empty() {
        let decoder = zstd::Decoder::new(stream).map_err(|error| error.to_string())?;
        let decoded = decoder.take(size.saturating_add(1)).read_to_end(&mut bytes);
        decoded.map_err(|error| error.to_string())?;
    }
    match bytes.len() as u64 == size {
        true => Ok(bytes.into()),
        false => Err(format!("the stream does not decode to {size} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_decodes_to_as_many_bytes_as_are_due_and_to_no_other_number() {
        let stream = encode(b"some bytes");
        assert_eq!(decode(&stream, 10).unwrap(), "some bytes");
        assert!(decode(&stream, 9).is_err() && decode(&stream, 11).is_err());
        assert!(decode(&stream[..stream.len() - 1], 10).is_err());
        assert!(decode(&[&stream[..], b"more"].concat(), 10).is_err());
        assert_eq!(decode(b"", 0).unwrap(), "");
    }

    #[test]
    fn a_bomb_is_not_decoded_to_its_end() {
        let bomb = encode(&vec![0; 50_000_000]);
        assert!(decode(&bomb, 100).is_err());
    }
}
