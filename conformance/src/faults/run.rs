//! Carries out one combination.

use std::collections::BTreeSet;
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
use crate::site::{Answer, Ask, Client, Seen, Site, WhenDown};

/// What the log calls the fault.
const FAULT: &str = "fault";

/// How long a client waits: beyond any bound, so that a call that overruns its bound is told from one that never ends.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a client that failed comes again once the fault is over.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Bytes that a blob has at least for its middle to be inside.
const MIDDLE_FROM: u64 = 2;

/// How long Tier 2 is in trouble when it flaps.
const FLAP_MS: std::ops::RangeInclusive<u64> = 1..=1_500;

/// Where proxies come from.
#[async_trait]
pub trait Ground: Send + Sync {
    /// A proxy that knows nothing yet, over this mock, and told so to behave while it is down, if that can be told.
    async fn start(&self, mock: Mock, when_down: WhenDown) -> Box<dyn Site>;
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
            recovery: None,
            wrong_twice: false,
            longest: Duration::ZERO,
        }
    }
}

/// Carries out one combination, on a proxy of its own.
pub async fn run(ground: &dyn Ground, oracle: &Oracle, case: &Case) -> Verdict {
    let mut random = case.random();
    let mock = Mock::builder().start();
    // Capabilities may be asked for as soon as there is a proxy, and never again.
    let early = case.call == Call::Caps && case.state == State::Cold;
    if early {
        set_rules(&mock, case, None, &mut random);
    }
    let site = ground.start(mock, case.when_down()).await;
    let oracle = &Oracle {
        when_down: site.when_down(),
        ..oracle.clone()
    };
    let stage = match stage::set(&*site, case, oracle.times, &mut random).await {
        Ok(stage) => stage,
        Err(StageError::NotOffered(hook)) => return Verdict::not_counted(hook.to_string()),
        Err(error @ StageError::Refused(_)) => {
            return Verdict {
                outcome: Outcome::Broken(vec![error.to_string()]),
                ..Verdict::not_counted("")
            };
        }
    };
    let mut trial = Trial {
        site: &*site,
        oracle,
        case,
        stage,
        findings: Vec::new(),
    };
    let (fired, longest) = trial.under_the_fault(early, &mut random).await;
    let recovery = trial.afterwards().await;
    Verdict {
        outcome: outcome(&trial.findings, fired),
        recovery,
        wrong_twice: trial.was_wrong_twice(),
        longest,
    }
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

fn set_rules(mock: &Mock, case: &Case, aim: Option<&Digest>, random: &mut StdRng) {
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
    for name in methods {
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
            mock.add(bounded(pause));
        }
        mock.add(bounded(Rule::new(wanted, act.clone()).named(FAULT).after(after)));
    }
    if case.fault.is_on_connect() {
        mock.reset_connections();
    }
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
    async fn under_the_fault(&mut self, early: bool, random: &mut StdRng) -> (bool, Duration) {
        let mock = self.site.mock();
        let is_fault = |firing: &&Firing| firing.name == FAULT;
        let firings = mock.firings().iter().filter(is_fault).count();
        if !early {
            set_rules(mock, self.case, self.stage.aim.as_ref(), random);
        }
        let firings = if early { 0 } else { firings };
        let first = self.stage.asks.first().cloned();
        let beside = self.case.call == Call::Status;
        let asked = self.stage.asks.iter().enumerate().map(async |(number, ask)| {
            let client = Client::of(self.site);
            if beside && number > 0 {
                // Once the upload is in trouble, or over.
                let size = first.as_ref().map(|_| Match::method(method::WRITE));
                tokio::select! {
                    () = mock.fired(FAULT, 1) => {}
                    () = mock.finished(size.unwrap_or_default(), 1) => {}
                    () = tokio::time::sleep(self.oracle.times.longest_call) => {}
                }
            }
            client.ask(self.site, ask.clone(), PATIENCE).await
        });
        let mut seen = join_all(asked).await;
        let fired = mock.firings().iter().filter(is_fault).count() > firings;
        if self.case.call == Call::Caps {
            // What was asked for behind the first answer is told in the second.
            let client = Client::of(self.site);
            for ask in &self.stage.asks {
                seen.push(client.ask(self.site, ask.clone(), PATIENCE).await);
            }
        }
        for seen in &seen {
            self.judge(seen);
            if self.case.unseen {
                self.unseen(seen);
            }
        }
        if let (Call::Read, Some(digest)) = (self.case.call, &self.stage.aim) {
            self.findings.extend(self.oracle.one_fetch(&seen, digest));
        }
        let longest = seen.iter().map(Seen::took).max().unwrap_or_default();
        (fired, longest)
    }

    fn judge(&mut self, seen: &Seen) {
        let findings = self.oracle.judge(seen, &self.stage.truth);
        self.findings.extend(findings);
    }

    /// A fault that is the proxy's to mend.
    fn unseen(&mut self, seen: &Seen) {
        if !self.oracle.mends {
            return;
        }
        let kept = succeeded(seen, self.site.mock(), &self.stage.truth);
        self.findings.push(Finding {
            promise: Promise::P10,
            broken: (!kept).then(|| format!("a single {} was not hidden: {seen}", self.case.fault.name())),
        });
    }

    /// The fault is over: the same call, and a look at all that may have been kept.
    async fn afterwards(&mut self) -> Option<Duration> {
        let mock = self.site.mock();
        mock.heal();
        let healed_at = mock.now();
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
            let took = self.until_it_succeeds(&client, &ask, healed_at).await;
            recovery = recovery.or(took);
        }
        let kept: Vec<Digest> = self.stage.truth.blobs.keys().copied().collect();
        for digest in kept.iter().filter(|digest| mock.blob("", digest).is_some()) {
            let began = mock.now();
            self.until_it_succeeds(&client, &Ask::read(digest), began).await;
        }
        recovery
    }

    async fn until_it_succeeds(&mut self, client: &Client, ask: &Ask, from: Duration) -> Option<Duration> {
        let mock = self.site.mock();
        loop {
            let seen = client.ask(self.site, ask.clone(), PATIENCE).await;
            self.judge(&seen);
            let since = mock.now().saturating_sub(from);
            if succeeded(&seen, mock, &self.stage.truth) {
                return Some(since);
            }
            if since > self.recovery_bound() || seen.answer.is_none() {
                self.findings.push(Finding {
                    promise: Promise::P6,
                    broken: Some(format!("{since:?} after the end of the fault, still {seen}")),
                });
                self.findings
                    .retain(|finding| self.oracle.promises.contains(&finding.promise));
                return None;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// A blob that was wrong twice is not tried again at once.
    fn recovery_bound(&self) -> Duration {
        let times = self.oracle.times;
        if self.was_wrong_twice() {
            times.forgiveness
        } else {
            times.recovery
        }
    }

    fn was_wrong_twice(&self) -> bool {
        let wrong = ["flip_byte", "extra_bytes", "other_blob", "repeat_chunk"];
        let firings = self.site.mock().firings();
        let wrong = firings
            .iter()
            .filter(|firing| wrong.contains(&firing.act))
            .count();
        wrong >= 2
    }
}

/// Whether the client has what it wanted, as far as Tier 2 has it.
fn succeeded(seen: &Seen, mock: &Mock, truth: &Truth) -> bool {
    let has = |digest: &Digest| mock.blob("", digest).is_some();
    let entry = |code: Code, digest: Option<&Digest>| {
        code == Code::Ok || (code == Code::NotFound && digest.is_some_and(|digest| !has(digest)))
    };
    match (&seen.ask, &seen.answer) {
        (Ask::FindMissing { .. }, Some(Ok(Answer::Missing(missing)))) => {
            missing.iter().all(|digest| !has(digest))
        }
        (Ask::GetTree { root }, Some(Ok(Answer::Tree(found)))) => {
            let all = truth.trees.get(root).map_or(0, BTreeSet::len);
            let lost = |bytes: &bytes::Bytes| !has(&Digest::of(bytes));
            found.len() == all || truth.trees.get(root).is_some_and(|tree| tree.iter().any(lost))
        }
        (_, Some(Ok(Answer::Entries(entries)))) => entries
            .iter()
            .all(|found| entry(found.code, found.digest.as_ref())),
        (_, Some(Ok(_))) => true,
        (Ask::Read { digest, .. } | Ask::GetTree { root: digest }, Some(Err(status))) => {
            entry(status.code(), Some(digest))
        }
        (Ask::GetAction { key }, Some(Err(status))) => {
            let usable = mock.action("", key).is_some() && truth.blobs.keys().all(has);
            status.code() == Code::NotFound && !usable
        }
        (_, Some(Err(_)) | None) => false,
    }
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
