//! Why something that was asked for was not done: what is said of it, and with
//! which exit code it ends.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::Settings;
use crate::process::Exit;

/// Why something was not done that was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    /// Nobody took a connection.
    #[error("nothing listens at {at}: {source}")]
    NoListener { at: String, source: std::io::Error },
    /// The proof has nothing to read.
    #[error(
        "Kafka at {bootstrap} (--verify) lacks topics whose names begin with `{prefix}` (--topics-prefix, topics.prefix), as `northbridge topics verify` tells"
    )]
    NoTopics { bootstrap: String, prefix: String },
    /// The brokers are not there, or went away.
    #[error("Kafka did not answer at {bootstrap} (--verify): {source}")]
    NoKafka {
        bootstrap: String,
        source: KafkaError,
    },
    /// By whoever waited for it.
    #[error("stopped by a signal")]
    Stopped,
}

impl Undone {
    /// What a question to Kafka came to.
    pub(super) fn of_kafka(settings: &Settings, source: KafkaError) -> Self {
        let bootstrap = settings.kafka.bootstrap_servers.clone();
        if source.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
            let prefix = settings.topics.prefix.clone();
            return Self::NoTopics { bootstrap, prefix };
        }
        Self::NoKafka { bootstrap, source }
    }

    /// Says so, and what follows.
    pub(super) fn told(&self, so: &str) -> Exit {
        eprintln!("error: {self}; {so}");
        match self {
            Self::NoListener { .. } | Self::NoTopics { .. } | Self::NoKafka { .. } => {
                Exit::Unavailable
            }
            Self::Stopped => Exit::Unsettled,
        }
    }
}
