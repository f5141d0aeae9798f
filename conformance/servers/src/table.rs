//! `RESULTS.md`: servers and sections, in plain text that depends on nothing but the results and the date.

use std::fmt::{self, Write as _};

use anyhow::Result;

use crate::broken;
use crate::judge::{Judged, Tally};
use crate::trials::{Finding, Trial};

/// How a server ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// As a process of its own.
    Process,
    /// In a container.
    Container,
}

impl How {
    /// Both, in the order of the table.
    pub const ALL: [How; 2] = [How::Process, How::Container];
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            How::Process => "process",
            How::Container => "container",
        })
    }
}

/// What was done with one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How it ran.
    pub how: How,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It could not be had, for this reason.
    NotRun(String),
    /// It ran.
    Ran(Ran),
}

/// A server that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// As it tells.
    pub version: String,
    /// The suite against it.
    pub direct: Option<Judged>,
    /// The suite against a node with it as Tier 2.
    pub through: Option<Judged>,
    /// It as Tier 2 of a node, apart from the suite.
    pub trials: Vec<(Trial, Finding)>,
    /// A real Bazel build over it.
    pub bazel: Option<Finding>,
    /// What broke before the rest could be judged.
    pub broke: Option<String>,
}

/// All of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// The node itself first.
    pub columns: Vec<Column>,
    /// Caching proxies over a mock, each judged by the proxy profile: the node first.
    pub proxies: Vec<Column>,
}

impl Column {
    fn head(&self) -> String {
        match self.how {
            How::Process => self.name.clone(),
            How::Container => format!("{}, container", self.name),
        }
    }

    fn ran(&self) -> Option<&Ran> {
        match &self.outcome {
            Outcome::Ran(ran) => Some(ran),
            Outcome::NotRun(_) => None,
        }
    }

    /// `not run` if the server did not, nothing where this was not asked of it.
    fn cell(&self, what: impl Fn(&Ran) -> Option<String>) -> String {
        match self.ran() {
            None => "not run".to_owned(),
            Some(ran) => what(ran).unwrap_or_else(|| "-".to_owned()),
        }
    }
}

impl Ran {
    fn not_applicable(&self, trial: Trial) -> Option<&'static str> {
        self.trials.iter().find_map(|(made, finding)| match finding {
            Finding::NotApplicable(why) if *made == trial => Some(*why),
            Finding::NotApplicable(_) | Finding::Passed(_) | Finding::Failed(_) => None,
        })
    }

    /// Whether all that was done came out as it has to.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let suites = [&self.direct, &self.through];
        let findings = self.trials.iter().map(|(_, finding)| finding).chain(&self.bazel);
        let failed = findings
            .into_iter()
            .any(|finding| matches!(finding, Finding::Failed(_)));
        self.broke.is_none()
            && !failed
            && suites
                .iter()
                .all(|suite| suite.as_ref().is_none_or(|suite| suite.good))
    }
}

impl Results {
    /// Whether something ran, and all that ran is good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let columns = self.columns.iter().chain(&self.proxies);
        let mut ran = columns.filter_map(Column::ran).peekable();
        ran.peek().is_some() && ran.all(Ran::is_good)
    }

    /// The document. `date` is the day of the run.
    ///
    /// # Errors
    /// If it cannot be told what the suite itself is worth.
    pub fn document(&self, date: &str) -> Result<String> {
        let (tables, broken) = (self.tables(), broken::table()?);
        Ok(format!(
            "\
# Results

Made on {date} by `just conformance --all`; do not edit. A cell counts checks: **passed**; **deviate**, known and listed with a reason in `deviations/`, races that
not every run shows included; **not offered** by the server, which says so. `-` was not asked of it. A server that could not be had is **not run**, never passed,
and nothing is taken over from an earlier run.

{tables}
## The suite, judged by servers that break one requirement each

From the record that `just test` compares with what happens (`tests/it/red_runs.rs`).

{broken}"
        ))
    }

    /// Its tables.
    #[must_use]
    // Writing to a String cannot fail.
    pub fn tables(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "| server | version | ran as |\n| --- | --- | --- |");
        for column in &self.columns {
            let how = match &column.outcome {
                Outcome::NotRun(reason) => format!("not run: {}", plain(reason)),
                Outcome::Ran(Ran {
                    broke: Some(what), ..
                }) => format!("{}, BROKE: {}", column.how, plain(what)),
                Outcome::Ran(_) => column.how.to_string(),
            };
            let version = column.cell(|ran| Some(ran.version.clone()));
            let _ = writeln!(text, "| {} | {version} | {how} |", column.head());
        }
        let all: Vec<_> = self.columns.iter().collect();
        let others: Vec<_> = self.columns.iter().skip(1).collect();
        text += "\n## Each server, judged by the suite\n\n";
        suites(&mut text, &all, |ran| ran.direct.as_ref());
        text += "\n## A gorego node with the server as Tier 2, judged by the suite\n\n";
        suites(&mut text, &others, |ran| ran.through.as_ref());
        text += "\n## The server as Tier 2: promises and outages\n\n";
        trials(&mut text, &others);
        let proxies: Vec<_> = self.proxies.iter().collect();
        if !proxies.is_empty() {
            text += "\n## Caching proxies over a mock, judged by their promises\n\n";
            suites(&mut text, &proxies, |ran| ran.direct.as_ref());
            for column in proxies {
                if let Outcome::NotRun(reason) = &column.outcome {
                    let _ = writeln!(text, "\n{}: not run: {}", column.head(), plain(reason));
                }
            }
        }
        text
    }
}

