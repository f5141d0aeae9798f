//! What the suite itself is worth: servers that break one requirement each, and the checks that fail on them. From the record
//! that the tests of `conformance` keep, and that they compare with what happens: `just test` is red where it is not so.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use conformance::checks;

use crate::judge;

const RECORD: &str = include_str!("../../tests/it/snapshots/it__red_runs__matrix.snap");

/// By the id of the requirement that a server breaks: the other checks that fail on it.
fn servers(record: &str) -> Result<BTreeMap<&str, Vec<&str>>> {
    let lines = record.lines().filter(|line| line.contains('|'));
    let servers = lines.map(|line| {
        let (server, others) = line.rsplit_once('|').context("no column of other checks")?;
        let id = server
            .split_whitespace()
            .next()
            .context("a server without an id")?;
        Ok((id, others.split_whitespace().collect()))
    });
    let servers: BTreeMap<_, _> = servers.collect::<Result<_>>()?;
    ensure!(!servers.is_empty(), "the record has no servers");
    Ok(servers)
}

/// A row for each section of the suite.
///
/// # Errors
/// If the record cannot be read.
pub(crate) fn table() -> Result<String> {
    let servers = servers(RECORD)?;
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    for check in checks::all() {
        let section = judge::section(check.id);
        match sections.iter_mut().find(|(title, _)| *title == section) {
            Some((_, ids)) => ids.push(check.id),
            None => sections.push((section, vec![check.id])),
        }
    }
    let mut text = "| section | checks | fail on a server that breaks just this | servers on which others fail as well |\n\
                    | --- | --- | --- | --- |\n"
        .to_owned();
    for (title, ids) in sections {
        let broken: Vec<_> = ids.iter().filter(|id| servers.contains_key(*id)).collect();
        let beside: Vec<_> = broken
            .iter()
            .filter(|id| !servers[**id].is_empty())
            .map(|id| format!("{id}: {}", servers[*id].join(" ")))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {title} | {} | {} | {} |",
            ids.len(),
            broken.len(),
            beside.join("; ")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_record_names_a_server_and_the_other_checks_that_fail() {
        let record = "expression: matrix\n---\nA-01  does this | \nA-02  does that | B-01 B-02\n";
        let expected = BTreeMap::from([("A-01", vec![]), ("A-02", vec!["B-01", "B-02"])]);
        assert_eq!(servers(record).unwrap(), expected);
        assert!(servers("---\n").is_err());
    }

    #[test]
    fn every_server_of_the_record_is_counted_in_a_section() {
        let counted: usize = table()
            .unwrap()
            .lines()
            .skip(2)
            .map(|row| row.split('|').nth(3).unwrap().trim().parse::<usize>().unwrap())
            .sum();
        assert_eq!(counted, servers(RECORD).unwrap().len());
    }
}
