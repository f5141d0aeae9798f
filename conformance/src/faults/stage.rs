//! Sets the stage for a combination: what Tier 2 holds, what Tier 1 has seen of it, what will be asked.

use bytes::Bytes;
use mock_upstream::Digest;
use prost::Message as _;
use proto::reapi;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};
use std::time::Duration;
use tonic::Code;

use crate::faults::case::{Case, Crowd, State};
use crate::faults::table::Call;
use crate::oracle::{Times, Truth};
use crate::scenario::output_files;
use crate::site::{Answer, Ask, Client, NotOffered, Site, SiteError, fresh_name};
use crate::upstream::{Upstream, UpstreamError};

/// Clients in a herd.
const HERD: std::ops::RangeInclusive<usize> = 3..=8;

/// Blobs in a batch.
const BATCH: usize = 4;

/// A salted blob has at least so many bytes, or chance alone would make it known.
const SALTED_MIN: u64 = 16;

/// What a site lacks that answers UNIMPLEMENTED.
const UNOFFERED: &str = "a call that sets the stage";

/// How long a call takes while the stage is set, when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    #[error("{0}, before anything was broken")]
    Refused(String),
    #[error(transparent)]
    Lost(#[from] UpstreamError),
}

impl From<SiteError> for StageError {
    fn from(error: SiteError) -> StageError {
        match error {
            SiteError::NotOffered(hook) => StageError::NotOffered(hook),
            SiteError::Upstream(error) => StageError::Lost(error),
        }
    }
}

/// A stage that was set.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) truth: Truth,
    /// One for each client.
    pub(super) asks: Vec<Ask>,
    /// The blob or action that the fault is about.
    pub(super) aim: Option<Digest>,
}

struct Setting<'a> {
    site: &'a dyn Site,
    client: Client,
    random: &'a mut StdRng,
    case: &'a Case,
    times: Times,
    truth: Truth,
}

pub(super) async fn set(
    site: &dyn Site,
    case: &Case,
    times: Times,
    random: &mut StdRng,
) -> Result<Stage, StageError> {
    let clients = match case.crowd {
        Crowd::One => 1,
        Crowd::Herd => random.random_range(HERD),
    };
    let mut setting = Setting {
        site,
        client: Client::of(site),
        random,
        case,
        times,
        truth: Truth::default(),
    };
    let (asks, aim) = match case.call {
        Call::Read | Call::Range => setting.reads(clients).await?,
        Call::Batch => setting.batches(clients).await?,
        Call::Find => setting.presence(clients).await?,
        Call::Repair => setting.repairs(clients).await?,
        Call::Tree => setting.trees(clients).await?,
        Call::Write => setting.uploads(clients).await?,
        Call::Early => setting.known_uploads(clients).await?,
        Call::Status => setting.statuses(clients).await?,
        Call::Update => setting.updates(clients).await?,
        Call::Get | Call::Hit => setting.actions(clients).await?,
        Call::Put => setting.new_actions(clients).await?,
        Call::Caps => (setting.capabilities(clients)?, None),
    };
    let truth = setting.truth;
    Ok(Stage { truth, asks, aim })
}

type Asked = Result<(Vec<Ask>, Option<Digest>), StageError>;

