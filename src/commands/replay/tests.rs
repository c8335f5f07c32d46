//! The destination of each kind of dead letter under the current rules, and the
//! report.

use std::collections::HashSet;

use chrono::DateTime;
use rdkafka::Timestamp;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};

use super::dead_letter::{Entry, Location};
use super::report::Report;
use super::route::{NotReplayable, Outgoing, Router};
use crate::config::Settings;
use crate::notification::{CommandKey, Validation};
use crate::topics::Topic;

const CONFIRM: &str = r#"{"notifyType":"messageConfirm","header":{"requestId":"r-1","from":"/devices/d-1","to":"a","status":"sent","timestamp":"20260101T000000Z"},"body":{}}"#;
const DRIFTED: &str = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d-2"}"#;
const NO_ID: &str = r#"{"notifyType":"messageConfirm","header":{"from":"/devices/d-3"}}"#;
const DELTA: &str = "no delta";

fn record(value: Option<&str>, headers: &[(&str, &str)]) -> OwnedMessage {
    let add = |headers: OwnedHeaders, (key, value): &(&str, &str)| {
        let value = Some(*value);
        headers.insert(Header { key, value })
    };
    OwnedMessage::new(
        value.map(|value| value.as_bytes().to_vec()),
        Some(b"its-key".to_vec()),
        "iot.dead-letter".to_owned(),
        Timestamp::CreateTime(1_767_225_600_000),
        3,
        41,
        Some(headers.iter().fold(OwnedHeaders::new(), add)),
    )
}

fn router(settings: &Settings, as_is: bool) -> Router {
    Router::new(settings, as_is, &HashSet::from(Topic::ALL))
}

fn route(router: &Router, record: &OwnedMessage) -> Result<Outgoing, NotReplayable> {
    match Entry::of(record) {
        Entry::DeadLetter(letter) => router.route(&letter),
        Entry::Marker(location) => panic!("a marker for {location}"),
    }
}

/// `topic key`, or why there is no destination.
fn shown(routed: Result<Outgoing, NotReplayable>) -> String {
    match routed {
        Ok(outgoing) => {
            let key = outgoing.key.unwrap_or_default();
            format!("{} {}", outgoing.topic, String::from_utf8_lossy(&key))
        }
        Err(cause) => cause.to_string(),
    }
}

fn headers(outgoing: &Outgoing) -> Vec<(String, String)> {
    let text = |header: Header<'_, &[u8]>| {
        let value = header.value.unwrap_or_default();
        let value = String::from_utf8_lossy(value).into_owned();
        (header.key.to_owned(), value)
    };
    outgoing.headers.iter().map(text).collect()
}

#[test]
fn a_dead_letter_of_the_ingress_is_routed_by_the_current_rules() {
    let rows = [
        (CONFIRM, "iot.command-status r-1", "iot.command-status r-1"),
        (DRIFTED, "iot.upgrade-result d-2", "iot.upgrade-result d-2"),
        (
            NO_ID,
            "still unreadable: id-missing",
            "iot.notifications d-3",
        ),
        ("hello", "still unreadable: not-json", "iot.notifications "),
        (
            "[]",
            "still unreadable: not-an-object",
            "iot.notifications ",
        ),
    ];
    let settings = Settings::default();
    for (body, usual, as_is) in rows {
        let record = record(Some(body), &[("northbridge-reason", "whatever")]);
        assert_eq!(shown(route(&router(&settings, false), &record)), usual);
        assert_eq!(shown(route(&router(&settings, true), &record)), as_is);
    }
}

#[test]
fn the_settings_decide_the_rules() {
    let mut settings = Settings::default();
    settings.http.validation = Validation::Strict;
    settings.topics.command_status.key = CommandKey::DeviceId;
    settings.topics.prefix = "test.".to_owned();
    let (drifted, confirm) = (record(Some(DRIFTED), &[]), record(Some(CONFIRM), &[]));
    let (usual, as_is) = (router(&settings, false), router(&settings, true));
    assert_eq!(
        shown(route(&usual, &drifted)),
        "still unreadable: field-table"
    );
    assert_eq!(shown(route(&as_is, &drifted)), "test.upgrade-result d-2");
    assert_eq!(shown(route(&usual, &confirm)), "test.command-status d-1");
}

#[test]
fn a_dead_letter_of_a_stream_returns_to_its_topic_with_its_own_key() {
    let rows = [
        ("iot.command-status", Some(CONFIRM), None),
        (
            "iot.command-status",
            Some(NO_ID),
            Some("request-id-missing"),
        ),
        ("iot.command-status", None, Some("not-json-object")),
        ("iot.upgrade-result", Some(DRIFTED), Some("result-missing")),
        ("iot.upgrade-delta", Some(DELTA), Some("not-a-delta")),
    ];
    let settings = Settings::default();
    for (topic, value, poison) in rows {
        let record = record(value, &[("northbridge-topic", topic)]);
        let there = format!("{topic} its-key");
        let usual = poison.map_or(there.clone(), |poison| format!("still poison: {poison}"));
        assert_eq!(shown(route(&router(&settings, false), &record)), usual);
        assert_eq!(shown(route(&router(&settings, true), &record)), there);
        let sent = route(&router(&settings, true), &record).unwrap();
        assert_eq!(sent.value.as_deref(), value.map(str::as_bytes));
    }
}

