//! Reads of blobs, as streams.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use proto::bytestream::byte_stream_client::ByteStreamClient;
use proto::bytestream::{ReadRequest, ReadResponse};
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

use super::failure::{TransportError, absent, tier2_error};
use super::pool::Class;
use super::{MESSAGE_BYTES_MAX, Remote, names, until_looked_at, within};
use crate::blob::{ByteRange, DigestMismatch};
use crate::call::Call;
use crate::digest::Digest;
use crate::task::TaskGroup;
use crate::tier2::health::Service;
use crate::tier2::{BlobStream, Tier2Error};

/// Stall limits that a read may last on messages without bytes: they say "still alive", but not for ever.
const ALIVE_ONLY_STALLS: u32 = 6;

/// How long Tier 2 may take to end a read whose bytes are all here, before it is reset.
const END_GRACE: Duration = Duration::from_secs(1);

/// Opens a read and waits for its first bytes.
pub(super) async fn open(
    remote: &Remote,
    call: &Call,
    digest: &Digest,
    range: ByteRange,
) -> Result<BlobStream, Tier2Error> {
    if range.is_empty() {
        // Nothing to read, but absence is still to be told.
        return match remote.find_missing(call, &[*digest]).await?.is_empty() {
            true => Ok(futures::stream::empty().boxed()),
            false => Err(Tier2Error::NotFound),
        };
    }
    let opening = until_looked_at(|| first(remote, call, digest, range));
    let (first, incoming) = within(call.deadline, opening)
        .await?
        .map_err(|status| absent(tier2_error(status, call)))?;
    let mut reading = Reading {
        incoming: Some(incoming),
        tasks: remote.tasks.clone(),
        call: call.clone(),
        digest: *digest,
        rest: range,
    };
    let first = reading.check(first)?;
    let rest = futures::stream::unfold(Some(reading), |reading| async move {
        let mut reading = reading?;
        match reading.next().await {
            Ok(None) => None,
            Ok(Some(chunk)) => Some((Ok(chunk), Some(reading))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok(futures::stream::iter([Ok(first)]).chain(rest).boxed())
}

async fn first(
    remote: &Remote,
    call: &Call,
    digest: &Digest,
    range: ByteRange,
) -> Result<(Option<Bytes>, Incoming), Status> {
    let message = ReadRequest {
        resource_name: names::read_name(&remote.instances.upstream(&call.instance), digest),
        read_offset: wire(range.start())?,
        read_limit: match range.reaches_end_of(digest) {
            true => 0,
            false => wire(range.len())?,
        },
    };
    let patience = remote.times.answer(Service::Cas);
    let mut client = ByteStreamClient::with_origin(remote.pool.lane(Class::Reads), remote.origin.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let messages = client.read(remote.request(call, patience, message)).await?;
    let mut incoming = Incoming {
        messages: messages.into_inner(),
        alive_only: remote.times.stall * ALIVE_ONLY_STALLS,
    };
    Ok((incoming.next().await?, incoming))
}

/// Sizes and offsets are i64 on the wire.
fn wire(bytes: u64) -> Result<i64, Status> {
    i64::try_from(bytes).map_err(|_| Status::new(Code::OutOfRange, "no blob is as large as that"))
}

/// Messages with bytes in them.
struct Incoming {
    messages: Streaming<ReadResponse>,
    alive_only: Duration,
}

impl Incoming {
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let waiting = Instant::now();
        while let Some(message) = self.messages.message().await? {
            if !message.data.is_empty() {
                return Ok(Some(message.data));
            }
            if waiting.elapsed() > self.alive_only {
                return Err(Status::from_error(
                    TransportError::Stalled(self.alive_only).into(),
                ));
            }
        }
        Ok(None)
    }
}

/// Counts what comes against what was asked for.
struct Reading {
    /// There until its end was seen.
    incoming: Option<Incoming>,
    tasks: TaskGroup,
    call: Call,
    digest: Digest,
    rest: ByteRange,
}

impl Reading {
    /// The next chunk, or the end: which comes after exactly the bytes that were asked for.
    async fn next(&mut self) -> Result<Option<Bytes>, Tier2Error> {
        let Some(incoming) = &mut self.incoming else {
            return Ok(None);
        };
        let next = within(self.call.deadline, incoming.next()).await?;
        match next.map_err(|status| absent(tier2_error(status, &self.call)))? {
            None if self.rest.is_empty() => {
                self.incoming = None;
                Ok(None)
            }
            next => self.check(next).map(Some),
        }
    }

    fn check(&mut self, chunk: Option<Bytes>) -> Result<Bytes, Tier2Error> {
        let chunk = chunk.ok_or(Tier2Error::Short)?;
        if chunk.len() as u64 > self.rest.len() {
            let expected = self.digest;
            return Err(Tier2Error::Corrupt(DigestMismatch::TooLong { expected }));
        }
        self.rest = self.rest.skip(chunk.len() as u64);
        Ok(chunk)
    }
}

impl Drop for Reading {
    /// Whoever has the last byte asks no further. A call that Tier 2 has served in full is not to look like one that was
    /// given up: some servers and proxies count resets, and close connections for them.
    fn drop(&mut self) {
        if self.rest.is_empty()
            && let Some(mut incoming) = self.incoming.take()
        {
            let end = async move { while let Ok(Some(_too_much)) = incoming.next().await {} };
            drop(self.tasks.spawn(tokio::time::timeout(END_GRACE, end)));
        }
    }
}
