//! The calls of clients, as they are answered while Tier 2 is there and while it is known to be down (R13).
//!
//! What lies below knows nothing of modes: in an outage its calls to Tier 2 fail at once. Here it is decided whether it is
//! asked at all, and what a client is told of such a failure.

mod table;

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::Instant;

pub use self::table::WhenDown;
use self::table::{Answer, Asked, Facts, answer};
use super::{CallError, Reading, Tiered, TreeError, TreePage, TreeToken, Upload, WriteStatus};
use crate::blob::{ByteRange, Verified};
use crate::call::Call;
use crate::digest::{ActionDigest, Digest};
use crate::tier2::health::{Outlook, Service};
use crate::tier2::{RawActionResult, Tier2Error};

/// What is done about outages.
#[derive(Clone, Debug)]
pub struct OutageOptions {
    /// `tier2.when_down`.
    pub when_down: WhenDown,
    /// `tier2.max_outage`: how long what was known before still counts. Only with [`WhenDown::ServeTier1`].
    pub max_outage: Duration,
}

/// What is known of Tier 2, and what to do about it.
#[derive(Clone)]
pub(super) struct Outage {
    options: OutageOptions,
    outlook: Outlook,
}

impl Outage {
    pub(super) fn new(options: OutageOptions, outlook: Outlook) -> Outage {
        Outage { options, outlook }
    }

    fn cas_down(&self) -> Option<Instant> {
        self.outlook.of(Service::Cas).down_since()
    }

    fn action_cache_down(&self) -> Option<Instant> {
        self.outlook.of(Service::ActionCache).down_since()
    }

    fn answer(&self, asked: Asked, since: Instant, known_before: bool) -> Answer {
        let facts = Facts {
            known_before,
            down_for: since.elapsed(),
            max_outage: self.options.max_outage,
        };
        answer(self.options.when_down, asked, facts)
    }

    /// Whether what was known before can make a difference.
    fn looks_back(&self) -> bool {
        self.options.when_down == WhenDown::ServeTier1
    }

    /// Why a call that needs the CAS is not begun, if it is not.
    fn refusal(&self, asked: Asked) -> Option<CallError> {
        let since = self.cas_down()?;
        verdict(self.answer(asked, since, false))
    }

    /// What a client is told of a failure: that of the call that noticed an outage is answered like those that come after.
    fn told(&self, asked: Asked, down_since: Option<Instant>, error: CallError) -> CallError {
        match down_since.filter(|_| is_outage(&error)) {
            Some(since) => match self.answer(asked, since, false) {
                // Tier 2's own word, where it has said more.
                Answer::Unavailable | Answer::Known | Answer::Tier1 => error,
                Answer::NotFound => Tier2Error::NotFound.into(),
                Answer::Refused => CallError::DoneWithout,
            },
            None => error,
        }
    }
}

/// The error that an answer is; `None` if it is none.
fn verdict(answer: Answer) -> Option<CallError> {
    match answer {
        Answer::Known | Answer::Tier1 => None,
        Answer::Unavailable => Some(Tier2Error::known_down().into()),
        Answer::NotFound => Some(Tier2Error::NotFound.into()),
        Answer::Refused => Some(CallError::DoneWithout),
    }
}

fn is_outage(error: &CallError) -> bool {
    matches!(error, CallError::Tier2(error) if error.is_outage_like())
}

impl Tiered {
    /// See [`super::Reads::open`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says.
    pub async fn open(&self, call: &Call, digest: &Digest, range: ByteRange) -> Result<Reading, CallError> {
        if !digest.is_empty()
            && let Some(refusal) = self.outage.refusal(Asked::Bytes)
        {
            return Err(refusal);
        }
        self.reads.open(call, digest, range).await
    }

    /// See [`super::Reads::batch`].
    pub async fn read_batch(&self, call: &Call, digests: &[Digest]) -> Vec<Result<Bytes, CallError>> {
        let Some(refusal) = self.outage.refusal(Asked::Bytes) else {
            return self.reads.batch(call, digests).await;
        };
        let answer = |digest: &Digest| match digest.is_empty() {
            true => Ok(Bytes::new()),
            false => Err(refusal.clone()),
        };
        digests.iter().map(answer).collect()
    }

    /// See [`super::Reads::tree`].
    pub fn tree(
        &self,
        call: &Call,
        root: &Digest,
        page_size: usize,
        from: Option<TreeToken>,
    ) -> impl Stream<Item = Result<TreePage, TreeError>> + Send + use<> {
        match self.outage.refusal(Asked::Bytes).filter(|_| !root.is_empty()) {
            Some(refusal) => {
                let refused = Err(TreeError::Call(refusal));
                futures::stream::once(std::future::ready(refused)).left_stream()
            }
            None => self.reads.tree(call, root, page_size, from).right_stream(),
        }
    }

