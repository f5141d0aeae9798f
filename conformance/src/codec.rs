//! Compressed forms of blobs.

use std::io::{self, Write as _};

use bytes::Bytes;

/// One frame of RFC 8878, at the level that the library takes by default.
pub(crate) fn zstd(bytes: &[u8]) -> Bytes {
    zstd_at(bytes, 0)
}

/// Likewise, at a level of one's choice.
pub(crate) fn zstd_at(bytes: &[u8], level: i32) -> Bytes {
    // Encoding into memory has nothing that could fail.
    zstd::encode_all(bytes, level).unwrap_or_default().into()
}

/// One frame with headers of one's choice.
pub(crate) fn zstd_with(
    bytes: &[u8],
    choose: impl FnOnce(&mut zstd::Encoder<'static, Vec<u8>>) -> io::Result<()>,
) -> Bytes {
    let encode = || {
        let mut encoder = zstd::Encoder::new(Vec::new(), 0)?;
        choose(&mut encoder)?;
        encoder.write_all(bytes)?;
        encoder.finish()
    };
    // Encoding into memory has nothing that could fail.
    encode().unwrap_or_default().into()
}

/// What a stream of frames decodes to.
///
/// # Errors
/// If it is none.
pub(crate) fn unzstd(stream: &[u8]) -> io::Result<Vec<u8>> {
    zstd::decode_all(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_decodes_to_what_was_encoded() {
        for level in [-5, 0, 9] {
            assert_eq!(unzstd(&zstd_at(b"some bytes", level)).unwrap(), b"some bytes");
        }
        assert!(unzstd(b"no frame").is_err());
        let framed = zstd_with(b"some bytes", |encoder| encoder.include_checksum(true));
        assert_eq!(unzstd(&framed).unwrap(), b"some bytes");
    }
}
