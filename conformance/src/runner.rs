//! Runs checks side by side, in a bounded number.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use crate::check::{Check, Finding, Outcome};
use crate::function::Function;
use crate::target::Target;

/// Checks that run at once: enough to hide latency, few enough not to be a load test.
const AT_ONCE: usize = 8;

/// How long a server may take over one check, or one input of a property. Far beyond any honest answer; a hang becomes a finding, not a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `checks` and returns each with its outcome, in the order given.
pub async fn run(target: Arc<Target>, checks: Vec<Check>) -> Vec<(Check, Outcome)> {
    run_and_tell(target, checks, |_, _| {}).await
}

/// As [`run`]; `tell` hears of each outcome, in the order given.
pub async fn run_and_tell(
    target: Arc<Target>,
    checks: Vec<Check>,
    mut tell: impl FnMut(&Check, &Outcome),
) -> Vec<(Check, Outcome)> {
    let look = |check: Check| {
        let target = Arc::new(target.fresh());
        async move { (check, judge(&target, &check).await) }
    };
    futures::stream::iter(checks)
        .map(look)
        .buffered(AT_ONCE)
        .inspect(|(check, outcome)| tell(check, outcome))
        .collect()
        .await
}

async fn judge(target: &Arc<Target>, check: &Check) -> Outcome {
    let mut outcome = judge_once(target, check).await;
    if check.again && outcome == Outcome::Passed {
        for function in announced(target).await {
            let under = Arc::new(target.under(function));
            match judge_once(&under, check).await {
                Outcome::Failed(finding) => outcome = Outcome::Failed(under_function(function, finding)),
                Outcome::Broken(finding) => outcome = Outcome::Broken(under_function(function, finding)),
                Outcome::Passed | Outcome::NotOffered(_) => {}
            }
        }
    }
    if let Outcome::Failed(finding) | Outcome::Broken(finding) = &mut outcome {
        finding.calls = target.trace().calls();
    }
    outcome
}

async fn judge_once(target: &Arc<Target>, check: &Check) -> Outcome {
    match tokio::time::timeout(PATIENCE, (check.look)(target.clone())).await {
        Ok(verdict) => Outcome::from(verdict),
        Err(_elapsed) => Outcome::Failed(Finding::from(format!("no answer within {PATIENCE:?}"))),
    }
}

/// New functions that the server announces; that it announces anything is for other checks to demand.
async fn announced(target: &Target) -> Vec<Function> {
    let announced = target
        .cache()
        .await
        .map_or_else(|_| Vec::new(), |cache| cache.digest_functions);
    let functions = Function::NEW.into_iter();
    functions
        .filter(|function| announced.contains(&function.number()))
        .collect()
}

fn under_function(function: Function, finding: Finding) -> Finding {
    Finding {
        came: format!("{}, by digests of {}", finding.came, function.name()),
        ..finding
    }
}
