//! What a person reads at the end: failures in full, everything else counted. `report/` has the forms for machines.

mod junit;
mod markdown;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::catalogue;
use crate::check::{Check, Finding, Outcome};
use crate::deviations::Deviations;

/// Results of a run, with what was known before.
#[derive(Debug)]
pub struct Report<'a> {
    results: &'a [(Check, Outcome)],
    known: &'a Deviations,
    strict: bool,
}

/// What became of a check, known deviations told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Word<'a> {
    Passed,
    NotOffered(&'a str),
    Deviates(&'a str),
    Failed(&'a Finding),
    Broken(&'a Finding),
}

impl Word<'_> {
    fn text(self) -> &'static str {
        match self {
            Word::Passed => "passed",
            Word::NotOffered(_) => "not offered",
            Word::Deviates(_) => "deviates",
            Word::Failed(_) => "FAILED",
            Word::Broken(_) => "BROKEN",
        }
    }
}

impl<'a> Report<'a> {
    /// Puts results beside known deviations.
    pub fn new(results: &'a [(Check, Outcome)], known: &'a Deviations) -> Report<'a> {
        Report {
            results,
            known,
            strict: true,
        }
    }

    /// A report that forgives what the specification does not demand: only a MUST decides whether it is good.
    #[must_use]
    pub fn lenient(self) -> Report<'a> {
        Report {
            strict: false,
            ..self
        }
    }

    /// Whether nothing failed that is not known, nothing known has healed unnoticed, and something was checked at all.
    pub fn is_good(&self) -> bool {
        let decides = |check: &Check| self.strict || check.level() == catalogue::Level::Must;
        let failed = self
            .words()
            .any(|(check, word)| matches!(word, Word::Failed(_) | Word::Broken(_)) && decides(check));
        !self.results.is_empty() && !failed && self.known.outdated(self.results).is_empty()
    }

    fn words(&self) -> impl Iterator<Item = (&'a Check, Word<'a>)> {
        self.results.iter().map(|(check, outcome)| {
            let word = match (outcome, self.known.reason(check.id)) {
                (Outcome::Passed, _) => Word::Passed,
                (Outcome::NotOffered(what), _) => Word::NotOffered(what),
                (Outcome::Failed(_) | Outcome::Broken(_), Some(reason)) => Word::Deviates(reason),
                (Outcome::Failed(finding), None) => Word::Failed(finding),
                (Outcome::Broken(finding), None) => Word::Broken(finding),
            };
            (check, word)
        })
    }

    fn count(&self, matches: impl Fn(Word<'_>) -> bool) -> usize {
        self.words().filter(|(_, word)| matches(*word)).count()
    }

    fn failed(&self) -> usize {
        self.count(|word| matches!(word, Word::Failed(_) | Word::Broken(_)))
    }

    /// The report as text: what failed in full, with the calls that led to it; the rest counted.
    // Writing to a String cannot fail.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (check, word) in self.words() {
            match word {
                Word::Passed => {}
                Word::NotOffered(what) | Word::Deviates(what) => {
                    let _ = writeln!(
                        text,
                        "{:<15} {:<9} {:<12} {what}",
                        check.id,
                        check.level(),
                        word.text()
                    );
                }
                Word::Failed(finding) | Word::Broken(finding) => {
                    let _ = write!(text, "{}", failure(check, word.text(), finding));
                }
            }
        }
        for id in self.known.outdated(self.results) {
            let _ = writeln!(
                text,
                "{id:<15} listed as a known deviation, and does not fail: remove the line"
            );
        }
        let _ = writeln!(
            text,
            "\n{} passed, {} failed, {} known deviations, {} not offered",
            self.count(|word| word == Word::Passed),
            self.failed(),
            self.count(|word| matches!(word, Word::Deviates(_))),
            self.count(|word| matches!(word, Word::NotOffered(_))),
        );
        text
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let checks = self.words().map(|(check, word)| {
            let mut entry = json!({
                "id": check.id,
                "level": check.level().to_string(),
                "says": check.says(),
                "rests_on": check.requirement().on,
                "result": word.text().to_lowercase(),
            });
            match word {
                Word::Passed => {}
                Word::NotOffered(what) | Word::Deviates(what) => entry["reason"] = what.into(),
                Word::Failed(finding) | Word::Broken(finding) => {
                    entry["sent"] = finding.sent.as_str().into();
                    entry["expected"] = expected(check, finding).into();
                    entry["came"] = finding.came.as_str().into();
                    entry["calls"] = finding.calls.as_slice().into();
                }
            }
            entry
        });
        json!({
            "good": self.is_good(),
            "passed": self.count(|word| word == Word::Passed),
            "failed": self.failed(),
            "deviates": self.count(|word| matches!(word, Word::Deviates(_))),
            "not_offered": self.count(|word| matches!(word, Word::NotOffered(_))),
            "outdated_deviations": self.known.outdated(self.results),
            "checks": checks.collect::<Vec<_>>(),
        })
    }
}

