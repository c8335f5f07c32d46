//! The librdkafka properties that an operator may pass through, and those that hold the
//! promise and are therefore not an operator's to set.
//!
//! Whether a property exists and takes its value is librdkafka's to say, and it is asked
//! here; what its clients do with them is no matter of this module.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize, Serializer};

use super::secret::MASK;

/// librdkafka properties by name; `Debug` and `Serialize` mask those that are secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct KafkaOptions(BTreeMap<String, String>);

impl KafkaOptions {
    /// The properties by name, unmasked, for the client's configuration alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.0.iter();
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a property unless the operator has set it.
    pub fn set_default(&mut self, name: &str, value: &str) {
        let entry = self.0.entry(name.to_owned());
        entry.or_insert_with(|| value.to_owned());
    }

    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.iter().map(|(name, value)| {
            let shown = if is_secret(name) { MASK } else { value };
            (name, shown)
        })
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.shown()).finish()
    }
}

impl Serialize for KafkaOptions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.shown())
    }
}

/// Whether the property's value is never to be shown.
pub(super) fn is_secret(name: &str) -> bool {
    SECRET_PARTS.iter().any(|part| name.contains(part))
}

/// The rule that forbids the value, where librdkafka has one.
pub(super) fn refused(name: &str, value: &str) -> Option<String> {
    let config = ClientConfig::from_iter([(name.to_owned(), value.to_owned())]);
    let Err(KafkaError::ClientConfig(_, why, _, _)) = config.create_native_config() else {
        return None;
    };
    let why = if is_secret(name) {
        why.replace(value, MASK)
    } else {
        why
    };
    Some(format!("librdkafka does not take it: {}", why.trim_end()))
}

/// The rule that forbids the property, where one does.
pub(super) fn forbidden(name: &str) -> Option<String> {
    let entry = FORBIDDEN
        .iter()
        .find(|(names, _)| names.contains(&name))
        .map(|(_, why)| format!("must not be set: {why}"));
    entry.or_else(|| forbidden_by_shape(name))
}

fn forbidden_by_shape(name: &str) -> Option<String> {
    if name.starts_with("test.") {
        return Some("must not be set: it puts a mock in the place of Kafka".to_owned());
    }
    let well_formed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.';
    if name.is_empty() || !name.chars().all(well_formed) {
        return Some(
            "must not be set: the names of librdkafka's properties are lower-case words \
             joined by dots, and callbacks cannot be set"
                .to_owned(),
        );
    }
    None
}

/// Parts of property names whose values are secrets (librdkafka, CONFIGURATION.md):
/// passwords, passphrases, client secrets, private keys, and the configuration of
/// OAUTHBEARER, which may hold one.
const SECRET_PARTS: &[&str] = &[
    "password",
    "passphrase",
    "secret",
    "jaas",
    "ssl.key.pem",
    "private.key.pem",
    "sasl.oauthbearer.config",
];

/// Properties that an operator cannot set, each with all its names (librdkafka,
/// CONFIGURATION.md), and why.
pub(super) const FORBIDDEN: &[(&[&str], &str)] = &[
    (
        &["acks", "request.required.acks"],
        "an answer 200 promises that all in-sync replicas have the record",
    ),
    (
        &["enable.idempotence"],
        "without it a retry can store a push twice or out of order",
    ),
    (
        &["enable.gapless.guarantee"],
        "one lost record would end the producer for all others",
    ),
    (
        &["max.in.flight.requests.per.connection", "max.in.flight"],
        "the order of records and their latency rest on it",
    ),
    (
        &["message.send.max.retries", "retries"],
        "a record is retried as long as its push waits for the answer",
    ),
    (
        &["message.timeout.ms", "delivery.timeout.ms"],
        "it is longer than any answer is waited for, so that what was refused may still be stored",
    ),
    (
        &["queuing.strategy"],
        "records of one key would overtake each other",
    ),
    (
        &["partitioner"],
        "a key's partition must be the one that Java clients choose",
    ),
    (
        &["message.max.bytes"],
        "it follows from http.max_body_bytes, with room for key and headers",
    ),
    (
        &["queue.buffering.max.messages", "queue.buffering.max.kbytes"],
        "it follows from limits.max_in_flight and limits.max_in_flight_bytes",
    ),
    (
        &["delivery.report.only.error"],
        "an answer 200 is built from the report of a success",
    ),
    (
        &["produce.offset.report"],
        "an answer 200 is built from the whole report",
    ),
    (
        &["transactional.id"],
        "it follows from the instance, and fences its former self",
    ),
    (
        &["isolation.level"],
        "records of aborted transactions would be counted",
    ),
    (
        &[
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
        ],
        "offsets are committed in the transaction that holds their results",
    ),
    (
        &[
            "enable.auto.offset.store",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        "offsets are committed in the transaction that holds their results",
    ),
    (
        &["auto.offset.reset"],
        "records from before the first start would be skipped",
    ),
    (
        &["group.id", "group.instance.id"],
        "offsets and transactions belong to a fixed group",
    ),
    (
        &["bootstrap.servers", "metadata.broker.list"],
        "kafka.bootstrap_servers is its key",
    ),
    (
        &["allow.auto.create.topics"],
        "a topic made by chance has neither the partitions nor the replicas that are needed",
    ),
    (
        &["topic.blacklist"],
        "a topic that is not seen cannot be written",
    ),
    (
        &["statistics.interval.ms"],
        "metrics and readiness are made of the statistics",
    ),
    (&["log_level"], "log.level is its key"),
    (&["log.queue"], "the log lines of librdkafka would be lost"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> KafkaOptions {
        let owned = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        KafkaOptions(owned.collect())
    }

    #[test]
    fn secret_properties_are_masked_wherever_options_are_shown() {
        let options = options(&[("sasl.password", "s3cret"), ("linger.ms", "5")]);
        assert_eq!(
            format!("{options:?}"),
            r#"{"linger.ms": "5", "sasl.password": "***"}"#
        );
        assert_eq!(
            serde_json::to_string(&options).unwrap(),
            r#"{"linger.ms":"5","sasl.password":"***"}"#
        );
    }

    #[test]
    fn the_client_gets_secret_properties_unmasked() {
        let options = options(&[("sasl.password", "s3cret")]);
        assert_eq!(
            options.iter().collect::<Vec<_>>(),
            [("sasl.password", "s3cret")]
        );
    }

    #[test]
    fn the_values_of_these_properties_are_secret() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.jaas.config",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(is_secret(name), "{name}");
        }
    }

    #[test]
    fn properties_for_tuning_and_for_security_pass() {
        for name in [
            "linger.ms",
            "compression.type",
            "security.protocol",
            "sasl.mechanism",
            "ssl.ca.location",
            "client.id",
            "socket.timeout.ms",
            "group.protocol",
        ] {
            assert_eq!(forbidden(name), None, "{name}");
        }
    }
}
