//! What happens to one call beside the answer that is due.
//!
//! Every handler passes three points: [`Script::start`] when the request is known and nothing was done yet,
//! [`Script::bytes`] as blob bytes move, [`Script::end`] before its effect and its answer (for a Read: before the final
//! status). Between them it asks whether it is to lie: [`Script::lies`], [`Script::altered`]. Once the answer is known
//! it says so: [`Script::answered`].

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use proto::rpc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::alter::{Altered, alter};
use crate::call::CallHandle;
use crate::connection::Break;
use crate::digest::Digest;
use crate::log::Call;
use crate::method;
use crate::rule::{Act, After, Farewell};
use crate::rules::{Fault, Planned, What};

/// A drip moves so many pieces in a second.
const DRIPS_PER_SECOND: u64 = 10;

/// What is to happen to one call.
pub(crate) struct Script {
    call: CallHandle,
    method: String,
    instance: String,
    digests: Vec<Digest>,
    planned: Vec<Planned>,
    moved: u64,
    drip: Option<Drip>,
    /// Changed bytes on their way: seen when so many have moved.
    altered: Vec<(u64, Fault)>,
}

struct Drip {
    bytes_per_second: u64,
    cleared: CancellationToken,
}

impl Script {
    pub(crate) fn new(handle: CallHandle, call: &Call, planned: Vec<Planned>) -> Script {
        Script {
            call: handle,
            method: call.method.clone(),
            instance: call.instance.clone(),
            digests: call.digests.clone(),
            planned,
            moved: 0,
            drip: None,
            altered: Vec::new(),
        }
    }

    /// The request is known, nothing was done.
    pub(crate) async fn start(&mut self) -> Result<(), Status> {
        self.pass(|after| after == After::Start).await
    }

    /// That many bytes have moved.
    pub(crate) async fn bytes(&mut self, moved: u64) -> Result<(), Status> {
        self.moved = moved;
        for (_, fault) in self.altered.extract_if(.., |(seen_at, _)| *seen_at <= moved) {
            self.call.fired(&fault, moved);
        }
        self.pass(|after| matches!(after, After::Bytes(stop) if stop <= moved))
            .await
    }

    /// The next number of bytes at which to stop and call [`Script::bytes`].
    pub(crate) fn next_stop(&self) -> Option<u64> {
        let stop = |planned: &Planned| match planned.after {
            After::Bytes(stop) if planned.is_event() => Some(stop),
            After::Bytes(_) | After::Start | After::End => None,
        };
        self.planned.iter().filter_map(stop).min()
    }

    /// All is ready for the effect and the answer.
    pub(crate) async fn end(&mut self) -> Result<(), Status> {
        self.pass(|_| true).await
    }

    /// The answer is known: what is evicted from here on does not change it.
    pub(crate) fn answered(&mut self) {
        while let Some(fault) = self.take(|planned| matches!(planned.act(), Some(Act::Evict))) {
            self.evict(&fault);
        }
    }

    /// Goes through all that is to happen at this point, in the order of the rules; each once.
    async fn pass(&mut self, here: impl Fn(After) -> bool) -> Result<(), Status> {
        let due = |planned: &Planned| planned.is_event() && here(planned.after);
        while let Some(at) = self.planned.iter().position(due) {
            match self.planned.remove(at).what {
                What::Hold(barrier) => barrier.pass().await,
                What::Fault(fault) => self.happen(fault).await?,
            }
        }
        Ok(())
    }

