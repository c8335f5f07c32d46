//! The settings of every client, and why each has its value.
//!
//! Each function that makes a configuration sets the tunable values first,
//! then applies the operator's `kafka.options`, and last sets what must not be
//! overridden: none of that is a property that `kafka.options` accepts.

use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::{Metadata, MetadataBroker};
use rdkafka::producer::ProducerContext;
use rdkafka::{ClientConfig, ClientContext, Statistics};

use super::failures::Failures;
use crate::config::{Clients, Settings};
use crate::topics;

/// What is wrong if the creation of a client fails.
pub const CANNOT_CREATE_CLIENT: &str = "cannot create a Kafka client; check kafka.options";

/// How long librdkafka retries a record.
///
/// Longer than any push waits: a record whose push got 503 during an outage is
/// still stored when Kafka returns, and until then it probes its partition.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How often librdkafka reports its statistics.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// What all clients share: the cluster's address, and timings that detect the
/// loss and the return of a broker within a second or so.
fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.kafka.bootstrap_servers)
        .set("client.id", "northbridge")
        // With the default maximum of 10 s, a client may need that long to
        // notice that brokers are back.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "500")
        // Requests in flight to a frozen leader fail only after this time, and
        // their records must reach the new leader before the push deadline.
        .set("socket.timeout.ms", "3000")
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // The interval while a partition has no leader.
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        // A broker that has just started may report a topic as having no
        // partitions; librdkafka believes it until the next refresh.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("allow.auto.create.topics", "false");
    // rdkafka's default hides why connections fail: librdkafka logs some of the
    // reasons below the level of errors.
    config.set_log_level(if settings.kafka.options.get("debug").is_some() {
        RDKafkaLogLevel::Debug
    } else {
        RDKafkaLogLevel::Info
    });
    config
}

/// The client of administrative requests, which neither produces nor consumes.
pub(super) fn admin_config(settings: &Settings) -> ClientConfig {
    let mut config = client_config(settings);
    with_options(&mut config, settings, Clients::All);
    config.set("statistics.interval.ms", millis(STATISTICS_INTERVAL));
    config
}

/// The ingress's producer.
pub(super) fn producer_config(settings: &Settings) -> ClientConfig {
    let mut config = client_config(settings);
    config
        // Until this client has reconnected, every push is answered 503.
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.max.ms", "200")
        // A record leaves at once; the lanes form the batches.
        .set("linger.ms", "0")
        .set("compression.type", "none")
        .set("statistics.interval.ms", millis(STATISTICS_INTERVAL));
    with_options(&mut config, settings, Clients::Producers);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // The lanes choose every partition with the same function; this only
        // keeps librdkafka from ever choosing another one.
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", millis(DELIVERY_TIMEOUT))
        .set(
            "message.max.bytes",
            topics::max_record_bytes(settings).to_string(),
        )
        // The ingress limits what is in flight. librdkafka's own limits are
        // higher, so that a full queue is an emergency, not flow control.
        .set("queue.buffering.max.messages", "1000000")
        .set(
            "queue.buffering.max.kbytes",
            queue_kbytes(settings).to_string(),
        );
    config
}

/// The producer of one stream's transactions.
pub(super) fn transactional_config(settings: &Settings, transactional_id: &str) -> ClientConfig {
    let transaction_timeout = settings.streams.transaction_timeout_ms.0.to_string();
    let mut config = client_config(settings);
    config
        .set("compression.type", "none")
        // librdkafka stops looking for a group's coordinator after a failure,
        // until a connection is opened or closed. Closing idle connections
        // makes it look again within seconds.
        .set("connections.max.idle.ms", "8000")
        // Long enough for a batch to be one request per partition; short enough for it
        // to leave while the offsets are sent, and not only when the commit flushes.
        .set("linger.ms", "10")
        // The coordinator refuses the offsets of a transaction until the markers of
        // the one before are written, some milliseconds after its commit.
        .set("retry.backoff.ms", "10");
    with_options(&mut config, settings, Clients::Producers);
    config
        .set("transactional.id", transactional_id)
        // The commit reports the outcome of all records; a report for each
        // costs a tenth of a stream's CPU time.
        .set("delivery.report.only.error", "true")
        .set("transaction.timeout.ms", &transaction_timeout)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // A record that is not delivered in time fails its transaction, which
        // has timed out by then as well.
        .set("message.timeout.ms", &transaction_timeout)
        .set(
            "message.max.bytes",
            topics::max_state_record_bytes(settings).to_string(),
        );
    config
}

