//! Traces: which pushes have one, and the spans that are sent to a collector.
//!
//! Knows no component: the ingress and the streams describe their spans in a file of
//! their own, beside their code. A span that has ended is put into a bounded queue, which
//! a task empties, and is dropped if the queue is full: no component ever waits.
//!
//! ```text
//! Tracer ─ StartedSpan ─ end ─▶ queue ─▶ Exporter ─▶ Collector ─▶ OTLP/HTTP
//! ```

mod collector;
mod exporter;
mod metrics;
mod otlp;
mod resource;
mod span;
pub(crate) mod traceparent;
mod tracer;

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::metrics::Metrics;
use collector::Collector;
use exporter::Exporter;
use metrics::SpanMetrics;
pub(crate) use span::{Attribute, EndedSpan, Link, MAX_LINKS, SpanKind, StartedSpan};
pub(crate) use tracer::Tracer;

/// How long a process that ends waits until its last spans are sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The traces of a process. Without `telemetry.otlp_endpoint` there are none.
#[derive(Debug)]
pub(crate) struct Telemetry(Option<Running>);

#[derive(Debug)]
struct Running {
    tracer: Tracer,
    closing: CancellationToken,
    exporter: JoinHandle<()>,
}

impl Telemetry {
    /// Starts to send spans if the settings name a collector, which need not be
    /// reachable. `process` is the name of the command.
    ///
    /// # Errors
    ///
    /// Returns an error if the collector's certificate could not be verified.
    pub(crate) fn start(
        settings: &Settings,
        process: &str,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let metrics = SpanMetrics::register(metrics);
        let telemetry = &settings.telemetry;
        let Some(endpoint) = &telemetry.otlp_endpoint else {
            return Ok(Self(None));
        };
        let collector = Collector::new(endpoint, &telemetry.headers)?;
        let (tracer, queue) = Tracer::new(telemetry.sampling_ratio, metrics.dropped.clone());
        let closing = CancellationToken::new();
        let resource = resource::of_process(process);
        let exporter = Exporter::new(queue, collector, resource, metrics, closing.clone());
        tracing::info!(
            endpoint = endpoint.as_str(),
            sampling_ratio = telemetry.sampling_ratio.get(),
            "sending traces"
        );
        Ok(Self(Some(Running {
            tracer,
            closing,
            // Not vital: a process that only fails to trace goes on.
            exporter: tokio::spawn(exporter.run()),
        })))
    }

    /// `None` if nothing is traced.
    pub(crate) fn tracer(&self) -> Option<Tracer> {
        self.0.as_ref().map(|running| running.tracer.clone())
    }

    /// Sends the spans that have ended, for at most a second, and never beyond
    /// `deadline`. Those that end later are dropped.
    pub(crate) async fn stop(self, deadline: Instant) {
        let Some(mut running) = self.0 else {
            return;
        };
        running.closing.cancel();
        let end = deadline.min(Instant::now() + FLUSH_TIMEOUT);
        let flushed = tokio::time::timeout_at(end.into(), &mut running.exporter).await;
        if flushed.is_err() {
            running.exporter.abort();
            tracing::warn!("the collector did not take the last spans in time; dropping them");
        }
    }
}

/// Checks whether the settings can be used. Connects to nothing.
///
/// # Errors
///
/// Returns an error if the collector's certificate could not be verified.
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    let telemetry = &settings.telemetry;
    if let Some(endpoint) = &telemetry.otlp_endpoint {
        Collector::new(endpoint, &telemetry.headers)?;
    }
    Ok(())
}
