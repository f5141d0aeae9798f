//! Starts the library: reads the command line, the configuration and the signals, and turns the end into an exit code.

use std::process::ExitCode;
use std::time::Duration;

use gorego::cli::{self, Command};
use gorego::config::{Config, ConfigErrors};
use gorego::life::Ended;
use gorego::{assemble, logs};

/// Gives memory back to the system soon after a burst: the C library's allocator keeps most of what thousands of uploads
/// held in small pieces.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For tasks that are dropped at the end: none of them has a word after the last line of the log.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The node could not start.
const CANNOT_START: u8 = 1;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(code) => return code,
    };
    let (Command::Serve(args) | Command::CheckConfig(args) | Command::PrintConfig(args)) = &command;
    let loaded = match args.load(cli::environment(std::env::vars_os())) {
        Ok(loaded) => loaded,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(ConfigErrors::EXIT_CODE);
        }
    };
    match command {
        Command::CheckConfig(_) => println!("{}", cli::CONFIG_OK),
        Command::PrintConfig(_) => print!("{}", loaded.to_yaml()),
        Command::Serve(_) => return serve(loaded.config),
    }
    ExitCode::SUCCESS
}

fn serve(config: Config) -> ExitCode {
    let subscriber = logs::subscriber(config.log.level, config.log.format, std::io::stderr);
    let ended = tracing::subscriber::set_global_default(subscriber)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?))
        .and_then(|runtime| {
            let ended = runtime.block_on(assemble::serve(config));
            // Whoever is still at work was given its time; a stuck disk must not hold the exit.
            runtime.shutdown_timeout(LAST_WORDS);
            if let Ok(ended) = &ended {
                tracing::info!(clean = *ended == Ended::Clean, how = %ended, "stopped");
            }
            ended
        });
    match ended {
        Ok(ended) => ExitCode::from(ended.exit_code()),
        Err(error) => {
            eprintln!("gorego cannot start: {error:#}");
            ExitCode::from(CANNOT_START)
        }
    }
}
