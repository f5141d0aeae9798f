//! What a person reads at the end: failures in full, everything else counted.

use std::fmt::Write as _;

use crate::check::{Check, Outcome};
use crate::deviations::Deviations;

/// Results of a run, with what was known before.
#[derive(Debug)]
pub struct Report<'a> {
    results: &'a [(Check, Outcome)],
    known: &'a Deviations,
}

impl<'a> Report<'a> {
    /// Puts results beside known deviations.
    pub fn new(results: &'a [(Check, Outcome)], known: &'a Deviations) -> Report<'a> {
        Report { results, known }
    }

    /// Whether nothing failed that is not known, nothing known has healed unnoticed, and something was checked at all.
    pub fn is_good(&self) -> bool {
        !self.results.is_empty()
            && self.unexpected().next().is_none()
            && self.known.outdated(self.results).is_empty()
    }

    fn unexpected(&self) -> impl Iterator<Item = (&'a Check, &'a str)> {
        self.results.iter().filter_map(|(check, outcome)| match outcome {
            Outcome::Failed(what) | Outcome::Broken(what) if self.known.reason(check.id).is_none() => {
                Some((check, what.as_str()))
            }
            Outcome::Passed | Outcome::NotOffered(_) | Outcome::Failed(_) | Outcome::Broken(_) => None,
        })
    }

    fn count(&self, matches: impl Fn(&Outcome) -> bool) -> usize {
        self.results
            .iter()
            .filter(|(_, outcome)| matches(outcome))
            .count()
    }

    /// The report as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (check, outcome) in self.results {
            let (word, what) = match outcome {
                Outcome::Passed => ("passed", ""),
                Outcome::NotOffered(what) => ("not offered", what.as_str()),
                Outcome::Failed(_) | Outcome::Broken(_) if self.known.reason(check.id).is_some() => {
                    ("deviates", self.known.reason(check.id).unwrap_or_default())
                }
                Outcome::Failed(what) => ("FAILED", what.as_str()),
                Outcome::Broken(what) => ("BROKEN", what.as_str()),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{:<14} {:<9} {word:<12} {}",
                check.id, check.level, check.says
            );
            if !what.is_empty() {
                let _ = writeln!(text, "{:<14}   {what}", "");
            }
        }
        for id in self.known.outdated(self.results) {
            let _ = writeln!(
                text,
                "{id:<14} listed as a known deviation, and does not fail: remove the line"
            );
        }
        let failed = self.unexpected().count();
        let known = self.count(|outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Broken(_))) - failed;
        let _ = writeln!(
            text,
            "\n{} passed, {failed} failed, {known} known deviations, {} not offered",
            self.count(|outcome| *outcome == Outcome::Passed),
            self.count(|outcome| matches!(outcome, Outcome::NotOffered(_))),
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(outcome: Outcome) -> Vec<(Check, Outcome)> {
        vec![(crate::checks::all()[0], outcome)]
    }

    #[test]
    fn a_run_is_good_only_if_something_ran_and_nothing_new_failed() {
        let none = Deviations::default();
        assert!(!Report::new(&[], &none).is_good());
        assert!(Report::new(&results(Outcome::Passed), &none).is_good());
        assert!(!Report::new(&results(Outcome::Broken("x".into())), &none).is_good());
        let failed = results(Outcome::Failed("x".into()));
        assert!(!Report::new(&failed, &none).is_good());
        let known = Deviations::parse(&format!("{} known", failed[0].0.id)).unwrap();
        assert!(Report::new(&failed, &known).is_good());
        assert!(!Report::new(&results(Outcome::Passed), &known).is_good());
    }

    #[test]
    fn a_failure_says_what_came() {
        let text = Report::new(&results(Outcome::Failed("came 7".into())), &Deviations::default()).text();
        assert!(
            text.contains("FAILED") && text.contains("came 7") && text.contains("0 passed, 1 failed"),
            "{text}"
        );
    }
}
