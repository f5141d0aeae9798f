//! The body of a ByteStream.Read, framed by hand: each chunk of the blob becomes a message without being copied.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use prometheus::IntCounter;
use tonic::Status;

use super::chunk::Chunk;
use super::status::status_of;
use crate::digest::Digest;
use crate::tiered::Reading;

/// A blob on its way to a client. Polled only while the client has room for more: what waits is one chunk.
pub(super) struct ReadBody {
    reading: Reading,
    digest: Digest,
    sent_bytes: IntCounter,
}

impl ReadBody {
    /// Sends what `reading` yields and counts it.
    pub(super) fn new(reading: Reading, digest: Digest, sent_bytes: IntCounter) -> ReadBody {
        ReadBody {
            reading,
            digest,
            sent_bytes,
        }
    }

    /// The next message. After an error there is none.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Chunk, Status>>> {
        Poll::Ready(match ready!(Pin::new(&mut self.reading).poll_next(cx)) {
            Some(Ok(data)) => {
                self.sent_bytes.inc_by(data.len() as u64);
                Some(Ok(Chunk::read_response(data)))
            }
            Some(Err(error)) => Some(Err(status_of(&error, self.digest))),
            None => None,
        })
    }
}
