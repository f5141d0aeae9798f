//! The log as JSON, as the control port says it and as its client reads it.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json as object};
use tonic::Code;

use crate::digest::Digest;
use crate::log::{Call, Calls, Firing, Outcome, Told};
use crate::rule::{Act, code_name, parse_digest};

pub(crate) fn calls(calls: &Calls) -> Value {
    calls.iter().map(call).collect()
}

fn call(call: &Call) -> Value {
    let (outcome, code) = outcome(call.outcome);
    object!({
        "index": call.index,
        "method": call.method,
        "connection": call.connection,
        "peer": call.peer.map(|peer| peer.to_string()),
        "invocation": call.invocation,
        "headers": call.headers,
        "instance": call.instance,
        "digests": call.digests.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "resource_name": call.resource_name,
        "offset": call.offset,
        "limit": call.limit,
        "bytes_received": call.bytes_received,
        "bytes_sent": call.bytes_sent,
        "outcome": outcome,
        "code": code.map(code_name::name),
        "cancelled": call.outcome.is_cancelled(),
        "arrived_at_ms": ms(call.arrived_at),
        "ended_at_ms": call.ended_at.map(ms),
        "ended_before": call.ended_before,
        "fired": call.fired.iter().map(firing).collect::<Vec<_>>(),
        "told": call.told.iter().map(word).collect::<Vec<_>>(),
        "result": call.result.as_ref().map(hex::encode),
    })
}

fn outcome(outcome: Outcome) -> (&'static str, Option<Code>) {
    match outcome {
        Outcome::Open => ("open", None),
        Outcome::Ok => ("ok", Some(Code::Ok)),
        Outcome::Failed(code) => ("failed", Some(code)),
        Outcome::Reset => ("reset", None),
        Outcome::ConnectionLost => ("connection_lost", None),
        Outcome::HalfClosed => ("half_closed", None),
        Outcome::Suspended => ("suspended", None),
        Outcome::Broken => ("broken", None),
    }
}

fn word((about, told): &(Digest, Told)) -> Value {
    let (word, code) = match told {
        Told::Present => ("present", None),
        Told::Missing => ("missing", None),
        Told::Failed(code) => ("failed", Some(code_name::name(*code))),
    };
    object!({ "digest": about.to_string(), "word": word, "code": code })
}

pub(crate) fn firing(firing: &Firing) -> Value {
    object!({
        "rule": firing.rule,
        "name": firing.name,
        "act": firing.act,
        "call": firing.call,
        "connection": firing.connection,
        "moved": firing.moved,
        "at_ms": ms(firing.at),
    })
}

/// Milliseconds since the mock began, with their fractions.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// What `/log` says. Of fields that are not known here a newer mock may have more.
#[derive(Debug, Deserialize)]
pub(crate) struct LogText {
    now_ms: f64,
    next_call: u64,
    calls: Vec<CallText>,
    firings: Vec<FiringText>,
}

#[derive(Debug, Deserialize)]
struct CallText {
    index: u64,
    method: String,
    connection: u64,
    peer: Option<String>,
    invocation: String,
    headers: Vec<(String, String)>,
    instance: String,
    digests: Vec<String>,
    resource_name: String,
    offset: i64,
    limit: i64,
    bytes_received: u64,
    bytes_sent: u64,
    outcome: String,
    code: Option<CodeText>,
    arrived_at_ms: f64,
    ended_at_ms: Option<f64>,
    ended_before: Option<u64>,
    fired: Vec<FiringText>,
    told: Vec<WordText>,
    result: Option<String>,
}

#[derive(Debug, Deserialize)]
struct CodeText(#[serde(with = "code_name")] Code);

#[derive(Debug, Deserialize)]
struct FiringText {
    rule: u64,
    name: String,
    act: String,
    call: Option<u64>,
    connection: Option<u64>,
    moved: u64,
    at_ms: f64,
}

#[derive(Debug, Deserialize)]
struct WordText {
    digest: String,
    word: String,
    code: Option<CodeText>,
}

/// The log at one moment, as far as it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Since the mock began; no earlier than all that is told.
    pub now: Duration,
    /// Index that the next call will have, or a later one already has.
    pub next_call: u64,
    pub calls: Calls,
    pub firings: Vec<Firing>,
}

impl LogText {
    /// # Errors
    /// What of it cannot be understood.
    pub(crate) fn read(self) -> Result<Snapshot, String> {
        let calls: Result<Vec<Call>, String> = self.calls.into_iter().map(CallText::read).collect();
        let firings: Result<_, String> = self.firings.into_iter().map(FiringText::read).collect();
        Ok(Snapshot {
            now: time(self.now_ms)?,
            next_call: self.next_call,
            calls: calls?.into_iter().collect(),
            firings: firings?,
        })
    }
}

impl CallText {
    fn read(self) -> Result<Call, String> {
        let code = self.code.map(|code| code.0);
        let outcome = match (self.outcome.as_str(), code) {
            ("open", _) => Outcome::Open,
            ("ok", _) => Outcome::Ok,
            ("failed", Some(code)) => Outcome::Failed(code),
            ("reset", _) => Outcome::Reset,
            ("connection_lost", _) => Outcome::ConnectionLost,
            ("half_closed", _) => Outcome::HalfClosed,
            ("suspended", _) => Outcome::Suspended,
            ("broken", _) => Outcome::Broken,
            (other, _) => return Err(format!("outcome {other:?}")),
        };
        let fired: Result<_, String> = self.fired.into_iter().map(FiringText::read).collect();
        let digests: Result<_, String> = self.digests.iter().map(|text| digest(text)).collect();
        let peer = self
            .peer
            .map(|peer| peer.parse().map_err(|_no| format!("peer {peer:?}")));
        let result = self.result.map(|text| hex::decode(text).map(Bytes::from));
        Ok(Call {
            peer: peer.transpose()?,
            invocation: self.invocation,
            headers: self.headers,
            instance: self.instance,
            digests: digests?,
            resource_name: self.resource_name,
            offset: self.offset,
            limit: self.limit,
            bytes_received: self.bytes_received,
            bytes_sent: self.bytes_sent,
            outcome,
            arrived_at: time(self.arrived_at_ms)?,
            ended_at: self.ended_at_ms.map(time).transpose()?,
            ended_before: self.ended_before,
            fired: fired?,
            told: self
                .told
                .into_iter()
                .map(WordText::read)
                .collect::<Result<_, _>>()?,
            result: result.transpose().map_err(|error| format!("result: {error}"))?,
            ..Call::blank(self.index, self.method, self.connection)
        })
    }
}

impl FiringText {
    fn read(self) -> Result<Firing, String> {
        let act = Act::examples()
            .iter()
            .map(Act::name)
            .find(|name| *name == self.act);
        Ok(Firing {
            rule: self.rule,
            name: self.name,
            act: act.ok_or_else(|| format!("act {:?}", self.act))?,
            call: self.call,
            connection: self.connection,
            moved: self.moved,
            at: time(self.at_ms)?,
        })
    }
}

impl WordText {
    fn read(self) -> Result<(Digest, Told), String> {
        let told = match (self.word.as_str(), self.code) {
            ("present", _) => Told::Present,
            ("missing", _) => Told::Missing,
            ("failed", Some(code)) => Told::Failed(code.0),
            (other, _) => return Err(format!("word {other:?}")),
        };
        Ok((digest(&self.digest)?, told))
    }
}

fn digest(text: &str) -> Result<Digest, String> {
    parse_digest(text).map_err(|error| error.to_string())
}

fn time(ms: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(ms / 1000.0).map_err(|error| format!("time {ms}: {error}"))
}
