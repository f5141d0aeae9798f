//! Uploads of blobs: framed by hand, so that the bytes are not copied, and aborted by a reset that no server can take for
//! an end.

use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, Request, Uri, Version};
use http_body::Frame;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::bytestream::{WriteRequest, WriteResponse};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use uuid::Uuid;

use super::connection::{Patience, Seat};
use super::failure::{TransportError, answered, refused, tier2_error};
use super::pool::Class;
use super::{CONNECTIONS_TRIED_MAX, MESSAGE_BYTES_MAX, Remote, names, within};
use crate::blob::{Piece, PieceStream, Verified};
use crate::call::Call;
use crate::digest::Digest;
use crate::tier2::health::Service;
use crate::tier2::{Ack, Tier2Error};

const WRITE_PATH: &str = "/google.bytestream.ByteStream/Write";

/// Bytes of a blob in one message: the step in which the stall limit sees progress.
const DATA_BYTES_MAX: usize = 256 * 1024;

/// Up to here, one frame with the bytes copied is cheaper than two frames.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Speed below which a commit is taken for hung, beyond its fixed allowance (R14).
const COMMIT_BYTES_PER_SECOND: u64 = 20_000_000;

/// How long a given-up upload may take to be reset in the way we want, before it is reset in the way that always works.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// Uploads a blob. The call begins with the first piece.
pub(super) async fn write(
    remote: &Remote,
    call: &Call,
    digest: &Digest,
    mut body: PieceStream,
) -> Result<Ack, Tier2Error> {
    let writing = async {
        let first = Part::of(body.next().await)?;
        let mut source = Source {
            first: Some(first.clone()),
            body,
        };
        for _ in 1..CONNECTIONS_TRIED_MAX {
            match upload(remote, call, digest, &mut source).await {
                Err(Failed {
                    refused: true,
                    begun: false,
                    ..
                }) => source.first = Some(first.clone()),
                done => return done.map_err(|failed| failed.error),
            }
        }
        let last = upload(remote, call, digest, &mut source).await;
        last.map_err(|failed| failed.error)
    };
    within(call.deadline, writing).await?
}

/// Pieces, the first of which can be sent again.
struct Source {
    first: Option<Part>,
    body: PieceStream,
}

#[derive(Clone)]
struct Part {
    bytes: Bytes,
    proof: Option<Verified>,
}

impl Part {
    fn of(piece: Option<Result<Piece, crate::blob::Aborted>>) -> Result<Part, Tier2Error> {
        match piece {
            Some(Ok(Piece::Data(bytes))) => Ok(Part { bytes, proof: None }),
            Some(Ok(Piece::Last(bytes, proof))) => Ok(Part {
                bytes,
                proof: Some(proof),
            }),
            Some(Err(_)) | None => Err(Tier2Error::Aborted),
        }
    }
}

/// Why an upload failed, and whether another try is sensible and possible.
struct Failed {
    error: Tier2Error,
    refused: bool,
    /// More than the first piece was taken from the source.
    begun: bool,
}

async fn upload(remote: &Remote, call: &Call, digest: &Digest, source: &mut Source) -> Result<Ack, Failed> {
    let opened_at = Instant::now();
    let (sender, receiver) = mpsc::channel(1);
    let seat = Seat::default();
    let mut answer = exchange(remote, call, receiver, seat.clone());
    let name = names::write_name(&remote.instances.upstream(&call.instance), digest, Uuid::new_v4());
    let last_sent_at = OnceLock::new();
    let mut feeding = Feed {
        sender,
        last_sent_at: &last_sent_at,
        name,
        offset: 0,
        stall: remote.times.stall,
        begun: false,
    };
    let error = {
        let mut feed = pin!(feeding.run(source, digest));
        let mut fed = false;
        let limit = tokio::time::sleep(Duration::ZERO);
        let mut limit = pin!(limit);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => {
                    let answer = answer.unwrap_or_else(|_stopped| Err(Status::unavailable("this node is shutting down")));
                    match answer {
                        Ok(committed_size) => {
                            let sent_at = last_sent_at.get().copied().unwrap_or(opened_at);
                            match judge(committed_size, digest) {
                                Ok(()) => return Ok(Ack { sent_at }),
                                Err(error) => break Err(error),
                            }
                        }
                        Err(status) => break Ok(status),
                    }
                }
                done = &mut feed, if !fed => {
                    let wait = match done {
                        Ok(Fed::All) => commit_limit(remote.times.commit, digest),
                        // Tier 2 takes no more: it has answered, or the connection is lost.
                        Ok(Fed::Closed) => remote.times.first_byte,
                        Err(error) => break Err(error),
                    };
                    fed = true;
                    limit.as_mut().reset(Instant::now() + wait);
                }
                () = &mut limit, if fed => break Err(Tier2Error::Stalled),
            }
        }
    };
    let begun = feeding.begun;
    if matches!(error, Err(Tier2Error::Stalled)) {
        seat.retire();
    }
    Err(match error {
        Ok(status) => Failed {
            refused: refused(&status),
            error: tier2_error(status, call),
            begun,
        },
        Err(error) => Failed {
            error,
            refused: false,
            begun,
        },
    })
}

