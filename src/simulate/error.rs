//! Why a run did not start or could not be verified, and the exit code for it.

use rdkafka::error::RDKafkaErrorCode;

use crate::config::Settings;
use crate::kafka::failures::Failures;
use crate::kafka::log_reader::ReadError;
use crate::process::{Exit, output};

#[derive(Debug, thiserror::Error)]
pub(super) enum SimulateError {
    #[error("cannot connect to {address}: {source}")]
    ListenerUnreachable {
        address: String,
        source: std::io::Error,
    },
    #[error(
        "Kafka at {bootstrap} (--verify) lacks topics with the prefix `{prefix}` (--topics-prefix or topics.prefix); run `northbridge topics verify` to list them"
    )]
    TopicsMissing { bootstrap: String, prefix: String },
    #[error("Kafka at {bootstrap} (--verify) cannot be used: {why}")]
    KafkaUnavailable { bootstrap: String, why: String },
    #[error("stopped by a signal")]
    Stopped,
}

impl SimulateError {
    pub(super) fn from_read(settings: &Settings, failures: &Failures, error: &ReadError) -> Self {
        let missing = Some(RDKafkaErrorCode::UnknownTopicOrPartition);
        if matches!(error, ReadError::Kafka(error) if error.rdkafka_error_code() == missing) {
            return Self::TopicsMissing {
                bootstrap: settings.kafka.bootstrap_servers.clone(),
                prefix: settings.topics.prefix.clone(),
            };
        }
        Self::from_kafka(settings, failures, error)
    }

    pub(super) fn from_kafka(
        settings: &Settings,
        failures: &Failures,
        error: &dyn std::error::Error,
    ) -> Self {
        Self::KafkaUnavailable {
            bootstrap: settings.kafka.bootstrap_servers.clone(),
            why: failures.why(error),
        }
    }

    /// Prints the error and its consequence to standard error.
    pub(super) fn report(&self, consequence: &str) -> Exit {
        output::note(format_args!("error: {self}; {consequence}"));
        match self {
            Self::ListenerUnreachable { .. }
            | Self::TopicsMissing { .. }
            | Self::KafkaUnavailable { .. } => Exit::Unavailable,
            Self::Stopped => Exit::Unsettled,
        }
    }
}
