//! What the ingress counts: pushes, connections and responses.

use std::time::Duration;

use hyper::StatusCode;
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::auth::Denied;
use crate::metrics::{Metrics, signed};
use crate::notification::{Cause, Field, NotifyType};

/// How a push ended: the label `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Acknowledged by Kafka in its own topic.
    Stored,
    /// On this host's disk, to be delivered to Kafka later.
    Spooled,
    /// Acknowledged by Kafka in the dead-letter topic.
    DeadLettered,
    /// Refused because of the request itself: credentials, size, encoding, an
    /// empty, unreadable or late body.
    Rejected,
    /// Refused because a limit of what is in flight was reached.
    Overloaded,
    /// Kafka is known to be down, or a broker rejected the record permanently.
    Unavailable,
    /// Not acknowledged before the answer deadline; it may still be stored.
    Unconfirmed,
    /// Refused, or no longer waited for, because the process was shutting down.
    Draining,
    /// The client disconnected before the end of its body.
    Disconnected,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Stored,
        Self::Spooled,
        Self::DeadLettered,
        Self::Rejected,
        Self::Overloaded,
        Self::Unavailable,
        Self::Unconfirmed,
        Self::Draining,
        Self::Disconnected,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Spooled => "spooled",
            Self::DeadLettered => "dead_lettered",
            Self::Rejected => "rejected",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Unconfirmed => "unconfirmed",
            Self::Draining => "draining",
            Self::Disconnected => "disconnected",
        }
    }

    /// Returns whether the push is answered 200.
    pub(crate) const fn is_success(self) -> bool {
        match self {
            Self::Stored | Self::Spooled | Self::DeadLettered => true,
            Self::Rejected
            | Self::Overloaded
            | Self::Unavailable
            | Self::Unconfirmed
            | Self::Draining
            | Self::Disconnected => false,
        }
    }

    /// The position in [`Outcome::ALL`].
    #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
    const fn index(self) -> usize {
        self as usize
    }
}

/// What the ingress counts of pushes.
///
/// Invariant: the pushes received are those in flight plus the sum over all
/// outcomes.
#[derive(Debug)]
pub(crate) struct PushMetrics {
    received: IntCounter,
    in_flight: IntGauge,
    /// By [`NotifyType::index`] and [`Outcome::index`].
    outcomes: Vec<[IntCounter; Outcome::ALL.len()]>,
    /// By [`Outcome::index`].
    durations: [Histogram; Outcome::ALL.len()],
    dead_letters: IntCounterVec,
    drift: IntCounterVec,
    in_flight_bytes: IntGauge,
    consecutive_failures: IntGauge,
    refused_by_gate: [IntCounter; Denied::ALL.len()],
    max_in_flight: IntGauge,
    max_in_flight_bytes: IntGauge,
}

