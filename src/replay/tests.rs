//! Where a dead letter goes, by what stands in it and by the present rules; and
//! what the report says of it.

use std::collections::HashSet;

use chrono::DateTime;
use rdkafka::Timestamp;
use rdkafka::message::{Header, Headers, OwnedHeaders, OwnedMessage};

use super::dead_letter::{Entry, Place};
use super::report::Report;
use super::route::{Fate, Outgoing, Router, Why};
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

fn fate(router: &Router, record: &OwnedMessage) -> Fate {
    match Entry::of(record) {
        Entry::DeadLetter(letter) => router.fate(&letter),
        Entry::Mark(place) => panic!("a mark for {place}"),
    }
}

fn goes(router: &Router, record: &OwnedMessage) -> Outgoing {
    match fate(router, record) {
        Fate::Goes(outgoing) => outgoing,
        Fate::Stays(why) => panic!("stays: {why}"),
    }
}

/// `topic key`, or why it stays.
fn shown(fate: Fate) -> String {
    match fate {
        Fate::Goes(outgoing) => {
            let key = outgoing.key.unwrap_or_default();
            format!("{} {}", outgoing.topic, String::from_utf8_lossy(&key))
        }
        Fate::Stays(why) => why.to_string(),
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
fn a_dead_letter_of_the_ingress_goes_where_the_present_rules_say() {
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
        assert_eq!(shown(fate(&router(&settings, false), &record)), usual);
        assert_eq!(shown(fate(&router(&settings, true), &record)), as_is);
    }
}

#[test]
fn the_rules_are_those_of_the_settings() {
    let mut settings = Settings::default();
    settings.http.validation = Validation::Strict;
    settings.topics.command_status.key = CommandKey::DeviceId;
    settings.topics.prefix = "test.".to_owned();
    let (drifted, confirm) = (record(Some(DRIFTED), &[]), record(Some(CONFIRM), &[]));
    let (usual, as_is) = (router(&settings, false), router(&settings, true));
    assert_eq!(
        shown(fate(&usual, &drifted)),
        "still unreadable: field-table"
    );
    assert_eq!(shown(fate(&as_is, &drifted)), "test.upgrade-result d-2");
    assert_eq!(shown(fate(&usual, &confirm)), "test.command-status d-1");
}

#[test]
fn a_dead_letter_of_a_stream_goes_back_under_its_own_key() {
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
        assert_eq!(shown(fate(&router(&settings, false), &record)), usual);
        assert_eq!(shown(fate(&router(&settings, true), &record)), there);
        let sent = goes(&router(&settings, true), &record);
        assert_eq!(sent.value.as_deref(), value.map(str::as_bytes));
    }
}

#[test]
fn a_topic_that_no_stream_reads_is_never_written_to() {
    let settings = Settings::default();
    for topic in ["iot.command-state", "iot.notifications", "somebody-elses"] {
        let record = record(Some(CONFIRM), &[("northbridge-topic", topic)]);
        for as_is in [false, true] {
            let fate = fate(&router(&settings, as_is), &record);
            assert!(matches!(fate, Fate::Stays(Why::NoStream)), "{fate:?}");
        }
    }
}

#[test]
fn what_the_cluster_cannot_take_stays() {
    let mut settings = Settings::default();
    let confirm = record(Some(CONFIRM), &[]);
    let nowhere = Router::new(&settings, false, &HashSet::from([Topic::UpgradeResult]));
    assert_eq!(
        shown(fate(&nowhere, &confirm)),
        "iot.command-status does not exist"
    );
    settings.http.max_body_bytes = CONFIRM.len();
    assert!(matches!(
        fate(&router(&settings, false), &confirm),
        Fate::Goes(_)
    ));
    settings.http.max_body_bytes -= 1;
    let stays = fate(&router(&settings, true), &confirm);
    assert!(matches!(stays, Fate::Stays(Why::TooLarge)), "{stays:?}");
}

#[test]
fn a_push_keeps_the_time_the_path_and_the_trace_of_its_receipt() {
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
    let sent = headers(&goes(&router(&Settings::default(), false), &record));
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
fn a_record_of_a_stream_keeps_its_own_headers_and_loses_those_of_the_dead_letter() {
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
    let sent = headers(&goes(&router(&Settings::default(), false), &record));
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
fn a_mark_is_read_back_as_the_place_it_is_about() {
    let place = Place {
        partition: 5,
        offset: 1_234_567_890_123,
    };
    let mark = OwnedMessage::new(
        None,
        None,
        "iot.dead-letter".to_owned(),
        Timestamp::NotAvailable,
        5,
        1_234_567_890_200,
        Some(place.mark("iot.command-status")),
    );
    assert!(matches!(Entry::of(&mark), Entry::Mark(found) if found == place));
}

#[test]
fn the_table_has_a_row_for_each_reason_and_fate() {
    let mut report = Report::default();
    let at = |second: i64| DateTime::from_timestamp(1_767_225_600 + second, 0).unwrap_or_default();
    report.goes("not-gzip".to_owned(), at(5), "iot.command-status");
    report.goes("not-gzip".to_owned(), at(1), "iot.command-status");
    report.stays(
        "id-missing".to_owned(),
        at(9),
        &Why::Unreadable("id-missing"),
    );
    report.before = 4;
    assert_eq!(
        report.to_string(),
        "\
reason      records  oldest                newest                goes to
id-missing        1  2026-01-01T00:00:09Z  2026-01-01T00:00:09Z  stays, still unreadable: id-missing
not-gzip          2  2026-01-01T00:00:01Z  2026-01-01T00:00:05Z  iot.command-status
"
    );
    assert_eq!(
        report.summary(false),
        "7 selected: 2 replayed, 1 stay where they are, 4 were replayed before."
    );
    assert_eq!(
        report.summary(true),
        "7 selected: 2 would be replayed, 1 stay where they are, 4 were replayed before; nothing was changed."
    );
}

#[test]
fn where_nothing_is_selected_the_report_names_the_reasons_there() {
    let mut report = Report::default();
    assert_eq!(report.to_string(), "");
    assert_eq!(report.summary(false), "No dead letters there.");
    report.saw("not-json");
    report.saw("id-missing");
    assert_eq!(
        report.summary(false),
        "None selected; the reasons there: id-missing, not-json."
    );
}
