//! What the matrix showed of each promise.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::check::{Finding, Outcome};
use crate::faults::{self, Case, Verdict};
use crate::oracle::{self, Promise};
use crate::proxy::Run;
use crate::proxy::rows::Counts;

/// Other combinations that break a promise, of which a failure names so many.
const NAMED: usize = 8;

/// By promise.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Promise, Shown>);

#[derive(Debug, Default)]
struct Shown {
    counts: Counts,
    /// Combinations in which it was broken, with what broke it.
    broken: Vec<(Case, oracle::Finding)>,
    /// How many of them the protocol itself, or what follows from it, rules out.
    against_protocol: usize,
}

impl Tally {
    /// Adds a combination, if it counts.
    pub(super) fn add(&mut self, case: &Case, verdict: &Verdict) {
        match &verdict.outcome {
            faults::Outcome::NotCounted(_) => return,
            // It was refused before anything was broken, which no promise names: a call that ends so is of no use.
            faults::Outcome::Broken(what) if verdict.looked.is_empty() => {
                self.note(case, Promise::P10, &[of_p10(what.join("; "))]);
                return;
            }
            faults::Outcome::Held(_) | faults::Outcome::Broken(_) => {}
        }
        for (promise, broken) in &verdict.looked {
            self.note(case, *promise, broken);
        }
    }

    /// The proxy was not well before this combination, and nothing was tried any more.
    pub(super) fn stopped(&mut self, case: &Case, why: &str) {
        self.note(
            case,
            Promise::P10,
            &[of_p10(format!("before {}: {why}", case.id()))],
        );
    }

    fn note(&mut self, case: &Case, promise: Promise, broken: &[oracle::Finding]) {
        let shown = self.0.entry(promise).or_default();
        shown.counts.counted += 1;
        // What the protocol rules out is told first.
        let worst = broken.iter().min_by_key(|finding| finding.beyond);
        match worst {
            None => shown.counts.held += 1,
            Some(worst) => {
                shown.against_protocol += usize::from(!worst.beyond);
                shown.broken.push((case.clone(), worst.clone()));
            }
        }
    }

    /// What became of a promise that is judged, and how often it was looked at.
    pub(super) fn outcome(&self, promise: Promise, run: &Run) -> (Option<Counts>, Outcome) {
        match self.0.get(&promise) {
            None => (
                None,
                Outcome::NotOffered("no combination that was tried looks at it".to_owned()),
            ),
            Some(shown) => (Some(shown.counts), shown.outcome(run)),
        }
    }

    /// Promises by what was counted, for people.
    pub(super) fn table(&self) -> String {
        let mut text =
            String::from("promise   counted   held   broken: by the protocol   by a choice alone\n");
        for (promise, shown) in &self.0 {
            let Counts { counted, held } = shown.counts;
            let protocol = shown.against_protocol;
            let choice = shown.broken.len() - protocol;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "PXY-{promise:<5} {counted:>7} {held:>6} {protocol:>25} {choice:>19}"
            );
        }
        text
    }
}

impl Shown {
    fn outcome(&self, run: &Run) -> Outcome {
        // The smallest of the gravest.
        let size = |(case, finding): &&(Case, oracle::Finding)| {
            (finding.beyond, case.crowd, case.state, case.times, case.id())
        };
        let Some((case, finding)) = self.broken.iter().min_by_key(size) else {
            return Outcome::Passed;
        };
        let (id, protocol) = (case.id(), self.against_protocol);
        let broken = self.broken.len();
        let basis = match (protocol, broken - protocol) {
            (_, 0) => "all against the protocol".to_owned(),
            (0, _) => "all against a choice that the protocol leaves free".to_owned(),
            (_, choice) => format!("{protocol} against the protocol, {choice} against a choice alone"),
        };
        let what = finding.broken.clone().unwrap_or_default();
        let others = self
            .broken
            .iter()
            .map(|(case, _)| case.id())
            .filter(|other| *other != id);
        let others: Vec<String> = others.take(NAMED).collect();
        let mut calls = vec![format!("again: {}", run.repeats(case))];
        if !others.is_empty() {
            calls.push(format!("others: {}", others.join(" ")));
        }
        Outcome::Failed(Finding {
            sent: id,
            expected: String::new(),
            came: format!(
                "{broken} of {} combinations break it, {basis}; {what}",
                self.counts.counted
            ),
            calls,
        })
    }
}

impl Run {
    /// The command that carries out one combination again.
    fn repeats(&self, case: &Case) -> String {
        let control = self
            .arguments
            .proxy_upstream_control
            .as_deref()
            .unwrap_or_default();
        let instance = match self.instance.as_str() {
            "" => String::new(),
            name => format!(" --instance {name}"),
        };
        format!(
            "reapi-conformance --endpoint {} --proxy-upstream-control {control}{instance} --seed {} --only {}",
            self.proxy.endpoint,
            case.seed,
            case.id()
        )
    }
}

fn of_p10(what: String) -> oracle::Finding {
    oracle::Finding {
        promise: Promise::P10,
        broken: Some(what),
        beyond: false,
    }
}
