//! Known deviations of a server: a file with one line each, `ID reason`. A line that no longer applies fails the run, so
//! that the file stays true.

use std::collections::BTreeMap;

use crate::check::{Check, Outcome};

/// Ids that a server is known to fail, each with a reason.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Deviations(BTreeMap<String, String>);

impl Deviations {
    /// Reads lines of the form `ID reason`; empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// The first line that has no reason, or an id that stands twice.
    pub fn parse(text: &str) -> anyhow::Result<Deviations> {
        let mut lines = BTreeMap::new();
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let Some((id, reason)) = line.split_once(char::is_whitespace) else {
                anyhow::bail!("{line}: a deviation needs a reason");
            };
            if lines.insert(id.to_owned(), reason.trim().to_owned()).is_some() {
                anyhow::bail!("{id}: listed twice");
            }
        }
        Ok(Deviations(lines))
    }

    /// The reason why a check may fail.
    pub fn reason(&self, id: &str) -> Option<&str> {
        self.0.get(id).map(String::as_str)
    }

    /// Forgets lines about checks that are not run.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|id, _| keep(id));
    }

    /// Listed ids whose checks ran and passed, or do not exist: lines that have to go.
    pub fn outdated(&self, results: &[(Check, Outcome)]) -> Vec<String> {
        let fails = |id: &str| {
            results
                .iter()
                .any(|(check, outcome)| check.id == id && outcome.is_bad())
        };
        self.0.keys().filter(|id| !fails(id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deviation_needs_an_id_and_a_reason() {
        let deviations =
            Deviations::parse("# of some server\n\nBS-QWS-03  has no QueryWriteStatus\n").unwrap();
        assert_eq!(deviations.reason("BS-QWS-03"), Some("has no QueryWriteStatus"));
        assert!(Deviations::parse("BS-QWS-03").is_err());
        assert!(Deviations::parse("A-1 x\nA-1 y").is_err());
    }

    #[test]
    fn a_line_whose_check_passes_or_is_gone_is_outdated() {
        let deviations = Deviations::parse("CAP-04 x\nNO-99 y\n").unwrap();
        let check = crate::checks::all()
            .into_iter()
            .find(|check| check.id == "CAP-04")
            .unwrap();
        assert_eq!(
            deviations.outdated(&[(check, Outcome::Passed)]),
            ["CAP-04", "NO-99"]
        );
        assert_eq!(
            deviations.outdated(&[(check, Outcome::Failed("".into()))]),
            ["NO-99"]
        );
    }
}
