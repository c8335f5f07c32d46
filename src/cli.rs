//! The command line: commands, flags and their help texts. Parses, and runs
//! nothing.

pub mod look;

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, value_parser};

use crate::commands::dev::Dev;
use crate::commands::health::Question;
use crate::commands::replay::Request;
use crate::commands::replay::selection::{Selection, parse_time};
use crate::config::Sources;
use crate::kafka::admin::Degraded;
use crate::simulate::arguments::SimulateArgs;
use look::{CompletionsArgs, ManArgs, ShowCommand, TapArgs};

/// Stores the notifications that an IoT platform pushes over HTTP in Kafka, and
/// never loses one that it has acknowledged.
#[derive(Debug, Parser)]
#[command(name = "northbridge", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// The layers of the settings above defaults and environment.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// The command to run; there is no default one.
    #[command(subcommand)]
    pub command: Command,
}

/// The flags that every command accepts.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    /// Reads settings from a TOML, YAML or JSON file. May be repeated; later files win.
    #[arg(long = "config", value_name = "FILE", global = true)]
    pub files: Vec<PathBuf>,
    /// Sets one key, and overrides files and environment. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub overrides: Vec<String>,
}

/// The long-running processes, and the commands that end on their own.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receives pushes, stores each in Kafka, and answers after Kafka's acknowledgement.
    #[command(after_help = INGRESS_EXAMPLES)]
    Ingress,
    /// Consumes command confirmations and keeps the state of every command.
    #[command(after_help = COMMAND_STATUS_EXAMPLES)]
    CommandStatus,
    /// Consumes upgrade results and keeps the software of every device and the
    /// progress of every upgrade operation.
    #[command(after_help = UPGRADE_RESULT_EXAMPLES)]
    UpgradeResult,
    /// Runs everything over an embedded in-memory broker: nothing to install, nothing kept.
    #[command(after_help = DEV_EXAMPLES)]
    Dev(Dev),
    /// Sends dead letters to the topics they belong to, each exactly once.
    #[command(after_help = REPLAY_EXAMPLES)]
    Replay(ReplayArgs),
    /// Plays the platform against a URL, and verifies that every push answered 200 is stored.
    #[command(after_help = SIMULATE_EXAMPLES)]
    Simulate(Box<SimulateArgs>),
    /// Prints the current state of a command, a device or an upgrade operation, as JSON.
    #[command(subcommand, after_help = look::SHOW_EXAMPLES)]
    Show(ShowCommand),
    /// Follows the topics, and prints one line for each push as it arrives.
    #[command(after_help = look::TAP_EXAMPLES)]
    Tap(TapArgs),
    /// Creates the topics, or verifies their settings.
    #[command(subcommand, after_help = TOPICS_EXAMPLES)]
    Topics(TopicsCommand),
    /// Shows what the spool on this host holds, or delivers it.
    #[command(subcommand, after_help = SPOOL_EXAMPLES)]
    Spool(SpoolCommand),
    /// Asks the process at admin.listen whether it is live, and prints the answer on one line.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Validates or prints the settings.
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Prints the completions of a shell.
    #[command(after_help = look::COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Prints the man page, or writes the pages of all commands into a directory.
    #[command(after_help = look::MAN_EXAMPLES)]
    Man(ManArgs),
}

/// Which dead letters to replay, and how. A dead letter that any earlier run
/// replayed is skipped.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Only dead letters with this reason. May be repeated.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Only those written to the dead-letter topic at or after this time: RFC
    /// 3339, or an age such as 90s, 30m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<DateTime<Utc>>,
    /// Only those written to the dead-letter topic before this time.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<DateTime<Utc>>,
    /// Only those in this partition of the dead-letter topic.
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Only those at or after this offset of the partition.
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Only those at or before this offset of the partition.
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// Replays at most COUNT dead letters.
    #[arg(long, value_name = "COUNT", value_parser = value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Also replays dead letters that are still unreadable.
    #[arg(long)]
    as_is: bool,
    /// Prints what would be sent where, and writes nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What to do with the topics that the settings name.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum TopicsCommand {
    /// Creates missing topics, then verifies all of them. Never deletes or shrinks a topic.
    #[command(after_help = TOPICS_EXAMPLES)]
    Create(CreateArgs),
    /// Compares the topics with their requirements and prints one line for each finding.
    #[command(after_help = TOPICS_EXAMPLES)]
    Verify,
}

/// What to do with the spool in spool.directory.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum SpoolCommand {
    /// Prints how many pushes are spooled, by topic and partition. A process may be using it.
    #[command(after_help = SPOOL_EXAMPLES)]
    Status,
    /// Delivers everything to Kafka without receiving pushes. No other process may use it.
    #[command(after_help = SPOOL_EXAMPLES)]
    Drain,
}

