//! `just conformance`: the suite against a node of ours and against the real servers that are at hand, and a node with
//! each of them as Tier 2.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use conformance::deviations::Deviations;
use real_servers::container::{Engine, Image};
use real_servers::judge::Judged;
use real_servers::process::last_lines;
use real_servers::table::{Column, How, Outcome, Ran};
use real_servers::trials::Finding;
use real_servers::{Make, Node, Results, Rig, Server, Trial, judge, proxy};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Half of what `reapi-conformance` tries.
const PROXY_SAMPLE: usize = 200;

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
    /// How to run them; both ways without it.
    #[arg(long = "as", value_delimiter = ',')]
    how: Vec<How>,
    /// Combinations of the fault matrix by which the node is judged as a proxy. With fewer than by default no other proxy is.
    #[arg(long, default_value_t = PROXY_SAMPLE)]
    proxy_sample: usize,
    /// Runs only checks whose id begins so, and no trials.
    #[arg(long, default_value = "")]
    filter: String,
    /// Known deviations: a file for each server.
    #[arg(long, default_value = DEVIATIONS)]
    deviations: PathBuf,
    /// Writes the tables, which are of whole runs alone.
    #[arg(long, requires = "date", conflicts_with_all = ["only", "how", "filter"])]
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

    fn runs(&self, how: How) -> bool {
        self.how.is_empty() || self.how.contains(&how)
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
        results = both(arguments, engine.as_ref(), dir.path()) => results,
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
    println!("\n{}", results.tables());
    if let (Some(path), Some(date)) = (&arguments.results, &arguments.date) {
        if good {
            fs_err::write(path, results.document(date)?)?;
        } else {
            println!("{} is left as it was", path.display());
        }
    }
    Ok(good)
}

/// Servers, and beside them proxies, which wait more than they work.
async fn both(arguments: &Arguments, engine: Result<&Engine, &anyhow::Error>, dir: &Path) -> Result<Results> {
    let (results, proxies) = tokio::join!(all(arguments, engine, dir), proxies(arguments, dir));
    Ok(Results { proxies, ..results? })
}

async fn proxies(arguments: &Arguments, dir: &Path) -> Vec<Column> {
    if !arguments.filter.is_empty() {
        return Vec::new();
    }
    let (node, casd) = ("gorego-as-proxy", "casd-as-proxy");
    let ours = async {
        let known = judge::known(&arguments.deviations, node, "")?;
        proxy::node(&arguments.gorego, &dir.join(node), &known, arguments.proxy_sample).await
    };
    let mut columns = vec![as_proxy("gorego", Ok(ours.await))];
    if arguments.makes().any(|make| make == Make::Casd) {
        let variable = Make::Casd.variable();
        let found = match arguments.program(Make::Casd) {
            None => Err(anyhow!("no program of it is named by `{variable}`")),
            Some(_) if arguments.proxy_sample < PROXY_SAMPLE => {
                Err(anyhow!("it takes minutes, and `--proxy-sample` asks for few"))
            }
            Some(program) => Ok(async {
                let known = judge::known(&arguments.deviations, casd, "")?;
                proxy::casd(program, &dir.join(casd), &known).await
            }
            .await),
        };
        columns.push(as_proxy(Make::Casd.name(), found));
    }
    columns
}

