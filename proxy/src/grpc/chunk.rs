//! What is sent: a few bytes of framing of our own, then bytes that are not copied.

use std::io::IoSlice;

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use prost::encoding::encode_varint;
use tonic::Status;

use super::messages::PREFIX_BYTES;

/// Bytes of a message that clients accept unless told otherwise (GEN-06), framing included.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Room for a message's prefix, one field's key, and its length: 5 + 1 + 5 bytes.
const HEAD_BYTES: usize = 11;

/// Key of `ReadResponse.data`: field 10, bytes.
const READ_DATA_KEY: u8 = (10 << 3) | 2;

/// One piece of an answer: a short head, and the bytes that it introduces.
#[derive(Debug, Clone)]
pub struct Chunk {
    head: Head,
    body: Bytes,
}

impl Chunk {
    /// Bytes that are framed already.
    pub(super) fn framed(body: Bytes) -> Chunk {
        Chunk {
            head: Head::default(),
            body,
        }
    }

    /// A whole message.
    ///
    /// # Errors
    /// FAILED_PRECONDITION for a message that no client would take; trying again would not make it smaller.
    pub(super) fn message(message: &impl Message) -> Result<Chunk, Status> {
        let body = message.encode_to_vec();
        if PREFIX_BYTES + body.len() > MESSAGE_BYTES_MAX {
            let len = body.len();
            return Err(Status::failed_precondition(format!(
                "the answer has {len} bytes, more than a message may have"
            )));
        }
        Ok(Chunk {
            head: Head::prefix(body.len()),
            body: body.into(),
        })
    }

    /// A `ReadResponse` with these bytes of a blob.
    pub(super) fn read_response(data: Bytes) -> Chunk {
        // As everywhere in proto3, a field of no bytes is left out.
        if data.is_empty() {
            return Chunk {
                head: Head::prefix(0),
                body: data,
            };
        }
        let field_bytes = 1 + prost::length_delimiter_len(data.len()) + data.len();
        let mut head = Head::prefix(field_bytes);
        head.put_field(READ_DATA_KEY, data.len());
        Chunk { head, body: data }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.head.bytes().len() + self.body.len()
    }

    fn chunk(&self) -> &[u8] {
        match self.head.bytes() {
            [] => &self.body,
            head => head,
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let parts = [self.head.bytes(), &self.body];
        let mut filled = 0;
        for (slice, part) in slices
            .iter_mut()
            .zip(parts.into_iter().filter(|part| !part.is_empty()))
        {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        let of_head = count.min(self.head.bytes().len());
        self.head.start += of_head;
        self.body.advance(count - of_head);
    }
}

/// At most [`HEAD_BYTES`] bytes, kept without an allocation.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    room: [u8; HEAD_BYTES],
    start: usize,
    end: usize,
}

impl Head {
    /// The prefix of a message of `len` bytes: not compressed, and the length.
    fn prefix(len: usize) -> Head {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let mut head = Head::default();
        head.put(|room| {
            room.put_u8(0);
            room.put_u32(len);
        });
        head
    }

    /// Key and length of a field.
    fn put_field(&mut self, key: u8, len: usize) {
        self.put(|room| {
            room.put_u8(key);
            encode_varint(len as u64, room);
        });
    }

    fn put(&mut self, write: impl FnOnce(&mut &mut [u8])) {
        let mut room = &mut self.room[self.end..];
        write(&mut room);
        self.end = HEAD_BYTES - room.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }
}

#[cfg(test)]
mod tests {
    use proto::bytestream::ReadResponse;

    use super::*;

    /// What tonic and prost make of the same message.
    fn expected(data: &Bytes) -> Vec<u8> {
        let message = ReadResponse { data: data.clone() }.encode_to_vec();
        let len = u32::try_from(message.len()).unwrap();
        [&[0], len.to_be_bytes().as_slice(), &message].concat()
    }

    #[test]
    fn a_hand_framed_read_response_is_what_the_generated_one_would_be() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 1 << 20, (1 << 21) + 1] {
            let data = Bytes::from(vec![7; len]);
            let mut chunk = Chunk::read_response(data.clone());
            assert_eq!(chunk.remaining(), expected(&data).len(), "{len} bytes");
            assert_eq!(
                chunk.copy_to_bytes(chunk.remaining()),
                expected(&data),
                "{len} bytes"
            );
        }
    }

    #[test]
    fn a_chunk_can_be_taken_at_any_byte_and_shows_the_same_either_way() {
        let data = Bytes::from_static(b"some bytes of a blob");
        let expected = expected(&data);
        for taken in 0..=expected.len() {
            let mut chunk = Chunk::read_response(data.clone());
            chunk.advance(taken);
            let mut slices = [IoSlice::new(b""); 4];
            let filled = chunk.chunks_vectored(&mut slices);
            let vectored: Vec<u8> = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect();
            assert_eq!(vectored, expected[taken..], "vectored from {taken}");
            assert_eq!(
                chunk.copy_to_bytes(chunk.remaining()),
                expected[taken..],
                "from {taken}"
            );
        }
    }

    #[test]
    fn the_blob_is_not_copied_into_the_message() {
        let data = Bytes::from(vec![7; 4096]);
        let mut chunk = Chunk::read_response(data.clone());
        chunk.advance(PREFIX_BYTES + 3);
        assert_eq!(chunk.chunk().as_ptr(), data.as_ptr());
    }

    #[test]
    fn a_message_too_large_for_clients_is_not_made() {
        // GEN-06
        let data = Bytes::from(vec![7; MESSAGE_BYTES_MAX]);
        let status = Chunk::message(&ReadResponse { data }).unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    }
}