    async fn happen(&mut self, fault: Fault) -> Result<(), Status> {
        const ONCE_ANSWERED: Act = Act::GoAway {
            streams: Farewell::Answered,
        };
        if fault.act == Act::Evict {
            self.evict(&fault);
            return Ok(());
        }
        if fault.act == ONCE_ANSWERED {
            self.call.say_farewell_when_answered(fault);
            return Ok(());
        }
        self.call.fired(&fault, self.moved);
        match fault.act {
            Act::Delay { ms } => unless_cleared(&fault.cleared, Duration::from_millis(ms)).await,
            Act::Hang => fault.cleared.cancelled().await,
            Act::Drip { bytes_per_second } => {
                self.drip = Some(Drip {
                    bytes_per_second,
                    cleared: fault.cleared,
                });
            }
            Act::Status {
                code,
                message,
                retry_after_ms,
            } => return Err(status(code, &message, retry_after_ms)),
            Act::ResetStream => return Err(self.call.abort()),
            Act::Reset => return self.break_off(Break::Reset).await,
            Act::Close => return self.break_off(Break::Close).await,
            Act::GoAway { streams } => match streams {
                Farewell::Disown => return self.break_off(Break::Disown).await,
                Farewell::Finish | Farewell::Answered => self.call.connection().drain.cancel(),
            },
            Act::Starve => self.call.connection().starve(),
            Act::EntryStatus { .. }
            | Act::EndEarly
            | Act::CommittedSize { .. }
            | Act::SayPresent
            | Act::SayMissing
            | Act::Capabilities(_)
            | Act::ExtraBytes { .. }
            | Act::FlipByte
            | Act::OtherBlob
            | Act::RepeatChunk
            | Act::Drop
            | Act::Evict
            | Act::EvictOutputs
            | Act::Refuse => {}
        }
        Ok(())
    }

    async fn break_off(&self, how: Break) -> Result<(), Status> {
        self.call.connection().break_off(how);
        // The call ends with its connection, which drops it here.
        std::future::pending().await
    }

    fn evict(&self, fault: &Fault) {
        let is_action = [method::GET_ACTION, method::UPDATE_ACTION].contains(&self.method.as_str());
        let mut evicted = false;
        {
            let mut contents = self.call.shared().contents.lock();
            for digest in self.digests.iter().filter(|digest| fault.is_about(digest)) {
                evicted |= if is_action {
                    contents.evict_action(&self.instance, digest)
                } else {
                    contents.evict(&self.instance, digest)
                };
            }
        }
        if evicted {
            self.call.fired(fault, self.moved);
        }
    }

    // Lies.

    /// The first planned act of this kind that concerns the digest. It is noted as done: ask only where it makes a
    /// difference.
    pub(crate) fn lies(&self, about: Option<&Digest>, kind: impl Fn(&Act) -> bool) -> Option<Act> {
        let faults = self.planned.iter().filter_map(Planned::fault);
        let fault = faults
            .filter(|fault| kind(&fault.act))
            .find(|fault| about.is_none_or(|digest| fault.is_about(digest)))?;
        self.call.fired_once(fault, self.moved);
        Some(fault.act.clone())
    }

    /// Whether a Write is to end here.
    pub(crate) fn ends_early(&self, received: u64) -> bool {
        let due = |after: After| match after {
            After::Start => true,
            After::Bytes(bytes) => received >= bytes,
            After::End => false,
        };
        let ending = self
            .planned
            .iter()
            .find(|planned| matches!(planned.act(), Some(Act::EndEarly)) && due(planned.after));
        if let Some(fault) = ending.and_then(Planned::fault) {
            self.call.fired_once(fault, received);
        }
        ending.is_some()
    }

    /// The bytes that a blob is to be answered with, whole.
    pub(crate) fn altered(&mut self, digest: &Digest, data: Bytes, piece: usize) -> Bytes {
        let (data, changes) = self.changes(digest, data, piece);
        for (_, fault) in changes {
            self.call.fired_once(&fault, self.moved);
        }
        data
    }

    /// The bytes that a blob is to be answered with, in pieces: a change is noted when [`Script::bytes`] comes there.
    pub(crate) fn altered_in_pieces(&mut self, digest: &Digest, data: Bytes, piece: usize) -> Bytes {
        let (data, changes) = self.changes(digest, data, piece);
        self.altered = changes;
        data
    }

