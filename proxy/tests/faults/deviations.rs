//! What is known to be broken: lines of `deviations.txt`, each a pattern of ids and a reason. A line that no longer applies
//! fails the run, so that none outlives its cure.

/// One line.
#[derive(Debug)]
pub(crate) struct Deviation {
    /// Parts of an id in their order, with anything between them.
    pattern: Vec<&'static str>,
    line: &'static str,
}

/// All lines.
pub(crate) fn known() -> Vec<Deviation> {
    let lines = include_str!("deviations.txt").lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| Deviation {
            pattern: line
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .split('*')
                .collect(),
            line,
        })
        .collect()
}

impl Deviation {
    /// Whether the line is about this combination.
    pub(crate) fn covers(&self, id: &str) -> bool {
        let mut rest = id;
        for (number, part) in self.pattern.iter().enumerate() {
            let found = rest.find(part).filter(|at| number > 0 || *at == 0);
            let Some(at) = found else { return false };
            rest = rest.get(at + part.len()..).unwrap_or_default();
        }
        rest.is_empty() || self.pattern.last().is_some_and(|last| last.is_empty())
    }

    /// As it stands in the file.
    pub(crate) fn line(&self) -> &'static str {
        self.line
    }
}
