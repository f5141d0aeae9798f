//! Carries out a scenario.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use mock_upstream::Digest;
use tokio::task::JoinSet;
use tonic::Code;

use crate::oracle::{Oracle, Truth};
use crate::scenario::format::{Call, Check, Do, Scenario, Step, action_key, content, result_of};
use crate::site::{Answer, Ask, Client, NotOffered, Seen, Site, SiteError};
use crate::upstream::{Held, UpstreamError};

/// How long a call that has to succeed again may take where time is real: a busy machine is not the proxy's fault.
const AGAIN_FOR: Duration = Duration::from_secs(30);

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
    Lost(UpstreamError),
}

impl From<UpstreamError> for Stop {
    fn from(error: UpstreamError) -> Stop {
        Stop::Lost(error)
    }
}

impl From<SiteError> for Stop {
    fn from(error: SiteError) -> Stop {
        match error {
            SiteError::NotOffered(hook) => Stop::NotOffered(hook),
            SiteError::Upstream(error) => Stop::Lost(error),
        }
    }
}

impl From<NotOffered> for Stop {
    fn from(hook: NotOffered) -> Stop {
        Stop::NotOffered(hook)
    }
}

/// Carries out a scenario on a site that nobody else uses.
///
/// # Errors
/// If the mock is lost.
pub async fn run(
    site: Arc<dyn Site>,
    oracle: &Oracle,
    scenario: &Scenario,
) -> Result<Outcome, UpstreamError> {
    let wanted = scenario.when_down;
    if site.when_down() != wanted {
        return Ok(Outcome::NotOffered(format!(
            "the site does not {} while tier 2 is down",
            wanted.name()
        )));
    }
    let oracle = &Oracle {
        when_down: wanted,
        ..oracle.clone()
    };
    let mut play = Play::new(site.clone(), oracle, scenario).await?;
    for (number, step) in (1..).zip(&scenario.steps) {
        match play.step(step).await {
            Ok(()) => {}
            Err(Stop::NotOffered(hook)) => return Ok(Outcome::NotOffered(hook.to_string())),
            Err(Stop::Lost(error)) => return Err(error),
            Err(Stop::Failed(what)) => {
                let shown = format!("{step:?}");
                let shown: String = shown.chars().take(200).collect();
                let log = log(&*site).await?;
                return Ok(Outcome::Failed(format!("step {number}, {shown}: {what}\n{log}")));
            }
        }
    }
    Ok(Outcome::Passed)
}

/// What Tier 2 saw, for people.
async fn log(site: &dyn Site) -> Result<String, UpstreamError> {
    let calls = site.upstream().calls_since(0).await?;
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
    Ok(text)
}

/// What each client of a call saw.
type Made = Result<Vec<Seen>, UpstreamError>;

struct Play<'a> {
    site: Arc<dyn Site>,
    oracle: &'a Oracle,
    truth: Truth,
    blobs: BTreeMap<String, Bytes>,
    actions: BTreeMap<String, (Digest, Bytes)>,
    gates: BTreeMap<String, Held>,
    begun: BTreeMap<String, (Call, JoinSet<Made>)>,
    mark: u64,
}

