//! Messages of a request, cut out of its body.
//!
//! Only bytes that arrived take room: the length that a frame declares is checked against the limit and reserves nothing.
//! A message that came in one piece is not copied. Those that come in more share a bounded room with all other calls'.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use prost::Message;
use tokio::time::timeout;
use tonic::Status;

use super::room::{GaveWay, Room, Share};
use super::status::invalid;

/// How long a client may take for the first message of a request. Without a deadline of its own, a client that says nothing
/// would hold its call for ever.
const FIRST_MESSAGE_PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the prefix that stands before every message: a flag for compression, and a length.
pub(super) const PREFIX_BYTES: usize = 5;

/// The messages of one request, in their order.
#[derive(Debug)]
pub(super) struct Messages<B> {
    body: B,
    /// What is left of the last DATA frame.
    chunk: Bytes,
    /// A message that came in more than one piece, as far as it is here.
    pieces: BytesMut,
    /// Of the message that came in pieces, until the next is asked for.
    share: Share,
    message_bytes_max: usize,
    begun: bool,
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// The messages of `body`, none longer than `message_bytes_max`.
    pub(super) fn new(body: B, message_bytes_max: usize, room: &Room) -> Messages<B> {
        Messages {
            body,
            chunk: Bytes::new(),
            pieces: BytesMut::new(),
            share: room.share(),
            message_bytes_max,
            begun: false,
        }
    }

    /// The next message, decoded. `None` after the client's half-close.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for what is no message; CANCELLED when the client went away; DEADLINE_EXCEEDED if the first message
    /// does not come; RESOURCE_EXHAUSTED if it comes so slowly that others need its room.
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(super) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        if self.pieces.is_empty() {
            // The message before has been worked on.
            self.share.release();
        }
        let Some(bytes) = self.next_bytes().await? else {
            return Ok(None);
        };
        M::decode(bytes)
            .map(Some)
            .map_err(|error| invalid(format_args!("the message cannot be decoded: {error}")))
    }

    /// The only message of the request. Its room is held for as long as this lives.
    ///
    /// # Errors
    /// As [`Messages::next`]; none and more than one are INVALID_ARGUMENT too.
    pub(super) async fn only<M: Message + Default>(&mut self) -> Result<M, Status> {
        let message = self
            .next()
            .await?
            .ok_or_else(|| Status::invalid_argument("the request has no message"))?;
        match self.next_bytes().await? {
            None => Ok(message),
            Some(_) => Err(Status::invalid_argument("the request has more than one message")),
        }
    }

    async fn next_bytes(&mut self) -> Result<Option<Bytes>, Status> {
        if self.begun {
            return self.following().await;
        }
        let first = timeout(FIRST_MESSAGE_PATIENCE, self.following()).await;
        let first = first.map_err(|_elapsed| Status::deadline_exceeded("the request did not come"))?;
        self.begun = true;
        first
    }

    async fn following(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.cut().await? {
                self.share.settle();
                return Ok(Some(message));
            }
            let frame = tokio::select! { // both arms are cancel safe
                biased;
                () = self.share.gave_way() => return Err(gave_way(GaveWay)),
                frame = self.body.frame() => frame,
            };
            match frame {
                Some(Ok(frame)) => {
                    // Trailers of a request mean nothing in gRPC.
                    if let Ok(data) = frame.into_data() {
                        self.chunk = data;
                    }
                }
                Some(Err(_gone)) => return Err(Status::cancelled("the client went away")),
                None if self.pieces.is_empty() => return Ok(None),
                None => {
                    return Err(Status::invalid_argument("the request ends within a message"));
                }
            }
        }
    }

    /// Takes the next message out of what has arrived, if it is whole. Otherwise all of it moves to `pieces`.
    async fn cut(&mut self) -> Result<Option<Bytes>, Status> {
        if self.pieces.is_empty() && self.chunk.len() >= PREFIX_BYTES {
            let whole_bytes = PREFIX_BYTES + self.declared_bytes(&self.chunk)?;
            if self.chunk.len() >= whole_bytes {
                let mut message = self.chunk.split_to(whole_bytes);
                message.advance(PREFIX_BYTES);
                return Ok(Some(message));
            }
        }
        if !self.gather(PREFIX_BYTES).await? {
            return Ok(None);
        }
        let whole_bytes = PREFIX_BYTES + self.declared_bytes(&self.pieces)?;
        if !self.gather(whole_bytes).await? {
            return Ok(None);
        }
        let mut message = std::mem::take(&mut self.pieces).freeze();
        message.advance(PREFIX_BYTES);
        Ok(Some(message))
    }

    /// Moves bytes to `pieces` until there are `goal_bytes`, and says whether there are. Waits for room for them.
    async fn gather(&mut self, goal_bytes: usize) -> Result<bool, Status> {
        let lacking = goal_bytes.saturating_sub(self.pieces.len());
        let taken_bytes = lacking.min(self.chunk.len());
        if taken_bytes > 0 {
            let grown = self.share.grow(self.pieces.len() + taken_bytes).await;
            grown.map_err(gave_way)?;
            self.pieces.extend_from_slice(&self.chunk.split_to(taken_bytes));
        }
        Ok(self.pieces.len() >= goal_bytes)
    }

    /// Length of the message behind a prefix.
    fn declared_bytes(&self, mut prefix: &[u8]) -> Result<usize, Status> {
        match prefix.get_u8() {
            0 => {}
            1 => return Err(Status::unimplemented("compressed messages are not accepted")),
            flag => return Err(invalid(format_args!("a message has the compression flag {flag}"))),
        }
        let len = usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX);
        if len > self.message_bytes_max {
            let max = self.message_bytes_max;
            return Err(invalid(format_args!(
                "a message of {len} bytes is larger than the limit of {max}"
            )));
        }
        Ok(len)
    }
}

