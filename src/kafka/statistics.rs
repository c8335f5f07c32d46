//! librdkafka's statistics as metrics. `STATISTICS.md` of librdkafka defines
//! their fields.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::Statistics;
use rdkafka::statistics::Broker;

use super::metrics::{BrokerMetrics, KafkaClientMetrics, Total};

/// librdkafka's number for a broker it knows only as a bootstrap address.
const UNKNOWN_NODE: i32 = -1;

/// Reports the statistics of one librdkafka handle, whose totals it follows:
/// each handle needs its own.
#[derive(Debug)]
pub(super) struct ClientStatistics {
    metrics: KafkaClientMetrics,
    reported: Mutex<Reported>,
}

#[derive(Debug)]
struct Reported {
    sent_messages: Total,
    brokers: HashMap<i32, BrokerMetrics>,
}

impl ClientStatistics {
    pub(super) fn new(metrics: KafkaClientMetrics) -> Self {
        let reported = Mutex::new(Reported {
            sent_messages: Total::new(metrics.sent_messages.clone()),
            brokers: HashMap::new(),
        });
        Self { metrics, reported }
    }

    pub(super) fn record(&self, statistics: &Statistics) {
        let metrics = &self.metrics;
        metrics.queue_messages.set(signed(statistics.msg_cnt));
        metrics.queue_bytes.set(signed(statistics.msg_size));
        let sent = u64::try_from(statistics.txmsgs).unwrap_or(0);
        self.reported().sent_messages.advance_to(sent);
        for topic in statistics.topics.values() {
            let mean = float(topic.batchcnt.avg);
            metrics.batch_records(&topic.topic).set(mean);
        }
        self.record_brokers(statistics);
    }

    fn record_brokers(&self, statistics: &Statistics) {
        let mut reported = self.reported();
        let mut connected = 0;
        for broker in statistics.brokers.values() {
            if broker.nodeid == UNKNOWN_NODE {
                continue;
            }
            connected += i64::from(broker.state == "UP");
            let metrics = reported
                .brokers
                .entry(broker.nodeid)
                .or_insert_with(|| self.metrics.broker(broker.nodeid));
            record_broker(metrics, broker);
        }
        self.metrics.brokers_connected.set(connected);
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_broker(metrics: &mut BrokerMetrics, broker: &Broker) {
    metrics.requests.advance_to(broker.tx);
    metrics.errors.advance_to(broker.txerrs);
    metrics.retries.advance_to(broker.txretries);
    metrics.timeouts.advance_to(broker.req_timeouts);
    if let Some(round_trip) = &broker.rtt {
        metrics.round_trip_p50.set(float(round_trip.p50) / 1e6);
        metrics.round_trip_p99.set(float(round_trip.p99) / 1e6);
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(
    clippy::as_conversions,
    clippy::cast_precision_loss,
    reason = "microseconds and counts are far below 2^53"
)]
fn float(value: i64) -> f64 {
    value as f64
}
