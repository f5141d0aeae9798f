//! What happens to a call beside the answer that is due: gates that hold it, failures scripted for it.
//!
//! Every handler passes three points: [`Script::start`] when the request is known and nothing was done yet,
//! [`Script::bytes`] as blob bytes move, [`Script::end`] before its effect and its answer (for a Read: before the final
//! status). Whatever else a mock should do to calls belongs behind these.

use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::digest::Digest;
use crate::log::Call;

/// Names of the methods, as they stand in the log.
pub mod method {
    pub const READ: &str = "ByteStream.Read";
    pub const WRITE: &str = "ByteStream.Write";
    pub const QUERY_WRITE_STATUS: &str = "ByteStream.QueryWriteStatus";
    pub const FIND_MISSING: &str = "ContentAddressableStorage.FindMissingBlobs";
    pub const BATCH_UPDATE: &str = "ContentAddressableStorage.BatchUpdateBlobs";
    pub const BATCH_READ: &str = "ContentAddressableStorage.BatchReadBlobs";
    pub const GET_TREE: &str = "ContentAddressableStorage.GetTree";
    pub const GET_ACTION: &str = "ActionCache.GetActionResult";
    pub const UPDATE_ACTION: &str = "ActionCache.UpdateActionResult";
    pub const CAPABILITIES: &str = "Capabilities.GetCapabilities";
}

/// Which calls are meant. A call that names several digests matches each of them.
#[derive(Clone, Debug, Default)]
pub struct Match {
    method: Option<String>,
    instance: Option<String>,
    digest: Option<Digest>,
    nth: Option<u64>,
}

impl Match {
    pub fn any() -> Match {
        Match::default()
    }

    pub fn method(method: &str) -> Match {
        Match {
            method: Some(method.to_owned()),
            ..Match::default()
        }
    }

    /// A ByteStream.Read of this blob.
    pub fn read(digest: &Digest) -> Match {
        Match::method(method::READ).digest(digest)
    }

    /// A ByteStream.Write of this blob.
    pub fn write(digest: &Digest) -> Match {
        Match::method(method::WRITE).digest(digest)
    }

    #[must_use]
    pub fn digest(mut self, digest: &Digest) -> Match {
        self.digest = Some(*digest);
        self
    }

    #[must_use]
    pub fn instance(mut self, instance: &str) -> Match {
        self.instance = Some(instance.to_owned());
        self
    }

    /// Only the n-th of the calls that match otherwise, from 1: for a rule counted from when the rule was made, for the
    /// log from its beginning.
    #[must_use]
    pub fn nth(mut self, nth: u64) -> Match {
        self.nth = Some(nth);
        self
    }

    /// Whether the call is one of those counted for `nth`.
    fn fits(&self, call: &Call) -> bool {
        self.method.as_ref().is_none_or(|method| *method == call.method)
            && self
                .instance
                .as_ref()
                .is_none_or(|instance| *instance == call.instance)
            && self
                .digest
                .as_ref()
                .is_none_or(|digest| call.digests.contains(digest))
    }

    pub(crate) fn select<'a>(
        &'a self,
        calls: impl Iterator<Item = &'a Call> + 'a,
    ) -> impl Iterator<Item = &'a Call> + 'a {
        let fitting = calls.filter(|call| self.fits(call));
        (1..)
            .zip(fitting)
            .filter(|(n, _)| self.nth.is_none_or(|nth| nth == *n))
            .map(|(_, call)| call)
    }
}

/// Where a gate holds a call. Only calls that arrive after the gate was made are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Before anything was done: before a Read sends its headers.
    Start,
    /// When this many bytes were sent (Read: exactly so many) or received (Write: so many or more, as messages fall).
    /// A call that carries fewer is held at its end, as are all other methods.
    Bytes(u64),
    /// Before the effect and the answer: before a Write commits, before a Read's final status.
    End,
}

/// Holds calls until it is released or dropped.
#[must_use = "a gate opens when it is dropped"]
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    reached: u64,
    released: bool,
}

impl Gate {
    /// Waits until a call is held here, or was.
    pub async fn reached(&self) {
        self.reached_by(1).await;
    }