/// What the server had to answer: where the finding does not say, the requirement does.
fn expected<'a>(check: &Check, finding: &'a Finding) -> &'a str {
    if finding.expected.is_empty() {
        check.says()
    } else {
        &finding.expected
    }
}

/// One failure, for a person.
pub fn failure(check: &Check, word: &str, finding: &Finding) -> String {
    let mut text = format!(
        "{:<15} {:<9} {word:<12} {}\n",
        check.id,
        check.level(),
        check.says()
    );
    let mut line = |label: &str, what: &str| {
        if !what.is_empty() {
            let _ = writeln!(text, "    {label:<10} {what}");
        }
    };
    line("rests on", &check.requirement().on);
    line("sent", &finding.sent);
    line("expected", expected(check, finding));
    line("came", &finding.came);
    for (number, call) in finding.calls.iter().enumerate() {
        line(if number == 0 { "calls" } else { "" }, call);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Level;

    fn first(level: Level) -> Check {
        let checks = crate::checks::all();
        checks.into_iter().find(|check| check.level() == level).unwrap()
    }

    fn results(outcome: Outcome) -> Vec<(Check, Outcome)> {
        vec![(first(Level::Must), outcome)]
    }

    fn found() -> Finding {
        Finding {
            sent: "Read of <x>".into(),
            expected: "OK".into(),
            came: "came 7".into(),
            calls: vec!["Read x -> INTERNAL".into()],
        }
    }

    #[test]
    fn a_run_is_good_only_if_something_ran_and_nothing_new_failed() {
        let none = Deviations::default();
        assert!(!Report::new(&[], &none).is_good());
        assert!(Report::new(&results(Outcome::Passed), &none).is_good());
        assert!(!Report::new(&results(Outcome::Broken("x".into())), &none).is_good());
        let failed = results(Outcome::Failed("x".into()));
        assert!(!Report::new(&failed, &none).is_good());
        assert!(!Report::new(&failed, &none).lenient().is_good());
        let known = Deviations::parse(&format!("{} known", failed[0].0.id)).unwrap();
        assert!(Report::new(&failed, &known).is_good());
        assert!(!Report::new(&results(Outcome::Passed), &known).is_good());
    }

    #[test]
    fn only_a_must_decides_where_the_report_is_lenient() {
        let none = Deviations::default();
        let failed = vec![(first(Level::DeFacto), Outcome::Failed("x".into()))];
        assert!(!Report::new(&failed, &none).is_good());
        assert!(Report::new(&failed, &none).lenient().is_good());
    }

    #[test]
    fn a_failure_says_what_it_rests_on_what_was_sent_what_was_expected_and_what_came() {
        let results = results(Outcome::Failed(found()));
        let none = Deviations::default();
        let report = Report::new(&results, &none);
        let (text, json) = (report.text(), report.json());
        for part in [
            "FAILED",
            "rests on",
            "Read of <x>",
            "came 7",
            "Read x -> INTERNAL",
            "0 passed, 1 failed",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(json["checks"][0]["came"], "came 7");
        assert_eq!(json["good"], false);
    }

    #[test]
    fn junit_and_markdown_escape_and_count() {
        let results = results(Outcome::Failed(found()));
        let none = Deviations::default();
        let report = Report::new(&results, &none);
        let (junit, markdown) = (report.junit(), report.markdown("a server"));
        assert!(
            junit.contains("failures=\"1\"") && junit.contains("Read of &lt;x&gt;"),
            "{junit}"
        );
        assert!(
            markdown.contains("a server") && markdown.contains("| 0 | 1 |"),
            "{markdown}"
        );
    }
}
