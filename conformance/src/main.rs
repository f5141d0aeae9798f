//! `conformance --endpoint grpc://host:port`: checks a server and says what it found.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use conformance::deviations::Deviations;
use conformance::report::Report;
use conformance::{Target, checks};

/// Checks a Remote Execution API cache from outside. Exit code 0 only if no check failed that is not a known deviation.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server, as grpc://host:port.
    #[arg(long, required_unless_present = "list")]
    endpoint: Option<String>,
    /// Instance name that the checks use.
    #[arg(long, default_value = "")]
    instance: String,
    /// Runs only checks whose id begins so.
    #[arg(long, default_value = "")]
    filter: String,
    /// A file of known deviations: one line each, `ID reason`.
    #[arg(long)]
    deviations: Option<PathBuf>,
    /// Lists the checks and ends.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut checks = checks::all();
    checks.retain(|check| check.id.starts_with(&arguments.filter));
    let Some(endpoint) = arguments.endpoint.filter(|_| !arguments.list) else {
        for check in checks {
            println!("{:<14} {:<9} {}", check.id, check.level, check.says);
        }
        return Ok(ExitCode::SUCCESS);
    };
    let known = match &arguments.deviations {
        Some(path) => Deviations::parse(
            &std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        )?,
        None => Deviations::default(),
    };
    let target = Target::connect(&endpoint, &arguments.instance)
        .await
        .context("connecting to the server")?;
    let results = conformance::run(Arc::new(target), checks).await;
    let report = Report::new(&results, &known);
    print!("{}", report.text());
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
