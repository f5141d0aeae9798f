//! Caching proxies, judged by the proxy profile: a node of ours, and buildbox-casd, which is one too. Their Tier 2 is a mock,
//! of which only the control port is spoken to.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use conformance::connect::Options;
use conformance::deviations::Deviations;
use conformance::proxy::{self, Arguments, Row, Run};
use conformance::report::Report;
use conformance::{Outcome, oracle};
use mock_upstream::{Control, Mock};
use tokio::process::Command;

use crate::judge::{Judged, Tally, without_lucky_races};
use crate::make::{Make, casd_arguments};
use crate::node::Node;
use crate::process::{Service, free_address};

/// The seed of `reapi-conformance`, so that its commands repeat what is found here.
const SEED: u64 = 1;

/// casd waits for ever for an answer that does not come: each such call costs so many seconds.
const CASD_CALL_MAX_S: u64 = 15;

/// Combinations that are tried on casd, which waits long between its attempts.
const CASD_SAMPLE: usize = 100;

/// A mock behind sockets, and its control port.
struct Tier2 {
    mock: Mock,
    control: Control,
}

impl Tier2 {
    async fn start() -> Result<Tier2> {
        let mock = Mock::builder().start_tcp("127.0.0.1:0").await?;
        let control = Control::start(mock.clone(), "127.0.0.1:0").await?;
        Ok(Tier2 { mock, control })
    }

    async fn judges(&self, proxy: &str, arguments: Arguments, known: &Deviations) -> Result<Judged> {
        let began = Instant::now();
        let run = Run {
            proxy: Options::new(proxy),
            instance: String::new(),
            arguments: Arguments {
                proxy_upstream_control: Some(format!("http://{}", self.control.addr())),
                ..arguments
            },
            filter: String::new(),
            seed: SEED,
        };
        let found = proxy::judge(&run, |_, _| {}).await?;
        let mut judged = count(&found.results, known);
        judged.report = format!(
            "{}\n{}\nthe profile: {:.0?}",
            found.matrix,
            judged.report,
            began.elapsed()
        );
        Ok(judged)
    }
}

/// A node (`program`, with its files in `dir`), by so many combinations.
///
/// # Errors
/// If it does not start, or cannot be judged, or its end is not clean.
pub async fn node(program: &Path, dir: &Path, known: &Deviations, sample: usize) -> Result<Judged> {
    let tier2 = Tier2::start().await?;
    let node = Node::start(program, dir, Some(&tier2.mock.url()), &[]).await?;
    let arguments = Arguments {
        sample,
        ..Arguments::default()
    };
    let judged = tier2.judges(&node.url(), arguments, known).await;
    let ended = node.stop().await;
    let judged = judged?;
    ended?;
    Ok(judged)
}

/// buildbox-casd in front of a mock, with all that it stores and prints in `dir`.
///
/// # Errors
/// If it does not start, or cannot be judged.
pub async fn casd(program: &Path, dir: &Path, known: &Deviations) -> Result<Judged> {
    fs_err::create_dir_all(dir)?;
    let tier2 = Tier2::start().await?;
    let (address, remote) = (free_address()?, format!("http://{}", tier2.mock.addr()));
    let mut command = Command::new(program);
    command
        .arg(format!("--cas-remote={remote}"))
        .arg(format!("--ac-remote={remote}"))
        .args(casd_arguments(&address.to_string(), &dir.join("store")));
    let name = format!("{} as a proxy", Make::Casd);
    let mut service = Service::start(&name, &mut command, &dir.join("log"))?;
    service
        .wait_until(async |service| Ok(service.printed()?.contains("Server listening on")))
        .await?;
    let arguments = Arguments {
        longest_call: CASD_CALL_MAX_S,
        sample: CASD_SAMPLE,
        ..Arguments::default()
    };
    let judged = tier2.judges(&format!("grpc://{address}"), arguments, known).await;
    // It may hang in a call that never ends, and how it ends is its own affair.
    service.kill().await?;
    judged
}

fn count(results: &[(Row, Outcome)], known: &Deviations) -> Judged {
    let (mut scenarios, mut promises) = (Tally::default(), Tally::default());
    for (row, outcome) in results {
        let is_promise = oracle::Promise::ALL
            .iter()
            .any(|promise| row.id == format!("PXY-{promise}"));
        let tally = if is_promise { &mut promises } else { &mut scenarios };
        tally.count(outcome, known.reason(&row.id));
    }
    let bad = |id: &str| {
        results
            .iter()
            .any(|(row, outcome)| row.id == id && outcome.is_bad())
    };
    let known = without_lucky_races(known, bad);
    let report = Report::new(&[], &known).with_rows(results);
    Judged {
        sections: vec![
            ("Scenarios".to_owned(), scenarios),
            ("Promises, by the fault matrix".to_owned(), promises),
        ],
        good: report.is_good(),
        report: report.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_and_promises_are_counted_apart_and_a_listed_failure_is_a_deviation() {
        let row = |id: &str| proxy::find(id).unwrap();
        let failed = || Outcome::Failed("x".into());
        let results = [
            (row("PXY-S-01-a-herd-costs-one-read"), failed()),
            (row("PXY-P1"), Outcome::Passed),
            (row("PXY-P4"), failed()),
            (row("PXY-P9"), Outcome::NotOffered("y".into())),
        ];
        let known = Deviations::parse("PXY-S-01-a-herd-costs-one-read reads often").unwrap();
        let judged = count(&results, &known);
        let [(_, scenarios), (_, promises)] = judged.sections.as_slice() else {
            panic!("{:?}", judged.sections)
        };
        assert_eq!((scenarios.deviates, scenarios.failed), (1, 0));
        assert_eq!(
            (promises.passed, promises.failed, promises.not_offered),
            (1, 1, 1)
        );
        assert!(!judged.good && count(&results[..2], &known).good);
        assert!(
            !count(&results[1..2], &known).good,
            "a line that no longer applies"
        );
        let race = Deviations::parse("PXY-P1 sometimes: takes long").unwrap();
        assert!(count(&results[1..2], &race).good);
    }
}