impl PushMetrics {
    /// Without a spool there is no sample of that outcome.
    pub(crate) fn register(metrics: &Metrics, has_spool: bool) -> Self {
        let outcomes = metrics.counters(
            "pushes_total",
            "Pushes whose outcome is known, by outcome and type.",
            &["outcome", "notify_type"],
        );
        let durations = metrics.latencies(
            "push_duration_seconds",
            "Time from the end of a push's request head until its outcome was known.",
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
        let refused_by_gate = metrics.counters(
            "gate_refusals_total",
            "Pushes refused because of their credentials or their address, by reason.",
            &["reason"],
        );
        let by_type = |notify_type: &NotifyType| {
            Outcome::ALL
                .map(|outcome| outcomes.with_label_values(&[outcome.label(), notify_type.label()]))
        };
        let by_outcome = NotifyType::ALL.iter().map(by_type).collect();
        let took = Outcome::ALL.map(|outcome| durations.with_label_values(&[outcome.label()]));
        if !has_spool {
            // What is counted there is not shown any more.
            let spooled = Outcome::Spooled.label();
            for notify_type in NotifyType::ALL {
                let _ = outcomes.remove_label_values(&[spooled, notify_type.label()]);
            }
            let _ = durations.remove_label_values(&[spooled]);
        }
        Self {
            refused_by_gate: Denied::ALL
                .map(|denied| refused_by_gate.with_label_values(&[denied.label()])),
            received: metrics.counter(
                "pushes_received_total",
                "Pushes received: POST requests to a configured path.",
            ),
            in_flight: metrics.gauge(
                "pushes_in_flight",
                "Pushes received whose outcome is still pending.",
            ),
            outcomes: by_outcome,
            durations: took,
            dead_letters,
            drift: metrics.counters(
                "payload_drift_total",
                "Fields of stored pushes that do not match the published tables.",
                &["notify_type", "field"],
            ),
            in_flight_bytes: metrics.gauge(
                "in_flight_bytes",
                "Bytes reserved for bodies that are being read or not yet settled by Kafka.",
            ),
            consecutive_failures: metrics.gauge(
                "consecutive_failed_pushes",
                "Authorized pushes not answered 200 since the last one that was stored.",
            ),
            max_in_flight: metrics.gauge(
                "max_pushes_in_flight",
                "Limit of pushes in flight (limits.max_in_flight).",
            ),
            max_in_flight_bytes: metrics.gauge(
                "max_in_flight_bytes",
                "Limit of bytes reserved for bodies (limits.max_in_flight_bytes).",
            ),
        }
    }

    pub(crate) fn set_limits(&self, max_in_flight: usize, max_in_flight_bytes: usize) {
        self.max_in_flight.set(signed(max_in_flight));
        self.max_in_flight_bytes.set(signed(max_in_flight_bytes));
    }

    pub(crate) fn received(&self) {
        self.received.inc();
        self.in_flight.inc();
    }

    /// To be called for each push that the gate refuses, besides
    /// [`PushMetrics::finished`].
    pub(crate) fn refused_by_gate(&self, denied: Denied) {
        self.refused_by_gate[denied.index()].inc();
    }

    /// To be called exactly once for each push received. A stranger must neither raise
    /// nor hide an alert: only pushes that the gate has let pass count as failed, and a
    /// dead letter, which may be anybody's junk, does not end a row of failures.
    pub(crate) fn finished(
        &self,
        outcome: Outcome,
        notify_type: NotifyType,
        took: Duration,
        is_authorized: bool,
    ) {
        if let Some(outcomes) = self.outcomes.get(notify_type.index()) {
            outcomes[outcome.index()].inc();
        }
        self.durations[outcome.index()].observe(took.as_secs_f64());
        // The platform stops pushing after ten consecutive failures, so their
        // number matters more than their rate.
        if matches!(outcome, Outcome::Stored | Outcome::Spooled) {
            self.consecutive_failures.set(0);
        } else if is_authorized && !outcome.is_success() {
            self.consecutive_failures.inc();
        }
        self.in_flight.dec();
    }

    /// `reason` is one of [`Cause::REASONS`].
    pub(crate) fn dead_lettered(&self, reason: &'static str) {
        self.dead_letters.with_label_values(&[reason]).inc();
    }

    pub(crate) fn drifted(&self, notify_type: NotifyType, field: Field) {
        self.drift
            .with_label_values(&[notify_type.label(), field.label()])
            .inc();
    }

    pub(crate) fn bytes_reserved(&self, bytes: usize) {
        self.in_flight_bytes.add(signed(bytes));
    }

    pub(crate) fn bytes_released(&self, bytes: usize) {
        self.in_flight_bytes.sub(signed(bytes));
    }
}

#[cfg(fuzzing)]
impl PushMetrics {
    /// Returns whether every push received has one outcome, and holds nothing any more.
    pub(crate) fn are_balanced(&self) -> bool {
        let settled: u64 = self.outcomes.iter().flatten().map(IntCounter::get).sum();
        let pending = self.in_flight.get() + self.in_flight_bytes.get();
        settled == self.received.get() && pending == 0
    }
}

/// Why a connection was closed: the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client closed it, or HTTP ended it after an answer.
    Done,
    /// It failed, or the client broke HTTP.
    Error,
    /// A request's head did not arrive in time.
    HeadTimeout,
    /// No request arrived for the keep-alive timeout.
    KeepAlive,
    /// The client stopped reading.
    WriteStalled,
    /// The TLS handshake failed or timed out.
    Handshake,
    /// A trusted proxy sent no usable PROXY header in time.
    ProxyHeader,
    /// The process is shutting down.
    Drained,
    /// The client's address is not allowed.
    Forbidden,
    /// The gate refused a request.
    Refused,
    /// No authorized push arrived in time.
    NoPush,
    /// Another connection needed the place of this stranger.
    Evicted,
    /// The address had as many connections as one may have.
    AddressLimit,
}

