//! Metrics of the Kafka clients: the ingress's producer, and librdkafka's own
//! statistics of every client.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::failure::FailureKind;
use super::topic_check::{Severity, TopicCheck};
use crate::metrics::{Metrics, signed};
use crate::topics::Topic;

/// Metrics of the ingress's producer.
#[derive(Debug)]
pub struct ProducerMetrics {
    durations: [Histogram; Topic::INGRESS.len()],
    failures: [IntCounter; Topic::INGRESS.len()],
    /// Producers replaced because they could not recover.
    pub(super) restarts: IntCounter,
    /// Longest time any partition has been without an acknowledgement or a leader, in seconds.
    pub(super) outage_seconds: Gauge,
}

/// How many findings the last check of the ingress's topics had.
#[derive(Debug)]
pub struct TopicFindings {
    warnings: IntGauge,
    problems: IntGauge,
}

impl TopicFindings {
    /// Registers the metric; a process has at most one ingress.
    pub fn register(metrics: &Metrics) -> Self {
        let findings = metrics.gauges(
            "topic_findings",
            "Differences between the ingress's topics and their requirements, as of the last check.",
            &["severity"],
        );
        Self {
            warnings: findings.with_label_values(&["warning"]),
            problems: findings.with_label_values(&["problem"]),
        }
    }

    pub(super) fn set(&self, check: &TopicCheck) {
        self.warnings.set(signed(check.count(Severity::Warning)));
        self.problems.set(signed(check.count(Severity::Problem)));
    }
}

impl ProducerMetrics {
    /// Registers the producer's metrics; a process has at most one such producer.
    pub fn register(metrics: &Metrics) -> Self {
        let durations = metrics.latencies(
            "produce_duration_seconds",
            "From handing a record to the producer until Kafka acknowledged it.",
            &["topic"],
        );
        let failures = metrics.counters(
            "produce_failures_total",
            "Failed attempts to deliver a record; retried until the push's deadline.",
            &["topic"],
        );
        Self {
            durations: Topic::INGRESS.map(|topic| durations.with_label_values(&[topic.label()])),
            failures: Topic::INGRESS.map(|topic| failures.with_label_values(&[topic.label()])),
            restarts: metrics.counter(
                "producer_restarts_total",
                "Producers replaced because they could not recover.",
            ),
            outage_seconds: metrics.float_gauge(
                "kafka_outage_seconds",
                "Longest time any partition has been without a leader or an acknowledgement; 0 when all are healthy.",
            ),
        }
    }

    /// Counts an acknowledged record. `took` begins when the record was handed
    /// to the producer, so it includes the wait in its lane.
    pub(super) fn delivered(&self, topic: Topic, took: Duration) {
        if let Some(histogram) = self.durations.get(topic.index()) {
            histogram.observe(took.as_secs_f64());
        }
    }

    pub(super) fn failed(&self, topic: Topic) {
        if let Some(failures) = self.failures.get(topic.index()) {
            failures.inc();
        }
    }
}

/// The metric families for librdkafka's statistics. All clients of a process
/// report under them, each with its own label `client`.
#[derive(Debug, Clone)]
pub struct KafkaClientFamilies {
    queue_messages: IntGaugeVec,
    queue_bytes: IntGaugeVec,
    sent_messages: IntCounterVec,
    brokers_connected: IntGaugeVec,
    requests: IntCounterVec,
    request_errors: IntCounterVec,
    request_retries: IntCounterVec,
    request_timeouts: IntCounterVec,
    round_trip_seconds: GaugeVec,
    batch_records: GaugeVec,
    errors: IntCounterVec,
}