    /// See [`super::Writes::find_missing`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says.
    pub async fn find_missing(&self, call: &Call, digests: &[Digest]) -> Result<Vec<Digest>, CallError> {
        if digests.iter().all(Digest::is_empty) {
            return Ok(Vec::new());
        }
        let failure = match self.outage.cas_down() {
            Some(_) => Tier2Error::known_down().into(),
            None => match self.writes.find_missing(call, digests).await {
                Err(error) if is_outage(&error) => error,
                done => return done,
            },
        };
        let Some(since) = self.outage.cas_down() else {
            return Err(failure);
        };
        let known_before = self.outage.looks_back() && self.writes.0.presence.known_at(call, digests, since);
        match self.outage.answer(Asked::Missing, since, known_before) {
            Answer::Known => Ok(Vec::new()),
            Answer::Unavailable | Answer::Tier1 | Answer::NotFound | Answer::Refused => {
                Err(self.outage.told(Asked::Missing, Some(since), failure))
            }
        }
    }

    /// See [`super::Writes::begin`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says. Those of the upload itself are to be passed through
    /// [`Tiered::upload_error`].
    pub async fn begin(
        &self,
        call: &Call,
        digest: &Digest,
        name: &str,
        offset: u64,
    ) -> Result<Upload, CallError> {
        if !digest.is_empty()
            && let Some(refusal) = self.outage.refusal(Asked::Store)
        {
            return Err(refusal);
        }
        self.writes.begin(call, digest, name, offset).await
    }

    /// What a client is told of an upload that failed.
    pub fn upload_error(&self, error: CallError) -> CallError {
        self.outage.told(Asked::Store, self.outage.cas_down(), error)
    }

    /// See [`super::Writes::status`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says.
    pub async fn write_status(
        &self,
        call: &Call,
        digest: &Digest,
        name: &str,
    ) -> Result<WriteStatus, CallError> {
        let status = self.writes.status(call, digest, name).await;
        status.map_err(|error| self.upload_error(error))
    }

    /// See [`super::Writes::batch`].
    pub async fn write_batch(
        &self,
        call: &Call,
        blobs: Vec<(Verified, Bytes)>,
    ) -> Vec<Result<(), CallError>> {
        if let Some(refusal) = self.outage.refusal(Asked::Store) {
            let answer = |(proof, _): &(Verified, Bytes)| match proof.digest().is_empty() {
                true => Ok(()),
                false => Err(refusal.clone()),
            };
            return blobs.iter().map(answer).collect();
        }
        let answers = self.writes.batch(call, blobs).await.into_iter();
        answers
            .map(|answer| answer.map_err(|error| self.upload_error(error)))
            .collect()
    }

    /// See [`super::Actions::get`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says: NOT_FOUND is said of one only in [`WhenDown::Bypass`].
    pub async fn action(&self, call: &Call, key: &ActionDigest) -> Result<RawActionResult, CallError> {
        let failure = match self.outage.action_cache_down() {
            Some(_) => Tier2Error::known_down().into(),
            None => match self.actions.get(call, key).await {
                Err(error) if is_outage(&error) => error,
                done => return done,
            },
        };
        // Without the CAS, what an action result refers to cannot be vouched for.
        let Some(since) = self.outage.outlook.down_since() else {
            return Err(failure);
        };
        let known = match self.outage.looks_back() {
            true => self.actions.held(call, key, since).await,
            false => None,
        };
        match (self.outage.answer(Asked::Action, since, known.is_some()), known) {
            (Answer::Known, Some(known)) => Ok(known),
            _ => Err(self.outage.told(Asked::Action, Some(since), failure)),
        }
    }

    /// See [`super::Actions::put`].
    ///
    /// # Errors
    /// As there, and in an outage as the mode says.
    pub async fn put_action(
        &self,
        call: &Call,
        key: &ActionDigest,
        result: RawActionResult,
    ) -> Result<(), CallError> {
        if let Some(since) = self.outage.action_cache_down()
            && let Some(refusal) = verdict(self.outage.answer(Asked::Store, since, false))
        {
            return Err(refusal);
        }
        let put = self.actions.put(call, key, result).await;
        put.map_err(|error| {
            let since = self.outage.outlook.down_since();
            self.outage.told(Asked::Store, since, error)
        })
    }
}
