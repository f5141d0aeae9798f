//! The calls that checks make, each with a line in the record of calls.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use prost::Message as _;
use proto::bytestream::WriteRequest;
use proto::reapi::{
    self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetActionResultRequest,
    GetTreeRequest, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
};
use proto::wire;
use tonic::{Code, Response, Status};

use crate::check::{Stop, Verdict, expect};
use crate::target::{Blob, Due as _, Target, refused};
use crate::trace;

/// A message of GetTree: Directories as the bytes they came in, and the token that leads on.
pub(crate) type Page = (Vec<Bytes>, String);

impl Target {
    /// FindMissingBlobs.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn find_missing(&self, request: FindMissingBlobsRequest) -> Result<Vec<reapi::Digest>, Status> {
        let asked = trace::digests(request.blob_digests.iter().map(Some));
        let answer = self.cas().find_missing_blobs(self.request(request)).await;
        let answer = answer.map(|answer| answer.into_inner().missing_blob_digests);
        self.trace()
            .note(format!("FindMissingBlobs {asked}"), &answer, |missing| {
                format!("missing: {}", trace::digests(missing.iter().map(Some)))
            });
        answer
    }

    /// A BatchUpdateBlobs of this instance.
    pub fn update_request(&self, entries: Vec<(reapi::Digest, Bytes)>) -> BatchUpdateBlobsRequest {
        let requests = entries
            .into_iter()
            .map(|(digest, data)| batch_update_blobs_request::Request {
                digest: Some(digest),
                data,
                ..Default::default()
            })
            .collect();
        BatchUpdateBlobsRequest {
            instance_name: self.instance().into(),
            requests,
            digest_function: self.function().said(),
        }
    }

    /// BatchUpdateBlobs.
    ///
    /// # Errors
    /// The status with which the server refused the whole.
    pub async fn batch_update(
        &self,
        request: BatchUpdateBlobsRequest,
    ) -> Result<Vec<batch_update_blobs_response::Response>, Status> {
        let asked = trace::digests(request.requests.iter().map(|entry| entry.digest.as_ref()));
        let answer = self.cas().batch_update_blobs(self.request(request)).await;
        let answer = answer.map(|answer| answer.into_inner().responses);
        self.trace()
            .note(format!("BatchUpdateBlobs {asked}"), &answer, |responses| {
                codes(responses.iter().map(|response| response.status.as_ref()))
            });
        answer
    }

    /// BatchUpdateBlobs of these entries; the code of each, in the order of the entries.
    ///
    /// # Errors
    /// The status with which the server refused the whole.
    pub async fn update(&self, entries: Vec<(reapi::Digest, Bytes)>) -> Result<Vec<Code>, Status> {
        let responses = self.batch_update(self.update_request(entries)).await?;
        Ok(responses
            .iter()
            .map(|response| code(response.status.as_ref()))
            .collect())
    }

    /// A BatchReadBlobs of this instance.
    pub fn read_request_of(&self, digests: Vec<reapi::Digest>) -> BatchReadBlobsRequest {
        BatchReadBlobsRequest {
            instance_name: self.instance().into(),
            digests,
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// BatchReadBlobs.
    ///
    /// # Errors
    /// The status with which the server refused the whole.
    pub async fn batch_read(
        &self,
        request: BatchReadBlobsRequest,
    ) -> Result<Vec<batch_read_blobs_response::Response>, Status> {
        let asked = trace::digests(request.digests.iter().map(Some));
        let answer = self.cas().batch_read_blobs(self.request(request)).await;
        let answer = answer.map(|answer| answer.into_inner().responses);
        self.trace()
            .note(format!("BatchReadBlobs {asked}"), &answer, |responses| {
                codes(responses.iter().map(|response| response.status.as_ref()))
            });
        answer
    }

    /// A GetTree of this instance.
    pub fn tree_request(&self, root: &reapi::Digest) -> GetTreeRequest {
        GetTreeRequest {
            instance_name: self.instance().into(),
            root_digest: Some(root.clone()),
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// GetTree, to the end of the stream.
    ///
    /// # Errors
    /// The status with which the stream ended.
    pub(crate) async fn tree(&self, request: GetTreeRequest) -> Result<Vec<Page>, Status> {
        let what = format!(
            "GetTree {} page_size {} page_token {:?}",
            trace::digests([request.root_digest.as_ref()].into_iter()),
            request.page_size,
            trace::short(&request.page_token)
        );
        let answer = self.tree_pages(request).await;
        self.trace().note(what, &answer, |pages| {
            let sizes: Vec<_> = pages.iter().map(|(directories, _)| directories.len()).collect();
            format!("pages of {sizes:?} directories")
        });
        answer
    }

    async fn tree_pages(&self, request: GetTreeRequest) -> Result<Vec<Page>, Status> {
        let mut stream = self.cas().get_tree(self.request(request)).await?.into_inner();
        let mut pages = Vec::new();
        while let Some(page) = stream.message().await? {
            pages.push((page.directories, page.next_page_token));
        }
        Ok(pages)
    }

    /// An UpdateActionResult of this instance.
    pub fn put_action_request(
        &self,
        action: &reapi::Digest,
        result: impl Into<Bytes>,
    ) -> wire::UpdateActionResultRequest {
        wire::UpdateActionResultRequest {
            instance_name: self.instance().into(),
            action_digest: Some(action.clone()),
            action_result: Some(result.into()),
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// UpdateActionResult, and the result that comes back.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn put_action(&self, request: wire::UpdateActionResultRequest) -> Result<Bytes, Status> {
        let about = trace::digests([request.action_digest.as_ref()].into_iter());
        let size = request.action_result.as_ref().map_or(0, Bytes::len);
        let answer = self
            .action_cache()
            .update_action_result(self.request(request))
            .await;
        let answer = answer.map(|answer| answer.into_inner().0);
        let what = format!("UpdateActionResult {about} of {size} bytes");
        self.trace()
            .note(what, &answer, |result| format!("{} bytes", result.len()));
        answer
    }

    /// A GetActionResult of this instance.
    pub fn action_request(&self, action: &reapi::Digest) -> GetActionResultRequest {
        GetActionResultRequest {
            instance_name: self.instance().into(),
            action_digest: Some(action.clone()),
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// GetActionResult, as the bytes that came.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn action(&self, request: GetActionResultRequest) -> Result<Bytes, Status> {
        let about = trace::digests([request.action_digest.as_ref()].into_iter());
        let answer = self.action_cache().get_action_result(self.request(request)).await;
        let answer = answer.map(Response::into_inner).map(|result| result.0);
        let what = format!("GetActionResult {about}");
        self.trace()
            .note(what, &answer, |result| format!("{} bytes", result.len()));
        answer
    }
}

impl Blob {
    /// As an entry of a batch.
    pub fn entry(&self) -> (reapi::Digest, Bytes) {
        (self.digest.clone(), self.bytes.clone())
    }

    /// Its digest with another size.
    pub fn sized(&self, size_bytes: i64) -> reapi::Digest {
        reapi::Digest {
            size_bytes,
            ..self.digest.clone()
        }
    }
}

/// The code in an entry's status; none is OK.
pub(crate) fn code(status: Option<&proto::rpc::Status>) -> Code {
    Code::from_i32(status.map_or(0, |status| status.code))
}

fn codes<'a>(statuses: impl Iterator<Item = Option<&'a proto::rpc::Status>>) -> String {
    const SHOWN: usize = 8;
    let mut codes: Vec<_> = statuses.map(|status| trace::code(code(status))).collect();
    let count = codes.len();
    codes.truncate(SHOWN);
    let more = if count > SHOWN {
        format!(" and {} more", count - SHOWN)
    } else {
        String::new()
    };
    format!("{}{more}", codes.join(" "))
}

// What checks do again and again.

impl Target {
    /// A random blob that is stored.
    ///
    /// # Errors
    /// [`Stop::Broken`] if the server does not take it.
    pub async fn stored(&self, len: usize) -> Result<Blob, Stop> {
        let blob = self.random(len);
        self.put(&blob).await?;
        Ok(blob)
    }

    /// Demands that the server calls the blob missing.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it does not.
    pub async fn is_absent(&self, digest: &reapi::Digest) -> Verdict {
        let missing = self.missing(vec![digest.clone()]).await.due("FindMissingBlobs")?;
        expect(missing.len() == 1, || {
            format!("{} is there afterwards", digest.hash)
        })
    }

    /// Demands that the server does not call the blob missing.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it does.
    pub async fn is_present(&self, digest: &reapi::Digest) -> Verdict {
        let missing = self.missing(vec![digest.clone()]).await.due("FindMissingBlobs")?;
        expect(missing.is_empty(), || format!("{} is missing", digest.hash))
    }

    /// Demands that a Read gives the blob.
    ///
    /// # Errors
    /// [`Stop::Failed`] if it gives anything else.
    pub async fn reads_as(&self, name: &str, bytes: &Bytes) -> Verdict {
        let came = self.read(name, 0, 0).await.due("Read")?;
        expect(came == *bytes, || {
            format!("{} other bytes than the {} due", came.len(), bytes.len())
        })
    }

    /// Code and data of each digest, in the order asked for; UNKNOWN where there is no response.
    ///
    /// # Errors
    /// The status with which the server refused the whole.
    pub async fn data_of(&self, digests: Vec<reapi::Digest>) -> Result<Vec<(Code, Bytes)>, Status> {
        let responses = self.batch_read(self.read_request_of(digests.clone())).await?;
        let of = |digest: &reapi::Digest| {
            let mine = responses
                .iter()
                .find(|response| response.digest.as_ref() == Some(digest));
            mine.map_or((Code::Unknown, Bytes::new()), |response| {
                (code(response.status.as_ref()), response.data.clone())
            })
        };
        Ok(digests.iter().map(of).collect())
    }

    /// The same server under an instance that nobody used, whose name ends in `tail`.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] if the server serves named instances only.
    pub async fn other_instance(&self, tail: &str) -> Result<Target, Stop> {
        let other = self.at(&format!("suite-{}{tail}", uuid::Uuid::new_v4()));
        let probe = other.missing(vec![Blob::random(8).digest]).await;
        probe.map_err(|status| Stop::NotOffered(format!("other instances: {}", trace::status(&status))))?;
        Ok(other)
    }

    /// What the server says of its cache.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] if it says nothing, which a check of its own judges.
    pub async fn cache(&self) -> Result<reapi::CacheCapabilities, Stop> {
        let all = self.server_capabilities().await.due("GetCapabilities")?;
        all.cache_capabilities
            .ok_or_else(|| Stop::NotOffered("cache_capabilities is absent".into()))
    }

    /// The announced limit of a batch, or nothing where none is announced that a check can use.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] if there is none.
    pub async fn batch_limit(&self) -> Result<usize, Stop> {
        /// A larger batch is a load test.
        const LIMIT_MAX: usize = 64 * 1024 * 1024;
        let limit = self.cache().await?.max_batch_total_size_bytes;
        usize::try_from(limit)
            .ok()
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| Stop::NotOffered(format!("max_batch_total_size_bytes is {limit}")))
    }

    /// Sends `first`, goes on with `meanwhile` while the upload is open, then sends `rest` and half-closes.
    pub async fn during_upload<T>(
        &self,
        first: Vec<WriteRequest>,
        rest: Vec<WriteRequest>,
        meanwhile: impl Future<Output = T>,
    ) -> (T, Result<i64, Status>) {
        let (go_on, released) = futures::channel::oneshot::channel::<()>();
        let rest =
            futures::stream::once(released).flat_map(move |_go_on| futures::stream::iter(rest.clone()));
        let requests = self.request(futures::stream::iter(first).chain(rest));
        let mut client = self.byte_stream();
        let upload = async {
            let answer = client.write(requests).await;
            let answer = answer.map(|answer| answer.into_inner().committed_size);
            self.trace().note("Write, held open".into(), &answer, |size| {
                format!("committed_size {size}")
            });
            answer
        };
        let meanwhile = async {
            let result = meanwhile.await;
            // Nobody listens if the upload has ended.
            let _ = go_on.send(());
            result
        };
        futures::join!(meanwhile, upload)
    }

    /// Waits until the status of an upload shows progress, or for a number of questions.
    pub async fn has_begun(&self, name: &str) {
        const QUESTIONS: usize = 20;
        for _ in 0..QUESTIONS {
            if self
                .query(name)
                .await
                .is_ok_and(|status| status.committed_size > 0)
            {
                return;
            }
        }
    }

    /// The answer to an upload that sends `first` and waits; after `patience` it sends `rest` and half-closes.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn write_held(
        &self,
        first: Vec<WriteRequest>,
        rest: Vec<WriteRequest>,
        patience: Duration,
    ) -> Result<(bool, i64), Status> {
        let pause = async move {
            tokio::time::sleep(patience).await;
            futures::stream::iter(rest)
        };
        let requests = futures::stream::iter(first).chain(futures::stream::once(pause).flatten());
        let from = tokio::time::Instant::now();
        let requests = self.request(requests);
        let answer = self.byte_stream().write(requests).await;
        let answer = answer.map(|answer| (from.elapsed() < patience, answer.into_inner().committed_size));
        self.trace().note(
            "Write, the first message alone".into(),
            &answer,
            |(early, size)| format!("committed_size {size}, early: {early}"),
        );
        answer
    }

    /// Stores an action result; where it may not be stored, nothing can be said of results.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] if updates are not enabled, [`Stop::Failed`] if it is refused though they are.
    pub async fn store_result(&self, action: &reapi::Digest, result: &reapi::ActionResult) -> Verdict {
        self.store_encoded(action, result.encode_to_vec()).await
    }

    /// As [`Target::store_result`], of bytes.
    ///
    /// # Errors
    /// As there.
    pub async fn store_encoded(&self, action: &reapi::Digest, result: impl Into<Bytes>) -> Verdict {
        let answer = self.put_action(self.put_action_request(action, result)).await;
        let Err(status) = answer else { return Ok(()) };
        if self.updates_enabled().await? {
            return Err(refused("UpdateActionResult")(status));
        }
        Err(Stop::NotOffered(
            "updates of the action cache are not enabled".into(),
        ))
    }

    /// Whether the server says that it takes action results.
    ///
    /// # Errors
    /// [`Stop::NotOffered`] if it says nothing.
    pub async fn updates_enabled(&self) -> Result<bool, Stop> {
        let cache = self.cache().await?;
        Ok(cache
            .action_cache_update_capabilities
            .is_some_and(|update| update.update_enabled))
    }

    /// The result of an action, decoded.
    ///
    /// # Errors
    /// [`Stop::Failed`] if none comes.
    pub async fn result_of(&self, action: &reapi::Digest) -> Result<reapi::ActionResult, Stop> {
        let came = self
            .action(self.action_request(action))
            .await
            .due("GetActionResult")?;
        decoded(came)
    }
}

/// An action result from its bytes.
///
/// # Errors
/// [`Stop::Failed`] if they are none.
pub(crate) fn decoded(result: Bytes) -> Result<reapi::ActionResult, Stop> {
    let decoded = reapi::ActionResult::decode(result);
    decoded.map_err(|error| Stop::Failed(format!("no ActionResult came: {error}").into()))
}

// Chunks.

impl Target {
    /// A SplitBlob of this instance.
    pub fn split_request(&self, blob: &reapi::Digest) -> reapi::SplitBlobRequest {
        reapi::SplitBlobRequest {
            instance_name: self.instance().into(),
            blob_digest: Some(blob.clone()),
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// SplitBlob.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn split(&self, request: reapi::SplitBlobRequest) -> Result<reapi::SplitBlobResponse, Status> {
        let about = trace::digests([request.blob_digest.as_ref()].into_iter());
        let answer = self
            .cas()
            .split_blob(self.request(request))
            .await
            .map(Response::into_inner);
        self.trace()
            .note(format!("SplitBlob {about}"), &answer, |answer| {
                format!(
                    "chunks: {}",
                    trace::digests(answer.chunk_digests.iter().map(Some))
                )
            });
        answer
    }

    /// A SpliceBlob of this instance.
    pub fn splice_request(&self, blob: &reapi::Digest, chunks: &[reapi::Digest]) -> reapi::SpliceBlobRequest {
        reapi::SpliceBlobRequest {
            instance_name: self.instance().into(),
            blob_digest: Some(blob.clone()),
            chunk_digests: chunks.to_vec(),
            digest_function: self.function().said(),
            ..Default::default()
        }
    }

    /// SpliceBlob.
    ///
    /// # Errors
    /// The status with which the server refused.
    pub async fn splice(
        &self,
        request: reapi::SpliceBlobRequest,
    ) -> Result<reapi::SpliceBlobResponse, Status> {
        let about = trace::digests([request.blob_digest.as_ref()].into_iter());
        let chunks = trace::digests(request.chunk_digests.iter().map(Some));
        let answer = self
            .cas()
            .splice_blob(self.request(request))
            .await
            .map(Response::into_inner);
        let what = format!("SpliceBlob {about} of {chunks}");
        self.trace().note(what, &answer, |_| String::new());
        answer
    }
}