impl CloseReason {
    const ALL: [Self; 13] = [
        Self::Done,
        Self::Error,
        Self::HeadTimeout,
        Self::KeepAlive,
        Self::WriteStalled,
        Self::Handshake,
        Self::ProxyHeader,
        Self::Drained,
        Self::Forbidden,
        Self::Refused,
        Self::NoPush,
        Self::Evicted,
        Self::AddressLimit,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Error => "error",
            Self::HeadTimeout => "head-timeout",
            Self::KeepAlive => "keep-alive",
            Self::WriteStalled => "write-stalled",
            Self::Handshake => "handshake",
            Self::ProxyHeader => "proxy-header",
            Self::Drained => "drained",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::NoPush => "no-push",
            Self::Evicted => "evicted",
            Self::AddressLimit => "address-limit",
        }
    }

    /// The position in [`CloseReason::ALL`].
    #[expect(clippy::as_conversions, reason = "the only way to an enum's number")]
    const fn index(self) -> usize {
        self as usize
    }
}

/// What the listener counts of connections and responses.
#[derive(Debug)]
pub(crate) struct ServerMetrics {
    pub(crate) connections: IntGauge,
    max_connections: IntGauge,
    /// By [`CloseReason::index`].
    closed: [IntCounter; CloseReason::ALL.len()],
    responses: IntCounterVec,
    /// The counters of [`ServerMetrics::STATUSES`], looked up once.
    responses_by_status: [(StatusCode, IntCounter); ServerMetrics::STATUSES.len()],
    /// As a Unix time; 0 without TLS.
    pub(crate) certificate_not_after: IntGauge,
    pub(crate) certificate_reload_failures: IntCounter,
}

impl ServerMetrics {
    /// Every status that the listener answers with.
    const STATUSES: [StatusCode; 12] = [
        StatusCode::OK,
        StatusCode::BAD_REQUEST,
        StatusCode::UNAUTHORIZED,
        StatusCode::FORBIDDEN,
        StatusCode::NOT_FOUND,
        StatusCode::METHOD_NOT_ALLOWED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::PAYLOAD_TOO_LARGE,
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        StatusCode::NOT_IMPLEMENTED,
        StatusCode::SERVICE_UNAVAILABLE,
    ];

    pub(crate) fn register(metrics: &Metrics) -> Self {
        let closed = metrics.counters(
            "connections_closed_total",
            "Connections closed, by reason.",
            &["reason"],
        );
        let responses = metrics.counters(
            "http_responses_total",
            "Responses on the listener's port, by status code.",
            &["code"],
        );
        Self {
            connections: metrics.gauge("connections", "Open connections."),
            max_connections: metrics.gauge(
                "max_connections",
                "Limit of open connections (limits.max_connections).",
            ),
            closed: CloseReason::ALL.map(|reason| closed.with_label_values(&[reason.label()])),
            responses_by_status: Self::STATUSES
                .map(|status| (status, responses.with_label_values(&[status.as_str()]))),
            responses,
            certificate_not_after: metrics.gauge(
                "tls_certificate_not_after_timestamp_seconds",
                "When the served certificate expires, as a Unix time; 0 without TLS.",
            ),
            certificate_reload_failures: metrics.counter(
                "tls_certificate_reload_failures_total",
                "Changed certificate files that could not be loaded; the previous ones stay in use.",
            ),
        }
    }

    pub(crate) fn set_limit(&self, max_connections: usize) {
        self.max_connections.set(signed(max_connections));
    }

    pub(crate) fn closed(&self, reason: CloseReason) {
        self.closed[reason.index()].inc();
    }

    pub(crate) fn responded(&self, status: StatusCode) {
        let mut known = self.responses_by_status.iter();
        match known.find(|(known, _)| *known == status) {
            Some((_, counter)) => counter.inc(),
            None => self.responses.with_label_values(&[status.as_str()]).inc(),
        }
    }
}
