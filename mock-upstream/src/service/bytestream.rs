use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use proto::bytestream::byte_stream_server::ByteStream;
use proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::call::CallHandle;
use crate::codec;
use crate::digest::Digest;
use crate::log::{Outcome, Told};
use crate::name::Name;
use crate::rule::Act;
use crate::script::Script;
use crate::service::cas::check_blob_size;
use crate::service::{Service, invalid, wire};
use crate::violation::{Messages, pick};

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let call = CallHandle::of(&request)?;
        let asked = request.into_inner();
        let mut request = asked.clone();
        self.shared.bend_in(&mut request, pick!(ReadIn))?;
        let (digest, script, mut rest) = match self.locate(&call, &request).await {
            Ok((digest, script, rest)) => (digest, script, Ok(rest)),
            Err(status) if self.shared.bends().is_empty() => return Err(status),
            Err(status) => (None, call.identify("", Vec::new()), Err(status)),
        };
        self.shared.bend_out(&asked, &mut rest, pick!(ReadOut));
        let rest = rest?;
        let mut chunk = self.shared.settings.lock().read_chunk_bytes.max(1);
        if let Some(bent) = self.shared.bends().iter().find_map(pick!(ReadChunk)) {
            chunk = bent;
        }
        let answer = Answer {
            digest,
            rest,
            sent: 0,
            chunk,
            script,
            call,
        };
        Ok(Response::new(Box::pin(stream::unfold(answer, Answer::next))))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let call = CallHandle::of(&request)?;
        let mut messages = Messages::new(request.into_inner(), Arc::clone(&self.shared));
        let mut answer = self.store(&call, &mut messages).await;
        if answer.is_err() {
            messages.linger().await;
        }
        self.shared
            .bend_out(&messages.written, &mut answer, pick!(WriteOut));
        answer.map(|committed_size| Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let answer = |call, request| self.answer_query_write_status(call, request);
        self.shared
            .bent(request, pick!(QueryIn), pick!(QueryOut), answer)
            .await
    }
}

impl Service {
    async fn store(&self, call: &CallHandle, messages: &mut Messages) -> Result<i64, Status> {
        let Some(first) = messages.next().await? else {
            call.end(Outcome::HalfClosed);
            return Err(invalid("a Write without a message"));
        };
        call.resource(&first.resource_name, first.write_offset, 0);
        let plain = self.plain(&first.resource_name);
        let name = Name::of_write(plain.as_deref().unwrap_or(&first.resource_name))?;
        let Name { instance, digest } = name;
        self.check_function(digest.function())?;
        let mut script = call.identify(&instance, vec![digest]);
        script.start().await?;
        check_blob_size(&digest, self.shared.settings.lock().max_blob_bytes)?;
        if plain.is_some() {
            return self
                .store_compressed(call, first, messages, &instance, digest)
                .await;
        }

        let upload = Upload {
            service: self,
            call,
            resource_name: first.resource_name.clone(),
            instance,
            digest,
        };
        upload.run(first, messages, script).await
    }

    /// The plain form of a name in zstd, if that is offered.
    fn plain(&self, name: &str) -> Option<String> {
        let zstd = self.shared.settings.lock().zstd;
        crate::name::plain(name).filter(|_| zstd)
    }

