//! What a client asks, what it gets, and what Tier 2's log said before and after.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use mock_upstream::{After, Calls, Digest, Match};
use proto::reapi::{self, batch_read_blobs_response, batch_update_blobs_request};
use proto::{rpc, wire};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::site::Site;
use crate::target::{Target, write_requests};
use crate::upstream::UpstreamError;

/// Bytes in one message of an upload.
const MESSAGE_BYTES: usize = 64 * 1024;

/// How long half an upload may take to reach Tier 2.
const UPLOAD_PATIENCE: Duration = Duration::from_secs(1);

/// One request.
#[derive(Clone, PartialEq)]
pub enum Ask {
    /// ByteStream.Read; a limit of 0 is none.
    Read { digest: Digest, offset: u64, limit: u64 },
    /// BatchReadBlobs.
    BatchRead { digests: Vec<Digest> },
    /// FindMissingBlobs.
    FindMissing { digests: Vec<Digest> },
    /// GetTree, all pages.
    GetTree { root: Digest },
    /// ByteStream.Write of a blob under a name, from a byte on. The name is without the instance's.
    Write { name: String, blob: Bytes, from: u64 },
    /// BatchUpdateBlobs.
    BatchUpdate { blobs: Vec<Bytes> },
    /// QueryWriteStatus of an upload of this blob.
    QueryWriteStatus { name: String, digest: Digest },
    /// GetActionResult, nothing inlined.
    GetAction { key: Digest },
    /// UpdateActionResult with an encoded result.
    UpdateAction { key: Digest, result: Bytes },
    /// GetCapabilities of an instance.
    Capabilities { instance: String },
}

impl Ask {
    /// A read of a whole blob.
    pub fn read(digest: &Digest) -> Ask {
        Ask::Read {
            digest: *digest,
            offset: 0,
            limit: 0,
        }
    }

    /// An upload of a whole blob under a fresh name.
    pub fn write(blob: &Bytes) -> Ask {
        Ask::Write {
            name: fresh_name(&Digest::of(blob)),
            blob: blob.clone(),
            from: 0,
        }
    }

    /// The same again by somebody else: an upload gets a name of its own and begins at the beginning.
    #[must_use]
    pub fn again(&self) -> Ask {
        if let Ask::Write { blob, .. } = self {
            Ask::write(blob)
        } else {
            self.clone()
        }
    }
}

/// A name for an upload that nobody has used.
pub fn fresh_name(digest: &Digest) -> String {
    digest.write_name("", &uuid::Uuid::new_v4().to_string())
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Read {
                digest,
                offset: 0,
                limit: 0,
            } => write!(f, "Read of {digest}"),
            Ask::Read {
                digest,
                offset,
                limit,
            } => write!(f, "Read of {digest} from {offset}, at most {limit}"),
            Ask::BatchRead { digests } => write!(f, "BatchReadBlobs of {digests:?}"),
            Ask::FindMissing { digests } => write!(f, "FindMissingBlobs of {digests:?}"),
            Ask::GetTree { root } => write!(f, "GetTree of {root}"),
            Ask::Write { name, from, .. } => write!(f, "Write to {name} from {from}"),
            Ask::BatchUpdate { blobs } => {
                let digests: Vec<_> = blobs.iter().map(|blob| Digest::of(blob)).collect();
                write!(f, "BatchUpdateBlobs of {digests:?}")
            }
            Ask::QueryWriteStatus { name, .. } => write!(f, "QueryWriteStatus of {name}"),
            Ask::GetAction { key } => write!(f, "GetActionResult of {key}"),
            Ask::UpdateAction { key, result } => {
                write!(f, "UpdateActionResult of {key} with {}", Digest::of(result))
            }
            Ask::Capabilities { instance } => write!(f, "GetCapabilities of {instance:?}"),
        }
    }
}

/// One entry of a batch's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Whose it is; `None` if that is no digest.
    pub digest: Option<Digest>,
    /// What became of it.
    pub code: Code,
    /// Bytes of a read.
    pub data: Bytes,
}

/// What came back with OK.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Bytes of a Read.
    Bytes(Bytes),
    /// Entries of a batch, in their order.
    Entries(Vec<Entry>),
    /// What FindMissingBlobs calls missing.
    Missing(Vec<Digest>),
    /// Directories of a tree, in their order.
    Tree(Vec<Bytes>),
    /// `committed_size` of a Write.
    Committed(i64),
    /// QueryWriteStatus.
    Status { committed: i64, complete: bool },
    /// An encoded action result.
    Action(Bytes),
    /// Capabilities.
    Capabilities(Box<reapi::ServerCapabilities>),
}

