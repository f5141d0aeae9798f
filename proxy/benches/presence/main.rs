//! How quickly a node answers from what it remembers, beside a server that remembers nothing, and what it pays for it in
//! memory: figures to look at, never judged. Client, node and Tier 2 share one process and its cores, so read the rates as
//! ratios of one run.

mod constant;
mod load;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Parser;
use gorego::assemble::{Ground, Node};
use gorego::config;
use gorego::digest::{Digest, Function};
use prost::Message as _;
use proto::reapi;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::load::{Client, Question};

/// The allocator of the product.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FIND_MISSING: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
const GET_ACTION_RESULT: &str = "/build.bazel.remote.execution.v2.ActionCache/GetActionResult";

/// Digests in a question whose rate is measured, and in one that only fills the table.
const ASKED: u64 = 1000;
const FILLED: u64 = 10_000;

/// Output files of the one action result.
const OUTPUTS: u64 = 4;

/// After so long the allocator has given back what it does not use.
const SETTLES: Duration = Duration::from_secs(12);

/// What a node answers from memory: rates, and bytes for each thing remembered.
#[derive(Parser)]
struct Options {
    /// Seconds that each rate is measured, in each round.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Rounds; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Leases whose memory is measured. A node keeps a million.
    #[arg(long, default_value_t = 1_000_000)]
    leases: u64,
    /// Copies of action results whose memory is measured.
    #[arg(long, default_value_t = 250_000)]
    results: u64,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let result = result();
    let mut tasks = JoinSet::new();
    let constant = constant::serve(result.clone(), &mut tasks).await?;
    let dir = tempfile::tempdir()?;
    let (node, address) = node(dir.path(), constant, &mut tasks).await?;
    let (ceiling, client) = (Client::new(constant)?, Client::new(address)?);

    let missing = find_missing(0..ASKED);
    let action = get_action_result(0);
    client.ask(0, &missing).await?;
    client.ask(0, &action).await?;
    println!("answers per second, median of {} rounds", options.rounds);
    println!("{:<36} {:>10} {:>10} {:>7}", "", "node", "constant", "ratio");
    let time = Duration::from_secs(options.seconds);
    for (name, question) in [
        ("FindMissingBlobs(1000), by leases", &missing),
        ("GetActionResult, our copy", &action),
    ] {
        let (mut ours, mut most) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            most.push(ceiling.rate(question, time).await?);
            ours.push(client.rate(question, time).await?);
        }
        let (ours, most) = (median(ours), median(most));
        println!("{name:<36} {ours:>10.0} {most:>10.0} {:>7.2}", ours / most);
    }

    println!(
        "\nbytes of memory for each, action results of {} bytes",
        result.len()
    );
    println!(
        "{:<36} {:>10} {:>10} {:>10}",
        "", "number", "measured", "own count"
    );
    let metrics = &node.metrics;
    let leases = (&metrics.presence.leases, &metrics.presence.lease_bytes);
    let parts = (0..options.leases.div_ceil(FILLED)).map(|part| part * FILLED);
    let questions = parts.map(|first| find_missing(first..(first + FILLED).min(options.leases)));
    cost("leases", leases, client.ask_all(questions)).await?;
    let copies = (&metrics.actions.copies, &metrics.actions.copy_bytes);
    let questions = (0..options.results).map(get_action_result);
    cost("copies of action results", copies, client.ask_all(questions)).await
}

/// Measures what `filling` adds, by the process's own memory and by the node's account of it.
async fn cost(
    name: &str,
    (number, bytes): (&prometheus::IntGauge, &prometheus::IntGauge),
    filling: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLES).await;
    let before = (number.get(), bytes.get(), resident_bytes()?);
    filling.await?;
    tokio::time::sleep(SETTLES).await;
    let number = number.get() - before.0;
    let each = |bytes: i64| bytes / number.max(1);
    let (counted, measured) = (each(bytes.get() - before.1), each(resident_bytes()? - before.2));
    println!("{name:<36} {number:>10} {measured:>10} {counted:>10}");
    Ok(())
}

async fn node(
    dir: &std::path::Path,
    tier2: SocketAddr,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(Node, SocketAddr)> {
    let dir = dir.to_str().context("a directory with a name")?.to_owned();
    let fields = [
        ("tier1.dir", dir),
        ("tier2.url", format!("grpc://{tier2}")),
        ("cas.lease", "24h".to_owned()),
        ("ac.lease", "24h".to_owned()),
        ("ac.memory", "8GiB".to_owned()),
        ("touch.interval", "24h".to_owned()),
    ];
    let config = config::load(None, std::iter::empty(), &fields)?.config;
    let node = Node::new(&config, Ground::default()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (server, stop) = (node.server.clone(), node.running.stop_edge.clone());
    tasks.spawn(async move {
        let _drained = server.serve(listener, stop).await;
    });
    Ok((node, address))
}

fn digest(number: u64) -> reapi::Digest {
    let digest = Digest::of(Function::Sha256, &number.to_le_bytes());
    reapi::Digest {
        hash: digest.hash().to_hex(),
        size_bytes: 8,
    }
}

fn find_missing(numbers: std::ops::Range<u64>) -> Question {
    let message = reapi::FindMissingBlobsRequest {
        blob_digests: numbers.map(digest).collect(),
        ..Default::default()
    };
    Question::new(FIND_MISSING, &message)
}

fn get_action_result(number: u64) -> Question {
    let message = reapi::GetActionResultRequest {
        action_digest: Some(digest(number)),
        ..Default::default()
    };
    Question::new(GET_ACTION_RESULT, &message)
}

/// What compilers leave: a few files, and a word to stderr.
fn result() -> Bytes {
    let output = |number| reapi::OutputFile {
        path: format!("bazel-out/k8-fastbuild/bin/some/package/_objs/library/file{number}.o"),
        digest: Some(digest(number)),
        ..Default::default()
    };
    let result = reapi::ActionResult {
        output_files: (0..OUTPUTS).map(output).collect(),
        stderr_digest: Some(digest(OUTPUTS)),
        ..Default::default()
    };
    result.encode_to_vec().into()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Memory of this process that no file stands behind.
fn resident_bytes() -> anyhow::Result<i64> {
    let status = fs_err::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: i64 = kib.context("RssAnon in /proc/self/status")?.trim().parse()?;
    Ok(kib * 1024)
}
