//! What becomes of spans, in numbers.

use prometheus::IntCounter;

use crate::metrics::Metrics;

/// The metrics of the exporter, which are there without a collector too, at zero.
#[derive(Debug, Clone)]
pub(super) struct SpanMetrics {
    pub(super) exported: IntCounter,
    pub(super) dropped: IntCounter,
}

impl SpanMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        Self {
            exported: metrics.counter(
                "telemetry_spans_exported_total",
                "Spans that the collector has accepted.",
            ),
            dropped: metrics.counter(
                "telemetry_spans_dropped_total",
                "Spans dropped because the collector was away for too long, too slow, or rejected them.",
            ),
        }
    }
}