/// The consumer in a stream's consumer group.
pub(super) fn group_consumer_config(settings: &Settings, group: &str) -> ClientConfig {
    let mut config = client_config(settings);
    with_options(&mut config, settings, Clients::Consumers);
    consumer_config(&mut config, settings)
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.offset.store", "false")
        .set("statistics.interval.ms", millis(STATISTICS_INTERVAL));
    if let Some(instance) = &settings.streams.instance {
        config.set("group.instance.id", instance);
    }
    config
}

/// A consumer without a group, which is assigned partitions and reads them
/// from an offset to the end.
pub(super) fn reader_config(settings: &Settings, isolation_level: &str) -> ClientConfig {
    // An end of partition arrives with an empty fetch response, which the
    // broker holds back for this long.
    assigned_consumer_config(settings, isolation_level, "10")
}

/// A consumer without a group, which follows partitions for as long as somebody
/// looks.
pub(super) fn follower_config(settings: &Settings) -> ClientConfig {
    // A real broker answers when a record arrives; the embedded one of `dev` only
    // after all of this time.
    let mut config = assigned_consumer_config(settings, "read_committed", "100");
    // They say when an outage is over.
    config.set("statistics.interval.ms", "1000");
    config
}

fn assigned_consumer_config(
    settings: &Settings,
    isolation_level: &str,
    fetch_wait_ms: &str,
) -> ClientConfig {
    let mut config = client_config(settings);
    config
        .set("fetch.wait.max.ms", fetch_wait_ms)
        // A full queue is empty again long before librdkafka's second is over.
        .set("fetch.queue.backoff.ms", "10");
    with_options(&mut config, settings, Clients::Consumers);
    consumer_config(&mut config, settings)
        // librdkafka requires a group id of every consumer; nothing joins it.
        .set("group.id", "northbridge-reader")
        .set("isolation.level", isolation_level)
        .set("enable.partition.eof", "true");
    config
}

/// How soon a member learns that another one has left, whose partitions wait meanwhile.
/// A heartbeat is a few bytes in either direction.
const HEARTBEAT_INTERVAL_MS: &str = "1000";

/// What must not be overridden of any consumer.
fn consumer_config<'a>(config: &'a mut ClientConfig, settings: &Settings) -> &'a mut ClientConfig {
    // Groups of the embedded broker of `dev` use the newer protocol (KIP-848), in which
    // the broker decides what these properties say.
    if config.get("group.protocol") != Some("consumer") {
        let session_timeout_ms = settings.streams.session_timeout_ms.0;
        config
            // Readers join no group, but librdkafka compares it with
            // max.poll.interval.ms for them as well.
            .set("session.timeout.ms", session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", HEARTBEAT_INTERVAL_MS)
            .set("partition.assignment.strategy", "cooperative-sticky");
    }
    config
        .set("auto.offset.reset", "earliest")
        // Only the transactions commit offsets.
        .set("enable.auto.commit", "false")
}

/// Returns the addresses that the brokers advertise, in the format of
/// `bootstrap.servers`.
///
/// A client that takes the place of another needs them: all brokers may have
/// moved since the operator wrote `kafka.bootstrap_servers`.
pub(super) fn advertised_servers(metadata: &Metadata) -> String {
    let address = |broker: &MetadataBroker| match broker.host() {
        host if host.contains(':') => format!("[{host}]:{}", broker.port()),
        host => format!("{host}:{}", broker.port()),
    };
    let addresses: Vec<String> = metadata.brokers().iter().map(address).collect();
    addresses.join(",")
}

/// Applies what reaches these clients of the operator's `kafka.options`.
fn with_options(config: &mut ClientConfig, settings: &Settings, clients: Clients) {
    for (name, value) in settings.kafka.options.reaching(clients) {
        config.set(name, value);
    }
}

