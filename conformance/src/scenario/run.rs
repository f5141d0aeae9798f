//! Carries out a scenario.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use mock_upstream::{Digest, Gate};
use tokio::task::JoinSet;
use tonic::Code;

use crate::oracle::{Oracle, Truth};
use crate::scenario::format::{Call, Check, Do, Scenario, Step, action_key, content, result_of};
use crate::site::{Answer, Ask, Client, NotOffered, Seen, Site};

/// How long a call may take before it is said to hang.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a call that has to succeed again is repeated.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Calls of Tier 2 that a report shows, the last ones.
const CALLS_SHOWN: usize = 30;

/// What became of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All was as expected.
    Passed,
    /// The site lacks a hook that it needs.
    NotOffered(String),
    /// Something was not: which step, what was expected, what came, what Tier 2 saw.
    Failed(String),
}

enum Stop {
    NotOffered(NotOffered),
    Failed(String),
}

impl From<NotOffered> for Stop {
    fn from(hook: NotOffered) -> Stop {
        Stop::NotOffered(hook)
    }
}

/// Carries out a scenario on a site that nobody else uses.
pub async fn run(site: Arc<dyn Site>, oracle: &Oracle, scenario: &Scenario) -> Outcome {
    let wanted = scenario.when_down;
    if site.when_down() != wanted {
        return Outcome::NotOffered(format!(
            "the site does not {} while tier 2 is down",
            wanted.name()
        ));
    }
    let oracle = &Oracle {
        when_down: wanted,
        ..oracle.clone()
    };
    let mut play = Play::new(site.clone(), oracle, scenario);
    for (number, step) in (1..).zip(&scenario.steps) {
        match play.step(step).await {
            Ok(()) => {}
            Err(Stop::NotOffered(hook)) => return Outcome::NotOffered(hook.to_string()),
            Err(Stop::Failed(what)) => {
                let shown = format!("{step:?}");
                let shown: String = shown.chars().take(200).collect();
                return Outcome::Failed(format!("step {number}, {shown}: {what}\n{}", log(&*site)));
            }
        }
    }
    Outcome::Passed
}

/// What Tier 2 saw, for people.
fn log(site: &dyn Site) -> String {
    let calls = site.mock().calls();
    let mut text = String::from("tier 2 saw:");
    for call in calls.iter().skip(calls.count().saturating_sub(CALLS_SHOWN)) {
        let acts: Vec<_> = call.fired.iter().map(|firing| firing.act).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n  {:>9.3} s {} {:?} {:?} {acts:?}",
            call.arrived_at.as_secs_f64(),
            call.method,
            call.digests,
            call.outcome
        );
    }
    text
}

struct Play<'a> {
    site: Arc<dyn Site>,
    oracle: &'a Oracle,
    truth: Truth,
    blobs: BTreeMap<String, Bytes>,
    actions: BTreeMap<String, (Digest, Bytes)>,
    gates: BTreeMap<String, Gate>,
    begun: BTreeMap<String, (Call, JoinSet<Vec<Seen>>)>,
    mark: u64,
}