    /// An upload in zstd. It cannot be resumed: nothing is kept of one that breaks.
    async fn store_compressed(
        &self,
        call: &CallHandle,
        first: WriteRequest,
        messages: &mut Messages,
        instance: &str,
        digest: Digest,
    ) -> Result<i64, Status> {
        /// What compression may add to bytes that do not shrink.
        const GROWTH_MAX: u64 = 64 * 1024;
        let name = first.resource_name.clone();
        let mut stream = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            if !digest.is_empty() && self.shared.contents.lock().has(instance, &digest) {
                call.tell(&digest, Told::Present);
                return Ok(-1);
            }
            if !message.resource_name.is_empty() && message.resource_name != name {
                return Err(invalid("resource_name changed on the way"));
            }
            if message.write_offset != wire(stream.len() as u64) {
                return Err(invalid(format!(
                    "write_offset is {}, but {} is due",
                    message.write_offset,
                    stream.len()
                )));
            }
            stream.extend_from_slice(&message.data);
            call.received(message.data.len());
            if stream.len() as u64 > digest.size_bytes().saturating_mul(2).saturating_add(GROWTH_MAX) {
                return Err(invalid("more than compression can make of it"));
            }
            if message.finish_write {
                let bytes = codec::decode(&stream, digest.size_bytes()).map_err(invalid)?;
                if !digest.fits(&bytes) {
                    return Err(invalid(format!("the bytes do not have digest {digest}")));
                }
                self.shared.contents.lock().put(instance, digest, bytes);
                call.tell(&digest, Told::Present);
                return Ok(wire(stream.len() as u64));
            }
            next = messages.next().await?;
        }
        call.end(Outcome::HalfClosed);
        Ok(0)
    }

    /// The bytes that are due.
    async fn locate(&self, call: &CallHandle, request: &ReadRequest) -> Result<Located, Status> {
        call.resource(&request.resource_name, request.read_offset, request.read_limit);
        let plain = self.plain(&request.resource_name);
        let name = Name::of_read(plain.as_deref().unwrap_or(&request.resource_name))?;
        self.check_function(name.digest.function())?;
        if plain.is_some() && request.read_limit != 0 {
            return Err(invalid("a limit on a compressed read"));
        }
        let mut script = call.identify(&name.instance, vec![name.digest]);
        script.start().await?;

        let about = Some(&name.digest);
        let blob = self.shared.contents.lock().blob(&name.instance, &name.digest);
        let blob = blob.filter(|_| script.lies(about, |act| *act == Act::SayMissing).is_none());
        let blob = blob.ok_or_else(|| {
            call.tell(&name.digest, Told::Missing);
            Status::not_found(name.digest.to_string())
        })?;
        let size = name.digest.size_bytes();
        let offset = u64::try_from(request.read_offset)
            .ok()
            .filter(|offset| *offset <= size);
        let offset = offset.ok_or_else(|| Status::out_of_range(format!("the blob has {size} bytes")))?;
        let limit = u64::try_from(request.read_limit).map_err(|_| invalid("read_limit is negative"))?;
        let end = if limit == 0 {
            size
        } else {
            size.min(offset.saturating_add(limit))
        };
        // A planted blob need not be as long as its digest says; it is served as far as it goes.
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(blob.len());
        // What lies behind the declared size is served as well: too long is one way of not fitting.
        let end = if end == size && limit == 0 {
            blob.len()
        } else {
            place(end)
        };
        let rest = blob.slice(place(offset)..end);

        let rest = if plain.is_some() {
            codec::encode(&rest)
        } else {
            rest
        };
        let chunk = self.shared.settings.lock().read_chunk_bytes.max(1);
        let rest = script.altered_in_pieces(&name.digest, rest, chunk);
        Ok((Some(name.digest), script, rest))
    }

    async fn answer_query_write_status(
        &self,
        call: CallHandle,
        request: QueryWriteStatusRequest,
    ) -> Result<QueryWriteStatusResponse, Status> {
        let name = request.resource_name;
        call.resource(&name, 0, 0);
        let plain = self.plain(&name);
        let Name { instance, digest } = Name::of_write(plain.as_deref().unwrap_or(&name))?;
        self.check_function(digest.function())?;
        let mut script = call.identify(&instance, vec![digest]);
        script.start().await?;
        script.end().await?;
        let (mut complete, mut committed) = {
            let contents = self.shared.contents.lock();
            (
                contents.has(&instance, &digest),
                contents.committed(&name, &digest),
            )
        };
        if complete && script.lies(None, |act| *act == Act::SayMissing).is_some() {
            (complete, committed) = (false, 0);
        } else if !complete && script.lies(None, |act| *act == Act::SayPresent).is_some() {
            complete = true;
        }
        if complete {
            committed = digest.size_bytes();
            call.tell(&digest, Told::Present);
        }
        script.answered();
        Ok(QueryWriteStatusResponse {
            committed_size: committed_size(&script, committed),
            complete,
        })
    }
}

/// What a Read comes to: the blob, what is to happen, the bytes that are due.
type Located = (Option<Digest>, Script, Bytes);

