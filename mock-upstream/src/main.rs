//! `mock-upstream`: the server as a process, until SIGTERM or ctrl-c. `mock-upstream forward`: a bad network.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use mock_upstream::{Control, Forwarder, Function, Link, Mock, Preset, Rules, Settings, Violation};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// An in-memory REAPI server, and a bad one on request.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Forward TCP connections over a bad network, to any server.
    Forward(Forward),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8990")]
    listen: String,
    /// Address and port of the control port (HTTP); without it there is none.
    #[arg(long)]
    control: Option<String>,
    /// A character: down, slow, corrupt, flaky, forgetful, hung. May be given several times.
    #[arg(long)]
    preset: Vec<Preset>,
    /// Of the chances of presets.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A file of rules, TOML or (`*.json`) JSON. May be given several times.
    #[arg(long)]
    rules: Vec<PathBuf>,
    /// Break one requirement, by its id.
    #[arg(long, value_parser = violation)]
    violate: Option<&'static Violation>,
    /// Limit of the blobs in one batch; 0 is none.
    #[arg(long, default_value_t = Settings::default().max_batch_bytes)]
    max_batch_bytes: u64,
    /// Limit of one message, in and out.
    #[arg(long, default_value_t = Settings::default().max_message_bytes)]
    max_message_bytes: usize,
    /// Limit of one uploaded blob; 0 is none.
    #[arg(long, default_value_t = Settings::default().max_blob_bytes)]
    max_blob_bytes: u64,
    /// Blob bytes in one message of a Read.
    #[arg(long, default_value_t = Settings::default().read_chunk_bytes)]
    read_chunk_bytes: usize,
    /// HTTP/2 flow control of incoming bytes.
    #[arg(long, default_value_t = Settings::default().window_bytes)]
    window_bytes: u32,
    /// Refuse updates of the action cache.
    #[arg(long)]
    read_only_actions: bool,
    /// Hide action results that refer to blobs which are not stored.
    #[arg(long)]
    require_complete: bool,
    /// Offer zstd.
    #[arg(long)]
    zstd: bool,
    /// Offer SplitBlob and SpliceBlob.
    #[arg(long)]
    split: bool,
    /// Offer this digest function beside SHA256: blake3, sha256tree, gitsha1. May be given several times.
    #[arg(long)]
    digest_function: Vec<Function>,
    /// Offer the Fetch service of Remote Asset, for what was pushed.
    #[arg(long)]
    fetch: bool,
    /// Offer the Push service of Remote Asset.
    #[arg(long)]
    push: bool,
    /// End calls when their client's deadline has passed.
    #[arg(long)]
    deadlines: bool,
    /// Keep this header of every call in the log. May be given several times.
    #[arg(long, value_name = "NAME")]
    log_header: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Forward {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8991")]
    listen: String,
    /// Where to: host and port.
    #[arg(long)]
    to: String,
    /// Address and port of the control port (HTTP); without it there is none.
    #[arg(long)]
    control: Option<String>,
    /// Every byte arrives so many milliseconds later, each way.
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,
    /// Of a connection, each way.
    #[arg(long)]
    bytes_per_second: Option<u64>,
    /// Nothing arrives.
    #[arg(long)]
    black_hole: bool,
    /// Reset a connection after so many bytes from the server.
    #[arg(long)]
    reset_after_down_bytes: Option<u64>,
    /// Reset a connection after so many bytes to the server.
    #[arg(long)]
    reset_after_up_bytes: Option<u64>,
}

fn violation(id: &str) -> Result<&'static Violation, String> {
    Violation::of(id).ok_or_else(|| format!("no violation of {id} is known"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let terminate = signal(SignalKind::terminate())?;
    match args.command {
        Some(Command::Forward(args)) => forward(args, terminate).await,
        None => serve(args.serve, terminate).await,
    }
}

async fn serve(args: Serve, terminate: Signal) -> anyhow::Result<()> {
    // Before a port is opened: a client must not meet a better server than was asked for.
    let mut rules = Vec::new();
    for preset in &args.preset {
        rules.extend(preset.rules(args.seed));
    }
    for path in &args.rules {
        rules.extend(read_rules(path)?.rule);
    }
    let builder = match args.violate {
        Some(violation) => Mock::builder().violates(violation),
        None => Mock::builder(),
    };
    let builder = builder.rules(rules).settings(|settings| {
        settings.max_batch_bytes = args.max_batch_bytes;
        settings.max_message_bytes = args.max_message_bytes;
        settings.max_blob_bytes = args.max_blob_bytes;
        settings.read_chunk_bytes = args.read_chunk_bytes;
        settings.window_bytes = args.window_bytes;
        settings.update_enabled = !args.read_only_actions;
        settings.require_complete = args.require_complete;
        settings.zstd = args.zstd;
        settings.split = args.split;
        settings.functions = args.digest_function;
        settings.deadlines = args.deadlines;
        settings.fetch = args.fetch;
        settings.push = args.push;
        settings.log_headers = args.log_header.iter().map(|name| name.to_lowercase()).collect();
    });
    let mock = builder
        .start_tcp(&args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    mock.settled().await;
    println!("mock-upstream listens on {}", mock.url());
    let control = match &args.control {
        Some(address) => Some(controlled(Control::start(mock.clone(), address).await, address)?),
        None => None,
    };
    ended(terminate).await?;
    if let Some(control) = control {
        control.stop().await;
    }
    let (calls, counts) = (mock.calls().count(), mock.counts());
    mock.stop().await;
    println!(
        "mock-upstream ends: {calls} calls, {} blobs, {} actions",
        counts.blobs, counts.actions
    );
    Ok(())
}

async fn forward(args: Forward, terminate: Signal) -> anyhow::Result<()> {
    let link = Link {
        latency_ms: args.latency_ms,
        bytes_per_second: args.bytes_per_second,
        black_hole: args.black_hole,
        reset_after_down_bytes: args.reset_after_down_bytes,
        reset_after_up_bytes: args.reset_after_up_bytes,
    };
    let forwarder = Forwarder::start(&args.listen, args.to, link)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("mock-upstream forwards from {}", forwarder.addr());
    let control = match &args.control {
        Some(address) => {
            let started = Control::of_forwarder(forwarder.clone(), address).await;
            Some(controlled(started, address)?)
        }
        None => None,
    };
    ended(terminate).await?;
    if let Some(control) = control {
        control.stop().await;
    }
    let carried = forwarder.carried();
    forwarder.stop().await;
    println!(
        "mock-upstream ends: {} connections, {} bytes up, {} bytes down",
        carried.connections, carried.up_bytes, carried.down_bytes
    );
    Ok(())
}

fn read_rules(path: &Path) -> anyhow::Result<Rules> {
    let text = fs_err::read_to_string(path)?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let rules = if is_json {
        Rules::from_json(&text)
    } else {
        Rules::from_toml(&text)
    };
    rules.with_context(|| format!("in {}", path.display()))
}

fn controlled(started: std::io::Result<Control>, address: &str) -> anyhow::Result<Control> {
    let control = started.with_context(|| format!("cannot listen on {address}"))?;
    println!("mock-upstream is controlled on http://{}", control.addr());
    Ok(control)
}

async fn ended(mut terminate: Signal) -> std::io::Result<()> {
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
    }
}
