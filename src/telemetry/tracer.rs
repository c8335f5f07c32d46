//! Decides which pushes are traced, and queues the spans that have ended.

use std::sync::Arc;

use prometheus::IntCounter;
use tokio::sync::mpsc;

use super::otlp;
use super::span::StartedSpan;
use super::traceparent::SpanContext;
use crate::config::Ratio;

/// The most spans that wait for the exporter: about 6 MB.
const QUEUE_SPANS: usize = 4_096;

/// Starts traces. Clones share one queue.
#[derive(Debug, Clone)]
pub(crate) struct Tracer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ratio: Ratio,
    queue: mpsc::Sender<otlp::Span>,
    dropped: IntCounter,
}

impl Tracer {
    /// `dropped` counts the spans for which the queue has no room.
    pub(super) fn new(ratio: Ratio, dropped: IntCounter) -> (Self, mpsc::Receiver<otlp::Span>) {
        let (queue, spans) = mpsc::channel(QUEUE_SPANS);
        let inner = Inner {
            ratio,
            queue,
            dropped,
        };
        (Self(Arc::new(inner)), spans)
    }

    /// Continues the trace of a request with this `traceparent`, or starts one. `None`
    /// if it is not sampled: a valid `traceparent` decides, otherwise the ratio does.
    pub(crate) fn continue_trace(&self, traceparent: Option<&[u8]>) -> Option<StartedSpan> {
        match traceparent.and_then(SpanContext::parse) {
            Some(parent) => parent
                .is_sampled()
                .then(|| StartedSpan::child_of(&parent, self.clone())),
            None => self.is_selected().then(|| self.start_trace()),
        }
    }

    /// Starts a trace that is sampled.
    pub(crate) fn start_trace(&self) -> StartedSpan {
        StartedSpan::root(self.clone())
    }

    fn is_selected(&self) -> bool {
        // Never 1, so that a ratio of 1 selects all.
        fastrand::f64() < self.0.ratio.get()
    }

    pub(super) fn export(&self, span: otlp::Span) {
        if self.0.queue.try_send(span).is_err() {
            self.0.dropped.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-";

    fn tracer(ratio: f64) -> (Tracer, mpsc::Receiver<otlp::Span>, IntCounter) {
        let dropped = IntCounter::new("dropped", "Dropped.").unwrap();
        let (tracer, spans) = Tracer::new(Ratio::try_from(ratio).unwrap(), dropped.clone());
        (tracer, spans, dropped)
    }

    #[test]
    fn the_request_decides_before_the_ratio_does() {
        let (never, ..) = tracer(0.0);
        let (always, ..) = tracer(1.0);
        let sampled = format!("{PARENT}01");
        let unsampled = format!("{PARENT}00");
        for tracer in [&never, &always] {
            let continued = tracer.continue_trace(Some(sampled.as_bytes()));
            assert!(continued.is_some());
            let continued = tracer.continue_trace(Some(unsampled.as_bytes()));
            assert!(continued.is_none());
        }
        for unreadable in [None, Some(&b"00-1-2-01"[..])] {
            assert!(never.continue_trace(unreadable).is_none());
            assert!(always.continue_trace(unreadable).is_some());
        }
    }

    #[test]
    fn the_ratio_is_the_share_of_new_traces() {
        let (tracer, ..) = tracer(0.25);
        let sampled = (0..10_000).filter(|_| tracer.continue_trace(None).is_some());
        let sampled = sampled.count();
        assert!((2_200..2_800).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_span_is_dropped_and_counted_if_the_queue_is_full() {
        let (tracer, spans, dropped) = tracer(1.0);
        for _ in 0..QUEUE_SPANS + 3 {
            tracer.export(otlp::Span::default());
        }
        assert_eq!(spans.len(), QUEUE_SPANS);
        assert_eq!(dropped.get(), 3);
    }
}
