//! The commands other than the long-running processes. Each may use all the
//! modules below it; only the command line uses them.

pub mod dev;
pub mod generate;
pub mod health;
mod printable;
pub mod replay;
pub mod show;
pub mod spool;
pub mod tap;
pub mod topics;

use crate::config::Settings;
use crate::kafka::failures::Failures;
use crate::process::{Exit, output};
use crate::topics::{Topic, name};

/// Prints why a one-shot command ends that cannot use Kafka.
fn unavailable(settings: &Settings, failures: &Failures, error: &dyn std::error::Error) -> Exit {
    output::note(format_args!(
        "error: Kafka at {} (kafka.bootstrap_servers) cannot be used: {}",
        settings.kafka.bootstrap_servers,
        failures.why(error),
    ));
    Exit::Unavailable
}

/// Says what to do about a topic that a command reads and that does not exist.
fn missing_topic(settings: &Settings, topic: Topic) -> anyhow::Error {
    anyhow::anyhow!(
        "topic {} does not exist: correct topics.prefix or topics.{}.name, or create it with `northbridge topics create`",
        name(settings, topic),
        topic.label().replace('-', "_"),
    )
}
