//! The proxy profile: a proxy at an address, over a mock that is reached through its control port alone, judged by the
//! promises of a tiered cache.
//!
//! Scenarios are played one by one; of the fault matrix a sample is carried out that a seed draws. Time is real, so nothing
//! is said about how soon something happens, but only in which order. The mock is reset before each of them and at the
//! end; the proxy may remember what it likes, since all contents are new.

mod arguments;
mod opening;
mod rows;
mod sample;
mod tally;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use mock_upstream::Remote;

pub use arguments::{Arguments, Waiver};
pub use rows::{Counts, Row, find, rows};

use crate::check::{Finding, Outcome};
use crate::connect::Options;
use crate::faults::{self, Ground, Summary, Table};
use crate::oracle::{Oracle, Promise};
use crate::proxy::opening::Opened;
use crate::proxy::tally::Tally;
use crate::scenario::{self, Scenario};
use crate::site::{Attached, Site, WhenDown};
use crate::upstream::{Upstream, UpstreamError};

/// No combination is begun after so much time: a proxy that answers very slowly is judged by fewer of them.
const MATRIX_MAX: Duration = Duration::from_secs(240);

/// A scenario that takes longer has hung, whatever each of its steps waited for.
const SCENARIO_MAX: Duration = Duration::from_secs(150);

/// What is to be judged, and how.
#[derive(Clone, Debug)]
pub struct Run {
    /// How the proxy is reached.
    pub proxy: Options,
    /// The instance name of its clients.
    pub instance: String,
    /// What the arguments of the profile say.
    pub arguments: Arguments,
    /// Only rows whose id begins so.
    pub filter: String,
    /// Draws the sample of the matrix, and each combination in it.
    pub seed: u64,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Rows with what became of them, in the order of [`rows`].
    pub results: Vec<(Row, Outcome)>,
    /// About the matrix, for people.
    pub matrix: String,
}

/// Judges a proxy. `tell` hears of each row as soon as it is settled.
///
/// # Errors
/// If the control port or the proxy cannot be reached, or the proxy's Tier 2 is another than this mock; or if the mock is
/// lost on the way, or the run is interrupted. The mock is reset in any case in which it can be.
///
/// # Cancel safety
/// Dropped, it leaves the mock as it is; interrupt it instead.
pub async fn judge(run: &Run, tell: impl FnMut(&Row, &Outcome)) -> anyhow::Result<Judged> {
    let control = &run.arguments.proxy_upstream_control;
    let control = control
        .as_deref()
        .context("the mock's control port is not named")?;
    let remote = Remote::connect(control).await.context(
        "--proxy-upstream-control names the control port of the mock-upstream that is the proxy's Tier 2",
    )?;
    remote.reset().await?;
    let judged = tokio::select! {
        judged = judge_over(run, remote.clone(), tell) => judged,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    let reset = remote.reset().await;
    let judged = judged?;
    reset?;
    Ok(judged)
}

async fn judge_over(
    run: &Run,
    remote: Remote,
    mut tell: impl FnMut(&Row, &Outcome),
) -> anyhow::Result<Judged> {
    let opened = opening::open(run, remote).await?;
    let oracle = run.arguments.oracle();
    let mut results = Vec::new();
    let wanted = |row: &Row| row.id.starts_with(&run.filter);
    if run.arguments.only.is_none() {
        let scenarios = scenario::salted(&format!("{:x} ", opened.salt))?;
        for scenario in &scenarios {
            let row = rows::of_scenario(scenario);
            if wanted(&row) {
                let outcome = play(&opened, &oracle, scenario).await?;
                tell(&row, &outcome);
                results.push((row, outcome));
            }
        }
    }
    let promised: Vec<(Promise, Row)> = Promise::ALL
        .into_iter()
        .map(|promise| (promise, rows::of_promise(promise)))
        .filter(|(_, row)| wanted(row))
        .collect();
    let mut matrix = String::new();
    if !promised.is_empty() {
        let (tally, told) = carry_out(run, &opened, &oracle).await?;
        matrix = told;
        for (promise, mut row) in promised {
            let (counts, outcome) = match row.none {
                Some(why) => (None, Outcome::NotOffered(why.to_owned())),
                None if !oracle.promises.contains(&promise) => {
                    (None, Outcome::NotOffered("it is not promised".to_owned()))
                }
                None => tally.outcome(promise, run),
            };
            row.counts = counts;
            tell(&row, &outcome);
            results.push((row, outcome));
        }
    }
    Ok(Judged { results, matrix })
}

/// Plays a scenario, if all that it follows from is promised.
async fn play(opened: &Opened, oracle: &Oracle, scenario: &Scenario) -> anyhow::Result<Outcome> {
    if let Some(waived) = scenario
        .promises
        .iter()
        .find(|promise| !oracle.promises.contains(promise))
    {
        return Ok(Outcome::NotOffered(format!("{waived} is not promised")));
    }
    if let Some(why) = opened.made_well().await? {
        return Ok(Outcome::Broken(why.into()));
    }
    let site: Arc<dyn Site> = Arc::new(opened.site.clone());
    let played = tokio::time::timeout(SCENARIO_MAX, scenario::run(site, oracle, scenario)).await;
    Ok(match played {
        Err(_elapsed) => Outcome::Failed(format!("it was not over after {SCENARIO_MAX:?}").into()),
        Ok(outcome) => match outcome? {
            scenario::Outcome::Passed => Outcome::Passed,
            scenario::Outcome::NotOffered(hook) => Outcome::NotOffered(hook),
            scenario::Outcome::Failed(what) => {
                let mut lines = what.lines().map(str::to_owned);
                Outcome::Failed(Finding {
                    sent: format!("conformance/scenarios/{}.toml", scenario.name),
                    came: lines.next().unwrap_or_default(),
                    calls: lines.collect(),
                    ..Finding::default()
                })
            }
        },
    })
}

/// The one proxy that there is, for one combination after another.
struct Standing<'a>(&'a Attached);