fn head(text: &mut String, first: &str, columns: &[&Column]) {
    let _ = write!(text, "| {first} |");
    for column in columns {
        let _ = write!(text, " {} |", column.head());
    }
    let _ = writeln!(text, "\n| --- |{}", " --- |".repeat(columns.len()));
}

fn suites(text: &mut String, columns: &[&Column], of: impl Fn(&Ran) -> Option<&Judged>) {
    head(text, "section", columns);
    let mut sections: Vec<&str> = Vec::new();
    for judged in columns.iter().filter_map(|column| of(column.ran()?)) {
        for (section, _) in &judged.sections {
            if !sections.contains(&section.as_str()) {
                sections.push(section);
            }
        }
    }
    for section in sections {
        let _ = write!(text, "| {section} |");
        for column in columns {
            let in_section = |ran: &Ran| {
                let (_, tally) = of(ran)?.sections.iter().find(|(name, _)| name == section)?;
                Some(words(*tally))
            };
            let _ = write!(text, " {} |", column.cell(in_section));
        }
        let _ = writeln!(text);
    }
    let _ = write!(text, "| **all** |");
    for column in columns {
        let all = |ran: &Ran| {
            let sections = of(ran)?.sections.iter();
            Some(words(sections.fold(Tally::default(), |sum, (_, tally)| Tally {
                passed: sum.passed + tally.passed,
                deviates: sum.deviates + tally.deviates,
                failed: sum.failed + tally.failed,
                not_offered: sum.not_offered + tally.not_offered,
            })))
        };
        let _ = write!(text, " {} |", column.cell(all));
    }
    let _ = writeln!(text);
}