/// Returns twice what the ingress may have in flight, headers included.
fn queue_kbytes(settings: &Settings) -> u64 {
    /// The largest value that librdkafka accepts.
    const MAX: u64 = 2_147_483_647;
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let bodies = number(settings.limits.max_in_flight_bytes);
    let overhead = number(settings.limits.max_in_flight) * topics::RECORD_OVERHEAD_BYTES;
    ((bodies + overhead) / 1024 * 2).min(MAX)
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// Forwards librdkafka's log lines, at `debug` unless they are critical:
/// librdkafka repeats itself throughout an outage, which is logged once elsewhere.
/// So are the fatal errors of clients, by those whose work they end. Reports the
/// failures among them.
pub(super) fn log(failures: &Failures, level: RDKafkaLogLevel, facility: &str, message: &str) {
    failures.observe_log(level, facility, message);
    let is_of_client = matches!(facility, "FATAL" | "TXNERR");
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical
            if !is_of_client =>
        {
            tracing::error!(target: "librdkafka", facility, message);
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice
        | RDKafkaLogLevel::Info
        | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, message);
        }
    }
}

/// The context of clients that need no callback of their own: it reports what
/// fails.
#[derive(Debug, Clone)]
pub(super) struct ReportingContext(pub(super) Failures);

impl ClientContext for ReportingContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(&self.0, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.observe_error(&error, reason, None);
    }

    fn stats(&self, statistics: Statistics) {
        self.0.observe_statistics(&statistics);
    }
}

impl ConsumerContext for ReportingContext {}

impl ProducerContext for ReportingContext {
    type DeliveryOpaque = ();

    /// Nothing is produced with this context.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    /// The name of each kind of client, and its configuration.
    fn configs(settings: &Settings) -> [(&'static str, ClientConfig); 6] {
        [
            ("admin", admin_config(settings)),
            ("producer", producer_config(settings)),
            ("transactional", transactional_config(settings, "id")),
            ("group consumer", group_consumer_config(settings, "group")),
            ("reader", reader_config(settings, "read_committed")),
            ("follower", follower_config(settings)),
        ]
    }

    fn settings(options: &[(&str, &str)]) -> Result<Settings, crate::config::ConfigError> {
        let texts = options
            .iter()
            .map(|(name, value)| format!("kafka.options.{name}={value}"));
        Settings::load(&Sources {
            overrides: texts.collect(),
            ..Sources::default()
        })
    }

    fn clients_with(options: &[(&str, &str)], name: &str, value: &str) -> Vec<&'static str> {
        let configs = configs(&settings(options).unwrap());
        let has = configs
            .into_iter()
            .filter(|(_, config)| config.get(name) == Some(value));
        has.map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_property_that_a_client_sets_itself_is_either_replaced_or_refused() {
        let mut instance = Settings::default();
        instance.streams.instance = Some("a".to_owned());
        for (kind, config) in configs(&instance) {
            for (name, ours) in config.config_map() {
                let other = match ours {
                    "true" => "false",
                    "none" => "gzip",
                    _ => "777",
                };
                if let Ok(settings) = settings(&[(name, other)]) {
                    let (_, config) = configs(&settings)
                        .into_iter()
                        .find(|(other, _)| *other == kind)
                        .unwrap();
                    assert_eq!(config.get(name), Some(other), "{kind}: {name}");
                }
            }
        }
    }

    #[test]
    fn every_name_of_a_property_replaces_the_default_of_every_client_that_knows_it() {
        let producers = &["producer", "transactional"][..];
        let consumers = &["group consumer", "reader", "follower"][..];
        for (name, value, under, expected) in [
            ("queue.buffering.max.ms", "7", "linger.ms", producers),
            ("linger.ms", "7", "linger.ms", producers),
            ("compression.codec", "lz4", "compression.type", producers),
            ("fetch.wait.max.ms", "7", "fetch.wait.max.ms", consumers),
            (
                "fetch.message.max.bytes",
                "7",
                "max.partition.fetch.bytes",
                consumers,
            ),
        ] {
            assert_eq!(
                clients_with(&[(name, value)], under, value),
                expected,
                "{name}"
            );
            let configs = configs(&settings(&[(name, value)]).unwrap());
            let is_named_otherwise =
                |(_, config): &(_, ClientConfig)| name != under && config.get(name).is_some();
            assert!(!configs.iter().any(is_named_otherwise), "{name}");
        }
        let everywhere = clients_with(
            &[("socket.timeout.ms", "7777")],
            "socket.timeout.ms",
            "7777",
        );
        assert_eq!(everywhere.len(), 6);
    }
}
