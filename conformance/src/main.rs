//! `reapi-conformance --endpoint grpc://host:port`: checks a server and says what it found.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser;
use conformance::catalogue::{self, Profile};
use conformance::check::{Check, Outcome};
use conformance::connect::Options;
use conformance::deviations::Deviations;
use conformance::properties::{self, Property, Tried};
use conformance::proxy::{self, Row};
use conformance::report::Report;
use conformance::{Target, checks};
use tonic::metadata::{Ascii, MetadataKey};

/// Checks a Remote Execution API cache from outside. Exit code 0 only if no MUST failed that is not a known deviation.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The server: grpc://host:port, or grpcs://host:port with TLS.
    #[arg(long, required_unless_present_any = ["list", "explain"])]
    endpoint: Option<String>,
    /// Instance name that the checks use.
    #[arg(long, default_value = "")]
    instance: String,
    /// Parts of the protocol to check; all without it.
    #[arg(long, value_delimiter = ',')]
    profile: Vec<Profile>,
    /// Runs only checks whose id begins so.
    #[arg(long, default_value = "")]
    filter: String,
    /// Certificates to trust, a PEM file; without it the system's.
    #[arg(long)]
    tls_ca: Option<PathBuf>,
    /// The client's certificate, a PEM file.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the client's certificate, a PEM file.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The name that the server's certificate is for; without it the host's.
    #[arg(long)]
    tls_name: Option<String>,
    /// A header of every call, as name=value. May be given several times.
    #[arg(long, value_parser = header)]
    header: Vec<(String, String)>,
    /// A file of known deviations: one line each, `ID reason`.
    #[arg(long)]
    deviations: Option<PathBuf>,
    /// Fails on SHOULD, MAY, DE-FACTO and DERIVED too.
    #[arg(long)]
    strict: bool,
    /// Tries each property with so many random inputs as well.
    #[arg(long, default_value_t = 0)]
    properties: u32,
    /// Of the random inputs: the same seed draws the same.
    #[arg(long)]
    seed: Option<u64>,
    /// Writes the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the report as JUnit XML.
    #[arg(long)]
    junit: Option<PathBuf>,
    /// Writes the report as a Markdown table.
    #[arg(long)]
    markdown: Option<PathBuf>,
    /// Lists the checks and ends.
    #[arg(long)]
    list: bool,
    /// Says all there is to say about a requirement and ends.
    #[arg(long)]
    explain: Option<String>,
    #[command(flatten)]
    proxy: proxy::Arguments,
}

/// Seed of a proxy's combinations, if none is named: the same for everybody, so that runs can be compared.
const PROXY_SEED: u64 = 1;

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a header is name=value")?;
    Ok((name.to_lowercase(), value.to_owned()))
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(id) = &arguments.explain {
        print!("{}", explain(id)?);
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.proxy.proxy_upstream_control.is_some() && !arguments.list {
        return judge_proxy(&arguments).await;
    }
    let mut checks = checks::all();
    checks.retain(|check| arguments.wants(check.id, catalogue::profile_of(check.id)));
    let mut properties = properties::all();
    properties.retain(|property| arguments.wants(property.id, Some(property.profile)));
    let Some(endpoint) = arguments.endpoint.as_deref().filter(|_| !arguments.list) else {
        for check in checks {
            println!("{:<15} {:<9} {}", check.id, check.level(), check.says());
        }
        for property in properties {
            println!("{:<15} {:<9} {}", property.id, property.level(), property.says);
        }
        let rows = proxy::rows().into_iter();
        for row in rows.filter(|row| arguments.profile.is_empty() && row.id.starts_with(&arguments.filter)) {
            println!("{:<52} {:<9} {}", row.id, row.level, row.says);
        }
        return Ok(ExitCode::SUCCESS);
    };
    if arguments.properties == 0 {
        properties.clear();
    }
    anyhow::ensure!(
        !checks.is_empty() || !properties.is_empty(),
        "nothing is left to check: see --list"
    );
    let mut known = arguments.known()?;
    let tries = |id: &str| properties.iter().any(|property| property.id == id);
    let is_property = |id: &str| properties::all().iter().any(|property| property.id == id);
    known.retain(|id| tries(id) || !is_property(id) && arguments.wants(id, catalogue::profile_of(id)));
    let options = options(&arguments, endpoint)?;
    let target = Target::connect_with(options, &arguments.instance)
        .await
        .with_context(|| format!("connecting to {endpoint}"))?;
    answers(&target, &arguments, endpoint).await?;
    let started = std::time::Instant::now();
    let mut progress = Progress::new(checks.len());
    let tell = |check: &Check, outcome: &Outcome| progress.tell(check, outcome);
    let results = conformance::run_and_tell(Arc::new(target.clone()), checks, tell).await;
    progress.end();
    let tried = try_properties(&target, properties, arguments.properties, arguments.seed).await?;
    let report = Report::new(&results, &known).with_properties(&tried);
    let report = if arguments.strict {
        report
    } else {
        report.lenient()
    };
    print!("{}", report.text());
    println!("in {:.1} s", started.elapsed().as_secs_f64());
    told(&arguments, &report, endpoint)
}

