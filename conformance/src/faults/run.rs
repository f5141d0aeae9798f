//! Carries out one combination.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use mock_upstream::{Act, After, Digest, Firing, Match, Mock, Outcome as Ended, Rule, method};
use rand::Rng as _;
use rand::rngs::StdRng;
use tonic::Code;

use crate::faults::case::{Case, State};
use crate::faults::stage::{self, Stage, StageError};
use crate::faults::table::{Call, Place};
use crate::oracle::{Finding, Oracle, Promise, Truth};
use crate::site::{Answer, Ask, Client, Entry, Seen, Site, WhenDown};
use crate::upstream::{Upstream, UpstreamError};

/// What the log calls the fault.
const FAULT: &str = "fault";

/// How often a client that failed comes again once the fault is over.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Bytes that a blob has at least for its middle to be inside.
const MIDDLE_FROM: u64 = 2;

/// How long Tier 2 is in trouble when it flaps.
const FLAP_MS: std::ops::RangeInclusive<u64> = 1..=1_500;

/// Where proxies come from.
#[async_trait]
pub trait Ground: Send + Sync {
    /// A Tier 2 that holds nothing and does as it should: one of its own in this process, unless there is another.
    ///
    /// # Errors
    /// If it is lost.
    async fn upstream(&self) -> Result<Upstream, UpstreamError> {
        Ok(Mock::builder().start().into())
    }

    /// A proxy over it: one that knows nothing yet, and is told so to behave while Tier 2 is down, if that can be had.
    async fn start(&self, upstream: Upstream, when_down: WhenDown) -> Box<dyn Site>;
}

/// What became of a combination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The fault took effect, and so many things were looked at that a wrong answer would have broken.
    Held(usize),
    /// Nothing was broken, and nothing was shown, for this reason.
    NotCounted(String),
    /// What was broken.
    Broken(Vec<String>),
}

/// The same, with what is worth knowing beside it.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What became of it.
    pub outcome: Outcome,
    /// Promises that were looked at, each with what broke it.
    pub looked: BTreeMap<Promise, Vec<Finding>>,
    /// From the end of the fault to the first success.
    pub recovery: Option<Duration>,
    /// Whether a copy in Tier 2 was wrong twice, so that it may take longer.
    pub wrong_twice: bool,
    /// The longest call under the fault.
    pub longest: Duration,
}

impl Verdict {
    fn not_counted(why: impl Into<String>) -> Verdict {
        Verdict {
            outcome: Outcome::NotCounted(why.into()),
            looked: BTreeMap::new(),
            recovery: None,
            wrong_twice: false,
            longest: Duration::ZERO,
        }
    }
}

/// Carries out one combination, on a proxy that nobody else uses.
///
/// # Errors
/// If the mock is lost.
pub async fn run(ground: &dyn Ground, oracle: &Oracle, case: &Case) -> Result<Verdict, UpstreamError> {
    let mut random = case.random();
    let upstream = ground.upstream().await?;
    // Capabilities may be asked for as soon as there is a proxy, and never again.
    let early = case.call == Call::Caps && case.state == State::Cold;
    if early {
        set_rules(&upstream, case, None, &mut random).await?;
    }
    let site = ground.start(upstream, case.when_down()).await;
    let oracle = &Oracle {
        when_down: site.when_down(),
        ..oracle.clone()
    };
    let stage = match stage::set(&*site, case, oracle.times, &mut random).await {
        Ok(stage) => stage,
        Err(StageError::NotOffered(hook)) => return Ok(Verdict::not_counted(hook.to_string())),
        Err(StageError::Lost(error)) => return Err(error),
        Err(error @ StageError::Refused(_)) => {
            return Ok(Verdict {
                outcome: Outcome::Broken(vec![error.to_string()]),
                ..Verdict::not_counted("")
            });
        }
    };
    let mut trial = Trial {
        site: &*site,
        oracle,
        case,
        stage,
        findings: Vec::new(),
    };
    let (fired, longest) = trial.under_the_fault(early, &mut random).await?;
    let recovery = trial.afterwards().await?;
    let wrong_twice = trial.was_wrong_twice().await?;
    let mut looked: BTreeMap<Promise, Vec<Finding>> = BTreeMap::new();
    let outcome = outcome(&trial.findings, fired);
    for finding in trial.findings {
        let broken = looked.entry(finding.promise).or_default();
        if finding.broken.is_some() {
            broken.push(finding);
        }
    }
    Ok(Verdict {
        outcome,
        looked,
        recovery,
        wrong_twice,
        longest,
    })
}