/// A proxy that was judged, or could not be had, for this reason.
fn as_proxy(name: &str, found: Result<Result<Judged>>) -> Column {
    let outcome = match found {
        Err(reason) => Outcome::NotRun(reason.to_string()),
        Ok(judged) => {
            let (direct, broke) = match judged {
                Ok(judged) => (Some(judged), None),
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            let told = direct.as_ref().map(|judged| judged.report.as_str());
            println!(
                "\n--- {name} as a proxy\n{}",
                told.or(broke.as_deref()).unwrap_or_default()
            );
            Outcome::Ran(Ran {
                direct,
                broke,
                ..Ran::default()
            })
        }
    };
    Column {
        name: name.to_owned(),
        how: How::Process,
        outcome,
    }
}

async fn all(arguments: &Arguments, engine: Result<&Engine, &anyhow::Error>, dir: &Path) -> Result<Results> {
    let mut results = Results::default();
    results.columns.push(node(arguments, dir).await?);
    for make in arguments.makes() {
        for how in How::ALL.into_iter().filter(|how| arguments.runs(*how)) {
            let place = dir.join(format!("{make}-{how}"));
            let outcome = match at_hand(arguments, engine, make, how).await {
                Err(reason) => {
                    println!("\n--- {make}, {how}: not run: {reason:#}");
                    // What made it so may tell of this machine: that is not for the tables.
                    Outcome::NotRun(reason.to_string())
                }
                Ok(source) => Outcome::Ran(real(arguments, make, source, &place).await),
            };
            results.columns.push(Column {
                name: make.name().to_owned(),
                how,
                outcome,
            });
        }
    }
    Ok(results)
}

/// What a server can be started from.
enum Source {
    Program(PathBuf),
    /// A program of this machine, in a container of its own.
    Boxed(PathBuf, Engine),
    /// What its makers publish.
    Image(Image),
}

impl Source {
    fn how(&self) -> How {
        match self {
            Source::Program(_) => How::Process,
            Source::Boxed(..) | Source::Image(_) => How::Container,
        }
    }

    async fn version(&self, make: Make) -> Result<String> {
        match self {
            Source::Program(program) | Source::Boxed(program, _) => make.version(program).await,
            Source::Image(image) => Ok(image.tag().to_owned()),
        }
    }

    async fn start(&self, make: Make, dir: &Path) -> Result<Server> {
        match self {
            Source::Program(program) => Server::process(make, program, dir).await,
            Source::Boxed(program, engine) => {
                Server::container(&engine.image_of(make, program).await?, dir).await
            }
            Source::Image(image) => Server::container(image, dir).await,
        }
    }
}

/// # Errors
/// If the server cannot be had: the reason.
async fn at_hand(
    arguments: &Arguments,
    engine: Result<&Engine, &anyhow::Error>,
    make: Make,
    how: How,
) -> Result<Source> {
    let program = arguments.program(make).map(Path::to_owned);
    let program = program.with_context(|| format!("no program of it is named by `{}`", make.variable()));
    if how == How::Process {
        return program.map(Source::Program);
    }
    let engine = engine.map_err(|reason| anyhow!("{reason:#}").context("there is no Docker engine"))?;
    match (make.public_image(), program) {
        (Some(public), program) => match (engine.pulled(make, public).await, program) {
            (Ok(image), _) => Ok(Source::Image(image)),
            (Err(_no_public_one), Ok(program)) => Ok(Source::Boxed(program, engine.clone())),
            (Err(error), Err(_)) => Err(error),
        },
        (None, program) => Ok(Source::Boxed(program?, engine.clone())),
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
    let judged = suite(arguments, &node.url(), &known, async || Ok(())).await?;
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

/// What is done with a server that can be had. A failure of one part does not keep the others from being judged, except
/// where the server or the node is lost.
async fn real(arguments: &Arguments, make: Make, source: Source, dir: &Path) -> Ran {
    let began = Instant::now();
    let how = source.how();
    let mut ran = Ran::default();
    if let Err(error) = judged(arguments, make, source, dir, &mut ran).await {
        println!("{make}, {how}: {error:#}");
        ran.broke = Some(format!("{error:#}"));
    }
    println!("{make}, {how}: {:.0?}", began.elapsed());
    ran
}

async fn judged(arguments: &Arguments, make: Make, source: Source, dir: &Path, ran: &mut Ran) -> Result<()> {
    let how = source.how();
    ran.version = source.version(make).await?;
    println!("\n--- {make} {}, {how}", ran.version);
    let mut server = source.start(make, &dir.join("server")).await?;
    let known = judge::known(&arguments.deviations, make.name(), &arguments.filter)?;
    let url = server.url();
    ran.direct = Some(suite(arguments, &url, &known, async || server.revive().await).await?);
    as_tier2(arguments, server, how, dir, ran).await
}

async fn as_tier2(arguments: &Arguments, server: Server, how: How, dir: &Path, ran: &mut Ran) -> Result<()> {
    let make = server.make();
    let mut rig = Rig::start(server, &arguments.gorego, &dir.join("node")).await?;
    println!("--- gorego over {make}");
    let pair = format!("gorego-over-{make}");
    let known = judge::known(&arguments.deviations, &pair, &arguments.filter)?;
    let url = rig.node_url();
    ran.through = Some(suite(arguments, &url, &known, async || Ok(())).await?);
    if arguments.filter.is_empty() {
        for trial in Trial::ALL {
            let (after, finding) = trial.run(rig).await.with_context(|| trial.title())?;
            rig = after;
            println!("{}: {finding}", trial.title());
            ran.trials.push((trial, finding));
        }
        // Bazel cannot tell in which way the server runs.
        let once = how == How::Process || arguments.program(make).is_none();
        if let Some(program) = arguments.bazel_e2e.as_ref().filter(|_| once) {
            let finding = bazel(program, arguments, &rig.server, dir).await?;
            println!("a Bazel build: {finding}");
            ran.bazel = Some(finding);
        }
    }
    rig.end().await
}

/// The suite, with its report and what it took.
async fn suite(
    arguments: &Arguments,
    url: &str,
    known: &Deviations,
    revive: impl AsyncFnMut() -> Result<()>,
) -> Result<Judged> {
    let began = Instant::now();
    let judged = judge::suite(url, &arguments.filter, known, revive).await?;
    println!("{}\nthe suite: {:.0?}", judged.report, began.elapsed());
    Ok(judged)
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
