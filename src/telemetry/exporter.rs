//! Empties the queue of spans into the collector, in batches.
//!
//! While the collector is away, one batch is kept and sent again, and the queue fills;
//! spans for which it has no room are dropped and counted. Nothing waits for it.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, ExportError};
use super::metrics::SpanMetrics;
use super::otlp::{ExportTraceServiceRequest, Resource, ResourceSpans, Scope, ScopeSpans, Span};

/// The most spans of a request; OpenTelemetry's own default.
const BATCH_SPANS: usize = 512;
/// How long a batch waits for more spans after its first one.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// The pause before a batch is sent again.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The version of the semantic conventions that the names of attributes are from.
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.42.0";

/// The task that sends what the tracer has put into the queue.
pub(super) struct Exporter {
    queue: mpsc::Receiver<Span>,
    collector: Collector,
    resource: Resource,
    metrics: SpanMetrics,
    /// Cancelled when the process ends: what is in the queue is sent, and nothing is
    /// tried twice.
    closing: CancellationToken,
    /// Whether the last batch was not taken, which has been logged.
    is_failing: bool,
}

impl Exporter {
    pub(super) fn new(
        queue: mpsc::Receiver<Span>,
        collector: Collector,
        resource: Resource,
        metrics: SpanMetrics,
        closing: CancellationToken,
    ) -> Self {
        Self {
            queue,
            collector,
            resource,
            metrics,
            closing,
            is_failing: false,
        }
    }

    /// Runs until it is closed and the queue is empty.
    pub(super) async fn run(mut self) {
        loop {
            let batch = self.next_batch().await;
            if batch.is_empty() {
                return;
            }
            self.deliver(batch).await;
        }
    }

    /// Waits for spans. Returns none if it is closed and the queue is empty.
    async fn next_batch(&mut self) -> Vec<Span> {
        let mut batch = Vec::with_capacity(BATCH_SPANS);
        self.fill(&mut batch).await;
        let deadline = Instant::now() + BATCH_WAIT;
        while !batch.is_empty() && batch.len() < BATCH_SPANS {
            let before = batch.len();
            tokio::select! {
                () = self.fill(&mut batch) => {}
                () = sleep_until(deadline) => break,
            }
            if batch.len() == before {
                break;
            }
        }
        batch
    }

    /// Adds at least one span, or none if it is closed and the queue is empty.
    async fn fill(&mut self, batch: &mut Vec<Span>) {
        let room = BATCH_SPANS - batch.len();
        tokio::select! {
            biased;
            () = self.closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
            _ = self.queue.recv_many(batch, room) => return,
        }
        self.queue.recv_many(batch, room).await;
    }

    /// Sends a batch until the collector takes it, rejects it, or the process ends.
    async fn deliver(&mut self, batch: Vec<Span>) {
        let spans = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let request = self.request(batch);
        loop {
            match self.collector.export(request.clone()).await {
                Ok(rejected) => {
                    self.log_recovery();
                    let rejected = rejected.min(spans);
                    self.metrics.dropped.inc_by(rejected);
                    self.metrics.exported.inc_by(spans - rejected);
                    return;
                }
                Err(error) => {
                    self.log_failure(&error);
                    if !error.is_retriable() || self.closing.is_cancelled() {
                        self.metrics.dropped.inc_by(spans);
                        return;
                    }
                    tokio::select! {
                        () = sleep(RETRY_PAUSE) => {}
                        () = self.closing.cancelled() => {}
                    }
                }
            }
        }
    }

    fn request(&self, spans: Vec<Span>) -> Bytes {
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(Scope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                    }),
                    spans,
                    schema_url: SCHEMA.to_owned(),
                }],
                schema_url: SCHEMA.to_owned(),
            }],
        };
        request.encode_to_vec().into()
    }

    fn log_failure(&mut self, error: &ExportError) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let message = if error.is_retriable() {
                "cannot send traces to the collector; retrying, and dropping spans if the queue is full"
            } else {
                "collector rejects traces; dropping them"
            };
            tracing::warn!(%error, "{message}");
        }
    }

    fn log_recovery(&mut self) {
        if std::mem::replace(&mut self.is_failing, false) {
            let dropped = self.metrics.dropped.get();
            tracing::info!(dropped, "collector accepts traces again");
        }
    }
}
