//! Whole nodes in trouble: the scenarios of `conformance`, and the cross product of every fault of Tier 2 and every call.
//!
//! A test binary with a harness of its own: thousands of combinations are one result, with a table, and a failure names
//! the command that repeats it. It takes the arguments of other test binaries as well.

#![expect(
    clippy::unwrap_used,
    reason = "clippy sees a test in the #[test] function, and here all is a test"
)]

mod cross;
mod deviations;
mod disk;
#[path = "../common/pipes.rs"]
mod pipes;
mod rows;
mod site;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use conformance::oracle::Oracle;
use conformance::scenario::{self, Outcome};
use mock_upstream::Mock;
use tokio::runtime::{self, Runtime};

use crate::site::Nodes;

/// Seed of a run that names none. Any will do; this one makes every run of CI the same.
const SEED: u64 = 1;

/// Runs nodes in trouble, and has an oracle judge what clients get.
#[derive(Debug, Parser)]
struct Arguments {
    /// First seed of the cross product.
    #[arg(long, default_value_t = SEED)]
    seed: u64,
    /// How many seeds: each draws other sizes, places and combinations.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Only combinations whose id contains this; an id alone repeats one. Says what became of each.
    #[arg(long)]
    only: Option<String>,
    /// All combinations, not the share of them that a seed draws.
    #[arg(long)]
    all: bool,
    /// As in other test binaries: runs only tests whose names contain one of these.
    filters: Vec<String>,
    /// Lists the tests and ends.
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    _others: Others,
}

/// What other test binaries understand, and this one has no use for.
#[derive(Debug, clap::Args)]
struct Others {
    #[arg(long, hide = true)]
    nocapture: bool,
    #[arg(long, hide = true)]
    show_output: bool,
    #[arg(long, short, hide = true)]
    quiet: bool,
    #[arg(long, hide = true)]
    exact: bool,
    #[arg(long, hide = true)]
    ignored: bool,
    #[arg(long, hide = true)]
    include_ignored: bool,
    #[arg(long, hide = true)]
    test_threads: Option<usize>,
    #[arg(long, hide = true)]
    skip: Vec<String>,
    #[arg(long, hide = true)]
    color: Option<String>,
    #[arg(long, hide = true)]
    format: Option<String>,
}

const ROWS: &str = "faults::rows";
const CROSS: &str = "faults::cross_product";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let scenarios = scenario::shipped().unwrap();
    let name = |scenario: &scenario::Scenario| format!("faults::scenario::{}", scenario.name);
    if arguments.list {
        let names = scenarios
            .iter()
            .map(name)
            .chain([ROWS.to_owned(), CROSS.to_owned()]);
        for name in names {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted = |name: &str| match arguments.filters.as_slice() {
        [] => arguments.only.is_none() || name == CROSS,
        filters => filters.iter().any(|filter| name.contains(filter.as_str())),
    };
    let mut good = true;
    for scenario in scenarios.iter().filter(|scenario| wanted(&name(scenario))) {
        good &= plays(scenario);
    }
    if wanted(ROWS) {
        println!("\nThe failure table:");
        if let Err(error) = rows::check() {
            println!("FAILED {error}");
            good = false;
        }
    }
    if wanted(CROSS) {
        println!("\nEvery fault of Tier 2, every call:");
        let run = cross::Run {
            seeds: arguments.seed..arguments.seed + arguments.seeds,
            only: arguments.only.clone(),
            all: arguments.all,
        };
        good &= run.go();
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays a scenario, and says how it went.
fn plays(scenario: &scenario::Scenario) -> bool {
    let outcome = paused().block_on(async {
        let node = Nodes {
            when_down: scenario.when_down,
        }
        .node(Mock::builder().start())
        .await;
        scenario::run(Arc::new(node), &Oracle::default(), scenario)
            .await
            .unwrap()
    });
    match outcome {
        Outcome::Passed => {
            println!("ok     {}: {}", scenario.name, scenario.title);
            true
        }
        // A node in this process has every hook.
        Outcome::NotOffered(hook) => {
            println!("FAILED {}: {hook}", scenario.name);
            false
        }
        Outcome::Failed(what) => {
            println!("FAILED {}: {}\n{what}", scenario.name, scenario.title);
            println!("    again: just faults {}", scenario.name);
            false
        }
    }
}

/// A runtime in which a second passes when nothing else is left to happen.
fn paused() -> Runtime {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(true).build().unwrap()
}
