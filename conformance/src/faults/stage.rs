//! Sets the stage for a combination: what Tier 2 holds, what Tier 1 has seen of it, what will be asked.

use bytes::Bytes;
use mock_upstream::{Digest, Mock};
use prost::Message as _;
use proto::reapi;
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _};
use std::time::Duration;

use crate::faults::case::{Case, Crowd, State};
use crate::faults::table::Call;
use crate::oracle::{Times, Truth};
use crate::scenario::output_files;
use crate::site::{Answer, Ask, Client, NotOffered, Site, fresh_name};

/// Clients in a herd.
const HERD: std::ops::RangeInclusive<usize> = 3..=8;

/// Blobs in a batch.
const BATCH: usize = 4;

/// How long a call takes while the stage is set, when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a stage cannot be set.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    #[error(transparent)]
    NotOffered(#[from] NotOffered),
    #[error("{0}, before anything was broken")]
    Refused(String),
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
        Call::Caps => (setting.capabilities(clients), None),
    };
    let truth = setting.truth;
    Ok(Stage { truth, asks, aim })
}

type Asked = Result<(Vec<Ask>, Option<Digest>), StageError>;

impl Setting<'_> {
    fn mock(&self) -> &Mock {
        self.site.mock()
    }

    /// Bytes without a pattern; their length is as likely small as large.
    fn noise(&mut self, len: std::ops::Range<u32>) -> Bytes {
        let magnitude = self
            .random
            .random_range(len.start.ilog2()..=(len.end - 1).ilog2());
        let most = (1u64 << (magnitude + 1)).min(u64::from(len.end));
        let len = self
            .random
            .random_range((1u64 << magnitude).max(u64::from(len.start))..most);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(1)];
        self.random.fill_bytes(&mut bytes);
        bytes.into()
    }

    /// A blob that Tier 2 holds.
    fn stored(&mut self, len: std::ops::Range<u32>) -> Digest {
        let bytes = self.noise(len);
        self.mock().put_blob("", bytes.clone());
        self.truth.blob(&bytes)
    }

    /// Makes a call that has to succeed.
    async fn asks(&self, ask: Ask) -> Result<Answer, StageError> {
        let seen = self.client.ask(self.site, ask, PATIENCE).await;
        let refused = |what: String| StageError::Refused(format!("{:?}: {what}", seen.ask));
        match seen.answer {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(status)) => Err(refused(status.to_string())),
            None => Err(refused("no answer".to_owned())),
        }
    }

    /// Has Tier 1 fetch blobs that Tier 2 holds.
    async fn warm(&self, digests: &[Digest]) -> Result<(), StageError> {
        for digest in digests {
            self.asks(Ask::read(digest)).await?;
        }
        Ok(self.site.settled().await?)
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
        let digest = self.stored(if is_range { 4..2_000_000 } else { 1..2_000_000 });
        // What may be sent instead.
        let decoy = vec![0x55; usize::try_from(digest.size_bytes()).unwrap_or(1)];
        self.mock().put_blob("", decoy);
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
        let mut digests: Vec<_> = (0..BATCH).map(|_| self.stored(1..50_000)).collect();
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
        let present: Vec<_> = (0..BATCH).map(|_| self.stored(1..5_000)).collect();
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
        let digests: Vec<_> = (0..BATCH).map(|_| self.stored(1..300_000)).collect();
        let held = match self.case.state {
            State::Cold => 0,
            State::Half => BATCH / 2,
            State::Warm => BATCH,
        };
        self.warm(&digests[..held]).await?;
        for digest in &digests {
            self.mock().evict("", digest);
        }
        self.grow_old(self.times.lease).await?;
        let aim = self.one_of(&digests[..held]);
        Ok((vec![Ask::FindMissing { digests }; clients], aim))
    }

    async fn trees(&mut self, clients: usize) -> Asked {
        let leaves: Vec<_> = (0..3).map(|_| self.directory(&[])).collect();
        let middle = [self.directory(&leaves[..2]), self.directory(&leaves[1..])];
        let root_bytes = self.directory(&middle);
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
    fn directory(&mut self, children: &[Bytes]) -> Bytes {
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
        self.mock().put_blob("", bytes.clone());
        self.truth.blob(&bytes);
        bytes
    }

    /// A blob that Tier 1 has and Tier 2 has lost.
    async fn lost(&mut self, len: std::ops::Range<u32>) -> Result<Bytes, StageError> {
        let digest = self.stored(len);
        self.warm(&[digest]).await?;
        self.mock().evict("", &digest);
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
        let digest = self.stored(1..2_000_000);
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
            self.mock().evict("", &digest);
        }
        self.grow_old(self.times.write_lease).await?;
        Ok(((0..clients).map(|_| Ask::write(&blob)).collect(), Some(digest)))
    }

    /// Uploads half, hangs up, and asks where to go on.
    async fn half_an_upload(&self, blob: &Bytes) -> Result<Ask, StageError> {
        let digest = Digest::of(blob);
        let name = fresh_name(&digest);
        let half = digest.size_bytes() / 2;
        self.client.hang_up_upload(self.site, &name, blob, half).await;
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
        let outputs = [self.stored(1..5_000), self.stored(1..5_000)];
        let key = Digest::of(&self.noise(10..100));
        let result = self.result(&outputs);
        self.mock().put_action("", &key, result);
        let other = self.result(&outputs);
        self.mock().put_action("", &Digest::of(b"another action"), other);
        match self.case.state {
            State::Cold => {}
            State::Half => self.warm(&outputs).await?,
            // It was asked for, and another node has replaced it since.
            State::Warm => {
                self.asks(Ask::GetAction { key }).await?;
                let newer = self.result(&outputs);
                self.mock().put_action("", &key, newer);
                self.grow_old(self.times.action_lease).await?;
            }
        }
        let aim = if self.case.call == Call::Hit {
            self.one_of(&outputs)
        } else {
            Some(key)
        };
        if self.case.fault.act_name() == "say_present" {
            self.mock().evict("", &outputs[0]);
            return Ok((vec![Ask::GetAction { key }; clients], Some(outputs[0])));
        }
        Ok((vec![Ask::GetAction { key }; clients], aim))
    }

    async fn new_actions(&mut self, clients: usize) -> Asked {
        let key = Digest::of(&self.noise(10..100));
        let outputs = [self.stored(1..5_000), self.stored(1..5_000)];
        match self.case.state {
            State::Cold => {}
            State::Half => {
                for digest in outputs {
                    self.mock().evict("", &digest);
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
    fn capabilities(&mut self, clients: usize) -> Vec<Ask> {
        let instance = match self.case.state {
            State::Cold | State::Warm => String::new(),
            State::Half => format!("team/{}", self.random.random_range(1..1000)),
        };
        vec![Ask::Capabilities { instance }; clients]
    }
}
