//! The suite against one address: counted by section, with what is known to deviate.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Check, Outcome, Target, catalogue, checks};

/// A reason that begins so is of a race, which does not show in every run.
const SOMETIMES: &str = "sometimes:";

/// A reason that begins so is of a check that crashes the server.
const ENDS: &str = "ends it:";

/// What became of a section's checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// As it has to be.
    pub passed: usize,
    /// Not as it has to be, or not in every run, and listed with a reason.
    pub deviates: usize,
    /// Not as it has to be.
    pub failed: usize,
    /// The server says that it does not offer this.
    pub not_offered: usize,
}

impl Tally {
    /// Adds what became of a check that is listed with a reason, or is not.
    pub(crate) fn count(&mut self, outcome: &Outcome, listed: Option<&str>) {
        let count = match (outcome, listed) {
            // The same in every run, however the race went.
            (Outcome::Passed, Some(reason)) if reason.starts_with(SOMETIMES) => &mut self.deviates,
            (Outcome::Passed, _) => &mut self.passed,
            (Outcome::NotOffered(_), _) => &mut self.not_offered,
            (Outcome::Failed(_) | Outcome::Broken(_), Some(_)) => &mut self.deviates,
            (Outcome::Failed(_) | Outcome::Broken(_), None) => &mut self.failed,
        };
        *count += 1;
    }
}

/// What the suite found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// By section, in the order of the checks.
    pub sections: Vec<(String, Tally)>,
    /// Whether nothing failed that is not listed, and nothing is listed that does not fail.
    pub good: bool,
    /// The report, for a person.
    pub report: String,
}

/// Runs the checks whose id begins with `filter` against `url`. Those that are known to end the server come last and
/// alone, and after each `revive` sees to it that there is a server again.
///
/// # Errors
/// If nobody answers there, or the server cannot be started again.
pub async fn suite(
    url: &str,
    filter: &str,
    known: &Deviations,
    mut revive: impl AsyncFnMut() -> Result<()>,
) -> Result<Judged> {
    let mut checks = checks::all();
    checks.retain(|check| check.id.starts_with(filter));
    let target = Target::connect(url, "").await;
    let target = Arc::new(target.with_context(|| format!("connecting to {url}"))?);
    let (deadly, harmless) = checks
        .into_iter()
        .partition::<Vec<_>, _>(|check| begins(known, check.id, ENDS));
    let mut results = conformance::run(target.clone(), harmless).await;
    for check in deadly {
        results.extend(conformance::run(target.clone(), vec![check]).await);
        revive().await.with_context(|| format!("after {}", check.id))?;
    }
    Ok(count(&results, known))
}

/// Whether an id is listed with a reason that begins so.
fn begins(known: &Deviations, id: &str, with: &str) -> bool {
    known.reason(id).is_some_and(|reason| reason.starts_with(with))
}

fn count(results: &[(Check, Outcome)], known: &Deviations) -> Judged {
    let mut sections: Vec<(String, Tally)> = Vec::new();
    for (check, outcome) in results {
        let section = section(check.id);
        let at = sections.iter().position(|(name, _)| *name == section);
        let at = at.unwrap_or_else(|| {
            sections.push((section, Tally::default()));
            sections.len() - 1
        });
        let tally = &mut sections[at].1;
        tally.count(outcome, known.reason(check.id));
    }
    let bad = |id: &str| {
        results
            .iter()
            .any(|(check, outcome)| check.id == id && outcome.is_bad())
    };
    let known = without_lucky_races(known, bad);
    let report = Report::new(results, &known);
    Judged {
        sections,
        good: report.is_good(),
        report: report.text(),
    }
}

/// Without the lines about races that this time went well: they neither apply nor are outdated.
pub(crate) fn without_lucky_races(known: &Deviations, bad: impl Fn(&str) -> bool) -> Deviations {
    let mut left = known.clone();
    left.retain(|id| !begins(known, id, SOMETIMES) || bad(id));
    left
}

/// The section that a check belongs to, by its heading in the catalogue.
pub(crate) fn section(id: &str) -> String {
    catalogue::section_of(id)
        .map_or(id, |section| &section.title)
        .to_owned()
}

