//! The summary that a run ends with.

use std::fmt;
use std::time::Duration;

use crate::bazel::Build;

/// One build of one scenario.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done before the build, in a few words.
    pub scenario: String,
    /// What stood behind the node.
    pub tier2: String,
    /// Actions that were executed or fetched.
    pub actions: usize,
    /// Those that came from the cache.
    pub hits: usize,
    /// Bytes of what the actions made.
    pub output_bytes: u64,
    /// Calls that Tier 2 received meanwhile; unknown where there was none.
    pub upstream_calls: Option<u64>,
    /// How long the build took.
    pub took: Duration,
}

/// Rows in the order in which they were built.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Row {
    /// Takes actions, hits, bytes and seconds from `build`.
    #[must_use]
    pub fn of(scenario: &str, tier2: &str, build: &Build, upstream_calls: Option<u64>) -> Row {
        Row {
            scenario: scenario.to_owned(),
            tier2: tier2.to_owned(),
            actions: build.log.spawns().len(),
            hits: build.log.hits(),
            output_bytes: build.log.output_bytes(),
            upstream_calls,
            took: build.took,
        }
    }

    fn cells(&self) -> [String; 7] {
        [
            self.scenario.clone(),
            self.tier2.clone(),
            self.actions.to_string(),
            self.hits.to_string(),
            bytes(self.output_bytes),
            self.upstream_calls
                .map_or_else(|| "-".to_owned(), |calls| calls.to_string()),
            format!("{:.1}", self.took.as_secs_f64()),
        ]
    }
}

impl Table {
    /// Adds a row at the end.
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "scenario",
            "tier 2",
            "actions",
            "hits",
            "bytes",
            "upstream calls",
            "seconds",
        ];
        let lines: Vec<_> = std::iter::once(head.map(str::to_owned))
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let widths: Vec<_> = (0..head.len())
            .map(|column| {
                lines
                    .iter()
                    .map(|line| line[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for line in &lines {
            // Words to the left, numbers to the right.
            write!(
                f,
                "{:<w0$}  {:<w1$}",
                line[0],
                line[1],
                w0 = widths[0],
                w1 = widths[1]
            )?;
            for (cell, width) in line.iter().zip(&widths).skip(2) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// `n` in the largest unit that leaves something before the point.
fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let exact = n as f64;
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", exact / 1024.0),
        _ => format!("{:.1} MiB", exact / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_left_and_numbers_right_in_columns_as_wide_as_their_widest() {
        let mut table = Table::default();
        table.push(Row {
            scenario: "no cache".to_owned(),
            tier2: "-".to_owned(),
            actions: 185,
            hits: 0,
            output_bytes: 35_227_715,
            upstream_calls: None,
            took: Duration::from_millis(28_180),
        });
        table.push(Row {
            scenario: "warm".to_owned(),
            tier2: "mock-upstream".to_owned(),
            actions: 185,
            hits: 185,
            output_bytes: 900,
            upstream_calls: Some(1234),
            took: Duration::from_millis(9_960),
        });
        let expected = "\
scenario  tier 2         actions  hits     bytes  upstream calls  seconds
no cache  -                  185     0  33.6 MiB               -     28.2
warm      mock-upstream      185   185     900 B            1234     10.0
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn sizes_are_shown_in_the_unit_that_fits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(20 * 1024 * 1024), "20.0 MiB");
    }
}