impl KafkaClientFamilies {
    /// Registers the families: once per process, at start-up.
    pub fn register(metrics: &Metrics) -> Self {
        let by_client = ["client"];
        let by_broker = ["client", "broker"];
        Self {
            queue_messages: metrics.gauges(
                "kafka_queue_messages",
                "Messages in librdkafka's queues.",
                &by_client,
            ),
            queue_bytes: metrics.gauges(
                "kafka_queue_bytes",
                "Bytes in librdkafka's queues.",
                &by_client,
            ),
            sent_messages: metrics.counters(
                "kafka_sent_messages_total",
                "Messages sent to brokers.",
                &by_client,
            ),
            brokers_connected: metrics.gauges(
                "kafka_brokers_connected",
                "Brokers with an established connection.",
                &by_client,
            ),
            requests: metrics.counters(
                "kafka_requests_total",
                "Requests sent to a broker.",
                &by_broker,
            ),
            request_errors: metrics.counters(
                "kafka_request_errors_total",
                "Requests to a broker that failed in transmission.",
                &by_broker,
            ),
            request_retries: metrics.counters(
                "kafka_request_retries_total",
                "Requests to a broker that were retried.",
                &by_broker,
            ),
            request_timeouts: metrics.counters(
                "kafka_request_timeouts_total",
                "Requests that a broker did not answer in time.",
                &by_broker,
            ),
            round_trip_seconds: metrics.float_gauges(
                "kafka_round_trip_seconds",
                "Round-trip time to a broker over the last statistics interval.",
                &["client", "broker", "percentile"],
            ),
            batch_records: metrics.float_gauges(
                "kafka_batch_records",
                "Mean number of records in a batch over the last statistics interval.",
                &["client", "topic"],
            ),
            errors: metrics.counters(
                "kafka_errors_total",
                "Failed connections and denied requests, by what went wrong.",
                &["client", "kind"],
            ),
        }
    }

    /// Returns the metrics of the client `name`, which start at zero.
    pub fn client(&self, name: &'static str) -> KafkaClientMetrics {
        let labels = [name];
        let errors = |kind: FailureKind| self.errors.with_label_values(&[name, kind.label()]);
        KafkaClientMetrics {
            client: name,
            queue_messages: self.queue_messages.with_label_values(&labels),
            queue_bytes: self.queue_bytes.with_label_values(&labels),
            sent_messages: self.sent_messages.with_label_values(&labels),
            brokers_connected: self.brokers_connected.with_label_values(&labels),
            errors: FailureKind::ALL.map(errors),
            families: self.clone(),
        }
    }
}

/// The metrics of one client. Those with a broker's or a topic's label appear
/// once librdkafka has reported that broker or topic.
#[derive(Debug, Clone)]
pub struct KafkaClientMetrics {
    pub(super) client: &'static str,
    families: KafkaClientFamilies,
    pub(super) queue_messages: IntGauge,
    pub(super) queue_bytes: IntGauge,
    pub(super) sent_messages: IntCounter,
    pub(super) brokers_connected: IntGauge,
    /// In the order of [`FailureKind::ALL`].
    pub(super) errors: [IntCounter; FailureKind::ALL.len()],
}

/// The metrics of one client's connection to one broker.
#[derive(Debug)]
pub(super) struct BrokerMetrics {
    pub(super) requests: Total,
    pub(super) errors: Total,
    pub(super) retries: Total,
    pub(super) timeouts: Total,
    pub(super) round_trip_p50: Gauge,
    pub(super) round_trip_p99: Gauge,
}

/// A counter that follows a running total of one librdkafka handle.
///
/// The total starts at zero with each handle, the counter does not: a producer
/// that replaces another adds to what its predecessor counted.
#[derive(Debug)]
pub(super) struct Total {
    counter: IntCounter,
    last: u64,
}

impl KafkaClientMetrics {
    pub(super) fn broker(&self, node: i32) -> BrokerMetrics {
        let families = &self.families;
        let node = node.to_string();
        let labels = [self.client, node.as_str()];
        let round_trip = |percentile| {
            families
                .round_trip_seconds
                .with_label_values(&[self.client, &node, percentile])
        };
        BrokerMetrics {
            requests: Total::new(families.requests.with_label_values(&labels)),
            errors: Total::new(families.request_errors.with_label_values(&labels)),
            retries: Total::new(families.request_retries.with_label_values(&labels)),
            timeouts: Total::new(families.request_timeouts.with_label_values(&labels)),
            round_trip_p50: round_trip("50"),
            round_trip_p99: round_trip("99"),
        }
    }

    pub(super) fn batch_records(&self, topic: &str) -> Gauge {
        self.families
            .batch_records
            .with_label_values(&[self.client, topic])
    }
}

impl Total {
    pub(super) fn new(counter: IntCounter) -> Self {
        Self { counter, last: 0 }
    }

    pub(super) fn advance_to(&mut self, total: u64) {
        self.counter.inc_by(total.saturating_sub(self.last));
        self.last = total;
    }
}
