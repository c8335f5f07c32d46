//! The commands other than the long-running processes. Each may use all the
//! modules below it; only the command line uses them.

pub mod dev;
pub mod health;
pub mod replay;
pub mod spool;
pub mod topics;

use crate::config::Settings;
use crate::kafka::failures::Failures;
use crate::process::output;

/// Prints why a one-shot command ends that cannot use Kafka.
fn print_unavailable(settings: &Settings, failures: &Failures, error: &dyn std::error::Error) {
    output::note(format_args!(
        "error: Kafka at {} (kafka.bootstrap_servers) cannot be used: {}",
        settings.kafka.bootstrap_servers,
        failures.why(error),
    ));
}
