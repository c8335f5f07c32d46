//! What the spool counts.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use crate::metrics::Metrics;

/// Buckets in seconds: a disk that syncs in its cache, and one that is in trouble.
const WRITE_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// The metrics of the spool, which exist if one is set.
#[derive(Debug, Clone)]
pub(super) struct SpoolMetrics {
    pub(super) records: IntGauge,
    pub(super) bytes: IntGauge,
    pub(super) max_bytes: IntGauge,
    pub(super) oldest_age_seconds: Gauge,
    pub(super) written: IntCounter,
    pub(super) delivered: IntCounter,
    pub(super) damaged: IntCounter,
    pub(super) write_seconds: Histogram,
}

impl SpoolMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let write_seconds = metrics.histograms(
            "spool_write_seconds",
            "Time of one write and its sync, which pushes share.",
            &[],
            WRITE_SECONDS,
        );
        Self {
            records: metrics.gauge("spool_records", "Pushes in the spool."),
            bytes: metrics.gauge("spool_bytes", "Bytes of the spool's files of pushes."),
            max_bytes: metrics.gauge(
                "spool_max_bytes",
                "Limit of the bytes in the spool (spool.max_bytes).",
            ),
            oldest_age_seconds: metrics.float_gauge(
                "spool_oldest_age_seconds",
                "Age of the oldest push in the spool; 0 if it is empty.",
            ),
            written: metrics.counter("spool_written_total", "Pushes written to the spool."),
            delivered: metrics.counter(
                "spool_delivered_total",
                "Pushes of the spool that Kafka has acknowledged.",
            ),
            damaged: metrics.counter(
                "spool_damaged_total",
                "Places of the spool that were damaged, and pushes in it that Kafka rejected; each was set aside.",
            ),
            write_seconds: write_seconds.with_label_values::<&str>(&[]),
        }
    }
}
