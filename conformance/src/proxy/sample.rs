//! Which combinations of the fault matrix are tried where time is real: some of each cell, few of those that take long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::faults::{self, Call, Case, Place, State, Table};
use crate::oracle::Times;

/// What all combinations that take long may take together, as far as that can be known before.
const SLOW_MAX: Duration = Duration::from_secs(30);

/// The longest time that is let pass between two calls.
const PASS_MAX: Duration = Duration::from_secs(6);

/// Combinations that a seed draws, in the order in which they are tried: one of each fault and call, then a second one.
/// What takes more time than is let pass, or needs a call that the proxy lacks, is left out.
pub(super) fn drawn(
    table: &Table,
    seed: u64,
    times: &Times,
    lacking: &BTreeSet<Call>,
    at_most: usize,
) -> Vec<Case> {
    let all = faults::cases(table, seed).into_iter();
    let mut cases: Vec<Case> = all
        .filter(|case| case.is_drawn() && !lacking.contains(&case.call) && passes(case, times) <= PASS_MAX)
        .collect();
    cases.sort_by_cached_key(lot);
    // How many of its cell come before it.
    let mut before: BTreeMap<(String, Call), usize> = BTreeMap::new();
    let mut order: Vec<(usize, Case)> = Vec::new();
    for case in cases {
        let count = before
            .entry((case.fault.name().to_owned(), case.call))
            .or_default();
        order.push((*count, case));
        *count += 1;
    }
    order.sort_by_key(|(count, _)| *count);
    let mut left = SLOW_MAX;
    let affordable = order.into_iter().filter_map(|(_, case)| {
        let takes = takes(&case, times);
        left = left.checked_sub(takes)?;
        Some(case)
    });
    affordable.take(at_most).collect()
}

/// Draws an order.
fn lot(case: &Case) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(b"order");
    hasher.update(case.seed.to_le_bytes());
    hasher.update(case.id());
    hasher.finalize().into()
}

/// What has to pass before the call, so that what Tier 2 said is too old.
fn passes(case: &Case, times: &Times) -> Duration {
    match (case.call, case.state) {
        (Call::Repair, _) | (Call::Find, State::Warm) => times.lease,
        (Call::Get | Call::Hit, State::Warm) => times.action_lease,
        (Call::Early, _) | (Call::Write | Call::Update | Call::Status, State::Warm) => times.write_lease,
        _ => Duration::ZERO,
    }
}

/// About how long it takes beyond the time of a few calls.
fn takes(case: &Case, times: &Times) -> Duration {
    let uploads = matches!(case.call, Call::Write | Call::Early | Call::Update | Call::Status);
    let fault = match (case.fault.act_name(), case.fault.place()) {
        // Storing may take long, so that this silence is borne for long.
        ("hang", Place::End) if uploads => Duration::from_secs(60),
        // A proxy notices a silence by its length.
        ("hang" | "starve", _) => Duration::from_secs(12),
        ("delay", _) => Duration::from_secs(3),
        ("drip", _) => Duration::from_secs(2),
        _ => Duration::ZERO,
    };
    fault + passes(case, times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(seed: u64, at_most: usize) -> Vec<Case> {
        let table = Table::shipped().unwrap();
        drawn(&table, seed, &Times::default(), &BTreeSet::new(), at_most)
    }

    fn ids(cases: &[Case]) -> Vec<String> {
        cases.iter().map(Case::id).collect()
    }

    #[test]
    fn a_seed_draws_the_same_and_fewer_are_the_first_of_more() {
        let many = ids(&sample(1, 300));
        assert_eq!(many, ids(&sample(1, 300)));
        assert_eq!(many[..40], ids(&sample(1, 40)));
        assert_ne!(many, ids(&sample(2, 300)));
    }

    #[test]
    fn every_call_that_needs_no_hook_meets_many_faults_and_little_of_it_is_slow() {
        let cases = sample(1, 400);
        assert_eq!(cases.len(), 400);
        for call in Call::ALL.into_iter().filter(|call| *call != Call::Repair) {
            let met = cases.iter().filter(|case| case.call == call).count();
            let least = if call == Call::Early { 1 } else { 10 };
            assert!(met >= least, "{} meets {met}", call.name());
        }
        let slow: Duration = cases.iter().map(|case| takes(case, &Times::default())).sum();
        assert!(slow <= SLOW_MAX, "{slow:?}");
    }

    #[test]
    fn short_leases_let_more_be_tried_and_a_lacking_call_is_left_out() {
        let table = Table::shipped().unwrap();
        let times = Times {
            lease: Duration::from_secs(1),
            ..Times::default()
        };
        let lacking = BTreeSet::from([Call::Tree]);
        let cases = drawn(&table, 1, &times, &lacking, 1_000);
        assert!(cases.iter().any(|case| case.call == Call::Repair));
        assert!(cases.iter().all(|case| case.call != Call::Tree));
    }
}
