//! Known deviations of a server: a file with one line each, `ID reason`. A line that no longer applies fails the run, so
//! that the file stays true.

use std::collections::BTreeMap;

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

    /// All listed ids.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
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
    fn lines_about_what_is_not_run_are_forgotten() {
        let mut deviations = Deviations::parse("CAP-04 x\nNO-99 y\n").unwrap();
        deviations.retain(|id| id.starts_with("CAP-"));
        assert_eq!(deviations.ids().collect::<Vec<_>>(), ["CAP-04"]);
    }
}