/// What to do while brokers are down.
#[derive(Debug, Clone, Copy, Args)]
pub struct CreateArgs {
    /// Creates topics on the brokers that are alive, even if these can hold fewer replicas
    /// than the whole cluster.
    #[arg(long)]
    allow_degraded: bool,
}

/// Which of the two questions to ask.
#[derive(Debug, Clone, Copy, Args)]
pub struct HealthArgs {
    /// Asks whether it is ready: its topics meet their requirements, and Kafka is reachable.
    #[arg(long)]
    ready: bool,
}

/// What to do with the settings.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum ConfigCommand {
    /// Validates the settings, as every command does before it starts.
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

Exit codes: 0 done, 1 a check found something to fix, 64 wrong usage or configuration,
69 Kafka was unavailable, 70 a bug, 75 stopped before everything in flight was settled.";

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
  northbridge dev --watch
  northbridge dev --kafka localhost:9092
  northbridge dev --kafka kafka:9093 --config northbridge.toml
  northbridge dev --set http.listen=127.0.0.1:9090

The other settings of kafka.* apply to --kafka as well, such as those of TLS and SASL. Without
--kafka, kafka.bootstrap_servers and kafka.options.security.protocol are not used.

Exit codes: 0 stopped and everything settled, 1 a topic of --kafka must be changed, 64 wrong usage
or configuration, 69 --kafka was unavailable, 70 a bug, 75 stopped before everything was settled.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  northbridge replay --dry-run
  northbridge replay --reason id-missing --since 2h
  northbridge replay --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --limit 10
  northbridge replay --partition 3 --from-offset 41 --to-offset 41 --as-is

Each dead letter is read again by the current rules and sent to the topic it belongs to.
One that is still unreadable stays, unless --as-is is given. See docs/replay.md.";

const SIMULATE_EXAMPLES: &str = "\
Examples:
  northbridge simulate http://localhost:8080/notifications --rate 800 --duration 5m
  northbridge simulate https://host/notifications?token=secret --ca ca.pem --policy discard
  northbridge simulate http://localhost:8080/notifications --count 100000 --verify kafka:9092
  northbridge simulate http://localhost:8080/notifications --duration 1h --verify kafka:9092 \\
    --verify-state --devices 50000 --report run.html

Exit codes: 0 done, 1 verification or --require-200 failed, 64 wrong usage, 69 the listener or Kafka was unavailable.";

const TOPICS_EXAMPLES: &str = "\
Examples:
  northbridge topics create --set kafka.bootstrap_servers=kafka:9092
  northbridge topics verify --config northbridge.toml
  northbridge topics create --allow-degraded

A topic keeps the number of replicas that it is created with. Beside a broker that is down,
`topics create` waits 10 s for it and then creates nothing, unless --allow-degraded is given.

Exit codes: 0 done, 1 a topic is missing or must be changed, 64 wrong usage or configuration,
69 Kafka was unavailable.";

const SPOOL_EXAMPLES: &str = "\
Examples:
  northbridge spool status --set spool.directory=/var/lib/northbridge
  northbridge spool drain --config northbridge.toml

Exit codes: 0 done, 64 wrong usage or configuration, 69 Kafka has taken nothing for a minute,
75 stopped by a signal; what is not delivered stays in the spool.";

const HEALTH_EXAMPLES: &str = "\
Examples:
  northbridge health
  northbridge health --ready --set admin.listen=127.0.0.1:8082

Exit codes: 0 yes, 1 no, or no answer within two seconds, 64 wrong usage or configuration.";

const CONFIG_EXAMPLES: &str = "\
Examples:
  northbridge config check --config northbridge.toml
  NORTHBRIDGE__HTTP__LISTEN=0.0.0.0:9090 northbridge config print";

impl Cli {
    /// The run of `dev`, if that is the command.
    pub fn dev(&self) -> Option<&Dev> {
        if let Command::Dev(dev) = &self.command {
            Some(dev)
        } else {
            None
        }
    }

    /// All layers above the defaults: the files, this process's environment and
    /// the flags.
    pub fn sources(&self) -> Sources {
        Sources {
            files: self.settings.files.clone(),
            environment: std::env::vars_os().collect(),
            overrides: self.settings.overrides.clone(),
            kafka: self.dev().and_then(|dev| dev.kafka.clone()),
        }
    }
}

impl CreateArgs {
    /// Whether topics may get fewer replicas than the whole cluster can hold.
    pub fn degraded(self) -> Degraded {
        if self.allow_degraded {
            Degraded::Allow
        } else {
            Degraded::Refuse
        }
    }
}

impl HealthArgs {
    /// Readiness with `--ready`, else liveness.
    pub fn question(self) -> Question {
        if self.ready {
            Question::Ready
        } else {
            Question::Live
        }
    }
}

impl ReplayArgs {
    /// The flags as a request, not yet checked for contradictions.
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
    parse_time(text, Utc::now())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn clap_accepts_the_definition_of_the_command_line() {
        Cli::command().debug_assert();
    }
}