#[async_trait]
impl Ground for Standing<'_> {
    async fn upstream(&self) -> Result<Upstream, UpstreamError> {
        Ok(self.0.upstream().clone())
    }

    async fn start(&self, _upstream: Upstream, _when_down: WhenDown) -> Box<dyn Site> {
        Box::new(self.0.clone())
    }
}

async fn carry_out(run: &Run, opened: &Opened, oracle: &Oracle) -> anyhow::Result<(Tally, String)> {
    let table = Table::shipped()?;
    let cases: Vec<faults::Case> = match &run.arguments.only {
        Some(only) => {
            let all = faults::cases(&table, run.seed);
            all.into_iter().filter(|case| case.id().contains(only)).collect()
        }
        None => sample::drawn(
            &table,
            run.seed,
            &oracle.times,
            &opened.lacking,
            run.arguments.sample,
        ),
    };
    anyhow::ensure!(!cases.is_empty(), "no combination has such an id");
    let (began, mut tally, mut summary) = (Instant::now(), Tally::default(), Summary::default());
    let mut tried = 0;
    for case in &cases {
        if began.elapsed() > MATRIX_MAX && run.arguments.only.is_none() {
            break;
        }
        if let Some(why) = opened.made_well().await? {
            tally.stopped(case, &why);
            break;
        }
        let verdict = faults::run(&Standing(&opened.site), oracle, case).await?;
        tried += 1;
        tally.add(case, &verdict);
        summary.add(case, &verdict);
        if run.arguments.only.is_some() {
            println!("{}: {:?}", case.id(), verdict.outcome);
        }
    }
    let calls: BTreeSet<&str> = cases.iter().take(tried).map(|case| case.call.name()).collect();
    let told = format!(
        "{tried} of {} combinations of seed {} in {} kinds of calls, {} counted, {} held, {:.0} s\n{}",
        cases.len(),
        run.seed,
        calls.len(),
        summary.counted(),
        summary.held().len(),
        began.elapsed().as_secs_f64(),
        tally.table()
    );
    Ok((tally, told))
}
