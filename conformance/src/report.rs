//! What a person reads at the end: failures in full, everything else counted. `report/` has the forms for machines.

mod junit;
mod markdown;

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::catalogue::{self, Level};
use crate::check::{Check, Finding, Outcome};
use crate::deviations::Deviations;
use crate::properties::Tried;
use crate::proxy::{Counts, Row};

/// The section that properties stand in.
const PROPERTIES: &str = "Properties";

/// Of the column of ids, so that reports of few checks look like those of many.
const ID_WIDTH_MIN: usize = 15;

/// The section that rows about a proxy stand in.
const PROXY: &str = "Promises of a proxy";

/// Results of a run, with what was known before.
#[derive(Debug)]
pub struct Report<'a> {
    results: &'a [(Check, Outcome)],
    tried: &'a [Tried],
    rows: &'a [(Row, Outcome)],
    known: &'a Deviations,
    strict: bool,
}

/// What became of a check, a property or a row, known deviations told apart.
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

/// A check, a property or a row about a proxy, and what became of it.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    id: &'a str,
    level: Level,
    says: &'a str,
    on: &'a str,
    section: &'static str,
    word: Word<'a>,
    /// Of a property: how many inputs, and of which seed.
    drawn: Option<(u32, u64)>,
    /// Of a promise of a proxy: in how many combinations it was looked at, and kept.
    counts: Option<Counts>,
}

impl Line<'_> {
    /// What the server had to answer: where the finding does not say, the requirement does.
    fn expected<'f>(&self, finding: &'f Finding) -> &'f str
    where
        Self: 'f,
    {
        if finding.expected.is_empty() {
            self.says
        } else {
            &finding.expected
        }
    }

    /// What `sent` of a finding is.
    fn sent_is(&self) -> &'static str {
        match self.drawn {
            None => "sent",
            Some(_) => "input",
        }
    }

    /// A failure in full, for a person.
    // Writing to a String cannot fail.
    fn failure(&self, width: usize, finding: &Finding) -> String {
        let mut text = format!(
            "{:<width$} {:<9} {:<12} {}\n",
            self.id,
            self.level,
            self.word.text(),
            self.says
        );
        let mut line = |label: &str, what: &str| {
            if !what.is_empty() {
                let _ = writeln!(text, "    {label:<10} {what}");
            }
        };
        line("rests on", self.on);
        line(self.sent_is(), &finding.sent);
        if let Some((cases, seed)) = self.drawn {
            line("drawn", &format!("one of {cases} inputs of seed {seed}"));
        }
        line("expected", self.expected(finding));
        line("came", &finding.came);
        for (number, call) in finding.calls.iter().enumerate() {
            line(if number == 0 { "calls" } else { "" }, call);
        }
        text
    }
}