fn words(tally: Tally) -> String {
    let parts = [
        (tally.passed, "passed"),
        (tally.deviates, "deviate"),
        (tally.failed, "FAILED"),
        (tally.not_offered, "not offered"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = parts.map(|(count, word)| format!("{count} {word}")).collect();
    parts.join(", ")
}

fn trials(text: &mut String, columns: &[&Column]) {
    head(text, "trial", columns);
    for trial in Trial::ALL {
        let _ = write!(text, "| {} |", trial.title());
        for column in columns {
            let made = |ran: &Ran| {
                let (_, finding) = ran.trials.iter().find(|(made, _)| *made == trial)?;
                Some(word(finding).to_owned())
            };
            let _ = write!(text, " {} |", column.cell(made));
        }
        let _ = writeln!(text);
    }
    let _ = write!(text, "| a Bazel build: cold, warm, through a second node |");
    for column in columns {
        let bazel = |ran: &Ran| ran.bazel.as_ref().map(|finding| word(finding).to_owned());
        let _ = write!(text, " {} |", column.cell(bazel));
    }
    let _ = writeln!(text);
    for trial in Trial::ALL {
        if let Some(why) = columns
            .iter()
            .find_map(|column| column.ran()?.not_applicable(trial))
        {
            let _ = writeln!(text, "\nn/a, {}: {why}.", trial.title());
        }
    }
}

/// Without times and counts: they differ from run to run.
fn word(finding: &Finding) -> &'static str {
    match finding {
        Finding::Passed(_) => "passed",
        Finding::Failed(_) => "FAILED",
        Finding::NotApplicable(_) => "n/a",
    }
}

/// On one line, and without what would end a cell.
fn plain(reason: &str) -> String {
    reason
        .replace('|', "/")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(passed: usize, deviates: usize, failed: usize) -> Judged {
        Judged {
            sections: vec![
                (
                    "CAP".to_owned(),
                    Tally {
                        passed,
                        ..Tally::default()
                    },
                ),
                (
                    "BS-READ".to_owned(),
                    Tally {
                        passed: 1,
                        deviates,
                        failed,
                        not_offered: 2,
                    },
                ),
            ],
            good: failed == 0,
            report: String::new(),
        }
    }

    fn column(name: &str, how: How, outcome: Outcome) -> Column {
        Column {
            name: name.to_owned(),
            how,
            outcome,
        }
    }

    fn results() -> Results {
        let node = Ran {
            version: "0.1.0".to_owned(),
            direct: Some(judged(3, 0, 0)),
            ..Ran::default()
        };
        let server = Ran {
            version: "1.2".to_owned(),
            direct: Some(judged(2, 1, 0)),
            through: Some(judged(3, 0, 0)),
            trials: vec![
                (Trial::Killed, Finding::Passed("in 1 s".to_owned())),
                (Trial::Bounds, Finding::NotApplicable("why")),
            ],
            ..Ran::default()
        };
        Results {
            columns: vec![
                column("gorego", How::Process, Outcome::Ran(node)),
                column("server", How::Process, Outcome::Ran(server)),
                column(
                    "server",
                    How::Container,
                    Outcome::NotRun("no engine | at\nall".to_owned()),
                ),
            ],
            proxies: vec![
                column(
                    "gorego",
                    How::Process,
                    Outcome::Ran(Ran {
                        direct: Some(judged(4, 0, 0)),
                        ..Ran::default()
                    }),
                ),
                column("other", How::Process, Outcome::NotRun("no program".to_owned())),
            ],
        }
    }

    #[test]
    fn the_document_has_each_server_its_sections_and_why_one_did_not_run() {
        let text = results().document("2026-01-02").unwrap();
        let expected = "\
| server | version | ran as |
| --- | --- | --- |
| gorego | 0.1.0 | process |
| server | 1.2 | process |
| server, container | not run | not run: no engine / at all |

## Each server, judged by the suite

| section | gorego | server | server, container |
| --- | --- | --- | --- |
| CAP | 3 passed | 2 passed | not run |
| BS-READ | 1 passed, 2 not offered | 1 passed, 1 deviate, 2 not offered | not run |
| **all** | 4 passed, 2 not offered | 3 passed, 1 deviate, 2 not offered | not run |

## A gorego node with the server as Tier 2, judged by the suite

| section | server | server, container |
| --- | --- | --- |
| CAP | 3 passed | not run |
";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains("Made on 2026-01-02 by"), "{text}");
        for row in [
            "| Tier 2 killed and started (P1, P2, P5, P6, P10) | passed | not run |",
            "| limits (P8) | n/a | not run |",
            "| a Bazel build: cold, warm, through a second node | - | not run |",
            "## Caching proxies over a mock, judged by their promises",
            "| CAP | 4 passed | not run |",
            "other: not run: no program",
            "n/a, limits (P8): why.",
        ] {
            assert!(text.contains(row), "{row} is not in {text}");
        }
    }

    #[test]
    fn one_failure_anywhere_spoils_the_run_and_nothing_that_ran_is_no_success() {
        assert!(results().is_good());
        assert!(!Results::default().is_good());
        let mut proxies = results();
        proxies.proxies[0].outcome = Outcome::Ran(Ran {
            direct: Some(judged(1, 0, 1)),
            ..Ran::default()
        });
        assert!(!proxies.is_good());
        let spoil = |change: fn(&mut Ran)| {
            let mut results = results();
            if let Outcome::Ran(ran) = &mut results.columns[1].outcome {
                change(ran);
            }
            !results.is_good()
        };
        assert!(spoil(|ran| ran.direct = Some(judged(1, 0, 1))));
        assert!(spoil(|ran| ran.through = Some(judged(1, 0, 1))));
        assert!(spoil(|ran| ran
            .trials
            .push((Trial::Paused, Finding::Failed("x".to_owned())))));
        assert!(spoil(|ran| ran.bazel = Some(Finding::Failed("x".to_owned()))));
        assert!(spoil(|ran| ran.broke = Some("x".to_owned())));
        let mut none = results();
        none.columns.retain(|column| column.ran().is_none());
        none.proxies.clear();
        assert!(!none.is_good());
    }
}
