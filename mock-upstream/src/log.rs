//! The log of calls, in order of arrival: what tests assert on.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Code;

use crate::digest::Digest;
use crate::rule::Match;

/// Calls kept; of more the oldest go. More than the longest test makes, and bounded for a mock that runs for days.
const CALLS_MAX: usize = 200_000;

/// Firings kept, likewise: a call has few.
const FIRINGS_MAX: usize = 200_000;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has not.
    Open,
    /// Answered in full, status OK.
    Ok,
    /// Answered with this code.
    Failed(Code),
    /// The client sent RST_STREAM.
    Reset,
    /// The client's connection ended.
    ConnectionLost,
    /// A Write whose client closed its side without `finish_write`. Whatever was answered to that.
    HalfClosed,
    /// The mock closed the connection: [`crate::Mock::suspend`], or its end.
    Suspended,
    /// The mock broke the stream or its connection, by a rule.
    Broken,
}

impl Outcome {
    /// Whether the client gave the call up.
    pub fn is_cancelled(self) -> bool {
        matches!(self, Outcome::Reset | Outcome::ConnectionLost)
    }
}

/// What was answered about one blob or action, as far as an answer says something about each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is here: found, sent to its end, or stored as a whole.
    Present,
    /// It is not.
    Missing,
    /// Neither: this entry of a batch failed.
    Failed(Code),
}

/// A rule took effect: the proof that a fault was there, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Firing {
    /// Id of the rule.
    pub rule: u64,
    pub name: String,
    /// Name of its act.
    pub act: &'static str,
    /// Index of the call; `None` if it met a connection, or nobody yet (a listener that refuses).
    pub call: Option<u64>,
    pub connection: Option<u64>,
    /// Bytes that had been sent (Read) or received (Write) by then.
    pub moved: u64,
    /// Since the mock began.
    pub at: Duration,
}

/// One call as the mock saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place in the order of arrival, from 0.
    pub index: u64,
    /// Service without its package, and method: `ByteStream.Read`.
    pub method: String,
    /// Which connection it came on, numbered from 0.
    pub connection: u64,
    /// Who is at the other end of it; `None` through memory.
    pub peer: Option<SocketAddr>,
    /// `tool_invocation_id` of the request's metadata.
    pub invocation: String,
    /// Those of [`crate::Settings::log_headers`] that came, each as often as it came.
    pub headers: Vec<(String, String)>,
    pub instance: String,
    /// Blobs it named, in the order of the request; of an action cache call the action's digest.
    /// Malformed ones are left out.
    pub digests: Vec<Digest>,
    /// `resource_name` of a ByteStream call, as sent.
    pub resource_name: String,
    /// `read_offset` of a Read, first `write_offset` of a Write.
    pub offset: i64,
    /// `read_limit` of a Read.
    pub limit: i64,
    /// Bytes of blobs and action results that came in.
    pub bytes_received: u64,
    /// Bytes of blobs and action results handed to the connection.
    pub bytes_sent: u64,
    pub outcome: Outcome,
    /// When it arrived, since the mock began.
    pub arrived_at: Duration,
    pub ended_at: Option<Duration>,
    /// Calls from this index on arrived when it had ended: an order where all happens in one instant of paused time.
    pub ended_before: Option<u64>,
    /// Rules that took effect in it, in that order.
    pub fired: Vec<Firing>,
    /// What was answered, true or not, about what it named. A Write of which less than all was said to be committed
    /// tells nothing.
    pub told: Vec<(Digest, Told)>,
    /// The action result that was given, or acknowledged, encoded.
    pub result: Option<Bytes>,
}

impl Call {
    /// Of which nothing is known yet.
    pub(crate) fn blank(index: u64, method: String, connection: u64) -> Call {
        Call {
            index,
            method,
            connection,
            peer: None,
            invocation: String::new(),
            headers: Vec::new(),
            instance: String::new(),
            digests: Vec::new(),
            resource_name: String::new(),
            offset: 0,
            limit: 0,
            bytes_received: 0,
            bytes_sent: 0,
            outcome: Outcome::Open,
            arrived_at: Duration::ZERO,
            ended_at: None,
            ended_before: None,
            fired: Vec::new(),
            told: Vec::new(),
            result: None,
        }
    }

    /// Whether a rule of this name took effect in it.
    pub fn met(&self, rule: &str) -> bool {
        self.fired.iter().any(|firing| firing.name == rule)
    }

    /// What was answered about this blob or action: the last word, if there are more.
    pub fn told(&self, digest: &Digest) -> Option<Told> {
        let words = self.told.iter().rev();
        words
            .copied()
            .find(|(about, _)| about == digest)
            .map(|(_, told)| told)
    }
}

/// Some calls of the log, copied, in order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(Vec<Call>);

impl Calls {
    pub fn method(self, method: &str) -> Calls {
        self.filtered(|call| call.method == method)
    }

    pub fn instance(self, instance: &str) -> Calls {
        self.filtered(|call| call.instance == instance)
    }

