//! What a run of combinations showed, as a table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::faults::case::Case;
use crate::faults::run::{Outcome, Verdict};
use crate::faults::table::Call;

/// Counts of one cell, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    tried: usize,
    counted: usize,
    held: usize,
}

/// A run so far.
#[derive(Debug, Default)]
pub struct Summary {
    /// In the order in which faults came first.
    faults: Vec<String>,
    cells: BTreeMap<(String, Call), Tally>,
    recoveries: Vec<Duration>,
    /// The same of blobs that Tier 2 had wrong twice.
    forgiven: Vec<Duration>,
    longest: Option<(Duration, String)>,
    held: Vec<Case>,
    broken: Vec<(Case, Vec<String>)>,
}

impl Summary {
    /// Adds one combination.
    pub fn add(&mut self, case: &Case, verdict: &Verdict) {
        let fault = case.fault.name().to_owned();
        if !self.faults.contains(&fault) {
            self.faults.push(fault.clone());
        }
        let cell = self.cells.entry((fault, case.call)).or_default();
        cell.tried += 1;
        match &verdict.outcome {
            Outcome::Held(_) => {
                cell.counted += 1;
                cell.held += 1;
                self.held.push(case.clone());
                let recoveries = if verdict.wrong_twice {
                    &mut self.forgiven
                } else {
                    &mut self.recoveries
                };
                recoveries.extend(verdict.recovery);
            }
            Outcome::NotCounted(_) => {}
            Outcome::Broken(what) => {
                cell.counted += 1;
                self.broken.push((case.clone(), what.clone()));
            }
        }
        if self
            .longest
            .as_ref()
            .is_none_or(|(longest, _)| verdict.longest > *longest)
        {
            self.longest = Some((verdict.longest, case.id()));
        }
    }

    /// Combinations that showed something.
    pub fn counted(&self) -> usize {
        self.cells.values().map(|cell| cell.counted).sum()
    }

    /// Combinations in which nothing was broken that counted.
    pub fn held(&self) -> &[Case] {
        &self.held
    }

    /// Combinations in which something was broken, each with what.
    pub fn broken(&self) -> &[(Case, Vec<String>)] {
        &self.broken
    }

    /// Faults by calls: held of counted, or `-` where nothing counted.
    pub fn text(&self) -> String {
        let width = self.faults.iter().map(String::len).max().unwrap_or_default();
        let mut text = format!("{:<width$}", "held/counted");
        for call in Call::ALL {
            // Writing to a String cannot fail.
            let _ = write!(text, " {:>7}", call.name());
        }
        text.push('\n');
        let cell = |fault: &str, call: Call| match self.cells.get(&(fault.to_owned(), call)) {
            None => String::new(),
            Some(cell) if cell.counted == 0 => "-".to_owned(),
            Some(cell) => format!("{}/{}", cell.held, cell.counted),
        };
        for fault in &self.faults {
            let mut line = format!("{fault:<width$}");
            for call in Call::ALL {
                let _ = write!(line, " {:>7}", cell(fault, call));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let mut all = Tally::default();
        for cell in self.cells.values() {
            all.tried += cell.tried;
            all.counted += cell.counted;
            all.held += cell.held;
        }
        let _ = writeln!(
            text,
            "\n{} combinations, {} counted, {} held, {} n/a (the fault met nothing in the call, or the site cannot do it)",
            all.tried,
            all.counted,
            all.held,
            all.tried - all.counted
        );
        for (what, recoveries) in [
            ("first success after the fault", &self.recoveries),
            ("first success after wrong bytes, twice", &self.forgiven),
        ] {
            let mut sorted = recoveries.clone();
            sorted.sort();
            if let (Some(median), Some(worst)) = (sorted.get(sorted.len() / 2), sorted.last()) {
                let _ = writeln!(
                    text,
                    "{what}: median {median:?}, worst {worst:?} of {}",
                    sorted.len()
                );
            }
        }
        if let Some((longest, id)) = &self.longest {
            let _ = writeln!(text, "longest call: {longest:?} ({id})");
        }
        text
    }
}