fn outcome(findings: &[Finding], fired: bool) -> Outcome {
    let broken: BTreeSet<String> = findings
        .iter()
        .filter_map(|finding| {
            finding
                .broken
                .as_ref()
                .map(|what| format!("{}: {what}", finding.promise))
        })
        .collect();
    // That a call ended is no answer.
    let held = findings
        .iter()
        .filter(|finding| finding.promise != Promise::P10)
        .count();
    if !broken.is_empty() {
        Outcome::Broken(broken.into_iter().collect())
    } else if !fired {
        Outcome::NotCounted("the fault met nothing".to_owned())
    } else if held == 0 {
        Outcome::NotCounted("nothing was looked at".to_owned())
    } else {
        Outcome::Held(held)
    }
}

async fn set_rules(
    upstream: &Upstream,
    case: &Case,
    aim: Option<&Digest>,
    random: &mut StdRng,
) -> Result<(), UpstreamError> {
    let size = aim.map_or(0, Digest::size_bytes);
    let after = match case.fault.place() {
        Place::Start => After::Start,
        Place::Middle if size >= MIDDLE_FROM => After::Bytes(random.random_range(1..size)),
        Place::Middle => After::Bytes(0),
        Place::End => After::End,
    };
    let act = case.fault.act(random, size);
    let flap = Duration::from_millis(random.random_range(FLAP_MS));
    let methods: Vec<&str> = if case.fault.is_on_connect() {
        vec![method::CONNECT]
    } else {
        case.methods.iter().map(String::as_str).collect()
    };
    // An act passes over the calls that it cannot be done to, and a rule that names one is refused.
    for name in methods.into_iter().filter(|name| act.applies_to(name)) {
        let mut wanted = Match::method(name);
        if let Some(aim) = aim.filter(|_| !case.fault.is_on_connect()) {
            wanted = wanted.digest(aim);
        }
        let bounded = |rule: Rule| case.times.bound(rule, flap);
        if case.fault.place() == Place::Middle {
            // What was sent so far arrives, and the middle is one to the proxy too.
            let pause = Rule::new(wanted.clone(), Act::Delay { ms: 1 })
                .named("pause")
                .after(after);
            upstream.add(bounded(pause)).await?;
        }
        let rule = Rule::new(wanted, act.clone()).named(FAULT).after(after);
        upstream.add(bounded(rule)).await?;
    }
    if case.fault.is_on_connect() {
        upstream.reset_connections().await?;
    }
    Ok(())
}

struct Trial<'a> {
    site: &'a dyn Site,
    oracle: &'a Oracle,
    case: &'a Case,
    stage: Stage,
    findings: Vec<Finding>,
}

