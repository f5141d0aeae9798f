//! Judges what a proxy answered by what its clients asked and what its Tier 2 said, and by nothing else.
//!
//! Each rule here follows from a promise. Inputs are what clients sent and got, the log of the mock (who was asked, what
//! was answered, which faults took effect), and the bytes that are right. How the proxy is made is not known here, so any
//! proxy can be judged; one that does not give a promise is judged by the others ([`Oracle::promises`]).

mod actions;
mod evidence;
mod presence;
mod reads;
mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mock_upstream::Digest;
use serde::Deserialize;
use tonic::{Code, Status};

use crate::site::{Answer, Ask, Seen, WhenDown};
use evidence::Evidence;

/// What a tiered cache promises. SEMANTICS of the node that this was written for has the sentences in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub enum Promise {
    /// Acknowledged means authoritative.
    P1,
    /// Present means that Tier 2 has it.
    P2,
    /// A hit can be used.
    P3,
    /// Right bytes or an error.
    P4,
    /// A failure is not a miss.
    P5,
    /// While Tier 2 is away nothing is acknowledged; it is back for clients as soon as it is back.
    P6,
    /// One fetch for all who want a blob at once.
    P7,
    /// Bounded.
    P8,
    /// Crash-only.
    P9,
    /// Everything ends.
    P10,
}

impl Promise {
    /// All of them.
    pub const ALL: [Promise; 10] = [
        Promise::P1,
        Promise::P2,
        Promise::P3,
        Promise::P4,
        Promise::P5,
        Promise::P6,
        Promise::P7,
        Promise::P8,
        Promise::P9,
        Promise::P10,
    ];
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The promise it follows from.
    pub promise: Promise,
    /// What was found wrong; `None` if the promise was kept where another answer would have broken it.
    pub broken: Option<String>,
    /// Whether the protocol and what follows from it leave this free, so that it is broken by a choice of the promise alone.
    pub beyond: bool,
}

impl Finding {
    pub(crate) fn of(promise: Promise, kept: bool, what: impl FnOnce() -> String) -> Finding {
        Finding {
            promise,
            broken: (!kept).then(what),
            beyond: false,
        }
    }

    /// Says whether what is broken is asked for by the promise alone.
    #[must_use]
    pub(crate) fn beyond_the_protocol(self, beyond: bool) -> Finding {
        Finding {
            beyond: beyond && self.broken.is_some(),
            ..self
        }
    }
}

/// Times that a proxy promises. All of them are asserted only where time is virtual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long Tier 2's word that a blob is there may be passed on.
    pub lease: Duration,
    /// The same for an upload that is acknowledged without one of its own.
    pub write_lease: Duration,
    /// How long an action result may be answered without asking again.
    pub action_lease: Duration,
    /// The longest that a call takes whatever Tier 2 does, but for the bytes that move.
    pub longest_call: Duration,
    /// How soon after the end of a fault the first call succeeds.
    pub recovery: Duration,
    /// The same for a blob whose copy failed verification twice.
    pub forgiveness: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            lease: Duration::from_secs(5 * 60),
            write_lease: Duration::from_secs(5),
            action_lease: Duration::from_secs(60),
            longest_call: Duration::from_secs(90),
            recovery: Duration::from_secs(1),
            forgiveness: Duration::from_secs(11),
        }
    }
}

/// What is right.
#[derive(Clone, Debug, Default)]
pub struct Truth {
    /// Bytes of the blobs that calls are about.
    pub blobs: BTreeMap<Digest, Bytes>,
    /// The directories of trees, each once, by root.
    pub trees: BTreeMap<Digest, BTreeSet<Bytes>>,
    /// Blobs whose copy in Tier 2 is wrong.
    pub rotten: BTreeSet<Digest>,
}

impl Truth {
    /// Adds a blob.
    pub fn blob(&mut self, bytes: &Bytes) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest, bytes.clone());
        digest
    }
}