impl<'a> Play<'a> {
    fn new(site: Arc<dyn Site>, oracle: &'a Oracle, scenario: &Scenario) -> Play<'a> {
        let (mut truth, mut blobs, mut actions) = (Truth::default(), BTreeMap::new(), BTreeMap::new());
        for blob in &scenario.blobs {
            let bytes = content(&blob.name, blob.bytes);
            truth.blob(&bytes);
            if blob.in_tier2 {
                site.mock().put_blob("", bytes.clone());
            }
            blobs.insert(blob.name.clone(), bytes);
        }
        for action in &scenario.actions {
            let outputs: Vec<_> = action
                .outputs
                .iter()
                .filter_map(|name| blobs.get(name).map(|bytes| Digest::of(bytes)))
                .collect();
            let key = action_key(action.key.as_ref().unwrap_or(&action.name));
            let result = result_of(&action.name, &outputs);
            if action.in_tier2 {
                site.mock().put_action("", &key, result.clone());
            }
            actions.insert(action.name.clone(), (key, result));
        }
        Play {
            site,
            oracle,
            truth,
            blobs,
            actions,
            gates: BTreeMap::new(),
            begun: BTreeMap::new(),
            mark: 0,
        }
    }

    fn bytes(&self, name: &str) -> Result<Bytes, Stop> {
        let found = self.blobs.get(name).cloned();
        found.ok_or_else(|| Stop::Failed(format!("there is no blob {name}")))
    }

    fn action(&self, name: &str) -> Result<(Digest, Bytes), Stop> {
        let found = self.actions.get(name).cloned();
        found.ok_or_else(|| Stop::Failed(format!("there is no action {name}")))
    }

    fn digest(&self, name: &str) -> Result<Digest, Stop> {
        Ok(Digest::of(&self.bytes(name)?))
    }

    fn digests(&self, names: &[String]) -> Result<Vec<Digest>, Stop> {
        names.iter().map(|name| self.digest(name)).collect()
    }

    async fn step(&mut self, step: &Step) -> Result<(), Stop> {
        let site = self.site.clone();
        let mock = site.mock();
        let failed = |error: std::io::Error| Stop::Failed(error.to_string());
        match step {
            Step::Rule(rule) => {
                mock.add((**rule).clone());
            }
            Step::Heal(_) => mock.heal(),
            Step::Suspend(_) => mock.suspend().await.map_err(failed)?,
            Step::Resume(_) => mock.resume().await.map_err(failed)?,
            Step::ResetConnections(_) => {
                mock.reset_connections();
            }
            Step::Evict(names) => {
                for digest in self.digests(names)? {
                    mock.evict("", &digest);
                }
            }
            Step::Put(names) => {
                for name in names {
                    mock.put_blob("", self.bytes(name)?);
                }
            }
            Step::PutAction(put) => {
                let (key, _) = self.action(&put.key)?;
                mock.put_action("", &key, self.action(&put.result)?.1);
            }
            Step::Plant(plant) => {
                let digest = self.digest(&plant.blob)?;
                mock.plant("", &digest, content("something else", plant.bytes));
                self.truth.rotten.insert(digest);
            }
            Step::Hold(hold) => {
                let gate = mock.hold(hold.calls.clone(), hold.after());
                self.gates.insert(hold.name.clone(), gate);
            }
            Step::Reached(name) => self.gate(name)?.reached().await,
            Step::Release(name) => self.gate(name)?.release(),
            Step::Call(call) => {
                let seen = self.make(call)?.await;
                self.judge(call, &seen)?;
            }
            Step::Together(calls) => {
                let made = calls
                    .iter()
                    .map(|call| self.make(call))
                    .collect::<Result<Vec<_>, _>>()?;
                for (call, seen) in calls.iter().zip(join_all(made).await) {
                    self.judge(call, &seen)?;
                }
            }
            Step::Begin(begin) => {
                let mut set = JoinSet::new();
                set.spawn(self.make(&begin.call)?);
                self.begun.insert(begin.name.clone(), (begin.call.clone(), set));
            }
            Step::End(name) => {
                let begun = self.begun.remove(name);
                let (call, set) = begun.ok_or_else(|| Stop::Failed(format!("{name} was not begun")))?;
                for seen in set.join_all().await {
                    self.judge(&call, &seen)?;
                }
            }
            Step::Wait(wait) if wait.ended => mock.finished(wait.calls.clone(), wait.count).await,
            Step::Wait(wait) => mock.arrived(wait.calls.clone(), wait.count).await,
            Step::Warm(names) => {
                for digest in self.digests(names)? {
                    let seen = Client::of(&*site).ask(&*site, Ask::read(&digest), PATIENCE).await;
                    if seen.code() != Some(Code::Ok) {
                        return Err(Stop::Failed(format!("{seen}")));
                    }
                }
                site.settled().await?;
            }
            Step::Settle(_) => site.settled().await?,
            Step::PassMs(ms) => site.pass(Duration::from_millis(*ms)).await?,
            Step::Restart(_) => site.restart().await?,
            Step::Spoil(harm) => site.spoil(&self.digest(&harm.blob)?, harm.how).await?,
            Step::Trouble(trouble) => site.trouble(*trouble).await?,
            Step::Mark(_) => self.mark = mock.mark(),
            Step::Check(check) => self.check(check)?,
        }
        Ok(())
    }

    fn gate(&self, name: &str) -> Result<&Gate, Stop> {
        let gate = self.gates.get(name);
        gate.ok_or_else(|| Stop::Failed(format!("nothing is held by the name of {name}")))
    }

    fn ask(&self, call: &Call) -> Result<Ask, Stop> {
        let blob = || self.bytes(call.blob.as_deref().unwrap_or_default());
        let action = || self.action(call.action.as_deref().unwrap_or_default());
        Ok(match call.what {
            Do::Read | Do::Peek => Ask::Read {
                digest: Digest::of(&blob()?),
                offset: call.offset,
                limit: call.limit,
            },
            Do::BatchRead => Ask::BatchRead {
                digests: self.digests(&call.blobs)?,
            },
            Do::FindMissing => Ask::FindMissing {
                digests: self.digests(&call.blobs)?,
            },
            Do::Write => Ask::write(&blob()?),
            Do::BatchUpdate => {
                let blobs: Result<_, _> = call.blobs.iter().map(|name| self.bytes(name)).collect();
                Ask::BatchUpdate { blobs: blobs? }
            }
            Do::GetAction => Ask::GetAction { key: action()?.0 },
            Do::UpdateAction => {
                let (key, result) = action()?;
                Ask::UpdateAction { key, result }
            }
            Do::Capabilities => Ask::Capabilities {
                instance: String::new(),
            },
        })
    }

    /// All clients of a call at once. A peek that has its bytes is OK.
    fn make(&self, call: &Call) -> Result<impl Future<Output = Vec<Seen>> + Send + use<>, Stop> {
        let (site, ask, call) = (self.site.clone(), self.ask(call)?, call.clone());
        Ok(async move {
            let clients = (0..call.clients).map(|_| one(&*site, ask.again(), &call));
            join_all(clients).await
        })
    }

    fn judge(&self, call: &Call, seen: &[Seen]) -> Result<(), Stop> {
        for seen in seen {
            self.expected(call, seen)?;
            if call.what != Do::Peek {
                let findings = self.oracle.judge(seen, &self.truth);
                if let Some(finding) = findings.into_iter().find(|finding| finding.broken.is_some()) {
                    let what = finding.broken.unwrap_or_default();
                    return Err(Stop::Failed(format!("{}: {what}", finding.promise)));
                }
            }
        }
        Ok(())
    }

    fn expected(&self, call: &Call, seen: &Seen) -> Result<(), Stop> {
        let fails = |what: &str| Err(Stop::Failed(format!("{what}, but {seen}")));
        let code = seen.code();
        let codes: Vec<Code> = call.expect.iter().map(|name| name.0).collect();
        let fits = match (codes.as_slice(), code) {
            ([], code) => code == Some(Code::Ok),
            (codes, Some(code)) => codes.contains(&code),
            (_, None) => false,
        };
        if !fits {
            return fails(&format!("expected {:?}", call.expect));
        }
        if let (Some(within), true) = (call.within(), self.site.has_virtual_time())
            && seen.took() > within
        {
            return fails(&format!("expected within {within:?}"));
        }
        match &seen.answer {
            Some(Ok(Answer::Entries(entries))) if !call.entries.is_empty() => {
                let expected: Vec<Code> = call.entries.iter().map(|name| name.0).collect();
                if entries.iter().map(|entry| entry.code).collect::<Vec<_>>() != expected {
                    return fails(&format!("expected {expected:?}"));
                }
            }
            Some(Ok(Answer::Missing(missing))) => {
                if let Some(names) = &call.missing
                    && *missing != self.digests(names)?
                {
                    return fails(&format!("expected {names:?} to be missing"));
                }
            }
            Some(Ok(Answer::Action(result))) => {
                if let Some(name) = &call.result
                    && *result != self.action(name)?.1
                {
                    return fails(&format!("expected the result of {name}"));
                }
            }
            Some(Ok(_) | Err(_)) | None => {}
        }
        Ok(())
    }

    fn check(&self, check: &Check) -> Result<(), Stop> {
        let mock = self.site.mock();
        for (names, wanted) in [(&check.holds, true), (&check.lacks, false)] {
            for name in names {
                if mock.blob("", &self.digest(name)?).is_some() != wanted {
                    return Err(Stop::Failed(format!("that tier 2 has {name} is not {wanted}")));
                }
            }
        }
        let mut found = Vec::new();
        if let Some(wanted) = &check.calls {
            let count = mock.calls().since(self.mark).matching(wanted).count();
            #[expect(
                clippy::cast_precision_loss,
                reason = "a log has fewer calls than 52 bits count"
            )]
            found.push(("calls of tier 2", count as f64));
        }
        if let Some(name) = &check.metric {
            found.push((name.as_str(), self.site.metric(name)?));
        }
        for (what, value) in found {
            #[expect(clippy::float_cmp, reason = "counts are whole numbers")]
            let is = check.is.is_none_or(|is| value == is);
            if !is || check.at_most.is_some_and(|most| value > most) {
                return Err(Stop::Failed(format!("{what}: {value}")));
            }
        }
        Ok(())
    }
}

async fn one(site: &dyn Site, ask: Ask, call: &Call) -> Seen {
    let client = Client::of(site);
    if call.what == Do::Peek
        && let Ask::Read { digest, .. } = &ask
    {
        let (sent_at, before) = (site.mock().now(), site.mock().calls());
        let read = tokio::time::timeout(PATIENCE, client.hang_up_read(digest, call.bytes)).await;
        let answer = read.ok().map(|came| came.map(|_| Answer::Bytes(Bytes::new())));
        return Seen {
            ask,
            answer,
            sent_at,
            ended_at: site.mock().now(),
            before,
            after: site.mock().calls(),
        };
    }
    let began = site.mock().now();
    loop {
        let seen = client.ask(site, ask.again(), PATIENCE).await;
        let since = site.mock().now().saturating_sub(began);
        let again = call
            .until_ok_ms
            .is_some_and(|ms| since < Duration::from_millis(ms));
        if seen.code() == Some(Code::Ok) || !again {
            return seen;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
