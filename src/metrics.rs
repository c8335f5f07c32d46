//! Every metric, one struct for each component that reports.
//!
//! The registry is the process's own; there are no globals. Label sets are
//! closed: never a device id, a request id, a path or free text. Metrics of a
//! component are there from the first scrape, at zero.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::notification::{Cause, NotifyType};
use crate::topics::Topic;

/// Latency buckets in seconds: fine where a healthy cluster answers, and on
/// both sides of the answer's deadline and the sender's 15 s.
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 13.0, 15.0,
];

/// A registry that is being filled. Registering is part of start-up: a metric
/// that is defined wrongly or twice ends the process there.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    kafka_clients: Arc<OnceLock<KafkaClientMetrics>>,
}

/// What became of a push: the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// In its own topic, acknowledged.
    Stored,
    /// In the dead-letter topic, acknowledged.
    DeadLettered,
    /// Refused for what it is: credentials, size, encoding, an empty or late body.
    Rejected,
    /// Refused because too much was in flight.
    Overloaded,
    /// Kafka is known to be down, or refused the record.
    Unavailable,
    /// Not acknowledged before the deadline; it may be stored yet.
    Unconfirmed,
    /// Refused because the process was about to end.
    Draining,
    /// The client went before its body was there.
    Disconnected,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Stored,
        Self::DeadLettered,
        Self::Rejected,
        Self::Overloaded,
        Self::Unavailable,
        Self::Unconfirmed,
        Self::Draining,
        Self::Disconnected,
    ];

    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::DeadLettered => "dead_lettered",
            Self::Rejected => "rejected",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::Draining => "draining",
            Self::Disconnected => "disconnected",
        }
    }

    /// Whether the sender was told 200, as long as it was there to be told.
    pub const fn is_success(self) -> bool {
        match self {
            Self::Stored | Self::DeadLettered => true,
            Self::Rejected
            | Self::Overloaded
            | Self::Unavailable
            | Self::Unconfirmed
            | Self::Draining
            | Self::Disconnected => false,
        }
    }
}

impl Metrics {
    /// A registry with what every process reports: itself.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::new(),
            kafka_clients: Arc::default(),
        };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.add(Box::new(process));
        let build = metrics.gauges(
            "build_info",
            "Always 1; the labels name the build.",
            &["version", "revision"],
        );
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision()])
            .set(1);
        metrics
    }

    /// All metrics in Prometheus's text format 0.0.4.
    pub fn render(&self) -> String {
        let mut text = Vec::with_capacity(16 * 1024);
        // Encoding into memory fails only for a metric without values, which is left out.
        let _incomplete = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add_new(IntCounter::with_opts(opts(name, help)))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add_new(IntCounterVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add_new(IntGauge::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add_new(IntGaugeVec::new(opts(name, help), labels))
    }

    fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add_new(Gauge::with_opts(opts(name, help)))
    }

    fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add_new(GaugeVec::new(opts(name, help), labels))
    }

    fn latencies(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.histograms(name, help, labels, LATENCY_SECONDS)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts {
            common_opts: opts(name, help),
            buckets: buckets.to_vec(),
        };
        self.add_new(HistogramVec::new(options, labels))
    }

    #[expect(
        clippy::expect_used,
        reason = "a metric defined wrongly is a bug that start-up must show"
    )]
    fn add_new<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        created: prometheus::Result<C>,
    ) -> C {
        let collector = created.expect("metric definitions are valid");
        self.add(Box::new(collector.clone()));
        collector
    }

    #[expect(
        clippy::expect_used,
        reason = "a metric defined twice is a bug that start-up must show"
    )]
    fn add(&self, collector: Box<dyn prometheus::core::Collector>) {
        self.registry
            .register(collector)
            .expect("each metric is registered once");
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The revision this binary was built from, or `unknown`.
pub fn revision() -> &'static str {
    option_env!("NORTHBRIDGE_REVISION").unwrap_or("unknown")
}

/// What the ingress counts of pushes. The books balance: received is the sum
/// over the outcomes plus what is in flight.
#[derive(Debug)]
pub struct PushMetrics {
    received: IntCounter,
    in_flight: IntGauge,
    outcomes: Vec<[IntCounter; Outcome::ALL.len()]>,
    durations: [Histogram; Outcome::ALL.len()],
    dead_letters: IntCounterVec,
    drift: IntCounterVec,
    in_flight_bytes: IntGauge,
    failed_in_a_row: IntGauge,
    max_in_flight: IntGauge,
    max_in_flight_bytes: IntGauge,
}