/// What is said to be committed.
fn committed_size(script: &Script, truly: u64) -> i64 {
    let lie = script.lies(
        None,
        |act| matches!(act, Act::CommittedSize { size } if *size != wire(truly)),
    );
    match lie {
        Some(Act::CommittedSize { size }) => size,
        Some(_) | None => wire(truly),
    }
}

/// What is left to send of a Read.
struct Answer {
    /// Of the blob; none where a violation answers in place of it.
    digest: Option<Digest>,
    rest: bytes::Bytes,
    sent: u64,
    chunk: usize,
    script: Script,
    call: CallHandle,
}

impl Answer {
    async fn next(mut self) -> Option<(Result<ReadResponse, Status>, Answer)> {
        if let Err(status) = self.script.bytes(self.sent).await {
            return Some((Err(status), self.ended()));
        }
        if self.rest.is_empty() {
            if let Err(status) = self.script.end().await {
                return Some((Err(status), self.ended()));
            }
            self.script.answered();
            if let Some(digest) = &self.digest {
                self.call.tell(digest, Told::Present);
            }
            return None;
        }
        let mut length = self.script.piece(self.chunk.min(self.rest.len()));
        if let Some(stop) = self.script.next_stop() {
            length = length.min(usize::try_from(stop - self.sent).unwrap_or(usize::MAX));
        }
        self.script.paced(length).await;
        let data = self.rest.split_to(length);
        self.sent += length as u64;
        self.call.sent(length);
        Some((Ok(ReadResponse { data }), self))
    }

    /// After a status nothing is asked for any more.
    fn ended(mut self) -> Answer {
        self.rest.clear();
        self
    }
}

/// One Write, from its first message to its answer.
struct Upload<'a> {
    service: &'a Service,
    call: &'a CallHandle,
    resource_name: String,
    instance: String,
    digest: Digest,
}

impl Upload<'_> {
    async fn run(
        &self,
        first: WriteRequest,
        messages: &mut Messages,
        mut script: Script,
    ) -> Result<i64, Status> {
        let (name, digest, owner) = (&self.resource_name, &self.digest, self.call.index);
        let contents = &self.service.shared.contents;
        let start = first.write_offset;
        let mut begun = false;
        let mut received = 0u64;
        let mut next = Some(first);
        while let Some(message) = next {
            if contents.lock().has(&self.instance, digest) {
                // Somebody was faster, or the client did not ask: there is nothing to wait for.
                contents.lock().abandon(name, owner);
                script.end().await?;
                script.answered();
                return Ok(self.committed_size(&script, digest.size_bytes()));
            }
            if !begun {
                contents.lock().begin(name, digest, start, owner)?;
                begun = true;
            }
            if let Err(status) = self.check(&message, start, received) {
                contents.lock().abandon(name, owner);
                return Err(status);
            }
            contents.lock().append(name, digest, owner, &message.data)?;
            received += message.data.len() as u64;
            self.call.received(message.data.len());
            script.paced(message.data.len()).await;
            script.bytes(received).await?;
            if script.ends_early(received) {
                return Ok(self.committed_size(&script, received));
            }
            if message.finish_write {
                script.end().await?;
                if script.lies(None, |act| *act == Act::Drop).is_some() {
                    contents.lock().abandon(name, owner);
                } else {
                    contents.lock().commit(name, &self.instance, *digest, owner)?;
                }
                script.answered();
                return Ok(self.committed_size(&script, digest.size_bytes()));
            }
            next = messages.next().await?;
        }
        self.call.end(Outcome::HalfClosed);
        script.end().await?;
        let committed = contents.lock().committed(name, digest);
        Ok(committed_size(&script, committed))
    }

    /// What is answered; all of it is an acknowledgement.
    fn committed_size(&self, script: &Script, truly: u64) -> i64 {
        let said = committed_size(script, truly);
        if said == wire(self.digest.size_bytes()) {
            self.call.tell(&self.digest, Told::Present);
        }
        said
    }

    fn check(&self, message: &WriteRequest, start: i64, received: u64) -> Result<(), Status> {
        if !message.resource_name.is_empty() && message.resource_name != self.resource_name {
            return Err(invalid("resource_name changed on the way"));
        }
        let due = start.saturating_add(wire(received));
        if message.write_offset != due {
            return Err(invalid(format!(
                "write_offset is {}, but {due} is due",
                message.write_offset
            )));
        }
        Ok(())
    }
}