/// Writes the report in all forms that are asked for, and says whether it is good.
fn told(arguments: &Arguments, report: &Report<'_>, endpoint: &str) -> anyhow::Result<ExitCode> {
    write(arguments.json.as_deref(), || format!("{:#}\n", report.json()))?;
    write(arguments.junit.as_deref(), || report.junit())?;
    write(arguments.markdown.as_deref(), || report.markdown(endpoint))?;
    Ok(if report.is_good() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Judges a proxy, by all its promises: those that are choices are waived by name, not by their level.
async fn judge_proxy(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let endpoint = arguments
        .endpoint
        .as_deref()
        .context("--endpoint names the proxy")?;
    let unfit = arguments.properties > 0 || !arguments.profile.is_empty();
    anyhow::ensure!(
        !unfit,
        "--properties and --profile are for servers: run them without --proxy-upstream-control"
    );
    let run = proxy::Run {
        proxy: options(arguments, endpoint)?,
        instance: arguments.instance.clone(),
        arguments: arguments.proxy.clone(),
        filter: arguments.filter.clone(),
        seed: arguments.seed.unwrap_or(PROXY_SEED),
    };
    let mut known = arguments.known()?;
    let started = std::time::Instant::now();
    let tell = |row: &Row, outcome: &Outcome| {
        let word = if outcome.is_bad() { "failed" } else { "done" };
        eprintln!("{:>5.0} s {} {word}", started.elapsed().as_secs_f64(), row.id);
    };
    let judged = proxy::judge(&run, tell).await?;
    anyhow::ensure!(!judged.results.is_empty(), "nothing is left to judge: see --list");
    // What a part of the matrix does not show may show in the rest.
    let fails = |id: &str| {
        judged
            .results
            .iter()
            .any(|(row, outcome)| row.id == id && outcome.is_bad())
    };
    known.retain(|id| id.starts_with(&arguments.filter) && (arguments.proxy.only.is_none() || fails(id)));
    let report = Report::new(&[], &known).with_rows(&judged.results);
    print!("{}\n{}", judged.matrix, report.text());
    println!("in {:.1} s", started.elapsed().as_secs_f64());
    told(arguments, &report, endpoint)
}

/// A connection that breaks at the first call would fail every check for one reason, which is better said once.
async fn answers(target: &Target, arguments: &Arguments, endpoint: &str) -> anyhow::Result<()> {
    let Err(status) = target.server_capabilities().await else {
        return Ok(());
    };
    // A status that the server itself sent has no source.
    if std::error::Error::source(&status).is_none() {
        return Ok(());
    }
    // In TLS 1.3 a client hears with the first answer that its certificate, or the lack of one, is refused.
    let hint = match (endpoint.starts_with("grpc://"), &arguments.tls_cert) {
        (true, _) => "",
        (false, None) => "; the server may want a client's certificate: see --tls-cert",
        (false, Some(_)) => "; the server may refuse the client's certificate",
    };
    Err(status).with_context(|| format!("the connection broke at the first call to {endpoint}{hint}"))
}

/// Tries the properties, one after another, and tells of each that does not hold.
async fn try_properties(
    target: &Target,
    properties: Vec<Property>,
    cases: u32,
    seed: Option<u64>,
) -> anyhow::Result<Vec<Tried>> {
    // Short enough for a person to type, and for JSON to hold exactly.
    let seed = seed.unwrap_or_else(|| rand::random::<u32>().into());
    let (runtime, target) = (tokio::runtime::Handle::current(), target.clone());
    let tried = tokio::task::spawn_blocking(move || {
        let tried = properties.iter().map(|property| {
            let tried = property.tried(&runtime, &target, cases, seed);
            let word = if tried.outcome.is_bad() { "failed" } else { "tried" };
            eprintln!("{} {word} with {cases} inputs of seed {seed}", property.id);
            tried
        });
        tried.collect()
    });
    Ok(tried.await?)
}

impl Arguments {
    fn known(&self) -> anyhow::Result<Deviations> {
        match &self.deviations {
            Some(path) => Deviations::parse(&fs_err::read_to_string(path)?),
            None => Ok(Deviations::default()),
        }
    }

    /// Whether a check or a property is to be run.
    fn wants(&self, id: &str, profile: Option<Profile>) -> bool {
        let in_profile =
            self.profile.is_empty() || profile.is_none_or(|profile| self.profile.contains(&profile));
        in_profile && id.starts_with(&self.filter)
    }
}

fn options(arguments: &Arguments, endpoint: &str) -> anyhow::Result<Options> {
    let mut options = Options::new(endpoint);
    options.ca_file.clone_from(&arguments.tls_ca);
    options.identity = arguments.tls_cert.clone().zip(arguments.tls_key.clone());
    options.server_name.clone_from(&arguments.tls_name);
    for (name, value) in &arguments.header {
        let key = MetadataKey::<Ascii>::from_bytes(name.as_bytes()).ok();
        let key = key.with_context(|| format!("{name} is no name of a header"))?;
        let value = value.parse().with_context(|| format!("the value of {name}"))?;
        options.headers.append(key, value);
    }
    Ok(options)
}

fn write(path: Option<&Path>, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    match path {
        Some(path) => Ok(fs_err::write(path, text())?),
        None => Ok(()),
    }
}

fn explain(id: &str) -> anyhow::Result<String> {
    if let Some(property) = properties::all().iter().find(|property| property.id == id) {
        return Ok(format!(
            "{id} (Properties; {})\n  {}\n  rests on: {}\n  tried by: reapi-conformance --properties 100 --filter {id}\n",
            property.level(),
            property.says,
            property.on
        ));
    }
    if let Some(row) = proxy::find(id) {
        let judged = match row.none {
            Some(reason) => format!("not judged: {reason}"),
            None => "judged with --proxy-upstream-control".to_owned(),
        };
        return Ok(format!(
            "{id} (Promises of a proxy; {})\n  {}\n  rests on: {}\n  {judged}\n",
            row.level, row.says, row.on
        ));
    }
    let requirement = catalogue::find(id).with_context(|| format!("there is no requirement {id}"))?;
    let judged = match &requirement.none {
        Some(reason) => format!("not checked: {reason}"),
        None if checks::all().iter().any(|check| check.id == id) => {
            format!("checked by: reapi-conformance --filter {id}")
        }
        None => "not checked".to_owned(),
    };
    let section = catalogue::section_of(id).map_or("", |section| section.title.as_str());
    let profile = catalogue::profile_of(id).and_then(|profile| serde_json::to_value(profile).ok());
    let profile = profile
        .as_ref()
        .and_then(|profile| profile.as_str())
        .unwrap_or("none");
    Ok(format!(
        "{id} ({section}; {}; profile {profile})\n  {}\n  rests on: {}\n  {judged}\n",
        requirement.level, requirement.says, requirement.on
    ))
}

/// What is seen while it runs: on a terminal one line that changes, else a line for each thing that failed.
struct Progress {
    done: usize,
    all: usize,
    bad: usize,
    terminal: bool,
}

impl Progress {
    fn new(all: usize) -> Progress {
        Progress {
            done: 0,
            all,
            bad: 0,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, check: &Check, outcome: &Outcome) {
        self.done += 1;
        self.bad += usize::from(outcome.is_bad());
        if self.terminal {
            eprint!(
                "\r{}/{} checked, {} failed, {:<15}",
                self.done, self.all, self.bad, check.id
            );
        } else if outcome.is_bad() || self.done.is_multiple_of(50) {
            let word = if outcome.is_bad() { "failed" } else { "passed" };
            eprintln!("{}/{} {} {word}", self.done, self.all, check.id);
        }
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r{:60}\r", "");
        }
    }
}