/// From the last piece to the answer.
fn commit_limit(fixed: Duration, digest: &Digest) -> Duration {
    fixed + Duration::from_millis(digest.size_bytes() / (COMMIT_BYTES_PER_SECOND / 1000))
}

fn judge(committed_size: i64, digest: &Digest) -> Result<(), Tier2Error> {
    if u64::try_from(committed_size) == Ok(digest.size_bytes()) {
        return Ok(());
    }
    let message = format!("{committed_size} bytes of {digest} were committed");
    Err(answered(Code::Internal, &message, b""))
}

/// Turns pieces into messages.
struct Feed<'a> {
    sender: mpsc::Sender<Message>,
    /// Sent with the first message only.
    name: String,
    offset: u64,
    stall: Duration,
    begun: bool,
    /// When the last message was handed over, for the date of the acknowledgement.
    last_sent_at: &'a OnceLock<Instant>,
}

enum Fed {
    All,
    Closed,
}

impl Feed<'_> {
    async fn run(&mut self, source: &mut Source, digest: &Digest) -> Result<Fed, Tier2Error> {
        loop {
            let mut part = match source.first.take() {
                Some(first) => first,
                None => {
                    let next = source.body.next().await;
                    self.begun = true;
                    Part::of(next)?
                }
            };
            if let Some(proof) = &part.proof {
                assert_eq!(
                    proof.digest(),
                    digest,
                    "the proof is for the blob that is written"
                );
            }
            loop {
                let data = part.bytes.split_to(part.bytes.len().min(DATA_BYTES_MAX));
                let last = part.proof.is_some() && part.bytes.is_empty();
                if data.is_empty() && !last {
                    break;
                }
                if last {
                    self.last_sent_at.get_or_init(Instant::now);
                }
                let (taken, was_taken) = oneshot::channel();
                let message = self.message(data, last.then_some(taken));
                if self.hand_over(self.sender.send(message)).await?.is_none() {
                    return Ok(Fed::Closed);
                }
                if last {
                    let taken = self.hand_over(was_taken).await?.is_some();
                    return Ok(if taken { Fed::All } else { Fed::Closed });
                }
            }
        }
    }

    async fn hand_over<T, E>(
        &self,
        taking: impl Future<Output = Result<T, E>>,
    ) -> Result<Option<T>, Tier2Error> {
        match tokio::time::timeout(self.stall, taking).await {
            Ok(taken) => Ok(taken.ok()),
            Err(_elapsed) => Err(Tier2Error::Stalled),
        }
    }

    fn message(&mut self, data: Bytes, last: Option<oneshot::Sender<()>>) -> Message {
        let head = WriteRequest {
            resource_name: std::mem::take(&mut self.name),
            write_offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            finish_write: last.is_some(),
            data: Bytes::new(),
        };
        self.offset += data.len() as u64;
        Message::frame(&head, data, last)
    }
}

/// A message with its frame.
struct Message {
    head: Bytes,
    data: Bytes,
    /// There for the last message; told when the connection takes it. The body may be gone in the same moment, so that its
    /// end alone does not say whether all was sent.
    last: Option<oneshot::Sender<()>>,
}

impl Message {
    fn frame(head: &WriteRequest, data: Bytes, last: Option<oneshot::Sender<()>>) -> Message {
        let mut field = BytesMut::new();
        if !data.is_empty() {
            encode_key(10, WireType::LengthDelimited, &mut field);
            encode_varint(data.len() as u64, &mut field);
        }
        let len = head.encoded_len() + field.len() + data.len();
        let len = u32::try_from(len).expect("a message is some kilobytes longer than its data at most");
        let mut framed =
            BytesMut::with_capacity(5 + head.encoded_len() + field.len() + COPY_BYTES_MAX.min(data.len()));
        framed.put_u8(0);
        framed.put_u32(len);
        head.encode_raw(&mut framed);
        framed.put(field);
        let data = match data.len() {
            0..=COPY_BYTES_MAX => {
                framed.put(data);
                Bytes::new()
            }
            _ => data,
        };
        Message {
            head: framed.freeze(),
            data,
            last,
        }
    }
}

/// The request's body. If the messages end without the last one, it is an error, and the stream is reset.
struct Messages {
    receiver: mpsc::Receiver<Message>,
    data: Bytes,
    complete: bool,
}