impl PushMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let by_outcome = metrics.counters(
            "pushes_total",
            "Pushes answered or given up, by what became of them.",
            &["outcome", "notify_type"],
        );
        let durations = metrics.latencies(
            "push_duration_seconds",
            "From the last byte of a push's head until what became of it was known.",
            &["outcome"],
        );
        let dead_letters = metrics.counters(
            "dead_letters_total",
            "Pushes stored in the dead-letter topic, by reason.",
            &["reason"],
        );
        for reason in Cause::REASONS {
            dead_letters.with_label_values(&[reason]);
        }
        Self {
            received: metrics.counter(
                "pushes_received_total",
                "Requests that are pushes: POST to a configured path.",
            ),
            in_flight: metrics.gauge(
                "pushes_in_flight",
                "Pushes received of which it is not known yet what becomes of them.",
            ),
            outcomes: NotifyType::ALL
                .iter()
                .map(|notify_type| {
                    Outcome::ALL.map(|outcome| {
                        by_outcome.with_label_values(&[outcome.label(), notify_type.label()])
                    })
                })
                .collect(),
            durations: Outcome::ALL.map(|outcome| durations.with_label_values(&[outcome.label()])),
            dead_letters,
            drift: metrics.counters(
                "payload_drift_total",
                "Fields of stored pushes that break the published tables.",
                &["notify_type", "field"],
            ),
            in_flight_bytes: metrics.gauge(
                "in_flight_bytes",
                "Bytes of bodies held: being read, or not yet settled by Kafka.",
            ),
            failed_in_a_row: metrics.gauge(
                "pushes_failed_in_a_row",
                "Pushes not answered 200 since the last one that was.",
            ),
            max_in_flight: metrics.gauge(
                "max_pushes_in_flight",
                "The limit of pushes between admission and answer.",
            ),
            max_in_flight_bytes: metrics
                .gauge("max_in_flight_bytes", "The limit of bytes of bodies held."),
        }
    }

    /// The limits of what is in flight.
    pub fn limits(&self, max_in_flight: usize, max_in_flight_bytes: usize) {
        self.max_in_flight.set(signed(max_in_flight));
        self.max_in_flight_bytes.set(signed(max_in_flight_bytes));
    }

    /// A push began.
    pub fn received(&self) {
        self.received.inc();
        self.in_flight.inc();
    }

    /// What became of a push that began: exactly once for each.
    pub fn finished(&self, outcome: Outcome, notify_type: NotifyType, took: Duration) {
        let position = outcome_index(outcome);
        if let Some(counters) = self.outcomes.get(notify_type.index()) {
            counters[position].inc();
        }
        self.durations[position].observe(took.as_secs_f64());
        // The platform stops pushing after ten failures in a row, so the row is worth more than a rate.
        if outcome.is_success() {
            self.failed_in_a_row.set(0);
        } else {
            self.failed_in_a_row.inc();
        }
        self.in_flight.dec();
    }

    /// A dead letter was acknowledged.
    pub fn dead_lettered(&self, reason: &'static str) {
        self.dead_letters.with_label_values(&[reason]).inc();
    }

    /// A field broke the published table.
    pub fn drifted(&self, notify_type: NotifyType, field: &'static str) {
        self.drift
            .with_label_values(&[notify_type.label(), field])
            .inc();
    }

    /// So many more bytes of bodies are held.
    pub fn holds_bytes(&self, bytes: usize) {
        self.in_flight_bytes.add(signed(bytes));
    }

    /// So many bytes of bodies are held no more.
    pub fn releases_bytes(&self, bytes: usize) {
        self.in_flight_bytes.sub(signed(bytes));
    }
}

fn outcome_index(outcome: Outcome) -> usize {
    match outcome {
        Outcome::Stored => 0,
        Outcome::DeadLettered => 1,
        Outcome::Rejected => 2,
        Outcome::Overloaded => 3,
        Outcome::Unavailable => 4,
        Outcome::Unconfirmed => 5,
        Outcome::Draining => 6,
        Outcome::Disconnected => 7,
    }
}

