//! `just conformance`: the suite against a node of ours and against the real servers that are at hand, and a node with
//! each of them as Tier 2.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use real_servers::container::{Engine, Image};
use real_servers::process::last_lines;
use real_servers::table::{Column, How, Outcome, Ran};
use real_servers::trials::Finding;
use real_servers::{Make, Node, Results, Rig, Server, Trial, judge};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

const DEVIATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deviations");

/// The conformance suite against real servers, and a node over each of them.
#[derive(Debug, Parser)]
struct Arguments {
    /// The node's program.
    #[arg(long)]
    gorego: PathBuf,
    /// buildbox-casd's program.
    #[arg(long, env = "CASD", default_value = "")]
    casd: String,
    /// BuildGrid's program, `bgd`, with its Python beside it.
    #[arg(long, env = "BUILDGRID", default_value = "")]
    buildgrid: String,
    /// bazel-remote's program.
    #[arg(long, env = "BAZEL_REMOTE", default_value = "")]
    bazel_remote: String,
    /// The program that builds with Bazel; without it nothing is built.
    #[arg(long)]
    bazel_e2e: Option<PathBuf>,
    /// Servers to run beside the node; all without it.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Make>,
    /// Runs only checks whose id begins so, and no trials.
    #[arg(long, default_value = "")]
    filter: String,
    /// Known deviations: a file for each server.
    #[arg(long, default_value = DEVIATIONS)]
    deviations: PathBuf,
    /// Writes the tables.
    #[arg(long, requires = "date")]
    results: Option<PathBuf>,
    /// The day, for the tables.
    #[arg(long)]
    date: Option<String>,
    /// Leaves files and logs in place.
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    fn program(&self, make: Make) -> Option<&Path> {
        let program = match make {
            Make::Casd => &self.casd,
            Make::BuildGrid => &self.buildgrid,
            Make::BazelRemote => &self.bazel_remote,
        };
        (!program.is_empty()).then_some(Path::new(program))
    }

