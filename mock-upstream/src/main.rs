//! `mock-upstream`: the server as a process, until SIGTERM or ctrl-c.

use anyhow::Context;
use clap::Parser;
use mock_upstream::{Mock, Settings};
use tokio::signal::unix::{SignalKind, signal};

/// An in-memory REAPI server.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8990")]
    listen: String,
    /// Limit of the blobs in one batch; 0 is none.
    #[arg(long, default_value_t = Settings::default().max_batch_bytes)]
    max_batch_bytes: u64,
    /// Limit of one uploaded blob; 0 is none.
    #[arg(long, default_value_t = Settings::default().max_blob_bytes)]
    max_blob_bytes: u64,
    /// Blob bytes in one message of a Read.
    #[arg(long, default_value_t = Settings::default().read_chunk_bytes)]
    read_chunk_bytes: usize,
    /// Refuse updates of the action cache.
    #[arg(long)]
    read_only_actions: bool,
    /// Hide action results that refer to blobs which are not stored.
    #[arg(long)]
    require_complete: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let args = Args::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    let mock = Mock::builder()
        .settings(|settings| {
            settings.max_batch_bytes = args.max_batch_bytes;
            settings.max_blob_bytes = args.max_blob_bytes;
            settings.read_chunk_bytes = args.read_chunk_bytes;
            settings.update_enabled = !args.read_only_actions;
            settings.require_complete = args.require_complete;
        })
        .start_tcp(&args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("mock-upstream listens on {}", mock.url());
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    let (calls, counts) = (mock.calls().count(), mock.counts());
    mock.stop().await;
    println!(
        "mock-upstream ends: {calls} calls, {} blobs, {} actions",
        counts.blobs, counts.actions
    );
    Ok(())
}
