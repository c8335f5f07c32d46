//! The arguments of the commands that show what is in the topics, and of those that
//! show the command line itself.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use clap_complete::Shell;

use crate::commands::show::Kind;
use crate::commands::tap::filter::Filter;
use crate::commands::tap::{Format, Request};

/// Whose state to show.
#[derive(Debug, Clone, Subcommand)]
pub enum ShowCommand {
    /// Prints the state of a command.
    #[command(after_help = SHOW_EXAMPLES)]
    Command {
        /// Its request id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
    /// Prints the software of a device.
    #[command(after_help = SHOW_EXAMPLES)]
    Device {
        /// Its device id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
    /// Prints the progress of an upgrade operation.
    #[command(after_help = SHOW_EXAMPLES)]
    Operation {
        /// Its operation id.
        #[arg(value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },
}

/// Which pushes to show, and how. Without a filter all are shown.
#[derive(Debug, Args)]
pub struct TapArgs {
    /// Only pushes of this type, such as messageConfirm. May be repeated.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only pushes of this device. May be repeated.
    #[arg(long = "device", value_name = "ID")]
    devices: Vec<String>,
    /// Only pushes about this request or command. May be repeated.
    #[arg(long = "request", value_name = "ID")]
    requests: Vec<String>,
    /// Only dead letters with this reason. May be repeated.
    #[arg(long = "reason", value_name = "REASON")]
    reasons: Vec<String>,
    /// Begins with the records written to the topics at or after this time: RFC 3339, or an
    /// age such as 90s, 30m, 2h or 7d.
    #[arg(long, value_name = "TIME", value_parser = super::time)]
    since: Option<DateTime<Utc>>,
    /// Prints a JSON object in each line.
    #[arg(long)]
    json: bool,
    /// Prints the values as well.
    #[arg(long)]
    values: bool,
}

/// For which shell.
#[derive(Debug, Clone, Copy, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Where the pages go.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Writes a page for each command into this directory, instead of printing one.
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
}

pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  northbridge show command 5f6a8d3e
  northbridge show device d-1 --set kafka.bootstrap_servers=kafka:9092
  northbridge show operation op-1 --config northbridge.toml | jq .failed

Exit codes: 0 done, 1 there is no state, 64 wrong usage or configuration,
69 Kafka was unavailable.";

pub(super) const TAP_EXAMPLES: &str = "\
Examples:
  northbridge tap
  northbridge tap --type messageConfirm --device d-1
  northbridge tap --request 5f6a8d3e --since 2h --values
  northbridge tap --reason not-json --json --values | jq -r .value

Records of one partition are printed in order, those of different partitions as they arrive.
Ctrl-C ends it; it commits nothing, and nobody else notices.

Exit codes: 0 ended by a signal or by its reader, 64 wrong usage or configuration,
69 Kafka was unavailable at the start, or a right is missing.";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  northbridge completions bash > /etc/bash_completion.d/northbridge
  northbridge completions zsh > ~/.zfunc/_northbridge
  northbridge completions fish > ~/.config/fish/completions/northbridge.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  northbridge man | man -l -
  northbridge man --directory /usr/local/share/man/man1";

impl ShowCommand {
    /// What to show, and its id.
    pub fn key(&self) -> (Kind, &str) {
        match self {
            Self::Command { id } => (Kind::Command, id),
            Self::Device { id } => (Kind::Device, id),
            Self::Operation { id } => (Kind::Operation, id),
        }
    }
}

impl TapArgs {
    /// The flags as a request.
    pub fn request(&self) -> Request {
        Request {
            filter: Filter {
                types: self.types.clone(),
                devices: self.devices.clone(),
                requests: self.requests.clone(),
                reasons: self.reasons.clone(),
            },
            since: self.since,
            format: Format {
                json: self.json,
                values: self.values,
            },
        }
    }
}