    /// Calls that name this blob, perhaps among others.
    pub fn digest(self, digest: &Digest) -> Calls {
        self.filtered(|call| call.digests.contains(digest))
    }

    pub fn outcome(self, outcome: Outcome) -> Calls {
        self.filtered(|call| call.outcome == outcome)
    }

    /// Calls in which a rule of this name took effect.
    pub fn met(self, rule: &str) -> Calls {
        self.filtered(|call| call.met(rule))
    }

    pub fn matching(self, wanted: &Match) -> Calls {
        wanted.select(self.0.iter()).cloned().collect()
    }

    /// Calls that arrived at this index or later; see [`crate::Mock::mark`].
    pub fn since(self, index: u64) -> Calls {
        self.filtered(|call| call.index >= index)
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn first(&self) -> Option<&Call> {
        self.0.first()
    }

    pub fn last(&self) -> Option<&Call> {
        self.0.last()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Call> {
        self.0.iter()
    }

    /// Bytes of blobs and action results received, over all of them.
    pub fn bytes_received(&self) -> u64 {
        self.iter().map(|call| call.bytes_received).sum()
    }

    /// Bytes of blobs and action results sent, over all of them.
    pub fn bytes_sent(&self) -> u64 {
        self.iter().map(|call| call.bytes_sent).sum()
    }

    fn filtered(mut self, keep: impl FnMut(&Call) -> bool) -> Calls {
        self.0.retain(keep);
        self
    }
}

impl FromIterator<Call> for Calls {
    fn from_iter<I: IntoIterator<Item = Call>>(calls: I) -> Calls {
        Calls(calls.into_iter().collect())
    }
}

impl IntoIterator for Calls {
    type Item = Call;
    type IntoIter = std::vec::IntoIter<Call>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Calls {
    type Item = &'a Call;
    type IntoIter = std::slice::Iter<'a, Call>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[derive(Debug)]
pub(crate) struct Log {
    began: Instant,
    calls: Mutex<Entries>,
    firings: Mutex<VecDeque<Firing>>,
    /// Told of every change, so that nobody has to look again and again.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Entries {
    /// By index.
    kept: BTreeMap<u64, Call>,
    next: u64,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            began: Instant::now(),
            calls: Mutex::default(),
            firings: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Since the mock began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes an arrival, and returns its index.
    pub(crate) fn open(
        &self,
        method: String,
        connection: u64,
        peer: Option<SocketAddr>,
        invocation: String,
        headers: Vec<(String, String)>,
    ) -> u64 {
        let index = {
            let mut calls = self.calls.lock();
            if calls.kept.len() >= CALLS_MAX {
                calls.kept.pop_first();
            }
            let index = calls.next;
            calls.next += 1;
            let call = Call {
                peer,
                invocation,
                headers,
                arrived_at: self.now(),
                ..Call::blank(index, method, connection)
            };
            calls.kept.insert(index, call);
            index
        };
        self.changed.send_replace(());
        index
    }

    /// Notes that a rule took effect, in the call as well if there is one.
    pub(crate) fn fired(&self, mut firing: Firing) {
        firing.at = self.now();
        {
            let mut firings = self.firings.lock();
            if firings.len() >= FIRINGS_MAX {
                firings.pop_front();
            }
            firings.push_back(firing.clone());
        }
        match firing.call {
            Some(index) => self.change(index, |call| call.fired.push(firing)),
            None => {
                self.changed.send_replace(());
            }
        }
    }

    pub(crate) fn firings(&self) -> Vec<Firing> {
        self.firings.lock().iter().cloned().collect()
    }

    /// Waits until rules of this name took effect so many times.
    pub(crate) async fn wait_fired(&self, rule: &str, count: usize) {
        let mut changes = self.changed.subscribe();
        let enough = || {
            let firings = self.firings.lock();
            firings.iter().filter(|firing| firing.name == rule).count() >= count
        };
        while !enough() {
            changes.changed().await.expect("the log holds the sender");
        }
    }

    /// Forgets all calls that have ended, and all firings. Indices go on.
    pub(crate) fn clear(&self) {
        self.firings.lock().clear();
        let mut calls = self.calls.lock();
        calls.kept.retain(|_, call| call.outcome == Outcome::Open);
    }

    pub(crate) fn change(&self, index: u64, change: impl FnOnce(&mut Call)) {
        if let Some(call) = self.calls.lock().kept.get_mut(&index) {
            change(call);
        }
        self.changed.send_replace(());
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.calls.lock().next
    }

    pub(crate) fn snapshot(&self) -> Calls {
        self.calls.lock().kept.values().cloned().collect()
    }

    /// Waits until at least `count` calls satisfy both.
    pub(crate) async fn wait(&self, wanted: &Match, count: usize, also: impl Fn(&Call) -> bool) {
        let mut changes = self.changed.subscribe();
        let enough = || {
            let calls = self.calls.lock();
            wanted
                .select(calls.kept.values())
                .filter(|call| also(call))
                .count()
                >= count
        };
        while !enough() {
            changes.changed().await.expect("the log holds the sender");
        }
    }
}