    /// Waits until that many calls came this far, over the gate's life.
    pub async fn reached_by(&self, calls: u64) {
        let mut states = self.state.subscribe();
        let reached = states.wait_for(|state| state.reached >= calls).await;
        reached.expect("the gate holds the sender");
    }

    /// How many calls came this far.
    pub fn count(&self) -> u64 {
        self.state.borrow().reached
    }

    /// Lets all go, those who come later too.
    pub fn release(&self) {
        self.state.send_modify(|state| state.released = true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

/// Rules by which a call gets its script.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<Vec<Rule>>);

#[derive(Debug)]
struct Rule {
    wanted: Match,
    /// Calls that matched so far, but for `nth`.
    seen: u64,
    act: Act,
}

#[derive(Debug)]
enum Act {
    Hold(After, watch::Sender<GateState>),
    Fail { code: Code, times: u64 },
}

impl Rules {
    pub(crate) fn hold(&self, wanted: Match, after: After) -> Gate {
        let state = watch::Sender::new(GateState::default());
        self.add(wanted, Act::Hold(after, state.clone()));
        Gate { state }
    }

    pub(crate) fn fail(&self, wanted: Match, code: Code, times: u64) {
        self.add(wanted, Act::Fail { code, times });
    }

    /// Ends all scripted failures.
    pub(crate) fn heal(&self) {
        self.0.lock().retain(|rule| matches!(rule.act, Act::Hold(..)));
    }

    fn add(&self, wanted: Match, act: Act) {
        self.0.lock().push(Rule { wanted, seen: 0, act });
    }

    /// What is to happen to a call that has just become known.
    pub(crate) fn script(&self, call: &Call) -> Script {
        let mut script = Script::default();
        let mut rules = self.0.lock();
        rules.retain(Rule::is_live);
        for rule in rules.iter_mut().filter(|rule| rule.wanted.fits(call)) {
            rule.seen += 1;
            if rule.wanted.nth.is_some_and(|nth| nth != rule.seen) {
                continue;
            }
            match &mut rule.act {
                Act::Hold(after, state) => script.holds.push(Hold {
                    after: *after,
                    state: state.clone(),
                }),
                Act::Fail { code, times } if script.failure.is_none() => {
                    *times -= 1;
                    script.failure = Some(*code);
                }
                Act::Fail { .. } => {}
            }
        }
        script
    }
}

impl Rule {
    fn is_live(&self) -> bool {
        match &self.act {
            Act::Hold(_, state) => !state.borrow().released,
            Act::Fail { times, .. } => *times > 0,
        }
    }
}

/// What is to happen to one call.
#[derive(Debug, Default)]
pub(crate) struct Script {
    failure: Option<Code>,
    holds: Vec<Hold>,
}

#[derive(Debug)]
struct Hold {
    after: After,
    state: watch::Sender<GateState>,
}

impl Script {
    /// The request is known, nothing was done.
    pub(crate) async fn start(&mut self) -> Result<(), Status> {
        self.pass(|after| after == After::Start).await;
        match self.failure {
            Some(code) => Err(Status::new(code, "scripted failure")),
            None => Ok(()),
        }
    }

    /// That many bytes have moved.
    pub(crate) async fn bytes(&mut self, moved: u64) {
        self.pass(|after| matches!(after, After::Bytes(stop) if stop <= moved))
            .await;
    }

    /// The next number of bytes at which to stop and call [`Script::bytes`].
    pub(crate) fn next_stop(&self) -> Option<u64> {
        let stop = |hold: &Hold| match hold.after {
            After::Bytes(stop) => Some(stop),
            After::Start | After::End => None,
        };
        self.holds.iter().filter_map(stop).min()
    }

    /// All is ready for the effect and the answer.
    pub(crate) async fn end(&mut self) {
        self.pass(|_| true).await;
    }

    /// Waits at all gates of this point; each is passed once.
    async fn pass(&mut self, here: impl Fn(After) -> bool) {
        while let Some(at) = self.holds.iter().position(|hold| here(hold.after)) {
            let hold = self.holds.remove(at);
            let mut states = hold.state.subscribe();
            hold.state.send_modify(|state| state.reached += 1);
            let released = states.wait_for(|state| state.released).await;
            drop(released.expect("the hold has the sender"));
        }
    }
}