#[test]
fn nothing_is_sent_to_a_topic_that_no_stream_reads() {
    let settings = Settings::default();
    for topic in ["iot.command-state", "iot.notifications", "somebody-elses"] {
        let record = record(Some(CONFIRM), &[("northbridge-topic", topic)]);
        for as_is in [false, true] {
            let routed = route(&router(&settings, as_is), &record);
            assert!(matches!(routed, Err(NotReplayable::NoStream)), "{routed:?}");
        }
    }
}

#[test]
fn a_record_that_the_cluster_cannot_store_is_not_replayable() {
    let mut settings = Settings::default();
    let confirm = record(Some(CONFIRM), &[]);
    let nowhere = Router::new(&settings, false, &HashSet::from([Topic::UpgradeResult]));
    assert_eq!(
        shown(route(&nowhere, &confirm)),
        "iot.command-status does not exist"
    );
    settings.http.max_body_bytes = CONFIRM.len();
    assert!(route(&router(&settings, false), &confirm).is_ok());
    settings.http.max_body_bytes -= 1;
    let routed = route(&router(&settings, true), &confirm);
    assert!(matches!(routed, Err(NotReplayable::TooLarge)), "{routed:?}");
}

#[test]
fn a_push_keeps_the_time_the_path_and_the_trace_of_its_arrival() {
    let record = record(
        Some(CONFIRM),
        &[
            ("ce_specversion", "1.0"),
            ("ce_source", "/notifications"),
            ("ce_type", "other"),
            ("ce_time", "2025-12-31T23:59:59.250Z"),
            ("traceparent", "00-1-1-01"),
            ("northbridge-reason", "not-gzip"),
        ],
    );
    let sent = headers(&route(&router(&Settings::default(), false), &record).unwrap());
    let header = |name: &str| {
        let found = sent.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(header("ce_time"), Some("2025-12-31T23:59:59.250Z"));
    assert_eq!(header("ce_source"), Some("/notifications"));
    assert_eq!(header("traceparent"), Some("00-1-1-01"));
    assert_eq!(header("ce_type"), Some("messageConfirm"));
    assert_eq!(header("ce_subject"), Some("d-1"));
    assert_eq!(header("northbridge-reason"), None);
    assert_eq!(header("northbridge-replayed-from"), Some("3/41"));
}

#[test]
fn a_record_of_a_stream_keeps_its_own_headers_without_those_of_the_dead_letter() {
    let record = record(
        Some(CONFIRM),
        &[
            ("ce_time", "odd"),
            ("mine", "1"),
            ("northbridge-reason", "state-too-large"),
            ("northbridge-topic", "iot.command-status"),
            ("northbridge-partition", "1"),
            ("northbridge-offset", "2"),
        ],
    );
    let sent = headers(&route(&router(&Settings::default(), false), &record).unwrap());
    let expected = [
        ("ce_time", "odd"),
        ("mine", "1"),
        ("northbridge-replayed-from", "3/41"),
    ];
    assert_eq!(
        sent,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_marker_is_parsed_to_the_location_that_it_marks() {
    let location = Location {
        partition: 5,
        offset: 1_234_567_890_123,
    };
    let marker = OwnedMessage::new(
        None,
        None,
        "iot.dead-letter".to_owned(),
        Timestamp::NotAvailable,
        5,
        1_234_567_890_200,
        Some(location.marker_headers("iot.command-status")),
    );
    assert!(matches!(Entry::of(&marker), Entry::Marker(found) if found == location));
}

#[test]
fn the_table_has_a_row_for_each_reason_and_destination() {
    let mut report = Report::default();
    let at = |second: i64| DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap_or_default();
    report.add_replayed("not-gzip".to_owned(), at(5), "iot.command-status");
    report.add_replayed("not-gzip".to_owned(), at(1), "iot.command-status");
    report.add_not_replayable(
        "id-missing".to_owned(),
        at(9),
        &NotReplayable::Unreadable("id-missing"),
    );
    report.already_replayed = 4;
    assert_eq!(
        report.to_string(),
        "\
reason      records  oldest                newest                destination
id-missing        1  2026-01-01T00:00:09Z  2026-01-01T00:00:09Z  none, still unreadable: id-missing
not-gzip          2  2026-01-01T00:00:01Z  2026-01-01T00:00:05Z  iot.command-status
"
    );
    assert_eq!(
        report.summary(false),
        "7 selected: 2 replayed, 1 not replayable, 4 already replayed."
    );
    assert_eq!(
        report.summary(true),
        "7 selected: 2 would be replayed, 1 not replayable, 4 already replayed; nothing was changed."
    );
}

#[test]
fn if_nothing_is_selected_the_report_names_the_reasons_found() {
    let mut report = Report::default();
    assert_eq!(report.to_string(), "");
    assert_eq!(report.summary(false), "No dead letters found.");
    report.add_reason("not-json");
    report.add_reason("id-missing");
    assert_eq!(
        report.summary(false),
        "No dead letters selected; reasons found: id-missing, not-json."
    );
}
