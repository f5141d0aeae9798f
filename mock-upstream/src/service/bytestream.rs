use futures::stream::{self, BoxStream};
use proto::bytestream::byte_stream_server::ByteStream;
use proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest, WriteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::call::CallHandle;
use crate::digest::Digest;
use crate::log::{Outcome, Told};
use crate::name::Name;
use crate::rule::Act;
use crate::script::Script;
use crate::service::cas::check_blob_size;
use crate::service::{Service, invalid, wire};

#[tonic::async_trait]
impl ByteStream for Service {
    type ReadStream = BoxStream<'static, Result<ReadResponse, Status>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let call = CallHandle::of(&request)?;
        let request = request.into_inner();
        call.resource(&request.resource_name, request.read_offset, request.read_limit);
        let name = Name::of_read(&request.resource_name)?;
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

        let chunk = self.shared.settings.lock().read_chunk_bytes.max(1);
        let rest = script.altered_in_pieces(&name.digest, rest, chunk);
        let answer = Answer {
            digest: name.digest,
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
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else {
            call.end(Outcome::HalfClosed);
            return Err(invalid("a Write without a message"));
        };
        call.resource(&first.resource_name, first.write_offset, 0);
        let Name { instance, digest } = Name::of_write(&first.resource_name)?;
        let mut script = call.identify(&instance, vec![digest]);
        script.start().await?;
        check_blob_size(&digest, self.shared.settings.lock().max_blob_bytes)?;

        let upload = Upload {
            service: self,
            call: &call,
            resource_name: first.resource_name.clone(),
            instance,
            digest,
        };
        upload
            .run(first, messages, script)
            .await
            .map(|committed_size| Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        request: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        let call = CallHandle::of(&request)?;
        let name = request.into_inner().resource_name;
        call.resource(&name, 0, 0);
        let Name { instance, digest } = Name::of_write(&name)?;
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
        Ok(Response::new(QueryWriteStatusResponse {
            committed_size: committed_size(&script, committed),
            complete,
        }))
    }
}

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
    digest: Digest,
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
            self.call.tell(&self.digest, Told::Present);
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
        mut messages: Streaming<WriteRequest>,
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
            next = messages.message().await?;
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