impl Setting<'_> {
    fn upstream(&self) -> &Upstream {
        self.site.upstream()
    }

    /// Bytes without a pattern; their length is as likely small as large.
    fn noise(&mut self, len: std::ops::Range<u32>) -> Bytes {
        let magnitude = self
            .random
            .random_range(len.start.ilog2()..=(len.end - 1).ilog2());
        let most = (1u64 << (magnitude + 1)).min(u64::from(len.end));
        let mut len = self
            .random
            .random_range((1u64 << magnitude).max(u64::from(len.start))..most);
        if self.site.salt().is_some() {
            len = len.max(SALTED_MIN);
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(1)];
        self.random.fill_bytes(&mut bytes);
        if let Some(salt) = self.site.salt() {
            for (byte, salt) in bytes.iter_mut().zip(salt.to_le_bytes()) {
                *byte ^= salt;
            }
        }
        bytes.into()
    }

    /// A blob that Tier 2 holds.
    async fn stored(&mut self, len: std::ops::Range<u32>) -> Result<Digest, StageError> {
        let bytes = self.noise(len);
        self.upstream().put_blob(bytes.clone()).await?;
        Ok(self.truth.blob(&bytes))
    }

    /// So many blobs that Tier 2 holds.
    async fn some_stored(
        &mut self,
        count: usize,
        len: std::ops::Range<u32>,
    ) -> Result<Vec<Digest>, StageError> {
        let mut digests = Vec::new();
        for _ in 0..count {
            digests.push(self.stored(len.clone()).await?);
        }
        Ok(digests)
    }

    async fn evict(&self, digest: &Digest) -> Result<(), StageError> {
        Ok(self.upstream().evict(digest).await?)
    }

    /// Makes a call that has to succeed.
    async fn asks(&self, ask: Ask) -> Result<Answer, StageError> {
        let seen = self.client.ask(self.site, ask, PATIENCE).await?;
        let refused = |what: String| StageError::Refused(format!("{:?}: {what}", seen.ask));
        match seen.answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(status)) if status.code() == Code::Unimplemented => Err(NotOffered(UNOFFERED).into()),
            Some(Err(status)) => Err(refused(status.to_string())),
            None => Err(refused("no answer".to_owned())),
        }
    }

    /// Has Tier 1 fetch blobs that Tier 2 holds.
    async fn warm(&self, digests: &[Digest]) -> Result<(), StageError> {
        for digest in digests {
            self.asks(Ask::read(digest)).await?;
            self.site.kept(digest).await?;
        }
        Ok(())
    }

    /// Lets what Tier 2 said before be too old to be said again.
    async fn grow_old(&self, lease: Duration) -> Result<(), StageError> {
        Ok(self.site.pass(lease + Duration::from_secs(1)).await?)
    }

    fn one_of(&mut self, digests: &[Digest]) -> Option<Digest> {
        let at = self.random.random_range(0..digests.len().max(1));
        digests.get(at).copied()
    }

    async fn reads(&mut self, clients: usize) -> Asked {
        let is_range = self.case.call == Call::Range;
        let digest = self
            .stored(if is_range { 4..2_000_000 } else { 1..2_000_000 })
            .await?;
        // What may be sent instead.
        let decoy = vec![0x55; usize::try_from(digest.size_bytes()).unwrap_or(1)];
        self.upstream().put_blob(decoy.into()).await?;
        match self.case.state {
            State::Cold => {}
            State::Half => drop(
                self.asks(Ask::FindMissing {
                    digests: vec![digest],
                })
                .await?,
            ),
            State::Warm => self.warm(&[digest]).await?,
        }
        let ask = if is_range {
            let offset = self.random.random_range(1..digest.size_bytes() - 1);
            let limit = self.random.random_range(1..digest.size_bytes() - offset);
            Ask::Read {
                digest,
                offset,
                limit,
            }
        } else {
            Ask::read(&digest)
        };
        Ok((vec![ask; clients], Some(digest)))
    }

    async fn batches(&mut self, clients: usize) -> Asked {
        let mut digests = self.some_stored(BATCH, 1..50_000).await?;
        let warm = match self.case.state {
            State::Cold => 0,
            State::Half => BATCH / 2,
            State::Warm => BATCH,
        };
        self.warm(&digests[..warm]).await?;
        let aim = self.one_of(
            digests
                .get(warm..)
                .filter(|cold| !cold.is_empty())
                .unwrap_or(&digests),
        );
        // A batch may name a blob twice.
        digests.push(digests[0]);
        let ask = Ask::BatchRead { digests };
        Ok((vec![ask; clients], aim))
    }

    async fn presence(&mut self, clients: usize) -> Asked {
        let present = self.some_stored(BATCH, 1..5_000).await?;
        let absent: Vec<_> = (0..2).map(|_| Digest::of(&self.noise(10..100))).collect();
        let mut unsaid = present.clone();
        match self.case.state {
            State::Cold => {}
            // Tier 2 has just said so of these.
            State::Half => {
                let known = unsaid.drain(..BATCH / 2).collect();
                drop(self.asks(Ask::FindMissing { digests: known }).await?);
            }
            State::Warm => {
                self.warm(&present).await?;
                self.grow_old(self.times.lease).await?;
            }
        }
        let hides = ["say_present", "end_early"].contains(&self.case.fault.act_name());
        let aim = self.one_of(if hides { &absent } else { &unsaid });
        let digests = [present, absent, vec![Digest::of(b"")]].concat();
        let ask = Ask::FindMissing { digests };
        Ok((vec![ask; clients], aim))
    }

    /// What Tier 1 holds of these can be uploaded again.
    async fn repairs(&mut self, clients: usize) -> Asked {
        let digests = self.some_stored(BATCH, 1..300_000).await?;
        let held = match self.case.state {
            State::Cold => 0,
            State::Half => BATCH / 2,
            State::Warm => BATCH,
        };
        self.warm(&digests[..held]).await?;
        for digest in &digests {
            self.evict(digest).await?;
        }
        self.grow_old(self.times.lease).await?;
        let aim = self.one_of(&digests[..held]);
        Ok((vec![Ask::FindMissing { digests }; clients], aim))
    }

    async fn trees(&mut self, clients: usize) -> Asked {
        let mut leaves = Vec::new();
        for _ in 0..3 {
            leaves.push(self.directory(&[]).await?);
        }
        let middle = [
            self.directory(&leaves[..2]).await?,
            self.directory(&leaves[1..]).await?,
        ];
        let root_bytes = self.directory(&middle).await?;
        let root = Digest::of(&root_bytes);
        let all = [leaves.as_slice(), &middle, &[root_bytes]].concat();
        let digests: Vec<_> = all.iter().map(|bytes| Digest::of(bytes)).collect();
        self.truth.trees.insert(root, all.into_iter().collect());
        let cold = match self.case.state {
            State::Cold => digests.as_slice(),
            State::Half => {
                self.warm(&digests[3..]).await?;
                &digests[..3]
            }
            State::Warm => {
                self.warm(&digests).await?;
                &digests
            }
        };
        let aim = self.one_of(cold);
        Ok((vec![Ask::GetTree { root }; clients], aim))
    }

    /// A directory that Tier 2 holds, with a file that nobody else has.
    async fn directory(&mut self, children: &[Bytes]) -> Result<Bytes, StageError> {
        let file = reapi::FileNode {
            name: "file".to_owned(),
            digest: Some(Digest::of(&self.noise(10..100)).to_wire()),
            ..reapi::FileNode::default()
        };
        let child = |(number, bytes): (usize, &Bytes)| reapi::DirectoryNode {
            name: format!("d{number}"),
            digest: Some(Digest::of(bytes).to_wire()),
        };
        let directory = reapi::Directory {
            files: vec![file],
            directories: children.iter().enumerate().map(child).collect(),
            ..reapi::Directory::default()
        };
        let bytes = Bytes::from(directory.encode_to_vec());
        self.upstream().put_blob(bytes.clone()).await?;
        self.truth.blob(&bytes);
        Ok(bytes)
    }

    /// A blob that Tier 1 has and Tier 2 has lost.
    async fn lost(&mut self, len: std::ops::Range<u32>) -> Result<Bytes, StageError> {
        let digest = self.stored(len).await?;
        self.warm(&[digest]).await?;
        self.evict(&digest).await?;
        Ok(self.truth.blobs[&digest].clone())
    }

    fn new_blob(&mut self, len: std::ops::Range<u32>) -> Bytes {
        let bytes = self.noise(len);
        self.truth.blob(&bytes);
        bytes
    }

    async fn uploads(&mut self, clients: usize) -> Asked {
        let len = if self.case.fault.act_name() == "starve" {
            // More than the window that is left.
            2_000_000..3_000_000
        } else {
            2..2_000_000
        };
        let mut asks = Vec::new();
        let blob = match self.case.state {
            State::Cold => self.new_blob(len),
            State::Half => {
                let blob = self.new_blob(len);
                asks.push(self.half_an_upload(&blob).await?);
                blob
            }
            State::Warm => {
                let blob = self.lost(len).await?;
                self.grow_old(self.times.write_lease).await?;
                blob
            }
        };
        while asks.len() < clients {
            asks.push(Ask::write(&blob));
        }
        Ok((asks, Some(Digest::of(&blob))))
    }

    /// Tier 2 said so, but not just now; and in one state it is no longer true.
    async fn known_uploads(&mut self, clients: usize) -> Asked {
        let digest = self.stored(1..2_000_000).await?;
        let blob = self.truth.blobs[&digest].clone();
        if self.case.state == State::Warm {
            self.warm(&[digest]).await?;
        }
        drop(
            self.asks(Ask::FindMissing {
                digests: vec![digest],
            })
            .await?,
        );
        if self.case.state == State::Half {
            self.evict(&digest).await?;
        }
        self.grow_old(self.times.write_lease).await?;
        Ok(((0..clients).map(|_| Ask::write(&blob)).collect(), Some(digest)))
    }

    /// Uploads half, hangs up, and asks where to go on.
    async fn half_an_upload(&self, blob: &Bytes) -> Result<Ask, StageError> {
        let digest = Digest::of(blob);
        let name = fresh_name(&digest);
        let half = digest.size_bytes() / 2;
        self.client.hang_up_upload(self.site, &name, blob, half).await?;
        let asked = Ask::QueryWriteStatus {
            name: name.clone(),
            digest,
        };
        let from = if let Answer::Status { committed, .. } = self.asks(asked).await? {
            u64::try_from(committed).unwrap_or(0)
        } else {
            0
        };
        let blob = blob.clone();
        Ok(Ask::Write { name, blob, from })
    }

    async fn statuses(&mut self, clients: usize) -> Asked {
        let (mut asks, aim) = self.uploads(1).await?;
        let name = match asks.first() {
            Some(Ask::Write { name, .. }) => name.clone(),
            _ => String::new(),
        };
        if let Some(digest) = aim {
            let ask = Ask::QueryWriteStatus { name, digest };
            asks.extend(vec![ask; clients]);
        }
        Ok((asks, aim))
    }

    async fn updates(&mut self, clients: usize) -> Asked {
        let mut blobs = Vec::new();
        for number in 0..BATCH {
            blobs.push(match self.case.state {
                State::Half if number % 2 == 0 => {
                    let blob = self.new_blob(1..50_000);
                    self.asks(Ask::write(&blob)).await?;
                    blob
                }
                State::Cold | State::Half => self.new_blob(1..50_000),
                State::Warm => self.lost(1..50_000).await?,
            });
        }
        if self.case.state == State::Warm {
            self.grow_old(self.times.write_lease).await?;
        }
        let unsent: Vec<_> = blobs
            .iter()
            .skip(1)
            .step_by(2)
            .map(|blob| Digest::of(blob))
            .collect();
        let aim = self.one_of(&unsent);
        Ok((vec![Ask::BatchUpdate { blobs }; clients], aim))
    }

    /// An encoded result with two outputs.
    fn result(&mut self, outputs: &[Digest]) -> Bytes {
        let result = reapi::ActionResult {
            output_files: output_files(outputs),
            // What tells one result of an action from another.
            exit_code: self.random.random_range(1..i32::MAX),
            ..reapi::ActionResult::default()
        };
        result.encode_to_vec().into()
    }

    async fn actions(&mut self, clients: usize) -> Asked {
        let outputs = [self.stored(1..5_000).await?, self.stored(1..5_000).await?];
        let key = Digest::of(&self.noise(10..100));
        let result = self.result(&outputs);
        self.upstream().put_action(&key, result).await?;
        let (another, other) = (Digest::of(b"another action"), self.result(&outputs));
        self.upstream().put_action(&another, other).await?;
        match self.case.state {
            State::Cold => {}
            State::Half => self.warm(&outputs).await?,
            // It was asked for, and another node has replaced it since.
            State::Warm => {
                self.asks(Ask::GetAction { key }).await?;
                let newer = self.result(&outputs);
                self.upstream().put_action(&key, newer).await?;
                self.grow_old(self.times.action_lease).await?;
            }
        }
        let aim = if self.case.call == Call::Hit {
            self.one_of(&outputs)
        } else {
            Some(key)
        };
        if self.case.fault.act_name() == "say_present" {
            self.evict(&outputs[0]).await?;
            return Ok((vec![Ask::GetAction { key }; clients], Some(outputs[0])));
        }
        Ok((vec![Ask::GetAction { key }; clients], aim))
    }

    async fn new_actions(&mut self, clients: usize) -> Asked {
        let key = Digest::of(&self.noise(10..100));
        let outputs = [self.stored(1..5_000).await?, self.stored(1..5_000).await?];
        match self.case.state {
            State::Cold => {}
            State::Half => {
                for digest in outputs {
                    self.evict(&digest).await?;
                    let blob = self.truth.blobs[&digest].clone();
                    self.asks(Ask::write(&blob)).await?;
                }
            }
            State::Warm => {
                let result = self.result(&outputs);
                self.asks(Ask::UpdateAction { key, result }).await?;
                self.asks(Ask::GetAction { key }).await?;
            }
        }
        let asks = (0..clients)
            .map(|_| Ask::UpdateAction {
                key,
                result: self.result(&outputs),
            })
            .collect();
        Ok((asks, Some(key)))
    }

    /// Tier 2's are asked for when an instance is new to the proxy.
    fn capabilities(&mut self, clients: usize) -> Result<Vec<Ask>, StageError> {
        let instance = match self.case.state {
            State::Cold | State::Warm => self.client.target().instance().to_owned(),
            State::Half if !self.site.takes_any_instance() => {
                return Err(NotOffered("an instance name that is new to it").into());
            }
            State::Half => {
                let salt = self
                    .site
                    .salt()
                    .map_or(String::new(), |salt| format!("{salt:x}-"));
                format!("team/{salt}{}", self.random.random_range(1..1000))
            }
        };
        Ok(vec![Ask::Capabilities { instance }; clients])
    }
}
