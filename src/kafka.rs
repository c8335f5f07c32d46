//! The one door to the broker: how every client is set up, what of it is
//! fixed, and why.
//!
//! Knows records and topics; nothing of HTTP.

pub mod admin;
pub mod committed;
pub mod embedded;
pub mod group;
mod lane;
pub mod monitor;
mod murmur2;
pub mod producer;
pub mod reader;
pub mod restore;
pub mod scan;
mod statistics;
pub mod transactions;

use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, ClientContext};

use crate::config::Settings;
use crate::topics;

pub use producer::{Delivery, DeliveryError, Producer};

/// How long librdkafka keeps trying to deliver a record.
///
/// Longer than any answer is waited for: what was refused with 503 because
/// Kafka was away is still stored when it comes back, and probes meanwhile.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// How often librdkafka reports its statistics.
pub const STATISTICS_INTERVAL: Duration = Duration::from_secs(5);

/// The settings that every client shares: where the cluster is, and to notice
/// within moments that it went or came back.
fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.kafka.bootstrap_servers)
        .set("client.id", "northbridge")
        // The default lets recovery take 10 s after brokers were away.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "500")
        .set("retry.backoff.ms", "50")
        .set("retry.backoff.max.ms", "500")
        // A frozen leader keeps what is in flight to it until this has passed;
        // it must be over well before the answer is due.
        .set("socket.timeout.ms", "3000")
        .set("socket.connection.setup.timeout.ms", "3000")
        .set("socket.keepalive.enable", "true")
        .set("socket.nagle.disable", "true")
        // A new leader is looked for this often while there is none.
        .set("topic.metadata.refresh.fast.interval.ms", "100")
        // A broker that has just started may tell of a topic without
        // partitions, and is believed until they are asked for again.
        .set("topic.metadata.refresh.interval.ms", "5000")
        .set("allow.auto.create.topics", "false");
    config
}

/// The producer that holds the promise. Options of the operator come between
/// the tunable settings and those that are fixed.
fn producer_config(settings: &Settings) -> ClientConfig {
    let mut config = client_config(settings);
    config
        // Here each moment until Kafka is known to be back is answered 503.
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.max.ms", "200")
        .set("linger.ms", "0")
        .set("compression.type", "none")
        .set("statistics.interval.ms", millis(STATISTICS_INTERVAL));
    with_options(&mut config, settings);
    config
        .set("acks", "all")
        .set("enable.idempotence", "true")
        // Partitions are chosen by `murmur2`, as Java's clients do, before librdkafka sees a record.
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", millis(DELIVERY_TIMEOUT))
        .set(
            "message.max.bytes",
            topics::max_record_bytes(settings).to_string(),
        )
        // The ingress bounds what is in flight; these stand above its bound,
        // so that a full queue is an emergency and not flow control.
        .set("queue.buffering.max.messages", "1000000")
        .set(
            "queue.buffering.max.kbytes",
            queue_kbytes(settings).to_string(),
        );
    config
}

/// What is wrong where librdkafka makes no client of the settings.
pub const NOT_TAKEN: &str = "librdkafka does not take the settings in kafka.options together";

/// Whether librdkafka makes a client of the settings, which may contradict each
/// other or name files that cannot be read. Connects to nothing.
///
/// # Errors
///
/// What librdkafka says about them.
pub fn check(settings: &Settings) -> Result<(), KafkaError> {
    let _client: AdminClient<Quiet> = producer_config(settings).create_with_context(Quiet)?;
    Ok(())
}

/// The producer of one stream's transactions.
fn transactional_config(settings: &Settings, transactional_id: &str) -> ClientConfig {
    let mut config = client_config(settings);
    config
        .set("compression.type", "none")
        // librdkafka gives up asking who a group's coordinator is, and asks
        // again when some connection comes or goes: so that idle ones go.
        .set("connections.max.idle.ms", "8000");
    with_options(&mut config, settings);
    config
        .set("transactional.id", transactional_id)
        // The commit sends whatever waits, so that a batch is one request for
        // each partition. While a request is in flight, librdkafka's threads
        // spin over records whose linger is over.
        .set("linger.ms", "1000")
        // The commit tells what became of the records; fetching a report for
        // each costs a tenth of all that a stream does.
        .set("delivery.report.only.error", "true")
        .set(
            "transaction.timeout.ms",
            settings.streams.transaction_timeout_ms.0.to_string(),
        )
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        // A record that is late fails its transaction, and with it the batch.
        .set(
            "message.timeout.ms",
            settings.streams.transaction_timeout_ms.0.to_string(),
        )
        .set(
            "message.max.bytes",
            topics::max_record_bytes(settings).to_string(),
        );
    config
}

/// The consumer that is a member of a stream's group.
fn member_config(settings: &Settings, group: &str) -> ClientConfig {
    let mut config = client_config(settings);
    with_options(&mut config, settings);
    config
        .set("group.id", group)
        .set(
            "session.timeout.ms",
            settings.streams.session_timeout_ms.0.to_string(),
        )
        .set(
            "heartbeat.interval.ms",
            (settings.streams.session_timeout_ms.0 / 5).to_string(),
        )
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed")
        // Offsets are committed by the transactions alone.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("statistics.interval.ms", millis(STATISTICS_INTERVAL));
    if let Some(instance) = &settings.streams.instance {
        config.set("group.instance.id", instance);
    }
    config
}

/// A consumer that reads partitions by itself, from start to end.
fn reader_config(settings: &Settings, isolation_level: &str) -> ClientConfig {
    let mut config = client_config(settings);
    with_options(&mut config, settings);
    config
        .set("group.id", "northbridge-reader")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", isolation_level)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true");
    config
}

fn queue_kbytes(settings: &Settings) -> u64 {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let overhead = number(settings.limits.max_in_flight) * topics::RECORD_OVERHEAD_BYTES;
    // librdkafka takes at most this.
    ((number(settings.limits.max_in_flight_bytes) + overhead) / 1024 * 2).min(2_147_483_647)
}

fn with_options(config: &mut ClientConfig, settings: &Settings) {
    for (name, value) in settings.kafka.options.iter() {
        config.set(name, value);
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

/// librdkafka's own log lines: it repeats itself while a cluster is away, and
/// the monitor says once what matters.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, message);
        }
        RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning
        | RDKafkaLogLevel::Notice
        | RDKafkaLogLevel::Info
        | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, message);
        }
    }
}

/// The context of clients that only ask.
#[derive(Debug, Clone, Copy)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
    }
}

impl ConsumerContext for Quiet {}
