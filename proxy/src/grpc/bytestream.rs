//! ByteStream: blobs of any size, in and out.

use bytes::Bytes;
use http::Response;
use http_body::Body as HttpBody;
use proto::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest, WriteResponse,
};
use tonic::Status;

use super::body::Body;
use super::caller::Caller;
use super::messages::Messages;
use super::read_body::ReadBody;
use super::resource_name::{ReadName, WriteName};
use super::services::Services;
use super::status::{invalid, status_of};
use crate::blob::ByteRange;
use crate::digest::Digest;
use crate::tiered::{Pushed, Upload};

/// Answers Read. What is known to fail is a refusal; a blob that is there begins with its headers.
pub(super) async fn read(
    services: &Services,
    caller: &Caller,
    request: ReadRequest,
) -> Result<Response<Body>, Status> {
    let name = ReadName::parse(&request.resource_name).map_err(invalid)?;
    caller.agrees_on(&request.resource_name)?;
    let digest = name.digest;
    let range = range(&digest, request.read_offset, request.read_limit)?;
    let call = caller.call_to(name.instance);
    let reading = services
        .tiered
        .open(&call, &digest, range)
        .await
        .map_err(|error| status_of(&error, digest))?;
    let body = ReadBody::new(reading, digest, services.calls.sent_bytes.clone());
    Ok(Body::Read(Box::new(body)).into_response())
}

/// The part of a blob that offset and limit name; both apply (BS-READ-09).
fn range(digest: &Digest, offset: i64, limit: i64) -> Result<ByteRange, Status> {
    let offset = u64::try_from(offset).map_err(|_| Status::out_of_range("the read offset is negative"))?;
    let limit = u64::try_from(limit).map_err(|_| Status::invalid_argument("the read limit is negative"))?;
    // Nought means no limit (BS-READ-06).
    let limit = (limit > 0).then_some(limit);
    ByteRange::within(digest, offset, limit)
        .map_err(|error| Status::out_of_range(format!("{error}: {digest}")))
}

/// Answers Write, possibly before the client has sent everything: when the blob turns out to be there (BS-WRITE-14), and
/// when it cannot be taken (BS-WRITE-31).
pub(super) async fn write<B>(
    services: &Services,
    caller: &Caller,
    mut messages: Messages<B>,
) -> Result<WriteResponse, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let first: WriteRequest = messages
        .next()
        .await?
        .ok_or_else(|| Status::invalid_argument("the upload has no request"))?;
    let name = WriteName::parse(&first.resource_name).map_err(invalid)?;
    caller.agrees_on(&first.resource_name)?;
    let digest = name.digest;
    let call = caller.call_to(name.instance);
    services.check_storable(&call, &digest)?;
    let offset = u64::try_from(first.write_offset)
        .map_err(|_| Status::invalid_argument("the write offset is negative"))?;
    let upload = services
        .tiered
        .begin(&call, &digest, &first.resource_name, offset)
        .await
        .map_err(|error| status_of(&error, digest))?;
    let script = Script {
        resource_name: first.resource_name.clone(),
        next_offset: first.write_offset,
    };
    receive(services, script, first, upload, &digest, &mut messages).await?;
    // The full size, however much was sent: some clients compare (BS-WRITE-15).
    Ok(WriteResponse {
        committed_size: wire(digest.size_bytes()),
    })
}

/// Takes an upload in until it is acknowledged.
async fn receive<B>(
    services: &Services,
    mut script: Script,
    first: WriteRequest,
    mut upload: Upload,
    digest: &Digest,
    messages: &mut Messages<B>,
) -> Result<(), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let failed = |error| status_of(&services.tiered.upload_error(error), digest);
    let mut request = first;
    loop {
        script.follow(&request)?;
        services.calls.received_bytes.inc_by(request.data.len() as u64);
        match upload.push(request.data).await.map_err(failed)? {
            Pushed::Taken => {}
            Pushed::Acknowledged => return Ok(()),
        }
        if request.finish_write {
            break;
        }
        request = tokio::select! { // both arms are cancel safe
            biased;
            acknowledged = upload.acknowledged() => return acknowledged.map_err(failed),
            next = messages.next() => match next? {
                Some(next) => next,
                None => {
                    upload.leave();
                    return Err(invalid(format_args!("the upload ended without finish_write: {digest}")));
                }
            },
        };
    }
    let mut finish = std::pin::pin!(upload.finish());
    // The client's half-close is looked for first: a request that came after the finish spoils an upload that has not been
    // committed. A client that keeps its side open is answered all the same.
    tokio::select! {
        biased;
        extra = messages.next::<WriteRequest>() => if extra?.is_some() {
            return Err(invalid(format_args!("the upload goes on after finish_write: {digest}")));
        },
        finished = &mut finish => return finished.map_err(failed),
    }
    finish.await.map_err(failed)
}

/// What the requests of one upload have to say.
struct Script {
    resource_name: String,
    next_offset: i64,
}

impl Script {
    /// Checks the next request and moves on.
    fn follow(&mut self, request: &WriteRequest) -> Result<(), Status> {
        // Some clients name the resource once, others every time (BS-WRITE-02).
        if !request.resource_name.is_empty() && request.resource_name != self.resource_name {
            return Err(Status::invalid_argument(
                "the upload changes its resource name midway",
            ));
        }
        if request.write_offset != self.next_offset {
            return Err(invalid(format_args!(
                "the upload goes on at byte {} instead of {}",
                request.write_offset, self.next_offset
            )));
        }
        self.next_offset = self.next_offset.saturating_add(wire(request.data.len() as u64));
        Ok(())
    }
}

/// Answers QueryWriteStatus.
pub(super) async fn query_write_status(
    services: &Services,
    caller: &Caller,
    request: QueryWriteStatusRequest,
) -> Result<QueryWriteStatusResponse, Status> {
    let name = WriteName::parse(&request.resource_name).map_err(invalid)?;
    caller.agrees_on(&request.resource_name)?;
    let call = caller.call_to(name.instance);
    let status = services
        .tiered
        .write_status(&call, &name.digest, &request.resource_name)
        .await
        .map_err(|error| status_of(&error, name.digest))?;
    Ok(QueryWriteStatusResponse {
        committed_size: wire(status.committed_bytes),
        complete: status.complete,
    })
}

/// Sizes come from the wire or from memory, so that they fit.
fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