impl Trial<'_> {
    /// The calls under judgement: whether the fault took effect in them, and how long the longest took.
    async fn under_the_fault(
        &mut self,
        early: bool,
        random: &mut StdRng,
    ) -> Result<(bool, Duration), UpstreamError> {
        let upstream = self.site.upstream();
        let is_fault = |firing: &&Firing| firing.name == FAULT;
        let firings = upstream.firings().await?.iter().filter(is_fault).count();
        if !early {
            set_rules(upstream, self.case, self.stage.aim.as_ref(), random).await?;
        }
        let firings = if early { 0 } else { firings };
        let first = self.stage.asks.first().cloned();
        let beside = self.case.call == Call::Status;
        let asked = self.stage.asks.iter().enumerate().map(async |(number, ask)| {
            let client = Client::of(self.site);
            if beside && number > 0 {
                // Once the upload is in trouble, or over.
                let upload = first
                    .as_ref()
                    .map(|_| Match::method(method::WRITE))
                    .unwrap_or_default();
                tokio::select! {
                    fired = upstream.fired(FAULT, 1) => fired?,
                    over = upstream.finished(&upload, 1) => over?,
                    () = tokio::time::sleep(self.oracle.times.longest_call) => {}
                }
            }
            client.ask(self.site, ask.clone(), self.site.patience()).await
        });
        let seen: Result<Vec<Seen>, _> = join_all(asked).await.into_iter().collect();
        let mut seen = seen?;
        let fired = upstream.firings().await?.iter().filter(is_fault).count() > firings;
        if self.case.call == Call::Caps {
            // What was asked for behind the first answer is told in the second.
            let client = Client::of(self.site);
            for ask in &self.stage.asks {
                seen.push(client.ask(self.site, ask.clone(), self.site.patience()).await?);
            }
        }
        for seen in &seen {
            self.judge(seen);
            if self.case.unseen {
                self.unseen(seen).await?;
            }
        }
        if let (Call::Read, Some(digest)) = (self.case.call, &self.stage.aim) {
            self.findings.extend(self.oracle.one_fetch(&seen, digest));
        }
        let longest = seen.iter().map(Seen::took).max().unwrap_or_default();
        Ok((fired, longest))
    }

    fn judge(&mut self, seen: &Seen) {
        let findings = self.oracle.judge(seen, &self.stage.truth);
        self.findings.extend(findings);
    }

    /// A fault that is the proxy's to mend.
    async fn unseen(&mut self, seen: &Seen) -> Result<(), UpstreamError> {
        if !self.oracle.mends {
            return Ok(());
        }
        let kept = succeeded(seen, self.site.upstream(), &self.stage.truth).await?;
        let finding = Finding::of(Promise::P10, kept, || {
            format!("a single {} was not hidden: {seen}", self.case.fault.name())
        });
        self.findings
            .extend(self.oracle.weighed(finding.beyond_the_protocol(true)));
        Ok(())
    }

    /// The fault is over: the same call, and a look at all that may have been kept.
    async fn afterwards(&mut self) -> Result<Option<Duration>, UpstreamError> {
        let upstream = self.site.upstream();
        upstream.heal().await?;
        let healed_at = upstream.now().await?;
        let client = Client::of(self.site);
        let mut recovery = None;
        let mut again: Vec<Ask> = Vec::new();
        for ask in &self.stage.asks {
            let ask = ask.again();
            let known = |other: &Ask| match (other, &ask) {
                (Ask::Write { .. }, Ask::Write { .. }) => true,
                (one, other) => one == other,
            };
            if !again.iter().any(known) {
                again.push(ask);
            }
        }
        for ask in again {
            let took = self.until_it_succeeds(&client, &ask, healed_at).await?;
            recovery = recovery.or(took);
        }
        let kept: Vec<Digest> = self.stage.truth.blobs.keys().copied().collect();
        for digest in kept {
            if upstream.has_blob(&digest).await? {
                let began = upstream.now().await?;
                self.until_it_succeeds(&client, &Ask::read(&digest), began)
                    .await?;
            }
        }
        Ok(recovery)
    }

    async fn until_it_succeeds(
        &mut self,
        client: &Client,
        ask: &Ask,
        from: Duration,
    ) -> Result<Option<Duration>, UpstreamError> {
        let upstream = self.site.upstream();
        loop {
            let seen = client.ask(self.site, ask.clone(), self.site.patience()).await?;
            self.judge(&seen);
            let since = upstream.now().await?.saturating_sub(from);
            if succeeded(&seen, upstream, &self.stage.truth).await? {
                return Ok(Some(since));
            }
            if since > self.recovery_bound().await? || seen.answer.is_none() {
                let finding = Finding::of(Promise::P6, false, || {
                    format!("{since:?} after the end of the fault, still {seen}")
                });
                self.findings
                    .extend(self.oracle.weighed(finding.beyond_the_protocol(true)));
                return Ok(None);
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// A blob that was wrong twice is not tried again at once.
    async fn recovery_bound(&self) -> Result<Duration, UpstreamError> {
        let times = self.oracle.times;
        Ok(if self.was_wrong_twice().await? {
            times.forgiveness
        } else {
            times.recovery
        })
    }

    async fn was_wrong_twice(&self) -> Result<bool, UpstreamError> {
        let wrong = ["flip_byte", "extra_bytes", "other_blob", "repeat_chunk"];
        let firings = self.site.upstream().firings().await?;
        let wrong = firings
            .iter()
            .filter(|firing| wrong.contains(&firing.act))
            .count();
        Ok(wrong >= 2)
    }
}

/// Whether the client has what it wanted, as far as Tier 2 has it.
async fn succeeded(seen: &Seen, upstream: &Upstream, truth: &Truth) -> Result<bool, UpstreamError> {
    let lost = |digests: Vec<Digest>| async move {
        let mut lost = BTreeSet::new();
        for digest in digests {
            if !upstream.has_blob(&digest).await? {
                lost.insert(digest);
            }
        }
        Ok::<_, UpstreamError>(lost)
    };
    Ok(match (&seen.ask, &seen.answer) {
        (Ask::FindMissing { .. }, Some(Ok(Answer::Missing(missing)))) => {
            lost(missing.clone()).await?.len() == missing.iter().collect::<BTreeSet<_>>().len()
        }
        (Ask::GetTree { root }, Some(Ok(Answer::Tree(found)))) => match truth.trees.get(root) {
            None => found.is_empty(),
            Some(tree) => {
                let all = tree.iter().map(|bytes| Digest::of(bytes)).collect();
                // A directory that is there twice in the tree may be told twice.
                tree.iter().all(|bytes| found.contains(bytes)) || !lost(all).await?.is_empty()
            }
        },
        (_, Some(Ok(Answer::Entries(entries)))) => {
            let failed = entries.iter().filter(|entry| entry.code != Code::Ok);
            let absent = |entry: &&Entry| entry.digest.filter(|_| entry.code == Code::NotFound);
            let failed: Vec<&Entry> = failed.collect();
            let absent: Option<Vec<Digest>> = failed.iter().map(absent).collect();
            match absent {
                None => false,
                Some(absent) => {
                    let lost = lost(absent.clone()).await?;
                    absent.iter().all(|digest| lost.contains(digest))
                }
            }
        }
        (_, Some(Ok(_))) => true,
        (Ask::Read { digest, .. } | Ask::GetTree { root: digest }, Some(Err(status))) => {
            status.code() == Code::NotFound && !upstream.has_blob(digest).await?
        }
        (Ask::GetAction { key }, Some(Err(status))) => {
            let outputs = truth.blobs.keys().copied().collect();
            let usable = upstream.has_action(key).await? && lost(outputs).await?.is_empty();
            status.code() == Code::NotFound && !usable
        }
        (_, Some(Err(_)) | None) => false,
    })
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} → ", self.ask)?;
        match &self.answer {
            None => write!(f, "no answer"),
            Some(Err(status)) => write!(f, "{:?} ({})", status.code(), status.message()),
            Some(Ok(Answer::Entries(entries))) => {
                let codes: Vec<Code> = entries.iter().map(|entry| entry.code).collect();
                write!(f, "OK with {codes:?}")
            }
            Some(Ok(Answer::Missing(missing))) => write!(f, "OK, missing {missing:?}"),
            Some(Ok(Answer::Tree(found))) => write!(f, "OK with {} directories", found.len()),
            Some(Ok(_)) => write!(f, "OK"),
        }?;
        write!(f, " after {:?}; meanwhile tier 2 saw", self.took())?;
        let known: BTreeSet<u64> = self
            .before
            .iter()
            .filter(|call| call.outcome != Ended::Open)
            .map(|call| call.index)
            .collect();
        for call in self.after.iter().filter(|call| !known.contains(&call.index)) {
            let acts: Vec<_> = call.fired.iter().map(|firing| firing.act).collect();
            write!(f, " {} {:?}{acts:?}", call.method, call.outcome)?;
        }
        Ok(())
    }
}