/// What the listener counts of connections and answers.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Connections open now.
    pub connections: IntGauge,
    max_connections: IntGauge,
    closed: IntCounterVec,
    responses: IntCounterVec,
    /// When the certificate that is served ends, as a Unix time; 0 without TLS.
    pub certificate_not_after: IntGauge,
    /// Certificate files that could not be read again after a change.
    pub certificate_reload_failures: IntCounter,
}

impl ServerMetrics {
    /// Every status the listener answers with.
    const CODES: [&'static str; 11] = [
        "200", "400", "401", "403", "404", "405", "408", "413", "415", "431", "503",
    ];

    /// Why connections end: the label `reason`.
    const CLOSED: [&'static str; 8] = [
        "done",
        "error",
        "head-timeout",
        "keep-alive",
        "write-stalled",
        "handshake",
        "proxy-header",
        "drained",
    ];

    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let closed = metrics.counters(
            "connections_closed_total",
            "Connections ended, by reason.",
            &["reason"],
        );
        for reason in Self::CLOSED {
            closed.with_label_values(&[reason]);
        }
        let responses = metrics.counters(
            "http_responses_total",
            "Answers on the listener's port, by status code.",
            &["code"],
        );
        for code in Self::CODES {
            responses.with_label_values(&[code]);
        }
        Self {
            connections: metrics.gauge("connections", "Connections open now."),
            max_connections: metrics.gauge(
                "max_connections",
                "The limit of connections open at a time.",
            ),
            closed,
            responses,
            certificate_not_after: metrics.gauge(
                "tls_certificate_not_after_timestamp_seconds",
                "When the certificate that is served ends, as a Unix time; 0 without TLS.",
            ),
            certificate_reload_failures: metrics.counter(
                "tls_certificate_reload_failures_total",
                "Changed certificate files that could not be used; the old ones stay.",
            ),
        }
    }

    /// The limit of connections.
    pub fn limit(&self, max_connections: usize) {
        self.max_connections.set(signed(max_connections));
    }

    /// A connection ended.
    pub fn closed(&self, reason: &'static str) {
        self.closed.with_label_values(&[reason]).inc();
    }

    /// An answer was made.
    pub fn responded(&self, code: hyper::StatusCode) {
        self.responses.with_label_values(&[code.as_str()]).inc();
    }
}

/// What a producer counts.
#[derive(Debug)]
pub struct ProducerMetrics {
    durations: [Histogram; Topic::INGRESS.len()],
    failures: IntCounterVec,
    /// Fresh producers after fatal errors.
    pub restarts: IntCounter,
    /// Seconds for which some partition has owed an acknowledgement; 0 while all are well.
    pub outage_seconds: Gauge,
}

impl ProducerMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let durations = metrics.latencies(
            "produce_duration_seconds",
            "From handing a record to the producer until Kafka acknowledged it.",
            &["topic"],
        );
        let failures = metrics.counters(
            "produce_failures_total",
            "Records that librdkafka gave up on; tried again until the answer's deadline.",
            &["topic"],
        );
        for topic in Topic::INGRESS {
            failures.with_label_values(&[topic.label()]);
        }
        Self {
            durations: Topic::INGRESS.map(|topic| durations.with_label_values(&[topic.label()])),
            failures,
            restarts: metrics.counter(
                "producer_restarts_total",
                "Fresh producers that took over after a fatal error.",
            ),
            outage_seconds: metrics.float_gauge(
                "kafka_outage_seconds",
                "How long some partition has owed an acknowledgement or a leader; 0 while all are well.",
            ),
        }
    }

    /// Kafka acknowledged a record.
    pub fn delivered(&self, topic: Topic, took: Duration) {
        if let Some(histogram) = self.durations.get(topic.index()) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// librdkafka gave up on a record.
    pub fn failed(&self, topic: Topic) {
        self.failures.with_label_values(&[topic.label()]).inc();
    }
}

