//! The commands and their flags.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, value_parser};

use crate::config::Sources;
use crate::health_command::Question;
use crate::replay::Request;
use crate::replay::selection::{Selection, moment};
use crate::simulate::arguments::SimulateArgs;

/// Carries an IoT platform's notifications onto Kafka and never loses one
/// that it acknowledged.
#[derive(Debug, Parser)]
#[command(name = "northbridge", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// Where the settings come from.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where the settings come from, beside the environment.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Reads settings from a TOML, YAML or JSON file; of several, later ones win.
    #[arg(long = "config", value_name = "FILE", global = true)]
    pub files: Vec<PathBuf>,
    /// Sets one key; wins over files and environment.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub overrides: Vec<String>,
}

/// One command for each process that an operator runs, and a few that end by
/// themselves.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receives pushes, stores each in Kafka, answers after the acknowledgement.
    #[command(after_help = INGRESS_EXAMPLES)]
    Ingress,
    /// Consumes command confirmations, keeps the state of every command.
    #[command(after_help = COMMAND_STATUS_EXAMPLES)]
    CommandStatus,
    /// Consumes upgrade results, keeps the software of every device and the
    /// progress of every upgrade operation.
    #[command(after_help = UPGRADE_RESULT_EXAMPLES)]
    UpgradeResult,
    /// Runs everything over an embedded broker in memory: nothing to install, nothing kept.
    #[command(after_help = DEV_EXAMPLES)]
    Dev,
    /// Sends dead letters to the topic they belong to, each exactly once.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Plays the platform against a URL, and proves that what was answered 200 is stored.
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(Box<SimulateArgs>),
    /// Creates or compares the topics.
    #[command(subcommand, after_help = TOPICS_EXAMPLES)]
    Topics(TopicsCommand),
    /// Asks the process that listens at admin.listen whether it is alive, and says so on one line.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Checks or shows the settings.
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
}

/// Which dead letters to replay, and how. Those that were replayed before, by
/// whatever selection, are left out.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Only dead letters of this reason; may be repeated.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only those that were written to the dead-letter topic at this time or
    /// later: RFC 3339, or how long ago, such as 90s, 30m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Only those that were written to the dead-letter topic before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Only those in this partition of the dead-letter topic.
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only those at this offset of the partition or behind it.
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Only those at this offset of the partition or before it.
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// Sends at most so many.
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Sends also what would not be understood today either.
    #[arg(long)]
    as_is: bool,
    /// Shows what would be sent where, and writes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// `northbridge topics …`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum TopicsCommand {
    /// Creates the topics that are missing, then compares all of them. Never deletes or shrinks.
    #[command(after_help = TOPICS_EXAMPLES)]
    Create,
    /// Compares the topics with what is needed; one line for each finding.
    #[command(after_help = TOPICS_EXAMPLES)]
    Verify,
}

/// What to ask a running process.
#[derive(Debug, Clone, Copy, Args)]
pub struct HealthArgs {
    /// Asks whether it is ready: its topics are fit, and Kafka answers it.
    #[arg(long)]
    ready: bool,
}

/// `northbridge config …`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Validates the settings and exits.
    #[command(after_help = CONFIG_EXAMPLES)]
    Check,
    /// Prints the effective settings as TOML, with secrets masked.
    #[command(after_help = CONFIG_EXAMPLES)]
    Print,
}

const EXAMPLES: &str = "\
Examples:
  northbridge dev
  northbridge topics create --set kafka.bootstrap_servers=kafka:9092
  northbridge ingress --config northbridge.toml

Settings come from built-in defaults, --config files, the environment
(NORTHBRIDGE__SECTION__KEY, NORTHBRIDGE__SECTION__KEY_FILE) and --set; later ones win.

Exit codes: 0 done, 1 something to mend was found, 64 wrong usage or configuration,
69 Kafka was not available, 70 a bug, 75 stopped before everything in flight was settled.";

const INGRESS_EXAMPLES: &str = "\
Examples:
  northbridge ingress --set kafka.bootstrap_servers=kafka-1:9092,kafka-2:9092
  northbridge ingress --config northbridge.toml --set log.level=debug
  NORTHBRIDGE__AUTH__TOKEN_FILE=/run/secrets/token northbridge ingress";

const COMMAND_STATUS_EXAMPLES: &str = "\
Examples:
  northbridge command-status --set kafka.bootstrap_servers=kafka:9092
  NORTHBRIDGE__STREAMS__INSTANCE=command-status-0 northbridge command-status";

const UPGRADE_RESULT_EXAMPLES: &str = "\
Examples:
  northbridge upgrade-result --set kafka.bootstrap_servers=kafka:9092
  NORTHBRIDGE__STREAMS__INSTANCE=upgrade-result-0 northbridge upgrade-result";

const DEV_EXAMPLES: &str = "\
Examples:
  northbridge dev
  northbridge dev --set http.listen=127.0.0.1:9090";

const REPLAY_EXAMPLES: &str = "\
Examples:
  northbridge replay --dry-run
  northbridge replay --reason id-missing --since 2h
  northbridge replay --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --limit 10
  northbridge replay --partition 3 --from-offset 41 --to-offset 41 --as-is

A dead letter is read again by the present rules and goes to the topic it belongs to;
what is still not understood stays, unless --as-is is given. docs/replay.md says more.";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  northbridge simulate http://localhost:8080/notifications --rate 800 --duration 5m
  northbridge simulate https://host/notifications?token=secret --ca ca.pem --policy discard
  northbridge simulate http://localhost:8080/notifications --count 100000 --verify kafka:9092
  northbridge simulate http://localhost:8080/notifications --duration 1h --verify kafka:9092 \\
    --verify-state --devices 50000 --report run.html

Exit codes: 0 done, 1 the proof failed, 64 wrong usage, 69 the listener or Kafka was not available.";

const TOPICS_EXAMPLES: &str = "\
Examples:
  northbridge topics create --set kafka.bootstrap_servers=kafka:9092
  northbridge topics verify --config northbridge.toml";

const HEALTH_EXAMPLES: &str = "\
Examples:
  northbridge health
  northbridge health --ready --set admin.listen=127.0.0.1:8082

Exit codes: 0 yes, 1 no or no answer within two seconds, 64 wrong usage or configuration.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  northbridge config check --config northbridge.toml
  NORTHBRIDGE__HTTP__LISTEN=0.0.0.0:9090 northbridge config print";

impl SettingsArgs {
    /// All layers above the defaults: the files, this process's environment, the flags.
    pub fn sources(&self) -> Sources {
        Sources {
            files: self.files.clone(),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            overrides: self.overrides.clone(),
        }
    }
}

impl HealthArgs {
    /// What is asked for.
    pub fn question(self) -> Question {
        if self.ready {
            Question::Ready
        } else {
            Question::Live
        }
    }
}

impl ReplayArgs {
    /// What is asked for.
    pub fn request(&self) -> Request {
        Request {
            selection: Selection {
                reasons: self.reasons.clone(),
                since: self.since,
                until: self.until,
                partition: self.partition,
                from_offset: self.from_offset,
                to_offset: self.to_offset,
            },
            limit: self.limit,
            as_is: self.as_is,
            dry_run: self.dry_run,
        }
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    moment(text, Utc::now())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
