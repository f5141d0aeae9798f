//! The calls that checks make, each with a line in the record of calls.

use bytes::Bytes;
use proto::reapi::{
    self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, GetActionResultRequest,
    GetTreeRequest, batch_read_blobs_response, batch_update_blobs_request, batch_update_blobs_response,
};
use proto::wire;
use tonic::{Code, Response, Status};

use crate::target::{Blob, Target};
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
            ..Default::default()
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