    fn changes(&self, digest: &Digest, mut data: Bytes, piece: usize) -> (Bytes, Vec<(u64, Fault)>) {
        let mut changes = Vec::new();
        for planned in &self.planned {
            let Some(fault) = planned.fault().filter(|fault| fault.is_about(digest)) else {
                continue;
            };
            let other = if fault.act == Act::OtherBlob {
                self.call.shared().contents.lock().another(&self.instance, digest)
            } else {
                Bytes::new()
            };
            if let Some(Altered { data: new, seen_at }) =
                alter(&data, &fault.act, planned.after, &other, piece)
            {
                changes.push((seen_at, fault.clone()));
                data = new;
            }
        }
        (data, changes)
    }

    // Rates.

    /// How much of a piece of this length may move at once.
    pub(crate) fn piece(&self, length: usize) -> usize {
        let Some(drip) = &self.drip else { return length };
        let most = (drip.bytes_per_second / DRIPS_PER_SECOND).max(1);
        length.min(usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Takes the time that so many bytes take.
    pub(crate) async fn paced(&self, bytes: usize) {
        if let Some(drip) = &self.drip {
            let micros = (bytes as u64).saturating_mul(1_000_000) / drip.bytes_per_second.max(1);
            unless_cleared(&drip.cleared, Duration::from_micros(micros)).await;
        }
    }

    fn take(&mut self, wanted: impl Fn(&Planned) -> bool) -> Option<Fault> {
        let at = self.planned.iter().position(wanted)?;
        match self.planned.remove(at).what {
            What::Fault(fault) => Some(fault),
            What::Hold(_) => None,
        }
    }
}

impl Planned {
    fn fault(&self) -> Option<&Fault> {
        match &self.what {
            What::Fault(fault) => Some(fault),
            What::Hold(_) => None,
        }
    }

    fn act(&self) -> Option<&Act> {
        self.fault().map(|fault| &fault.act)
    }

    /// Whether it happens at a point, rather than being asked for.
    fn is_event(&self) -> bool {
        match self.act() {
            None
            | Some(
                Act::Delay { .. }
                | Act::Hang
                | Act::Drip { .. }
                | Act::Status { .. }
                | Act::ResetStream
                | Act::Reset
                | Act::Close
                | Act::GoAway { .. }
                | Act::Starve,
            ) => true,
            Some(Act::Evict) => self.after != After::End,
            Some(
                Act::EntryStatus { .. }
                | Act::EndEarly
                | Act::CommittedSize { .. }
                | Act::SayPresent
                | Act::SayMissing
                | Act::Capabilities(_)
                | Act::ExtraBytes { .. }
                | Act::FlipByte
                | Act::OtherBlob
                | Act::RepeatChunk
                | Act::Drop
                | Act::EvictOutputs
                | Act::Refuse,
            ) => false,
        }
    }
}

impl Fault {
    fn is_about(&self, digest: &Digest) -> bool {
        self.target.is_none_or(|target| target == *digest)
    }
}

/// Waits, but not for a rule that is gone.
pub(crate) async fn unless_cleared(cleared: &CancellationToken, time: Duration) {
    tokio::select! {
        () = cleared.cancelled() => {}
        () = tokio::time::sleep(time) => {}
    }
}

fn status(code: Code, message: &str, retry_after_ms: Option<u64>) -> Status {
    let Some(ms) = retry_after_ms else {
        return Status::new(code, message);
    };
    let delay = Duration::from_millis(ms);
    let retry = rpc::RetryInfo {
        retry_delay: prost_types::Duration::try_from(delay).ok(),
    };
    let details = rpc::Status {
        code: code as i32,
        message: message.to_owned(),
        details: prost_types::Any::from_msg(&retry).into_iter().collect(),
    };
    Status::with_details(code, message, details.encode_to_vec().into())
}
