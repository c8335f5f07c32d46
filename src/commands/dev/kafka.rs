//! The Kafka that `dev` uses: an embedded broker, or one that somebody runs.

use anyhow::Context;

use super::super::topics;
use crate::config::{LogLevel, Settings};
use crate::kafka::embedded::EmbeddedBroker;
use crate::process::Exit;
use crate::topics::specs;

/// The embedded broker answers a fetch from an empty partition only after all
/// of this time, even if a record arrives meanwhile. With librdkafka's default,
/// each of the two stages would show its states half a second late.
const FETCH_WAIT_MS: &str = "50";

/// Stands for the embedded broker until that has an address. Other servers in the
/// settings have been set by somebody. RFC 2606 reserves the name.
const EMBEDDED: &str = "embedded.invalid:9092";

/// Which Kafka `dev` uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kafka {
    /// A broker in this process, whose records are gone when it ends.
    Embedded,
    /// The one at `kafka.bootstrap_servers`.
    Real,
}

/// What `dev` uses while it runs.
#[derive(Debug)]
pub(super) enum Cluster {
    /// Runs until it is dropped.
    Embedded {
        _broker: EmbeddedBroker,
        /// The servers in the settings, which it takes the place of.
        unused_servers: Option<String>,
    },
    /// Goes on without this process.
    Real,
}

impl Kafka {
    /// Changes the defaults of the settings to those that fit.
    pub(super) fn set_defaults(self, settings: &mut Settings) {
        match self {
            Self::Embedded => {
                // The embedded broker cannot describe topic settings; the warning
                // about it would only worry a newcomer.
                settings.log.level = LogLevel::Error;
                EMBEDDED.clone_into(&mut settings.kafka.bootstrap_servers);
            }
            Self::Real => settings.log.level = LogLevel::Warn,
        }
    }

    /// Starts the broker, or creates the topics that are missing; then `settings` lead
    /// there. Returns the exit code if it cannot be used, and has said why.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka cannot start the broker, or rejects a setting.
    pub(super) async fn prepare(
        self,
        settings: &mut Settings,
    ) -> anyhow::Result<Result<Cluster, Exit>> {
        match self {
            Self::Embedded => embed(settings).map(Ok),
            Self::Real => {
                let exit = topics::ensure(settings).await?;
                Ok(if exit == Exit::Done {
                    Ok(Cluster::Real)
                } else {
                    Err(exit)
                })
            }
        }
    }
}

fn embed(settings: &mut Settings) -> anyhow::Result<Cluster> {
    // One broker cannot hold more replicas; the warning would only worry a newcomer.
    settings.topics.replication_factor = 1;
    settings.topics.min_insync_replicas = 1;
    let options = &mut settings.kafka.options;
    options.set_default("fetch.wait.max.ms", FETCH_WAIT_MS);
    // In a group of the classic protocol, the embedded broker waits three seconds for
    // further members before it assigns partitions.
    options.set_default("group.protocol", "consumer");
    // It speaks neither TLS nor SASL.
    options.remove("security.protocol");
    let broker =
        EmbeddedBroker::start(&specs(settings)).context("the embedded broker cannot be started")?;
    let configured = &mut settings.kafka.bootstrap_servers;
    let unused_servers = std::mem::replace(configured, broker.bootstrap_servers());
    Ok(Cluster::Embedded {
        _broker: broker,
        unused_servers: Some(unused_servers).filter(|servers| servers != EMBEDDED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn embedded(overrides: &[&str]) -> (Settings, Option<String>) {
        let mut defaults = Settings::default();
        Kafka::Embedded.set_defaults(&mut defaults);
        let sources = Sources {
            overrides: overrides.iter().map(ToString::to_string).collect(),
            ..Sources::default()
        };
        let mut settings = Settings::load_over(&defaults, &sources).unwrap();
        match embed(&mut settings).unwrap() {
            Cluster::Embedded { unused_servers, .. } => (settings, unused_servers),
            Cluster::Real => panic!("a real Kafka"),
        }
    }

    #[test]
    fn servers_that_are_set_are_known_as_unused_even_if_they_are_the_default() {
        assert_eq!(embedded(&[]).1, None);
        let servers = Settings::default().kafka.bootstrap_servers;
        let (settings, unused) = embedded(&[&format!("kafka.bootstrap_servers={servers}")]);
        assert_eq!(unused, Some(servers.clone()));
        assert_ne!(settings.kafka.bootstrap_servers, servers);
    }

    #[test]
    fn clients_of_the_embedded_broker_use_no_tls() {
        let (settings, _) = embedded(&[
            "kafka.options.security.protocol=ssl",
            "kafka.options.linger.ms=7",
        ]);
        assert_eq!(settings.kafka.options.get("security.protocol"), None);
        assert_eq!(settings.kafka.options.get("linger.ms"), Some("7"));
    }
}