impl http_body::Body for Messages {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.data.is_empty() {
            let data = std::mem::take(&mut self.data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if self.complete {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.receiver.poll_recv(cx)) {
            Some(message) => {
                if let Some(taken) = message.last {
                    self.complete = true;
                    let _nobody_waits = taken.send(());
                }
                self.data = message.data;
                Ok(Frame::data(message.head))
            }
            // CANCEL would be the polite code, but servers made with hyper take it for the end of the stream.
            None => Err(h2::Reason::INTERNAL_ERROR.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.complete && self.data.is_empty()
    }
}

/// Sends the messages and resolves with the committed size. A task of its own, because the reset of an upload that was
/// given up is to come from its body: when the answer is dropped first, hyper resets with CANCEL.
fn exchange(
    remote: &Remote,
    call: &Call,
    receiver: mpsc::Receiver<Message>,
    seat: Seat,
) -> oneshot::Receiver<Result<i64, Status>> {
    let (mut sender, answer) = oneshot::channel();
    let messages = Messages {
        receiver,
        data: Bytes::new(),
        complete: false,
    };
    let mut request = request(remote, call, Body::new(messages));
    request.extensions_mut().insert(seat);
    let pool = remote.pool.clone();
    let stop = remote.tasks.stopping();
    let answering = async move {
        let mut answering = pin!(async {
            let response = pool.send(Class::Uploads, request).await;
            committed_size(response.map_err(|error| Status::from_error(error.into()))?).await
        });
        tokio::select! {
            answer = &mut answering => drop(sender.send(answer)),
            () = sender.closed() => drop(tokio::time::timeout(ABORT_GRACE, answering).await),
        }
    };
    drop(
        remote
            .tasks
            .spawn(async move { stop.run_until_cancelled(answering).await }),
    );
    answer
}

fn request(remote: &Remote, call: &Call, body: Body) -> Request<Body> {
    let patience = Patience {
        only_while_up: Some(Service::Cas),
        ..Patience::default()
    };
    let (metadata, extensions, body) = remote.request(call, patience, body).into_parts();
    let mut request = Request::new(body);
    let mut uri = remote.origin.clone().into_parts();
    uri.path_and_query = Some(http::uri::PathAndQuery::from_static(WRITE_PATH));
    *request.uri_mut() = Uri::from_parts(uri).expect("an origin with a path is a URI");
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = metadata.into_headers();
    *request.extensions_mut() = extensions;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

async fn committed_size<B>(response: http::Response<B>) -> Result<i64, Status>
where
    B: http_body::Body<Data = Bytes, Error = TransportError> + Send + 'static,
{
    let (parts, body) = response.into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers)
        && status.code() != Code::Ok
    {
        return Err(status);
    }
    let decoder = ProstCodec::<(), WriteResponse>::default().decoder();
    let mut messages = Streaming::new_response(decoder, body, parts.status, None, Some(MESSAGE_BYTES_MAX));
    let response = messages.message().await?;
    // The status comes behind the message, and is the word that counts.
    while messages.message().await?.is_some() {}
    match response {
        Some(response) => Ok(response.committed_size),
        None => Err(Status::internal("no answer to an upload")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Function;

    #[test]
    fn a_hand_framed_message_reads_like_a_generated_one() {
        for len in [0, 1, COPY_BYTES_MAX, COPY_BYTES_MAX + 1, DATA_BYTES_MAX] {
            let mut expected = WriteRequest {
                resource_name: "uploads/u/blobs/h/5".to_owned(),
                write_offset: 300,
                finish_write: len == 1,
                data: Bytes::new(),
            };
            let message = Message::frame(&expected, vec![7; len].into(), None);
            let framed = [&message.head[..], &message.data].concat();
            assert_eq!(framed[0], 0, "not compressed");
            let declared = u32::from_be_bytes(framed[1..5].try_into().unwrap());
            assert_eq!(usize::try_from(declared).unwrap(), framed.len() - 5);
            expected.data = vec![7; len].into();
            assert_eq!(WriteRequest::decode(&framed[5..]).unwrap(), expected);
        }
    }

    #[test]
    fn a_commit_has_its_fixed_time_and_more_for_its_size() {
        let digest = Digest::parse(Function::Sha256, &"a".repeat(64), 40_000_000_000).unwrap();
        let limit = commit_limit(Duration::from_secs(60), &digest);
        assert_eq!(limit, Duration::from_secs(60 + 2000));
    }

    #[test]
    fn only_the_full_size_is_an_acknowledgement() {
        let digest = Digest::of(Function::Sha256, b"hello");
        judge(5, &digest).unwrap();
        for size in [-1, 0, 4, 6] {
            assert!(matches!(judge(size, &digest), Err(Tier2Error::Answered(_)))); // BS-WRITE-13, -15
        }
    }
}