/// A call as its client saw it, and Tier 2's log around it. Times are those of the log.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What was asked.
    pub ask: Ask,
    /// What came; `None` if nothing did for as long as the client waited.
    pub answer: Option<Result<Answer, Status>>,
    /// When it was sent.
    pub sent_at: Duration,
    /// When it was answered, or given up.
    pub ended_at: Duration,
    /// The log when it was sent.
    pub before: Calls,
    /// The log when it was answered.
    pub after: Calls,
}

impl Seen {
    /// The code with which it ended; `None` if it did not.
    pub fn code(&self) -> Option<Code> {
        let code = |answer: &Result<Answer, Status>| match answer {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        };
        self.answer.as_ref().map(code)
    }

    /// How long it took.
    pub fn took(&self) -> Duration {
        self.ended_at.saturating_sub(self.sent_at)
    }
}

/// A client with a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
}

impl Client {
    /// A new one.
    pub fn of(site: &dyn Site) -> Client {
        Client {
            target: site.target(),
        }
    }

    /// The calls that checks make of a server.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Makes a call and waits for its answer at most so long.
    ///
    /// # Errors
    /// If the mock is lost.
    pub async fn ask(&self, site: &dyn Site, ask: Ask, patience: Duration) -> Result<Seen, UpstreamError> {
        let before = site.upstream().log().await?;
        let answer = timeout(patience, self.answer(&ask)).await.ok();
        let after = site.upstream().log().await?;
        Ok(Seen {
            ask,
            answer,
            sent_at: before.now,
            ended_at: after.now,
            before: before.calls,
            after: after.calls,
        })
    }

    /// Reads a blob until so many bytes came, and hangs up. How many came.
    ///
    /// # Errors
    /// The status with which the call ended before.
    pub async fn hang_up_read(&self, digest: &Digest, bytes: u64) -> Result<u64, Status> {
        let request = proto::bytestream::ReadRequest {
            resource_name: self.target.named(&digest.read_name("")),
            ..proto::bytestream::ReadRequest::default()
        };
        let mut stream = self
            .target
            .byte_stream()
            .read(self.target.request(request))
            .await?
            .into_inner();
        let mut came = 0;
        while came < bytes {
            match stream.message().await? {
                Some(message) => came += message.data.len() as u64,
                None => break,
            }
        }
        Ok(came)
    }

    /// Uploads a blob up to a byte, and hangs up when Tier 2 has had them, or cannot be expected to have them any more:
    /// a proxy may keep them to itself until it has all.
    ///
    /// # Errors
    /// If the mock is lost.
    pub async fn hang_up_upload(
        &self,
        site: &dyn Site,
        name: &str,
        blob: &Bytes,
        to: u64,
    ) -> Result<(), UpstreamError> {
        let end = usize::try_from(to).unwrap_or(usize::MAX).min(blob.len());
        let mut requests = write_requests(&self.target.named(name), &blob.slice(..end), MESSAGE_BYTES);
        for request in &mut requests {
            request.finish_write = false;
        }
        let digest = Digest::of(blob);
        let gate = site
            .upstream()
            .hold(Match::write(&digest), After::Bytes(to))
            .await?;
        let requests = futures::stream::iter(requests).chain(futures::stream::pending());
        let mut client = self.target.byte_stream();
        tokio::select! {
            _answer = client.write(self.target.request(requests)) => {}
            _reached = timeout(UPLOAD_PATIENCE, gate.reached()) => {}
        }
        gate.release().await
    }