    fn makes(&self) -> impl Iterator<Item = Make> {
        Make::ALL
            .into_iter()
            .filter(|make| self.only.is_empty() || self.only.contains(make))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool> {
    let mut dir = tempfile::Builder::new().prefix("gorego-conformance.").tempdir()?;
    dir.disable_cleanup(arguments.keep);
    let engine = Engine::find().await;
    let mut terminate = signal(SignalKind::terminate())?;
    let results = tokio::select! {
        results = all(arguments, engine.as_ref(), dir.path()) => results,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    if let Ok(engine) = &engine {
        engine.clean_up().await?;
    }
    let good = results.as_ref().is_ok_and(Results::is_good);
    if !good || arguments.keep {
        dir.disable_cleanup(true);
        println!("Logs are in {}", dir.path().display());
    }
    let results = results?;
    let date = arguments.date.as_deref().unwrap_or("(no date given)");
    let markdown = results.markdown(date);
    match &arguments.results {
        Some(path) if good => fs_err::write(path, &markdown)?,
        Some(path) => println!("{} is left as it was", path.display()),
        None => {}
    }
    println!("\n{markdown}");
    Ok(good)
}

async fn all(arguments: &Arguments, engine: Result<&Engine, &anyhow::Error>, dir: &Path) -> Result<Results> {
    let mut results = Results::default();
    results.columns.push(node(arguments, dir).await?);
    for make in arguments.makes() {
        let program = arguments.program(make);
        let place = |how: &str| dir.join(format!("{make}-{how}"));
        let outcome = match program {
            None => Outcome::NotRun(format!("{} is empty", make.variable())),
            Some(program) => {
                let began = Instant::now();
                let version = make.version(program).await?;
                say(make, "process", &version);
                let place = place("process");
                let server = Server::process(make, program, &place.join("server")).await?;
                let ran = real(arguments, server, version, How::Process, &place).await?;
                took(make, "process", began);
                Outcome::Ran(ran)
            }
        };
        results.columns.push(column(make, How::Process, outcome));
        let outcome = match image(engine, make, program).await {
            Err(reason) => Outcome::NotRun(format!("{reason:#}")),
            Ok(image) => {
                let began = Instant::now();
                let version = match program {
                    Some(program) if !image.is_public() => make.version(program).await?,
                    Some(_) | None => image.tag().to_owned(),
                };
                say(make, "container", &version);
                let place = place("container");
                let server = Server::container(&image, &place.join("server")).await?;
                let ran = real(arguments, server, version, How::Container, &place).await?;
                took(make, "container", began);
                Outcome::Ran(ran)
            }
        };
        results.columns.push(column(make, How::Container, outcome));
    }
    for column in &results.columns {
        if let Outcome::NotRun(reason) = &column.outcome {
            println!("{} ({:?}): not run: {reason}", column.name, column.how);
        }
    }
    Ok(results)
}

async fn image(engine: Result<&Engine, &anyhow::Error>, make: Make, program: Option<&Path>) -> Result<Image> {
    let engine = engine.map_err(|reason| anyhow!("{reason:#}"))?;
    engine.image(make, program).await
}

fn column(make: Make, how: How, outcome: Outcome) -> Column {
    Column {
        name: make.name().to_owned(),
        how,
        outcome,
    }
}

/// The node with an embedded Tier 2: no deviations, and a clean end.
async fn node(arguments: &Arguments, dir: &Path) -> Result<Column> {
    let began = Instant::now();
    let version = String::from_utf8(
        Command::new(&arguments.gorego)
            .arg("--version")
            .output()
            .await?
            .stdout,
    )?;
    let version = version.split_whitespace().last().unwrap_or("?").to_owned();
    println!("\n--- gorego {version}, with the embedded Tier 2");
    let node = Node::start(&arguments.gorego, &dir.join("gorego"), None, &[]).await?;
    let known = judge::known(&arguments.deviations, "gorego", &arguments.filter)?;
    let judged = judge::suite(&node.url(), &arguments.filter, &known, async || Ok(())).await?;
    println!("{}", judged.report);
    let mut ran = Ran {
        version,
        direct: Some(judged),
        ..Ran::default()
    };
    if let Err(error) = node.stop().await {
        println!("{error:#}");
        ran.broke = Some(format!("{error:#}"));
    }
    println!("gorego: {:.0?}", began.elapsed());
    Ok(Column {
        name: "gorego".to_owned(),
        how: How::Process,
        outcome: Outcome::Ran(ran),
    })
}

/// What is done with a server that runs. A failure of one part does not keep the others from being judged, except where
/// the server or the node is lost.
async fn real(
    arguments: &Arguments,
    mut server: Server,
    version: String,
    how: How,
    dir: &Path,
) -> Result<Ran> {
    let make = server.make();
    let mut ran = Ran {
        version,
        ..Ran::default()
    };
    let known = judge::known(&arguments.deviations, make.name(), &arguments.filter)?;
    let judged = judge::suite(&server.url(), &arguments.filter, &known, async || {
        server.revive().await
    })
    .await?;
    println!("{}", judged.report);
    ran.direct = Some(judged);
    if let Err(error) = as_tier2(arguments, server, how, dir, &mut ran).await {
        println!("{make}: {error:#}");
        ran.broke = Some(format!("{error:#}"));
    }
    Ok(ran)
}

async fn as_tier2(arguments: &Arguments, server: Server, how: How, dir: &Path, ran: &mut Ran) -> Result<()> {
    let make = server.make();
    let mut rig = Rig::start(server, &arguments.gorego, &dir.join("node")).await?;
    // What a node and Bazel make of a server does not depend on how that server runs.
    let once = how == How::Process || arguments.program(make).is_none();
    if once {
        println!("--- gorego over {make}");
        let known = judge::known(
            &arguments.deviations,
            &format!("gorego-over-{make}"),
            &arguments.filter,
        )?;
        let judged = judge::suite(&rig.node_url(), &arguments.filter, &known, async || Ok(())).await?;
        println!("{}", judged.report);
        ran.through = Some(judged);
    }
    if arguments.filter.is_empty() {
        for trial in Trial::ALL {
            let (after, finding) = trial.run(rig).await.with_context(|| trial.title())?;
            rig = after;
            println!("{}: {finding}", trial.title());
            ran.trials.push((trial, finding));
        }
        if let Some(program) = arguments.bazel_e2e.as_ref().filter(|_| once) {
            let finding = bazel(program, arguments, &rig.server, dir).await?;
            println!("a Bazel build: {finding}");
            ran.bazel = Some(finding);
        }
    }
    rig.end().await
}

/// The smoke scenario of `just e2e`, through nodes of its own.
async fn bazel(program: &Path, arguments: &Arguments, server: &Server, dir: &Path) -> Result<Finding> {
    let log = dir.join("bazel.log");
    let file = fs_err::File::create(&log)?.into_parts().0;
    let status = Command::new(program)
        .arg("--gorego")
        .arg(&arguments.gorego)
        .arg(format!("--over={}={}", server.make(), server.url()))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .kill_on_drop(true)
        .status()
        .await?;
    if status.success() {
        return Ok(Finding::Passed(String::new()));
    }
    let printed = fs_err::read_to_string(&log)?;
    Ok(Finding::Failed(format!("{status}:\n{}", last_lines(&printed))))
}

fn say(make: Make, how: &str, version: &str) {
    println!("\n--- {make} {version}, {how}");
}

fn took(make: Make, how: &str, began: Instant) {
    println!("{make}, {how}: {:.0?}", began.elapsed());
}
