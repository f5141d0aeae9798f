//! The command line: what `gorego` can be told to do. Values are checked by [`crate::config`], together with all others.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, ConfigErrors, Loaded};

/// A tiered caching proxy for Bazel and the Remote Execution API.
#[derive(Debug, Parser)]
#[command(
    name = "gorego",
    version,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the cache node until SIGTERM or SIGINT.
    Serve(ConfigArgs),
    /// Check the configuration and say what is wrong with it, all at once. Touches no port and no other file.
    CheckConfig(ConfigArgs),
    /// Print every effective value and where it came from, as a configuration file.
    PrintConfig(ConfigArgs),
}

/// The flags that every command shares. Each overrides the environment, which overrides the file, which overrides the defaults.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// YAML file with the configuration; without it, defaults, environment and flags suffice.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where clients reach the cache (gRPC).
    #[arg(long, value_name = "ADDR")]
    listen_addr: Option<String>,
    /// Where metrics and health are served (HTTP).
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// Allow addresses other than loopback, though nobody who connects is authenticated.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_listen: Option<String>,
    /// Tier 1's directory.
    #[arg(long, value_name = "DIR")]
    tier1_dir: Option<String>,
    /// Room that Tier 1 may take on disk.
    #[arg(long, value_name = "SIZE")]
    tier1_max_size: Option<String>,
    /// The remote Tier 2.
    #[arg(long, value_name = "URL")]
    tier2_url: Option<String>,
    /// The embedded Tier 2's directory.
    #[arg(long, value_name = "DIR")]
    tier2_dir: Option<String>,
    /// The least important event that is logged.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How a log line is written.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl ConfigArgs {
    /// Reads the configuration with these flags on top.
    ///
    /// # Errors
    /// All faults at once; the process should end with [`ConfigErrors::EXIT_CODE`].
    pub fn load(&self, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigErrors> {
        config::load(self.config.as_deref(), env, &self.overrides())
    }

    /// The flags that were given, by the paths of their fields.
    fn overrides(&self) -> Vec<(&'static str, String)> {
        let flags = [
            ("listen_addr", &self.listen_addr),
            ("http_addr", &self.http_addr),
            ("insecure_listen", &self.insecure_listen),
            ("tier1.dir", &self.tier1_dir),
            ("tier1.max_size", &self.tier1_max_size),
            ("tier2.url", &self.tier2_url),
            ("tier2.dir", &self.tier2_dir),
            ("log.level", &self.log_level),
            ("log.format", &self.log_format),
        ];
        flags
            .into_iter()
            .filter_map(|(path, text)| Some((path, text.clone()?)))
            .collect()
    }
}

/// Reads the command line.
///
/// # Errors
/// The process should end at once with the code: help or version was asked for and printed, or the line was wrong and the fault
/// printed. Wrong is [`ConfigErrors::EXIT_CODE`], as for any other fault of the configuration.
pub fn parse(line: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    Cli::try_parse_from(line).map_err(|error| {
        // Nothing is left to do if the terminal is gone.
        let _ = error.print();
        exit_code(&error)
    })
}

fn exit_code(error: &clap::Error) -> ExitCode {
    if error.exit_code() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(ConfigErrors::EXIT_CODE)
    }
}

/// The process's environment for [`config::load`]. What is not UTF-8 keeps a replacement character, which `load` refuses in
/// variables that are ours.
pub fn environment(
    vars: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (String, String)> {
    vars.map(|(name, text)| {
        (
            name.to_string_lossy().into_owned(),
            text.to_string_lossy().into_owned(),
        )
    })
}

/// What `check-config` prints when there is nothing wrong.
pub const CONFIG_OK: &str = "the configuration is valid";

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn args(line: &[&str]) -> ConfigArgs {
        match Cli::try_parse_from(line).unwrap().command {
            Command::Serve(args) | Command::CheckConfig(args) | Command::PrintConfig(args) => args,
        }
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_overrides_the_field_that_it_is_named_after() {
        let known: Vec<_> = config::fields()
            .iter()
            .map(|field| (field.path, field.flag()))
            .collect();
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let flags = serve
            .get_arguments()
            .filter_map(|arg| arg.get_long())
            .filter(|flag| !["config", "help"].contains(flag));
        let mut count = 0;
        for flag in flags {
            let given = format!("--{flag}=text");
            let (path, text) = args(&["gorego", "serve", &given]).overrides().remove(0);
            assert!(known.contains(&(path, format!("--{flag}"))), "{flag} sets {path}");
            assert_eq!(text, "text");
            count += 1;
        }
        assert_eq!(count, 9);
    }

    #[test]
    fn a_faulty_flag_is_reported_by_its_name() {
        let errors = args(&["gorego", "serve", "--log-level", "loud"])
            .load(std::iter::empty())
            .unwrap_err();
        insta::assert_snapshot!(errors.to_string());
    }

    #[test]
    fn a_wrong_command_line_ends_like_a_wrong_configuration() {
        for (line, code) in [
            (&["gorego", "serve", "--tier2-ulr", "x"][..], ExitCode::from(64)),
            (&["gorego", "run"], ExitCode::from(64)),
            (&["gorego"], ExitCode::from(64)),
            (&["gorego", "--help"], ExitCode::SUCCESS),
            (&["gorego", "--version"], ExitCode::SUCCESS),
        ] {
            assert_eq!(
                exit_code(&Cli::try_parse_from(line).unwrap_err()),
                code,
                "{line:?}"
            );
        }
    }

    #[test]
    fn saying_yes_takes_no_value() {
        assert_eq!(
            args(&["gorego", "serve", "--insecure-listen"])
                .insecure_listen
                .as_deref(),
            Some("true")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_not_utf8_is_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let vars = [(
            OsString::from("GOREGO_TIER1_DIR"),
            OsString::from_vec(vec![b'a', 0xff]),
        )];
        let errors = ConfigArgs::default()
            .load(environment(vars.into_iter()))
            .unwrap_err();
        assert_eq!(errors.faults().len(), 1);
        assert!(errors.to_string().contains("not UTF-8"), "{errors}");
    }

    #[test]
    fn help_says_what_can_be_told() {
        let mut command = Cli::command();
        command.build();
        insta::assert_snapshot!("help", command.render_long_help().to_string());
        let serve = command.find_subcommand_mut("serve").unwrap();
        insta::assert_snapshot!("help_serve", serve.render_long_help().to_string());
    }
}