    async fn answer(&self, ask: &Ask) -> Result<Answer, Status> {
        let target = &self.target;
        Ok(match ask {
            Ask::Read {
                digest,
                offset,
                limit,
            } => {
                let name = target.named(&digest.read_name(""));
                let bytes = target.read(&name, wire_size(*offset), wire_size(*limit)).await?;
                Answer::Bytes(bytes.into())
            }
            Ask::BatchRead { digests } => Answer::Entries(self.batch_read(digests).await?),
            Ask::FindMissing { digests } => {
                let missing = target
                    .missing(digests.iter().map(Digest::to_wire).collect())
                    .await?;
                let parse = |digest: &reapi::Digest| Digest::from_wire(Some(digest));
                let missing: Result<Vec<_>, _> = missing.iter().map(parse).collect();
                Answer::Missing(missing.map_err(|error| Status::internal(format!("in the answer: {error}")))?)
            }
            Ask::GetTree { root } => Answer::Tree(self.tree(root).await?),
            Ask::Write { name, blob, from } => {
                let requests = upload(&target.named(name), blob, *from);
                let committed = target.write_requests(requests).await?;
                Answer::Committed(committed)
            }
            Ask::BatchUpdate { blobs } => Answer::Entries(self.batch_update(blobs).await?),
            Ask::QueryWriteStatus { name, .. } => {
                let status = target.query(&target.named(name)).await?;
                Answer::Status {
                    committed: status.committed_size,
                    complete: status.complete,
                }
            }
            Ask::GetAction { key } => {
                let request = reapi::GetActionResultRequest {
                    instance_name: target.instance().to_owned(),
                    action_digest: Some(key.to_wire()),
                    ..reapi::GetActionResultRequest::default()
                };
                let result = target
                    .action_cache()
                    .get_action_result(target.request(request))
                    .await?;
                Answer::Action(result.into_inner().0)
            }
            Ask::UpdateAction { key, result } => {
                let request = wire::UpdateActionResultRequest {
                    instance_name: target.instance().to_owned(),
                    action_digest: Some(key.to_wire()),
                    action_result: Some(result.clone()),
                    ..wire::UpdateActionResultRequest::default()
                };
                let result = target
                    .action_cache()
                    .update_action_result(target.request(request))
                    .await?;
                Answer::Action(result.into_inner().0)
            }
            Ask::Capabilities { instance } => {
                let request = reapi::GetCapabilitiesRequest {
                    instance_name: instance.clone(),
                };
                let answer = target
                    .capabilities()
                    .get_capabilities(target.request(request))
                    .await?;
                Answer::Capabilities(Box::new(answer.into_inner()))
            }
        })
    }

    async fn batch_read(&self, digests: &[Digest]) -> Result<Vec<Entry>, Status> {
        let request = reapi::BatchReadBlobsRequest {
            instance_name: self.target.instance().to_owned(),
            digests: digests.iter().map(Digest::to_wire).collect(),
            ..reapi::BatchReadBlobsRequest::default()
        };
        let answer = self
            .target
            .cas()
            .batch_read_blobs(self.target.request(request))
            .await?
            .into_inner();
        let entry = |response: batch_read_blobs_response::Response| Entry {
            digest: Digest::from_wire(response.digest.as_ref()).ok(),
            code: code_of(response.status),
            data: response.data,
        };
        Ok(answer.responses.into_iter().map(entry).collect())
    }

    async fn batch_update(&self, blobs: &[Bytes]) -> Result<Vec<Entry>, Status> {
        let entry = |blob: &Bytes| batch_update_blobs_request::Request {
            digest: Some(Digest::of(blob).to_wire()),
            data: blob.clone(),
            ..batch_update_blobs_request::Request::default()
        };
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.target.instance().to_owned(),
            requests: blobs.iter().map(entry).collect(),
            ..reapi::BatchUpdateBlobsRequest::default()
        };
        let answer = self
            .target
            .cas()
            .batch_update_blobs(self.target.request(request))
            .await?
            .into_inner();
        let entries = answer.responses.into_iter().map(|response| Entry {
            digest: Digest::from_wire(response.digest.as_ref()).ok(),
            code: code_of(response.status),
            data: Bytes::new(),
        });
        Ok(entries.collect())
    }

    async fn tree(&self, root: &Digest) -> Result<Vec<Bytes>, Status> {
        let request = reapi::GetTreeRequest {
            instance_name: self.target.instance().to_owned(),
            root_digest: Some(root.to_wire()),
            ..reapi::GetTreeRequest::default()
        };
        let mut pages = self
            .target
            .cas()
            .get_tree(self.target.request(request))
            .await?
            .into_inner();
        let mut directories = Vec::new();
        while let Some(page) = pages.message().await? {
            directories.extend(page.directories);
        }
        Ok(directories)
    }
}

/// The messages of an upload of `blob` from a byte on.
pub fn upload(name: &str, blob: &Bytes, from: u64) -> Vec<proto::bytestream::WriteRequest> {
    let start = usize::try_from(from).unwrap_or(usize::MAX).min(blob.len());
    let mut requests = write_requests(name, &blob.slice(start..), MESSAGE_BYTES);
    for request in &mut requests {
        request.write_offset += wire_size(from);
    }
    requests
}

fn wire_size(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn code_of(status: Option<rpc::Status>) -> Code {
    Code::from(status.unwrap_or_default().code)
}