/// What librdkafka says of itself.
#[derive(Debug, Clone)]
pub struct KafkaClientMetrics {
    /// Messages in the client's queues, by client.
    pub queue_messages: IntGaugeVec,
    /// Bytes in the client's queues, by client.
    pub queue_bytes: IntGaugeVec,
    /// Messages sent, by client.
    pub sent_messages: IntCounterVec,
    /// Brokers with a connection, by client.
    pub brokers_connected: IntGaugeVec,
    /// Requests sent, by client and broker.
    pub requests: IntCounterVec,
    /// Requests that failed, by client and broker.
    pub request_errors: IntCounterVec,
    /// Requests sent again, by client and broker.
    pub request_retries: IntCounterVec,
    /// Requests without an answer in time, by client and broker.
    pub request_timeouts: IntCounterVec,
    /// Round trips, by client, broker and percentile.
    pub round_trip_seconds: GaugeVec,
    /// Mean records in a batch, by client and topic.
    pub batch_records: GaugeVec,
}

impl KafkaClientMetrics {
    /// Those of `client`, at zero. The clients of one process share the
    /// families, which the first of them registers.
    pub fn register(metrics: &Metrics, client: &str) -> Self {
        let families = metrics
            .kafka_clients
            .get_or_init(|| Self::families(metrics));
        families.queue_messages.with_label_values(&[client]);
        families.queue_bytes.with_label_values(&[client]);
        families.sent_messages.with_label_values(&[client]);
        families.brokers_connected.with_label_values(&[client]);
        families.clone()
    }

    fn families(metrics: &Metrics) -> Self {
        let by_broker = ["client", "broker"];
        Self {
            queue_messages: metrics.gauges(
                "kafka_queue_messages",
                "Messages in librdkafka's queues.",
                &["client"],
            ),
            queue_bytes: metrics.gauges(
                "kafka_queue_bytes",
                "Bytes in librdkafka's queues.",
                &["client"],
            ),
            sent_messages: metrics.counters(
                "kafka_sent_messages_total",
                "Messages sent to brokers.",
                &["client"],
            ),
            brokers_connected: metrics.gauges(
                "kafka_brokers_connected",
                "Brokers with a connection that is up.",
                &["client"],
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
                "Requests to a broker that were sent again.",
                &by_broker,
            ),
            request_timeouts: metrics.counters(
                "kafka_request_timeouts_total",
                "Requests that a broker did not answer in time.",
                &by_broker,
            ),
            round_trip_seconds: metrics.float_gauges(
                "kafka_round_trip_seconds",
                "Round trips to a broker over the last statistics interval.",
                &["client", "broker", "percentile"],
            ),
            batch_records: metrics.float_gauges(
                "kafka_batch_records",
                "Mean records in a batch over the last statistics interval.",
                &["client", "topic"],
            ),
        }
    }
}