impl<'a> Play<'a> {
    async fn new(
        site: Arc<dyn Site>,
        oracle: &'a Oracle,
        scenario: &Scenario,
    ) -> Result<Play<'a>, UpstreamError> {
        let (mut truth, mut blobs, mut actions) = (Truth::default(), BTreeMap::new(), BTreeMap::new());
        for blob in &scenario.blobs {
            let bytes = content(&scenario.salt, &blob.name, blob.bytes);
            truth.blob(&bytes);
            if blob.in_tier2 {
                site.upstream().put_blob(bytes.clone()).await?;
            }
            blobs.insert(blob.name.clone(), bytes);
        }
        for action in &scenario.actions {
            let outputs: Vec<_> = action
                .outputs
                .iter()
                .filter_map(|name| blobs.get(name).map(|bytes| Digest::of(bytes)))
                .collect();
            let key = action_key(&scenario.salt, action.key.as_ref().unwrap_or(&action.name));
            let result = result_of(&action.name, &outputs);
            if action.in_tier2 {
                site.upstream().put_action(&key, result.clone()).await?;
            }
            actions.insert(action.name.clone(), (key, result));
        }
        Ok(Play {
            site,
            oracle,
            truth,
            blobs,
            actions,
            gates: BTreeMap::new(),
            begun: BTreeMap::new(),
            mark: 0,
        })
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
        let upstream = site.upstream();
        match step {
            Step::Rule(rule) => upstream.add((**rule).clone()).await?,
            Step::Heal(_) => upstream.heal().await?,
            Step::Suspend(_) => upstream.suspend().await?,
            Step::Resume(_) => upstream.resume().await?,
            Step::ResetConnections(_) => upstream.reset_connections().await?,
            Step::Evict(names) => {
                for digest in self.digests(names)? {
                    upstream.evict(&digest).await?;
                }
            }
            Step::Put(names) => {
                for name in names {
                    upstream.put_blob(self.bytes(name)?).await?;
                }
            }
            Step::PutAction(put) => {
                let (key, _) = self.action(&put.key)?;
                upstream.put_action(&key, self.action(&put.result)?.1).await?;
            }
            Step::Plant(plant) => {
                let digest = self.digest(&plant.blob)?;
                let other = content("", "something else", plant.bytes);
                upstream.plant(&digest, other).await?;
                self.truth.rotten.insert(digest);
            }
            Step::Hold(hold) => {
                let gate = upstream.hold(hold.calls.clone(), hold.after()).await?;
                self.gates.insert(hold.name.clone(), gate);
            }
            Step::Reached(name) => self.waits(self.gate(name)?.reached()).await?,
            Step::Release(name) => self.gate(name)?.release().await?,
            Step::Call(call) => {
                let seen = self.make(call)?.await?;
                self.judge(call, &seen)?;
            }
            Step::Together(calls) => {
                let made = calls
                    .iter()
                    .map(|call| self.make(call))
                    .collect::<Result<Vec<_>, _>>()?;
                for (call, seen) in calls.iter().zip(join_all(made).await) {
                    self.judge(call, &seen?)?;
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
                    self.judge(&call, &seen?)?;
                }
            }
            Step::Wait(wait) if wait.ended => self.waits(upstream.finished(&wait.calls, wait.count)).await?,
            Step::Wait(wait) => self.waits(upstream.arrived(&wait.calls, wait.count)).await?,
            Step::Warm(names) => {
                for digest in self.digests(names)? {
                    let read = Ask::read(&digest);
                    let seen = Client::of(&*site).ask(&*site, read, site.patience()).await?;
                    if seen.code() != Some(Code::Ok) {
                        return Err(Stop::Failed(format!("{seen}")));
                    }
                    site.kept(&digest).await?;
                }
            }
            Step::Settle(_) => site.settled().await?,
            Step::PassMs(ms) => site.pass(Duration::from_millis(*ms)).await?,
            Step::Restart(_) => site.restart().await?,
            Step::Spoil(harm) => site.spoil(&self.digest(&harm.blob)?, harm.how).await?,
            Step::Trouble(trouble) => site.trouble(*trouble).await?,
            Step::Mark(_) => self.mark = upstream.mark().await?,
            Step::Check(check) => self.check(check).await?,
        }
        Ok(())
    }

    /// Waits for something in Tier 2 that a proxy need not bring about.
    async fn waits(&self, event: impl Future<Output = Result<(), UpstreamError>>) -> Result<(), Stop> {
        let patience = self.site.patience();
        let came = tokio::time::timeout(patience, event).await;
        let came =
            came.map_err(|_elapsed| Stop::Failed(format!("it did not come to that in {patience:?}")))?;
        Ok(came?)
    }

    fn gate(&self, name: &str) -> Result<&Held, Stop> {
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
                instance: self.site.target().instance().to_owned(),
            },
        })
    }

    /// All clients of a call at once. A peek that has its bytes is OK.
    fn make(&self, call: &Call) -> Result<impl Future<Output = Made> + Send + use<>, Stop> {
        let (site, ask, call) = (self.site.clone(), self.ask(call)?, call.clone());
        Ok(async move {
            let clients = (0..call.clients).map(|_| one(&*site, ask.again(), &call));
            join_all(clients).await.into_iter().collect()
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

    async fn check(&self, check: &Check) -> Result<(), Stop> {
        let upstream = self.site.upstream();
        for (names, wanted) in [(&check.holds, true), (&check.lacks, false)] {
            for name in names {
                if upstream.has_blob(&self.digest(name)?).await? != wanted {
                    return Err(Stop::Failed(format!("that tier 2 has {name} is not {wanted}")));
                }
            }
        }
        let mut found = Vec::new();
        if let Some(wanted) = &check.calls {
            let count = upstream.calls_since(self.mark).await?.matching(wanted).count();
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

async fn one(site: &dyn Site, ask: Ask, call: &Call) -> Result<Seen, UpstreamError> {
    let (client, patience, upstream) = (Client::of(site), site.patience(), site.upstream());
    if call.what == Do::Peek
        && let Ask::Read { digest, .. } = &ask
    {
        let before = upstream.log().await?;
        let read = tokio::time::timeout(patience, client.hang_up_read(digest, call.bytes)).await;
        let answer = read.ok().map(|came| came.map(|_| Answer::Bytes(Bytes::new())));
        let after = upstream.log().await?;
        return Ok(Seen {
            ask,
            answer,
            sent_at: before.now,
            ended_at: after.now,
            before: before.calls,
            after: after.calls,
        });
    }
    let again_for = call.until_ok_ms.map(Duration::from_millis).map(|time| {
        if site.has_virtual_time() {
            time
        } else {
            time.max(AGAIN_FOR)
        }
    });
    let began = upstream.now().await?;
    loop {
        let seen = client.ask(site, ask.again(), patience).await?;
        let since = upstream.now().await?.saturating_sub(began);
        if seen.code() == Some(Code::Ok) || again_for.is_none_or(|time| since >= time) {
            return Ok(seen);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}