fn gave_way(_: GaveWay) -> Status {
    Status::resource_exhausted("the request came slowly, and others needed its room")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http_body::Frame;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    /// A body that arrives in these pieces.
    struct Pieces(VecDeque<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let len = u32::try_from(message.len()).unwrap();
        [&[0], len.to_be_bytes().as_slice(), message].concat()
    }

    fn messages(bytes: &[u8], piece_bytes: usize) -> Messages<Pieces> {
        let pieces = bytes.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        Messages::new(Pieces(pieces), 100, &Room::new(1000))
    }

    async fn all(mut messages: Messages<Pieces>) -> Result<Vec<Bytes>, Code> {
        let mut found = Vec::new();
        while let Some(message) = messages.next_bytes().await.map_err(|status| status.code())? {
            found.push(message);
        }
        Ok(found)
    }

    #[tokio::test]
    async fn messages_are_found_however_the_body_is_cut() {
        let bytes = [framed(b"one"), framed(b""), framed(&[7; 100])].concat();
        for piece_bytes in 1..=bytes.len() {
            let found = all(messages(&bytes, piece_bytes)).await.unwrap();
            assert_eq!(found, [&b"one"[..], b"", &[7; 100]], "in pieces of {piece_bytes}");
        }
        assert_eq!(all(messages(b"", 1)).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn what_is_no_message_is_the_clients_fault() {
        // GEN-10
        let cases = [
            ("ends within the prefix", vec![0, 0], Code::InvalidArgument),
            (
                "ends within the message",
                vec![0, 0, 0, 0, 5, 1],
                Code::InvalidArgument,
            ),
            ("flag from nowhere", vec![9, 0, 0, 0, 0], Code::InvalidArgument),
            ("compressed", vec![1, 0, 0, 0, 0], Code::Unimplemented),
            ("declares too much", vec![0, 0, 0, 0, 101], Code::InvalidArgument),
            (
                "declares 4 GiB",
                vec![0, 255, 255, 255, 255],
                Code::InvalidArgument,
            ), // P8
        ];
        for (case, bytes, expected) in cases {
            assert_eq!(all(messages(&bytes, 3)).await, Err(expected), "{case}");
        }
    }

    #[tokio::test]
    async fn a_unary_request_has_exactly_one_message() {
        let only = async |bytes: &[u8]| {
            messages(bytes, 4)
                .only::<u32>()
                .await
                .map_err(|status| status.code())
        };
        assert_eq!(only(&framed(b"\x08\x07")).await, Ok(7));
        assert_eq!(only(b"").await, Err(Code::InvalidArgument));
        assert_eq!(
            only(&framed(b"\x08\x07").repeat(2)).await,
            Err(Code::InvalidArgument)
        );
        assert_eq!(only(&framed(b"\x08")).await, Err(Code::InvalidArgument));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_cutter(bytes in proptest::collection::vec(any::<u8>(), 0..64), piece_bytes in 1usize..9) {
            let result = tokio_test::block_on(all(messages(&bytes, piece_bytes)));
            if let Err(code) = result {
                prop_assert!(matches!(code, Code::InvalidArgument | Code::Unimplemented));
            }
        }
    }
}
