//! Calls as a client makes them, each with an end: no answer in time is an answer too, and never the right one.

use std::time::Duration;

use bytes::Bytes;
use conformance::Target;
use conformance::target::Blob;
use prost::Message as _;
use proto::reapi::{
    Action, ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, Digest, GetActionResultRequest,
    OutputFile, batch_update_blobs_request,
};
use proto::wire::UpdateActionResultRequest;
use tokio::time::timeout;
use tonic::{Code, Status};

/// Longer than anything that a node may wait for by the configuration it has here.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// A server or a node, as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Client(pub(crate) Target);

impl Client {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
        Ok(Client(Target::connect(url, "").await?))
    }

    /// Whether the blob is said to be there.
    pub(crate) async fn presence(&self, digest: &Digest) -> Result<bool, Status> {
        let missing = in_time(self.0.missing(vec![digest.clone()])).await?;
        Ok(missing.is_empty())
    }

    pub(crate) async fn read(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        in_time(self.0.read(&self.0.read_name(digest), 0, 0)).await
    }

    pub(crate) async fn batch_read(&self, digest: &Digest) -> Result<Bytes, Status> {
        let request = BatchReadBlobsRequest {
            instance_name: self.0.instance().into(),
            digests: vec![digest.clone()],
            ..Default::default()
        };
        let answer = in_time(async { self.0.cas().batch_read_blobs(request).await }).await?;
        let [entry] = &answer.into_inner().responses[..] else {
            return Err(Status::internal("not one answer for one blob"));
        };
        of_entry(entry.status.as_ref())?;
        Ok(entry.data.clone())
    }

    /// How many directories the tree has.
    pub(crate) async fn tree(&self, root: &Digest) -> Result<usize, Status> {
        let request = self.0.tree_request(root);
        in_time(async {
            let mut pages = self.0.cas().get_tree(request).await?.into_inner();
            let mut directories = 0;
            while let Some(page) = pages.message().await? {
                directories += page.directories.len();
            }
            Ok(directories)
        })
        .await
    }

    pub(crate) async fn write(&self, blob: &Blob) -> Result<(), Status> {
        let name = self.0.write_name(&blob.digest);
        in_time(self.0.write(&name, &blob.bytes, 1024 * 1024)).await?;
        Ok(())
    }

    pub(crate) async fn batch_update(&self, blob: &Blob) -> Result<(), Status> {
        let request = BatchUpdateBlobsRequest {
            instance_name: self.0.instance().into(),
            requests: vec![batch_update_blobs_request::Request {
                digest: Some(blob.digest.clone()),
                data: blob.bytes.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = in_time(async { self.0.cas().batch_update_blobs(request).await }).await?;
        let [entry] = &answer.into_inner().responses[..] else {
            return Err(Status::internal("not one answer for one blob"));
        };
        of_entry(entry.status.as_ref())
    }

    pub(crate) async fn action(&self, key: &Digest) -> Result<ActionResult, Status> {
        let request = GetActionResultRequest {
            instance_name: self.0.instance().into(),
            action_digest: Some(key.clone()),
            ..Default::default()
        };
        let answer = in_time(async { self.0.action_cache().get_action_result(request).await }).await?;
        let bytes: Bytes = answer.into_inner().0;
        ActionResult::decode(bytes).map_err(|error| Status::internal(format!("no action result: {error}")))
    }

    pub(crate) async fn put_action(&self, key: &Digest, output: &Digest) -> Result<(), Status> {
        let request = UpdateActionResultRequest {
            instance_name: self.0.instance().into(),
            action_digest: Some(key.clone()),
            action_result: Some(result_with(output).encode_to_vec().into()),
            ..Default::default()
        };
        in_time(async { self.0.action_cache().update_action_result(request).await }).await?;
        Ok(())
    }

    pub(crate) async fn capabilities(&self) -> Result<(), Status> {
        in_time(self.0.server_capabilities()).await.map(drop)
    }
}

/// An action of its own. Some servers look into it before they give its result back.
pub(crate) fn action() -> Blob {
    let action = Action {
        command_digest: Some(Blob::of("").digest),
        input_root_digest: Some(Blob::of("").digest),
        salt: Blob::random(16).bytes,
        ..Default::default()
    };
    Blob::of(action.encode_to_vec())
}

/// The first output of a result.
pub(crate) fn output(result: &ActionResult) -> Option<&Digest> {
    result.output_files.first()?.digest.as_ref()
}

/// A result with one output.
fn result_with(output: &Digest) -> ActionResult {
    ActionResult {
        output_files: vec![OutputFile {
            path: "out".into(),
            digest: Some(output.clone()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_elapsed| {
        Err(Status::deadline_exceeded(format!(
            "no answer within {ANSWER_MAX:?}"
        )))
    };
    timeout(ANSWER_MAX, call).await.unwrap_or_else(late)
}

/// An entry's own status, where a batch has one per blob.
fn of_entry(status: Option<&proto::rpc::Status>) -> Result<(), Status> {
    match status.map(|status| (Code::from(status.code), &status.message)) {
        None | Some((Code::Ok, _)) => Ok(()),
        Some((code, message)) => Err(Status::new(code, message.clone())),
    }
}