/// The judge.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// What the proxy promises; findings about others are left out.
    pub promises: BTreeSet<Promise>,
    /// Within which times.
    pub times: Times,
    /// Whether P3 includes that every blob of a result is looked for.
    pub completeness: bool,
    /// What it answers while Tier 2 is down.
    pub when_down: WhenDown,
    /// Whether a fault that happens once, where it can be mended, is hidden from clients.
    pub mends: bool,
    /// Whether it makes the choices that the protocol leaves free: leases, codes, times, one fetch.
    pub choices: bool,
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle {
            promises: Promise::ALL.into(),
            times: Times::default(),
            completeness: true,
            when_down: WhenDown::Fail,
            mends: true,
            choices: true,
        }
    }
}

impl Oracle {
    /// What one call shows.
    pub fn judge(&self, seen: &Seen, truth: &Truth) -> Vec<Finding> {
        let evidence = Evidence::new(seen, truth, self.times, self.when_down);
        let mut findings = vec![self.ends(seen)];
        if let Some(answer) = &seen.answer {
            findings.extend(match &seen.ask {
                Ask::Read {
                    digest,
                    offset,
                    limit,
                } => reads::read(&evidence, digest, (*offset, *limit), answer),
                Ask::BatchRead { digests } => reads::batch(&evidence, digests, answer),
                Ask::GetTree { root } => reads::tree(&evidence, root, answer),
                Ask::FindMissing { digests } => presence::missing(&evidence, digests, answer),
                Ask::QueryWriteStatus { digest, .. } => presence::write_status(&evidence, digest, answer),
                Ask::Write { blob, .. } => writes::write(&evidence, blob, answer),
                Ask::BatchUpdate { blobs } => writes::batch(&evidence, blobs, answer),
                Ask::UpdateAction { key, result } => writes::action(&evidence, key, result, answer),
                Ask::GetAction { key } => actions::action(&evidence, key, answer, self.completeness),
                Ask::Capabilities { .. } => vec![capabilities(answer)],
            });
        }
        findings
            .into_iter()
            .filter_map(|finding| self.weighed(finding))
            .collect()
    }

    /// A finding as far as the proxy promises what it is about.
    pub(crate) fn weighed(&self, finding: Finding) -> Option<Finding> {
        let is_chosen = self.choices || !finding.beyond;
        self.promises.contains(&finding.promise).then_some(Finding {
            broken: finding.broken.filter(|_| is_chosen),
            beyond: finding.beyond && is_chosen,
            ..finding
        })
    }

    /// P10, as far as one call shows it.
    fn ends(&self, seen: &Seen) -> Finding {
        let bound = self.times.longest_call;
        let kept = seen.answer.is_some() && seen.took() <= bound;
        Finding::of(Promise::P10, kept, || {
            format!("{:?} took {:?}, {bound:?} is the longest", seen.ask, seen.took())
        })
        .beyond_the_protocol(seen.answer.is_some())
    }

    /// P7: how often Tier 2 was asked for a blob that some clients read at once. Each fault excuses one read more.
    pub fn one_fetch(&self, herd: &[Seen], digest: &Digest) -> Option<Finding> {
        let first = herd.iter().min_by_key(|seen| seen.before.count())?;
        let last = herd.iter().max_by_key(|seen| seen.after.count())?;
        let (reads, broken) = evidence::fetches(&first.before, &last.after, digest);
        let finding = Finding::of(Promise::P7, reads <= 1 + broken, || {
            format!("tier 2 was asked for {digest} {reads} times, {broken} of them failed")
        });
        self.weighed(finding.beyond_the_protocol(true))
    }
}

/// Always answered, whatever Tier 2 says (R13, R18).
fn capabilities(answer: &Result<Answer, Status>) -> Finding {
    let cache = match answer {
        Ok(Answer::Capabilities(capabilities)) => capabilities.cache_capabilities.as_ref(),
        Ok(_) | Err(_) => None,
    };
    let sha256 = proto::reapi::digest_function::Value::Sha256 as i32;
    let kept = cache.is_some_and(|cache| cache.digest_functions.contains(&sha256));
    Finding::of(Promise::P6, kept, || format!("GetCapabilities: {answer:?}"))
}

/// Names of codes as gRPC writes them, for reports.
fn name(code: Code) -> String {
    format!("{code:?}")
}
