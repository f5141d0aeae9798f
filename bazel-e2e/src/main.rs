//! `just e2e`: runs the scenarios, prints the summary, and tells how to use a node for a project of one's own.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};
use bazel_e2e::upstream::Watched;
use bazel_e2e::{Bazel, Scenarios, Upstream};
use clap::{Parser, ValueEnum};
use real_servers::{Make, Server};

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/workspace");

/// Builds a sample Bazel project through gorego: cold, warm, from a second node, through an outage.
#[derive(Debug, Parser)]
struct Arguments {
    /// The Bazel to use, 7 or newer.
    #[arg(long, env = "BAZEL", default_value = "bazel")]
    bazel: PathBuf,
    /// The node's program.
    #[arg(long)]
    gorego: PathBuf,
    /// buildbox-casd's program. Empty or absent: its scenarios are left out.
    #[arg(long, env = "CASD", default_value = "")]
    casd: String,
    /// BuildGrid's program. Empty or absent: its scenarios are left out.
    #[arg(long, env = "BUILDGRID", default_value = "")]
    buildgrid: String,
    /// bazel-remote's program. Empty or absent: its scenarios are left out.
    #[arg(long, env = "BAZEL_REMOTE", default_value = "")]
    bazel_remote: String,
    /// Scenarios over these only (may be repeated). The build without a cache is then left out too.
    #[arg(long = "tier2", value_enum)]
    only: Vec<Tier2>,
    /// The smoke scenario over a server that runs already, and nothing else: MAKE=URL.
    #[arg(long, value_parser = over, conflicts_with = "only")]
    over: Option<(Make, String)>,
    /// Leaves the nodes' and Bazel's files and logs in place.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tier2 {
    Mock,
    Embedded,
    #[value(name = "buildbox-casd", alias = "casd")]
    Casd,
    #[value(name = "buildgrid")]
    BuildGrid,
    BazelRemote,
}

impl Arguments {
    fn wants(&self, tier2: Tier2) -> bool {
        self.only.is_empty() || self.only.contains(&tier2)
    }

    fn program(&self, make: Make) -> Option<&Path> {
        let program = match make {
            Make::Casd => &self.casd,
            Make::BuildGrid => &self.buildgrid,
            Make::BazelRemote => &self.bazel_remote,
        };
        (!program.is_empty()).then_some(Path::new(program))
    }

    fn wants_real(&self, make: Make) -> bool {
        self.wants(match make {
            Make::Casd => Tier2::Casd,
            Make::BuildGrid => Tier2::BuildGrid,
            Make::BazelRemote => Tier2::BazelRemote,
        })
    }
}

fn over(text: &str) -> Result<(Make, String), String> {
    let (make, url) = text.split_once('=').ok_or("a server that runs is MAKE=URL")?;
    Ok((Make::from_str(make, true)?, url.to_owned()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let mut dir = tempfile::Builder::new().prefix("gorego-e2e.").tempdir()?;
    dir.disable_cleanup(arguments.keep);
    let gorego = fs_err::canonicalize(&arguments.gorego).context("the node's program (--gorego)")?;
    let bazel = Bazel::new(&arguments.bazel, Path::new(WORKSPACE), dir.path());
    let mut scenarios = Scenarios::new(bazel, &gorego, dir.path());

    let judged = tokio::select! {
        judged = all(arguments, &mut scenarios, dir.path()) => judged,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    println!("\n{}", scenarios.table);
    println!("bytes: of all that the actions made; upstream calls: what Tier 2 was asked meanwhile");
    let cleaned = scenarios.clean_up().await;
    if judged.is_err() {
        dir.disable_cleanup(true);
        scenarios.print_node_logs();
    }
    if judged.is_err() || arguments.keep {
        println!("Logs of Bazel and of the nodes are in {}", dir.path().display());
    }
    judged?;
    cleaned?;
    print_how_to_use();
    Ok(())
}

async fn all(arguments: &Arguments, scenarios: &mut Scenarios, dir: &Path) -> Result<()> {
    if let Some((make, url)) = &arguments.over {
        let upstream = Upstream::Given(*make, url.clone());
        return scenarios
            .smoke(&upstream)
            .await
            .with_context(|| format!("over {make}"));
    }
    if arguments.only.is_empty() {
        scenarios.without_cache().await?;
    }
    if arguments.wants(Tier2::Mock) {
        scenarios
            .matrix(&Upstream::Mock(Watched::start().await?))
            .await
            .context("over mock-upstream")?;
    }
    if arguments.wants(Tier2::Embedded) {
        scenarios
            .smoke(&Upstream::Embedded)
            .await
            .context("over the embedded tier 2")?;
    }
    for make in Make::ALL.into_iter().filter(|make| arguments.wants_real(*make)) {
        let Some(program) = arguments.program(make) else {
            // Asked for by name, its absence is a fault.
            ensure!(
                arguments.only.is_empty(),
                "{make} is not there ({})",
                make.variable()
            );
            eprintln!(
                "e2e: {make} is not there ({}): its scenarios are left out",
                make.variable()
            );
            continue;
        };
        let server = Server::process(make, program, &dir.join(make.name())).await?;
        let upstream = Upstream::Real(Box::new(server));
        scenarios
            .smoke(&upstream)
            .await
            .with_context(|| format!("over {make}"))?;
        upstream.stop().await?;
    }
    Ok(())
}

fn print_how_to_use() {
    println!("For a project of your own, start a node and point Bazel (7 or newer) at it:\n");
    println!(
        "    just run                                              # in this repository; listens on 127.0.0.1:8980"
    );
    println!("    bazel build --remote_cache=grpc://127.0.0.1:8980 //...  # in yours\n");
    println!(
        "Without a `tier2.url` the node keeps everything in a directory of its own. Put GOREGO_TIER2_URL=grpc://HOST:PORT"
    );
    println!(
        "before `just run` to stand it in front of a REAPI cache that you have (README.md tells the rest)."
    );
}
