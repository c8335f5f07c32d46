//! The metrics registry of a process, and how a metric is defined.
//!
//! Knows no component: each defines its own metrics beside its code, registers
//! them at start-up, and so shows them at zero from the first scrape. Label
//! sets are closed: never a device id, a request id, a path or free text.

use prometheus::proto::MetricFamily;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Latency buckets in seconds: fine-grained where a healthy cluster answers,
/// with bounds at the default push deadline (13 s) and the platform's timeout
/// (15 s).
const LATENCY_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 13.0, 15.0,
];

/// The registry of one process. Clones share it.
///
/// Every name gets the prefix `northbridge_`. A metric that is defined wrongly
/// or twice is a bug, and panics at start-up.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// Returns a registry that already holds `process_*` and `build_info`.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::new(),
        };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        metrics.add(Box::new(process));
        let build = metrics.gauges(
            "build_info",
            "Always 1; the labels identify the build.",
            &["version", "revision"],
        );
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), revision()])
            .set(1);
        metrics
    }

    /// Returns the present values of all metrics.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// Renders all metrics in Prometheus's text format, version 0.0.4.
    pub(crate) fn render(&self) -> String {
        let mut text = Vec::with_capacity(16 * 1024);
        // Encoding into memory fails only for a family without samples; `gather` omits those.
        let _cannot_fail = TextEncoder::new().encode(&self.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add_new(IntCounter::with_opts(opts(name, help)))
    }

    pub(crate) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add_new(IntCounterVec::new(opts(name, help), labels))
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add_new(IntGauge::with_opts(opts(name, help)))
    }

    pub(crate) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add_new(IntGaugeVec::new(opts(name, help), labels))
    }

    pub(crate) fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add_new(Gauge::with_opts(opts(name, help)))
    }

    pub(crate) fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.add_new(GaugeVec::new(opts(name, help), labels))
    }

    pub(crate) fn latencies(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.histograms(name, help, labels, LATENCY_SECONDS)
    }

    pub(crate) fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> HistogramVec {
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

/// Converts a count to a gauge's type; saturates at `i64::MAX`.
pub(crate) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The commit that the program was built from, if the build knew it.
pub(crate) fn revision() -> &'static str {
    option_env!("NORTHBRIDGE_REVISION").unwrap_or("unknown")
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("northbridge")
}
