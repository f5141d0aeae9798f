//! Runs checks side by side, in a bounded number.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;

use crate::check::{Check, Outcome};
use crate::target::Target;

/// Checks that run at once: enough to hide latency, few enough not to be a load test.
const AT_ONCE: usize = 8;

/// How long a server may take over one check. Far beyond any honest answer; a hang becomes a finding, not a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `checks` and returns each with its outcome, in the order given.
pub async fn run(target: Arc<Target>, checks: Vec<Check>) -> Vec<(Check, Outcome)> {
    let look = |check: Check| {
        let target = target.clone();
        async move {
            let outcome = match tokio::time::timeout(PATIENCE, (check.look)(target)).await {
                Ok(verdict) => Outcome::from(verdict),
                Err(_elapsed) => Outcome::Failed(format!("no answer within {PATIENCE:?}")),
            };
            (check, outcome)
        }
    };
    futures::stream::iter(checks)
        .map(look)
        .buffered(AT_ONCE)
        .collect()
        .await
}