impl<'a> Report<'a> {
    /// Puts results beside known deviations.
    pub fn new(results: &'a [(Check, Outcome)], known: &'a Deviations) -> Report<'a> {
        Report {
            results,
            tried: &[],
            rows: &[],
            known,
            strict: true,
        }
    }

    /// A report of properties too.
    #[must_use]
    pub fn with_properties(self, tried: &'a [Tried]) -> Report<'a> {
        Report { tried, ..self }
    }

    /// A report of rows about a proxy.
    #[must_use]
    pub fn with_rows(self, rows: &'a [(Row, Outcome)]) -> Report<'a> {
        Report { rows, ..self }
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
        let decides = |line: &Line<'_>| self.strict || line.level == Level::Must;
        let failed = self
            .lines()
            .any(|line| matches!(line.word, Word::Failed(_) | Word::Broken(_)) && decides(&line));
        self.lines().next().is_some() && !failed && self.outdated().is_empty()
    }

    fn word(&self, id: &str, outcome: &'a Outcome) -> Word<'a> {
        match (outcome, self.known.reason(id)) {
            (Outcome::Passed, _) => Word::Passed,
            (Outcome::NotOffered(what), _) => Word::NotOffered(what),
            (Outcome::Failed(_) | Outcome::Broken(_), Some(reason)) => Word::Deviates(reason),
            (Outcome::Failed(finding), None) => Word::Failed(finding),
            (Outcome::Broken(finding), None) => Word::Broken(finding),
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line<'a>> {
        let checks = self.results.iter().map(|(check, outcome)| Line {
            id: check.id,
            level: check.level(),
            says: check.says(),
            on: &check.requirement().on,
            section: catalogue::section_of(check.id).map_or("", |section| section.title.as_str()),
            word: self.word(check.id, outcome),
            drawn: None,
            counts: None,
        });
        let properties = self.tried.iter().map(|tried| Line {
            id: tried.property.id,
            level: tried.property.level(),
            says: tried.property.says,
            on: tried.property.on,
            section: PROPERTIES,
            word: self.word(tried.property.id, &tried.outcome),
            drawn: Some((tried.cases, tried.seed)),
            counts: None,
        });
        let rows = self.rows.iter().map(|(row, outcome)| Line {
            id: &row.id,
            level: row.level,
            says: &row.says,
            on: &row.on,
            section: PROXY,
            word: self.word(&row.id, outcome),
            drawn: None,
            counts: row.counts,
        });
        checks.chain(properties).chain(rows)
    }

    /// Ids that are listed as known deviations, and did not fail.
    fn outdated(&self) -> Vec<&'a str> {
        let fails = |id: &str| {
            self.lines()
                .any(|line| line.id == id && matches!(line.word, Word::Deviates(_)))
        };
        self.known.ids().filter(|id| !fails(id)).collect()
    }

    /// Of the column of ids, for people.
    fn id_width(&self) -> usize {
        let lengths = self.lines().map(|line| line.id.len());
        lengths.max().unwrap_or_default().max(ID_WIDTH_MIN)
    }

    fn count(&self, matches: impl Fn(Word<'_>) -> bool) -> usize {
        self.lines().filter(|line| matches(line.word)).count()
    }

    fn failed(&self) -> usize {
        self.count(|word| matches!(word, Word::Failed(_) | Word::Broken(_)))
    }

    /// The report as text: what failed in full, with the calls that led to it; the rest counted.
    // Writing to a String cannot fail.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let width = self.id_width();
        for line in self.lines() {
            match line.word {
                Word::Passed if line.section == PROXY => {
                    let _ = writeln!(text, "{:<width$} {:<9} {}", line.id, line.level, line.word.text());
                }
                Word::Passed => {}
                Word::NotOffered(what) | Word::Deviates(what) => {
                    let _ = writeln!(
                        text,
                        "{:<width$} {:<9} {:<12} {what}",
                        line.id,
                        line.level,
                        line.word.text()
                    );
                }
                Word::Failed(finding) | Word::Broken(finding) => text.push_str(&line.failure(width, finding)),
            }
        }
        for id in self.outdated() {
            let _ = writeln!(
                text,
                "{id:<width$} listed as a known deviation, and does not fail: remove the line"
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
        if let Some(first) = self.tried.first() {
            let _ = writeln!(
                text,
                "properties among them: {}, each with {} inputs of seed {}",
                self.tried.len(),
                first.cases,
                first.seed
            );
        }
        text
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let entry = |line: Line<'_>| {
            let mut entry = json!({
                "id": line.id,
                "level": line.level.to_string(),
                "says": line.says,
                "rests_on": line.on,
                "result": line.word.text().to_lowercase(),
            });
            if let Some((cases, seed)) = line.drawn {
                entry["cases"] = cases.into();
                entry["seed"] = seed.into();
            }
            if let Some(Counts { counted, held }) = line.counts {
                entry["counted"] = counted.into();
                entry["held"] = held.into();
            }
            match line.word {
                Word::Passed => {}
                Word::NotOffered(what) | Word::Deviates(what) => entry["reason"] = what.into(),
                Word::Failed(finding) | Word::Broken(finding) => {
                    entry[line.sent_is()] = finding.sent.as_str().into();
                    entry["expected"] = line.expected(finding).into();
                    entry["came"] = finding.came.as_str().into();
                    entry["calls"] = finding.calls.as_slice().into();
                }
            }
            entry
        };
        let (properties, checks): (Vec<_>, Vec<_>) = self.lines().partition(|line| line.drawn.is_some());
        json!({
            "good": self.is_good(),
            "passed": self.count(|word| word == Word::Passed),
            "failed": self.failed(),
            "deviates": self.count(|word| matches!(word, Word::Deviates(_))),
            "not_offered": self.count(|word| matches!(word, Word::NotOffered(_))),
            "outdated_deviations": self.outdated(),
            "checks": checks.into_iter().map(entry).collect::<Vec<_>>(),
            "properties": properties.into_iter().map(entry).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties;

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

    fn tried(outcome: Outcome) -> [Tried; 1] {
        [Tried {
            property: properties::all().remove(1),
            cases: 25,
            seed: 7,
            outcome,
        }]
    }

    fn counterexample() -> [Tried; 1] {
        tried(Outcome::Failed(Finding {
            sent: "(1, 0, -1) <`>".into(),
            came: "expected INVALID_ARGUMENT, came OK".into(),
            calls: vec!["Write x -> OK".into(), "Read x -> OK".into()],
            ..Finding::default()
        }))
    }

    #[test]
    fn a_property_that_does_not_hold_decides_lenient_or_not_unless_it_is_known() {
        let none = Deviations::default();
        let passed = results(Outcome::Passed);
        let good = |tried: &[Tried], known: &Deviations| {
            let report = Report::new(&passed, known).with_properties(tried);
            let strict = report.is_good();
            assert_eq!(report.lenient().is_good(), strict);
            strict
        };
        assert!(!good(&counterexample(), &none));
        assert!(good(&tried(Outcome::Passed), &none));
        assert!(good(&tried(Outcome::NotOffered("no trees".into())), &none));
        let known = Deviations::parse("PROP-02 takes negative limits").unwrap();
        assert!(good(&counterexample(), &known));
        assert!(!good(&tried(Outcome::Passed), &known));
        assert!(
            Report::new(&[], &none)
                .with_properties(&tried(Outcome::Passed))
                .is_good()
        );
    }

    #[test]
    fn each_form_of_the_report_tells_a_property_with_its_seed_and_its_counterexample() {
        let (passed, none, found) = (results(Outcome::Passed), Deviations::default(), counterexample());
        let report = Report::new(&passed, &none).with_properties(&found);
        insta::assert_snapshot!("properties_text", report.text());
        insta::assert_snapshot!("properties_json", format!("{:#}", report.json()["properties"]));
        assert_eq!(report.json()["failed"], 1);
        insta::assert_snapshot!("properties_junit", report.junit());
        insta::assert_snapshot!("properties_markdown", report.markdown("a server"));
    }

    #[test]
    fn properties_that_hold_are_counted_in_each_form() {
        let (none, held) = (Deviations::default(), tried(Outcome::Passed));
        let report = Report::new(&[], &none).with_properties(&held);
        let json = &report.json()["properties"][0];
        assert_eq!(
            (&json["id"], &json["result"], &json["cases"], &json["seed"]),
            (&json!("PROP-02"), &json!("passed"), &json!(25), &json!(7))
        );
        let (text, junit, markdown) = (report.text(), report.junit(), report.markdown("a server"));
        assert!(
            text.contains("1 passed") && text.contains("25 inputs of seed 7"),
            "{text}"
        );
        assert!(
            junit.contains("tests=\"1\" failures=\"0\"") && junit.contains("PROP-02"),
            "{junit}"
        );
        assert!(markdown.contains("| Properties | 1 | 0 | 0 | 0 |"), "{markdown}");
    }
}
