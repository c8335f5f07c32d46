//! The status page: what a person wants to know about this process at one look.
//!
//! `GET /` answers with a page, which is always the same and contains no data, and to
//! `Accept: application/json` with the data that the page shows. That comes from the
//! registry that `/metrics` shows and from the readiness that `/readyz` shows, so they
//! cannot disagree.

mod history;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::Utc;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderValue, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::Value;
use tokio::task::block_in_place;
use tokio::time::{MissedTickBehavior, interval};

use super::admin::{AdminServer, respond};
use super::last_errors::LastError;
use super::readiness::Report;
use super::sample::{Family, sample};
use crate::config::Settings;
use crate::metrics;
use history::{History, INTERVAL};

const HTML: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// What the page shows of the registry. A process has those of the parts that it runs.
const FAMILIES: &[Family] = &[
    Family("northbridge_pushes_received_total", &[]),
    Family("northbridge_pushes_total", &["outcome"]),
    Family("northbridge_push_duration_seconds", &["outcome"]),
    Family("northbridge_http_responses_total", &["code"]),
    Family("northbridge_pushes_in_flight", &[]),
    Family("northbridge_consecutive_failed_pushes", &[]),
    Family("northbridge_connections", &[]),
    Family("northbridge_dead_letters_total", &["reason"]),
    Family("northbridge_kafka_outage_seconds", &[]),
    Family("northbridge_kafka_brokers_connected", &["client"]),
    Family("northbridge_kafka_errors_total", &["client"]),
    Family("northbridge_produce_failures_total", &[]),
    Family("northbridge_topic_findings", &["severity"]),
    Family("northbridge_spool_records", &[]),
    Family("northbridge_spool_bytes", &[]),
    Family("northbridge_spool_max_bytes", &[]),
    Family("northbridge_spool_oldest_age_seconds", &[]),
    Family("northbridge_spool_written_total", &[]),
    Family("northbridge_spool_delivered_total", &[]),
    Family("northbridge_spool_damaged_total", &[]),
    Family("northbridge_stream_lag_records", &["stream"]),
    Family("northbridge_stream_event_age_seconds", &["stream"]),
    Family("northbridge_stream_records_total", &["result", "stream"]),
    Family(
        "northbridge_stream_transactions_total",
        &["result", "stream"],
    ),
    Family("northbridge_stream_state_entries", &["stream"]),
    Family("northbridge_commands_open", &["status"]),
    Family("northbridge_commands_overdue", &[]),
    Family("northbridge_upgrades_total", &["result"]),
    Family("process_start_time_seconds", &[]),
    Family("process_resident_memory_bytes", &[]),
];

/// The settings that every process shows, before its own.
const SETTINGS: &[&str] = &[
    "kafka.bootstrap_servers",
    "kafka.options.security.protocol",
    "topics.prefix",
    "log.level",
    "shutdown.deadline_ms",
];

/// The page of one process.
#[derive(Debug)]
pub(super) struct StatusPage {
    process: &'static str,
    settings: BTreeMap<String, Value>,
    reported: AdminServer,
    history: Mutex<History>,
    html: Bytes,
    policy: HeaderValue,
}

/// What the page shows, as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    process: &'static str,
    version: &'static str,
    revision: &'static str,
    readiness: Report,
    /// By client.
    last_errors: BTreeMap<&'static str, LastError>,
    /// As of the start of the process.
    settings: &'a BTreeMap<String, Value>,
    /// Its last sample is as of this answer.
    history: History,
}

impl StatusPage {
    /// `shown` are keys of `settings`.
    pub(super) fn new(
        reported: AdminServer,
        process: &'static str,
        settings: &Settings,
        shown: &[&str],
    ) -> Self {
        let html = HTML
            .replace("<style></style>", &format!("<style>{STYLE}</style>"))
            .replace("<script></script>", &format!("<script>{SCRIPT}</script>"));
        Self {
            process,
            settings: settings.values_of(SETTINGS.iter().chain(shown)),
            reported,
            history: Mutex::default(),
            html: html.into(),
            policy: policy(),
        }
    }

    /// Samples the registry until the process ends.
    pub(super) async fn sample(&self) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The metrics of the process are read from files.
            let sample = block_in_place(|| sample(&self.reported.metrics, FAMILIES));
            let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            history.record(Utc::now(), sample);
        }
    }

    pub(super) fn answer(&self, request: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = if wants_json(request) {
            let body = serde_json::to_string(&self.status()).unwrap_or_default();
            respond(StatusCode::OK, "application/json", body)
        } else {
            respond(
                StatusCode::OK,
                "text/html; charset=utf-8",
                self.html.clone(),
            )
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [
            (VARY, "Accept"),
            (CACHE_CONTROL, "no-store"),
            (X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }

    fn status(&self) -> Status<'_> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let mut history = history.clone();
        history.record(Utc::now(), sample(&self.reported.metrics, FAMILIES));
        Status {
            process: self.process,
            version: env!("CARGO_PKG_VERSION"),
            revision: metrics::revision(),
            readiness: self.reported.readiness.report(),
            last_errors: self.reported.last_errors.all(),
            settings: &self.settings,
            history,
        }
    }
}

/// Returns whether the request asks for JSON by name. Browsers ask for HTML, and others
/// for anything.
fn wants_json(request: &HeaderMap) -> bool {
    let accepted = request.get_all(ACCEPT).into_iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|types| types.contains("application/json"))
}

/// Nothing but the page's own style and script, and requests to this process: whatever
/// a text of Kafka contained, a browser would neither run nor load it.
#[expect(clippy::expect_used, reason = "Base64 is valid in a header")]
fn policy() -> HeaderValue {
    let hash = |text: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
        STANDARD.encode(digest)
    };
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
         connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE),
    );
    policy.try_into().expect("a valid header")
}
