//! When it is certain that no broker can be talked to, so that a command ends
//! before its time-outs do.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use rdkafka::metadata::Metadata;

use super::{Affected, Failures, Ongoing};
use crate::kafka::failure::{Certainty, Failure};

impl Failures {
    /// Takes the addresses that the brokers advertise, from an answer of one.
    pub(in crate::kafka) fn observe_metadata(&self, metadata: &Metadata) {
        self.answered();
        let brokers = metadata.brokers().iter();
        let addresses = brokers.map(|broker| format!("{}:{}", broker.host(), broker.port()));
        *self.advertised() = addresses.collect();
    }

    /// Waits until every bootstrap server, or every broker at its advertised
    /// address, has failed in a way that no further attempt can heal.
    ///
    /// While one of the brokers can be talked to, the others may lead nothing that
    /// is needed.
    pub(crate) async fn certain(&self) -> Failure {
        loop {
            // Created before the check, so that no change after it is missed.
            let changed = self.0.changed.notified();
            if let Some(failure) = self.certain_failure() {
                return failure;
            }
            changed.await;
        }
    }

    pub(super) fn certain_failure(&self) -> Option<Failure> {
        let ongoing = self.lock();
        let is_certain = |it: &&Ongoing| it.failure.certainty == Certainty::Certain;
        let certain: Vec<&Ongoing> = ongoing.iter().filter(is_certain).collect();
        let affected: BTreeSet<&Affected> =
            certain.iter().flat_map(|it| it.affected.keys()).collect();
        let is_over = self.has_all_servers(&affected) || self.has_all_brokers(&affected);
        let newest = certain.last().filter(|_| is_over);
        newest.map(|it| it.failure.clone())
    }

    /// The servers are counted: librdkafka completes what the operator wrote.
    fn has_all_servers(&self, affected: &BTreeSet<&Affected>) -> bool {
        let is_server = |it: &&&Affected| matches!(it, Affected::BootstrapServer(_));
        let servers = affected.iter().filter(is_server).count();
        let configured = self.0.bootstrap_servers.split(',').map(str::trim);
        servers >= configured.collect::<BTreeSet<_>>().len()
    }

    fn has_all_brokers(&self, affected: &BTreeSet<&Affected>) -> bool {
        let advertised = self.advertised();
        let mut brokers = advertised.iter().cloned().map(Affected::Broker);
        !advertised.is_empty() && brokers.all(|broker| affected.contains(&broker))
    }

    fn advertised(&self) -> MutexGuard<'_, BTreeSet<String>> {
        let advertised = self.0.advertised.lock();
        advertised.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::config::RDKafkaLogLevel;

    use super::*;
    use crate::config::Settings;

    fn failures(advertised: &[&str]) -> Failures {
        let mut settings = Settings::default();
        settings.kafka.bootstrap_servers = "kafka:9092, kafka:9093".to_owned();
        let failures = Failures::of_command(&settings);
        *failures.advertised() = advertised.iter().copied().map(str::to_owned).collect();
        failures
    }

    /// Returns whether it is certain after all of these have failed to resolve.
    fn is_certain(failures: &Failures, unresolved: &[&str]) -> bool {
        for broker in unresolved {
            let line = format!("{broker}: Failed to resolve 'it': Name or service not known");
            failures.observe_log(RDKafkaLogLevel::Error, "FAIL", &line);
        }
        failures.certain_failure().is_some()
    }

    #[test]
    fn it_is_certain_once_all_bootstrap_servers_have_failed() {
        let failures = failures(&[]);
        assert!(!is_certain(&failures, &["kafka:9092/bootstrap"]));
        assert!(!is_certain(
            &failures,
            &["kafka-1:9092/1", "kafka-2:9092/2"]
        ));
        assert!(is_certain(&failures, &["kafka:9093/bootstrap"]));
    }

    #[test]
    fn it_is_certain_once_all_brokers_have_failed_where_they_advertise() {
        let failures = failures(&["kafka-1:9092", "kafka-2:9092"]);
        assert!(!is_certain(&failures, &["kafka:9092/bootstrap"]));
        assert!(!is_certain(
            &failures,
            &["kafka-1:9092/1", "kafka-3:9092/3"]
        ));
        assert!(is_certain(&failures, &["kafka-2:9092/2"]));
    }
}
