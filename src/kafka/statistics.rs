//! librdkafka's own statistics as metrics.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus::IntCounter;
use rdkafka::Statistics;

use crate::metrics::KafkaClientMetrics;

/// One client's statistics. librdkafka counts from the client's start, so each
/// client has its own: what a successor counts is added to what was there.
#[derive(Debug)]
pub(super) struct ClientStatistics {
    client: &'static str,
    metrics: KafkaClientMetrics,
    seen: Mutex<HashMap<(i32, Count), u64>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Count {
    Sent,
    Requests,
    Errors,
    Retries,
    Timeouts,
}

/// librdkafka's number for brokers it knows only as bootstrap addresses.
const NO_NODE: i32 = -1;

impl ClientStatistics {
    pub(super) fn new(client: &'static str, metrics: KafkaClientMetrics) -> Self {
        Self {
            client,
            metrics,
            seen: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn record(&self, statistics: &Statistics) {
        let client = [self.client];
        let metrics = &self.metrics;
        metrics
            .queue_messages
            .with_label_values(&client)
            .set(signed(statistics.msg_cnt));
        metrics
            .queue_bytes
            .with_label_values(&client)
            .set(signed(statistics.msg_size));
        let sent = u64::try_from(statistics.txmsgs).unwrap_or(0);
        self.add(
            &metrics.sent_messages.with_label_values(&client),
            NO_NODE,
            Count::Sent,
            sent,
        );
        self.record_brokers(statistics);
        for topic in statistics.topics.values() {
            metrics
                .batch_records
                .with_label_values(&[self.client, &topic.topic])
                .set(count(topic.batchcnt.avg));
        }
    }

    fn record_brokers(&self, statistics: &Statistics) {
        let metrics = &self.metrics;
        let mut connected = 0;
        for broker in statistics.brokers.values() {
            if broker.nodeid == NO_NODE {
                continue;
            }
            connected += i64::from(broker.state == "UP");
            let node = broker.nodeid.to_string();
            let labels = [self.client, node.as_str()];
            for (counters, count, total) in [
                (&metrics.requests, Count::Requests, broker.tx),
                (&metrics.request_errors, Count::Errors, broker.txerrs),
                (&metrics.request_retries, Count::Retries, broker.txretries),
                (
                    &metrics.request_timeouts,
                    Count::Timeouts,
                    broker.req_timeouts,
                ),
            ] {
                self.add(
                    &counters.with_label_values(&labels),
                    broker.nodeid,
                    count,
                    total,
                );
            }
            if let Some(round_trip) = &broker.rtt {
                for (percentile, micros) in [("50", round_trip.p50), ("99", round_trip.p99)] {
                    metrics
                        .round_trip_seconds
                        .with_label_values(&[self.client, &node, percentile])
                        .set(count(micros) / 1e6);
                }
            }
        }
        metrics
            .brokers_connected
            .with_label_values(&[self.client])
            .set(connected);
    }

    fn add(&self, counter: &IntCounter, node: i32, count: Count, total: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.insert((node, count), total).unwrap_or(0);
        counter.inc_by(total.saturating_sub(before));
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "micros and counts are far below 2^53"
)]
fn count(value: i64) -> f64 {
    value as f64
}