/// What one stream counts. Of several streams in a process, each registers
/// itself on the same families.
#[derive(Debug)]
pub struct StreamMetrics {
    stream: &'static str,
    records: IntCounterVec,
    lag: IntGaugeVec,
    event_age: GaugeVec,
    transactions: IntCounterVec,
    entries: IntGaugeVec,
    max_entries_passed: IntGaugeVec,
    bytes: IntGaugeVec,
    restore_seconds: GaugeVec,
    restored_records: IntCounterVec,
    restored_before: AtomicU64,
    positions: Mutex<BTreeMap<i32, i64>>,
    commands: Option<CommandMetrics>,
    upgrades: Option<[(&'static str, IntCounter); 2]>,
}

#[derive(Debug)]
struct CommandMetrics {
    open: IntGaugeVec,
    overdue: IntGauge,
    transitions: [((&'static str, &'static str), Histogram); 3],
    next_overdue_line: Mutex<Instant>,
}

/// The families that all streams of a process share.
#[derive(Debug, Clone)]
pub struct StreamFamilies {
    metrics: Metrics,
    records: IntCounterVec,
    lag: IntGaugeVec,
    event_age: GaugeVec,
    transactions: IntCounterVec,
    entries: IntGaugeVec,
    max_entries_passed: IntGaugeVec,
    bytes: IntGaugeVec,
    restore_seconds: GaugeVec,
    restored_records: IntCounterVec,
}

/// How long steps of a command take, in seconds: from moments to a week.
const TRANSITION_SECONDS: &[f64] = &[
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0,
];

/// At most this often a log line tells of overdue commands.
const OVERDUE_LINE: Duration = Duration::from_secs(60);

impl StreamFamilies {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        let by_stream = ["stream"];
        Self {
            metrics: metrics.clone(),
            records: metrics.counters(
                "stream_records_total",
                "Records whose transaction was committed: applied, or dead letters.",
                &["stream", "result"],
            ),
            lag: metrics.gauges(
                "stream_lag_records",
                "Records of a partition that are not processed yet.",
                &["stream", "partition"],
            ),
            event_age: metrics.float_gauges(
                "stream_event_age_seconds",
                "The age, since it was received, of the record that was processed last.",
                &by_stream,
            ),
            transactions: metrics.counters(
                "stream_transactions_total",
                "Transactions, by result.",
                &["stream", "result"],
            ),
            entries: metrics.gauges("stream_state_entries", "States in memory.", &by_stream),
            max_entries_passed: metrics.gauges(
                "stream_state_max_entries_passed",
                "1 while there are more states in memory than max_entries.",
                &by_stream,
            ),
            bytes: metrics.gauges(
                "stream_state_bytes",
                "Bytes of the keys and values of the states in memory.",
                &by_stream,
            ),
            restore_seconds: metrics.float_gauges(
                "stream_restore_seconds",
                "How long the last restore of states took.",
                &by_stream,
            ),
            restored_records: metrics.counters(
                "stream_restored_records_total",
                "Records of the state topic that were read to restore states.",
                &by_stream,
            ),
        }
    }

    /// The metrics of one stream, at zero.
    pub fn stream(&self, stream: &'static str) -> StreamMetrics {
        for result in ["applied", "dead_lettered"] {
            self.records.with_label_values(&[stream, result]);
        }
        for result in ["committed", "aborted"] {
            self.transactions.with_label_values(&[stream, result]);
        }
        self.event_age.with_label_values(&[stream]);
        self.restored_records.with_label_values(&[stream]);
        self.restore_seconds.with_label_values(&[stream]);
        for gauge in [&self.entries, &self.max_entries_passed, &self.bytes] {
            gauge.with_label_values(&[stream]);
        }
        StreamMetrics {
            stream,
            records: self.records.clone(),
            lag: self.lag.clone(),
            event_age: self.event_age.clone(),
            transactions: self.transactions.clone(),
            entries: self.entries.clone(),
            max_entries_passed: self.max_entries_passed.clone(),
            bytes: self.bytes.clone(),
            restore_seconds: self.restore_seconds.clone(),
            restored_records: self.restored_records.clone(),
            restored_before: AtomicU64::new(0),
            positions: Mutex::new(BTreeMap::new()),
            commands: None,
            upgrades: None,
        }
    }

    /// The same with what only commands have.
    pub fn commands(&self, stream: &'static str) -> StreamMetrics {
        let open = self.metrics.gauges(
            "commands_open",
            "Commands that are not executed yet, by how far they are.",
            &["status"],
        );
        let transitions = self.metrics.histograms(
            "command_transition_seconds",
            "How long commands took from one status to the next, by the platform's clock.",
            &["from", "to"],
            TRANSITION_SECONDS,
        );
        for status in ["sent", "delivered"] {
            open.with_label_values(&[status]);
        }
        let steps = [
            ("sent", "delivered"),
            ("delivered", "executed"),
            ("sent", "executed"),
        ];
        self.records.with_label_values(&[stream, "unknown_status"]);
        let overdue = self.metrics.gauge(
            "commands_overdue",
            "Open commands older than streams.command_status.overdue_after_s.",
        );
        let commands = CommandMetrics {
            open,
            overdue,
            transitions: steps.map(|step| (step, transitions.with_label_values(&[step.0, step.1]))),
            next_overdue_line: Mutex::new(Instant::now()),
        };
        StreamMetrics {
            commands: Some(commands),
            ..self.stream(stream)
        }
    }

    /// The same with what only upgrade results have.
    pub fn upgrades(&self, stream: &'static str) -> StreamMetrics {
        let upgrades = self.metrics.counters(
            "upgrades_total",
            "Attempts at an upgrade that were not seen before, by result.",
            &["result"],
        );
        let counter = |result| (result, upgrades.with_label_values(&[result]));
        StreamMetrics {
            upgrades: Some(["SUCCESS", "FAIL"].map(counter)),
            ..self.stream(stream)
        }
    }
}

impl StreamMetrics {
    /// A transaction was committed, with so many records of each kind.
    pub fn committed(&self, applied: usize, dead_lettered: usize) {
        self.transactions
            .with_label_values(&[self.stream, "committed"])
            .inc();
        for (result, count) in [("applied", applied), ("dead_lettered", dead_lettered)] {
            let counter = self.records.with_label_values(&[self.stream, result]);
            counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// A transaction was aborted.
    pub fn aborted(&self) {
        self.transactions
            .with_label_values(&[self.stream, "aborted"])
            .inc();
    }

    /// A committed confirmation was outside the three statuses.
    pub fn unknown_status(&self) {
        self.records
            .with_label_values(&[self.stream, "unknown_status"])
            .inc();
    }

    /// A step of a command of which both times are known now.
    pub fn transition(&self, from: &'static str, to: &'static str, seconds: f64) {
        let steps = self.commands.iter().flat_map(|known| &known.transitions);
        for (_, histogram) in steps.filter(|(step, _)| *step == (from, to)) {
            histogram.observe(seconds);
        }
    }

    /// An attempt at an upgrade that was not seen before.
    pub fn upgrade(&self, result: &'static str) {
        let counters = self.upgrades.iter().flatten();
        for (_, counter) in counters.filter(|(known, _)| *known == result) {
            counter.inc();
        }
    }

    /// The age of the record that was processed last.
    pub fn event_age(&self, age: Duration) {
        self.event_age
            .with_label_values(&[self.stream])
            .set(age.as_secs_f64());
    }

    /// A partition is processed up to `next`, and ends at `end`.
    pub fn progress(&self, partition: i32, next: i64, end: Option<i64>) {
        self.positions().insert(partition, next);
        if let Some(end) = end {
            self.end(partition, end);
        }
    }

    /// A partition ends at `end` now.
    pub fn end(&self, partition: i32, end: i64) {
        let Some(next) = self.positions().get(&partition).copied() else {
            return;
        };
        let labels = [self.stream, &partition.to_string()];
        self.lag.with_label_values(&labels).set((end - next).max(0));
    }

    /// A partition belongs to another instance now.
    pub fn forget(&self, partition: i32) {
        self.positions().remove(&partition);
        // It is there only once a lag was shown.
        let _ = self
            .lag
            .remove_label_values(&[self.stream, &partition.to_string()]);
    }

    /// So many records of a restore are read.
    pub fn restoring(&self, read: u64) {
        let before = self.restored_before.swap(read, Ordering::Relaxed);
        let counter = self.restored_records.with_label_values(&[self.stream]);
        counter.inc_by(read.checked_sub(before).unwrap_or(read));
    }

    /// A restore is complete.
    pub fn restored(&self, took: Duration) {
        self.restored_before.store(0, Ordering::Relaxed);
        self.restore_seconds
            .with_label_values(&[self.stream])
            .set(took.as_secs_f64());
    }

    /// The states in memory.
    pub fn state(&self, entries: usize, bytes: usize, max_entries: usize) {
        self.entries
            .with_label_values(&[self.stream])
            .set(signed(entries));
        self.bytes
            .with_label_values(&[self.stream])
            .set(signed(bytes));
        let gauge = self.max_entries_passed.with_label_values(&[self.stream]);
        let passed = i64::from(entries > max_entries);
        if passed > gauge.get() {
            tracing::warn!(
                stream = self.stream,
                entries,
                max_entries,
                "more states in memory than max_entries; nothing is dropped, but memory grows"
            );
        }
        gauge.set(passed);
    }

    /// The commands that are open, and those of them that are overdue.
    pub fn open(&self, sent: i64, delivered: i64, overdue: i64) {
        let Some(commands) = &self.commands else {
            return;
        };
        commands.open.with_label_values(&["sent"]).set(sent);
        commands
            .open
            .with_label_values(&["delivered"])
            .set(delivered);
        commands.overdue.set(overdue);
        let mut next = commands
            .next_overdue_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if overdue > 0 && Instant::now() >= *next {
            *next = Instant::now() + OVERDUE_LINE;
            tracing::warn!(
                stream = self.stream,
                commands = overdue,
                "commands are overdue"
            );
        }
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<i32, i64>> {
        self.positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the process is ready, by condition.
#[derive(Debug, Clone)]
pub struct ReadinessMetrics {
    /// 1 where the condition is met.
    pub conditions: IntGaugeVec,
}

impl ReadinessMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            conditions: metrics.gauges(
                "ready",
                "1 where the condition for being ready is met.",
                &["condition"],
            ),
        }
    }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("northbridge")
}