/// The known deviations in `dir/name.txt`, those that are about checks whose id begins with `filter`. No file: none.
///
/// # Errors
/// If a line is none.
pub fn known(dir: &Path, name: &str, filter: &str) -> Result<Deviations> {
    let path = dir.join(format!("{name}.txt"));
    if !path.exists() {
        return Ok(Deviations::default());
    }
    let text = fs_err::read_to_string(&path)?;
    Deviations::parse(&about(&text, filter)).with_context(|| format!("in {}", path.display()))
}

/// Without a filter every line stays, so that a fault in any is found.
fn about(text: &str, filter: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with(filter));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn results_are_counted_by_section_and_a_listed_failure_is_a_deviation() {
        let all = checks::all();
        let of = |title: &str| -> Vec<Check> {
            all.iter()
                .copied()
                .filter(|check| section(check.id) == title)
                .collect()
        };
        let (writes, reads) = (of("ByteStream.Write"), of("ByteStream.Read"));
        let results = vec![
            (writes[0], Outcome::Passed),
            (reads[0], Outcome::NotOffered("no reads".into())),
            (writes[1], Outcome::Failed("x".into())),
            (writes[2], Outcome::Failed("x".into())),
        ];
        let known = Deviations::parse(&format!("{} does otherwise", writes[1].id)).unwrap();
        let judged = count(&results, &known);
        assert!(!judged.good);
        let expected = [
            (
                "ByteStream.Write",
                Tally {
                    passed: 1,
                    deviates: 1,
                    failed: 1,
                    not_offered: 0,
                },
            ),
            (
                "ByteStream.Read",
                Tally {
                    not_offered: 1,
                    ..Tally::default()
                },
            ),
        ];
        assert_eq!(
            judged.sections,
            expected.map(|(name, tally)| (name.to_owned(), tally))
        );
        assert!(count(&results[..3], &known).good);
        let race = Deviations::parse(&format!("{} sometimes: does otherwise", writes[1].id)).unwrap();
        assert!(count(&results[..3], &race).good && count(&results[..2], &race).good);
        let lucky = Deviations::parse(&format!("{} sometimes: does otherwise", writes[0].id)).unwrap();
        let lucky = count(&results[..2], &lucky);
        assert!(lucky.good, "{lucky:?}");
        assert_eq!((lucky.sections[0].1.passed, lucky.sections[0].1.deviates), (0, 1));
        assert!(
            !count(&results[..2], &known).good,
            "a line that no longer applies"
        );
    }

    #[test]
    fn deviations_are_a_file_per_server_of_which_a_filter_takes_its_part() {
        let dir = tempfile::tempdir().unwrap();
        fs_err::write(
            dir.path().join("some.txt"),
            "# of some server\nA-B-01 one\nA-C-01 two\n",
        )
        .unwrap();
        let whole = known(dir.path(), "some", "").unwrap();
        assert_eq!(
            (whole.reason("A-B-01"), whole.reason("A-C-01")),
            (Some("one"), Some("two"))
        );
        let part = known(dir.path(), "some", "A-C").unwrap();
        assert_eq!(
            (part.reason("A-B-01"), part.reason("A-C-01")),
            (None, Some("two"))
        );
        assert_eq!(known(dir.path(), "other", "").unwrap(), Deviations::default());
        fs_err::write(dir.path().join("some.txt"), "A-B-01\n").unwrap();
        let error = format!("{:#}", known(dir.path(), "some", "").unwrap_err());
        assert!(
            error.contains("some.txt") && error.contains("needs a reason"),
            "{error}"
        );
    }

    /// A wrong line would only be found where the server can be had.
    #[test]
    fn every_line_of_every_file_names_a_check_and_has_a_reason() {
        let mut ids: BTreeSet<String> = conformance::proxy::rows().into_iter().map(|row| row.id).collect();
        ids.extend(checks::all().iter().map(|check| check.id.to_owned()));
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deviations");
        let mut files = 0;
        for entry in fs_err::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            files += 1;
            let text = fs_err::read_to_string(&path).unwrap();
            Deviations::parse(&text).unwrap();
            for line in text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
            {
                let id = line.split_whitespace().next().unwrap();
                assert!(ids.contains(id), "{}: {id} is no check", path.display());
            }
        }
        assert!(files >= 2, "{files} files in {}", dir.display());
    }
}
