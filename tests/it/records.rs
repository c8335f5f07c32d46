//! What stands in Kafka for each push: topic, key, headers, and the sender's
//! bytes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::gzip;
use crate::support::bodies::{message_confirm, upgrade_result};
use crate::support::http::post_with;
use crate::support::mock::{Mock, TOPICS};
use crate::support::northbridge::Northbridge;
use crate::support::records::Record;

const COMMANDS: &str = TOPICS[0];
const UPGRADES: &str = TOPICS[1];
const OTHERS: &str = TOPICS[2];
const DEAD: &str = TOPICS[3];

/// The device in the bodies of `tests/bodies`.
const DEVICE: &str = "d4922d8a-6c8e-4396-852c-164aefa6638f";

/// Each body of `tests/bodies`: its topic, its key, and what it is about.
const BODIES: &[(&str, &str, &str, Option<&str>)] = &[
    (
        "messageConfirm",
        COMMANDS,
        "29d7a5c4-6b0f-4b2e-8f3a-0c9d1e2f3a4b",
        Some(DEVICE),
    ),
    ("swUpgradeResultNotify", UPGRADES, DEVICE, Some(DEVICE)),
    ("bindDevice", OTHERS, DEVICE, Some(DEVICE)),
    ("commandCallback", OTHERS, DEVICE, Some(DEVICE)),
    ("commandRsp", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceAdded", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceCapabilitiesAdded", OTHERS, "", None),
    ("deviceCapabilitiesChanged", OTHERS, "", None),
    ("deviceCapabilitiesDeleted", OTHERS, "", None),
    ("deviceDataChanged", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceDatasChanged", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceDeleted", OTHERS, DEVICE, Some(DEVICE)),
    (
        "deviceDesiredPropertiesModifyStatusChanged",
        OTHERS,
        DEVICE,
        Some(DEVICE),
    ),
    ("deviceEvent", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceInfoChanged", OTHERS, DEVICE, Some(DEVICE)),
    ("deviceModelAdded", OTHERS, "", None),
    ("deviceModelDeleted", OTHERS, "", None),
    ("envelope", OTHERS, DEVICE, Some(DEVICE)),
    ("fwUpgradeResultNotify", OTHERS, DEVICE, Some(DEVICE)),
    ("fwUpgradeStateChangeNotify", OTHERS, DEVICE, Some(DEVICE)),
    ("ruleEvent", OTHERS, "1000312", None),
    ("serviceInfoChanged", OTHERS, DEVICE, Some(DEVICE)),
    ("swUpgradeStateChangeNotify", OTHERS, DEVICE, Some(DEVICE)),
];

#[test]
fn every_body_of_the_platform_reaches_its_topic_under_its_key_as_it_came() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for (name, ..) in BODIES {
        assert_stored(&northbridge, &body(name), name);
    }
    let stored = mock.all_records();
    assert_eq!(stored.len(), BODIES.len());
    for (name, topic, key, subject) in BODIES {
        let sent = body(name);
        let (found_in, record) = find(&stored, &sent);
        assert_eq!(
            (found_in, record.key_text().as_str()),
            (*topic, *key),
            "{name}"
        );
        assert_eq!(record.key.is_some(), !key.is_empty(), "{name}");
        // The envelope has no name of its own, but those of what is in it.
        let ce_type = if *name == "envelope" {
            "device.message.report"
        } else {
            name
        };
        assert_eq!(record.header("ce_type"), Some(ce_type), "{name}");
        assert_eq!(record.header("ce_subject"), *subject, "{name}");
        let labels = [r#"outcome="stored""#, &format!("notify_type=\"{name}\"")];
        northbridge.wait_for_metric("northbridge_pushes_total", &labels, 1.0);
    }
    let drift = northbridge.metric("northbridge_payload_drift_total", &[]);
    // `requestId` is null in practice where data changed; the page says string.
    assert!(drift <= 2.0, "{drift}");
}

#[test]
fn the_table_above_names_every_body_there_is() {
    let files: BTreeSet<_> = fs::read_dir(bodies())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned())
        .collect();
    let named: BTreeSet<_> = BODIES.iter().map(|(name, ..)| (*name).into()).collect();
    assert_eq!(files, named);
}

#[test]
fn a_record_carries_the_headers_of_a_cloud_event() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r-1", "d-1", "delivered");
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("traceparent", traceparent)];
    let answer = post_with(northbridge.address(), "/notifications/?q", &headers, &body);
    assert_eq!(answer.status, 200);
    let record = only(mock.records(COMMANDS));
    let names: Vec<_> = record
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let expected = [
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_subject",
        "ce_time",
        "content-type",
        "traceparent",
    ];
    assert_eq!(names, expected);
    let rows = [
        ("ce_specversion", "1.0"),
        ("ce_source", "/notifications"),
        ("ce_type", "messageConfirm"),
        ("ce_subject", "d-1"),
        ("content-type", "application/json"),
        ("traceparent", traceparent),
    ];
    for (name, value) in rows {
        assert_eq!(record.header(name), Some(value), "{name}");
    }
    let id = record.header("ce_id").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    let time = record.header("ce_time").unwrap();
    assert!(
        time.len() == "2026-01-01T00:00:00.000Z".len() && time.ends_with('Z'),
        "{time}"
    );
}

#[test]
fn the_id_of_an_event_is_equal_exactly_for_repeats() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let body = message_confirm("r-1", "d-1", "delivered");
    let spaced = body.replace("\"body\":{}", "\"body\": {}");
    for push in [&body, &body, &spaced] {
        assert_stored(&northbridge, push.as_bytes(), push);
    }
    let stored = mock.records(COMMANDS);
    let ids: BTreeSet<_> = stored.iter().map(|record| record.header("ce_id")).collect();
    assert_eq!((stored.len(), ids.len()), (3, 2));
}

/// A push that differs from the published table, and the fields in which.
struct Odd {
    what: &'static str,
    body: String,
    topic: &'static str,
    key: &'static str,
    drift: &'static [&'static str],
}

#[test]
fn an_odd_push_is_stored_in_its_own_topic_and_counted() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let oddities = oddities();
    for odd in &oddities {
        assert_stored(&northbridge, odd.body.as_bytes(), odd.what);
    }
    let stored = mock.all_records();
    assert_eq!(stored.len(), oddities.len());
    for odd in &oddities {
        let (topic, record) = find(&stored, odd.body.as_bytes());
        assert_eq!(
            (topic, record.key_text().as_str()),
            (odd.topic, odd.key),
            "{}",
            odd.what
        );
        for field in odd.drift {
            let label = format!("field=\"{field}\"");
            let count = northbridge.metric("northbridge_payload_drift_total", &[&label]);
            assert!(count >= 1.0, "{}: {field}", odd.what);
        }
    }
    let expected: usize = oddities.iter().map(|odd| odd.drift.len()).sum();
    let expected = f64::from(u32::try_from(expected).unwrap());
    northbridge.wait_for_metric("northbridge_payload_drift_total", &[], expected);
}

fn oddities() -> Vec<Odd> {
    let mut all = odd_fields();
    all.extend(odd_texts());
    all
}

/// Fields of the published tables that are not as published.
fn odd_fields() -> Vec<Odd> {
    vec![
        odd(
            "nulls where the table says mandatory",
            confirm("c-null").replace("\"body\":{}", "\"body\":null"),
            COMMANDS,
            "c-null",
            &["body"],
        ),
        odd(
            "a field that is missing",
            confirm("c-less").replace("\"to\":\"northbound-application\",", ""),
            COMMANDS,
            "c-less",
            &["header.to"],
        ),
        odd(
            "a number where a string should be",
            upgrade("u-number").replace("\"errorCode\":\"0\"", "\"errorCode\":0"),
            UPGRADES,
            "u-number",
            &["errorCode"],
        ),
        odd(
            "a duration as a number, which another page has",
            upgrade("u-long").replace(
                "\"upgradeTime\":\"20151212T121212Z\"",
                "\"upgradeTime\":183",
            ),
            UPGRADES,
            "u-long",
            &[],
        ),
        odd(
            "SUCCESSFUL for SUCCESS",
            upgrade_result("u-drifted", "o", "SUCCESSFUL"),
            UPGRADES,
            "u-drifted",
            &["swUpgradeResult"],
        ),
        odd(
            "a status of its own",
            message_confirm("c-status", "d", "TIMEOUT"),
            COMMANDS,
            "c-status",
            &["header.status"],
        ),
        odd(
            "milliseconds, as a sibling dialect has them",
            confirm("c-ms").replace("20151212T121212Z", "20151212T121212.123Z"),
            COMMANDS,
            "c-ms",
            &[],
        ),
        odd(
            "an odd timestamp",
            confirm("c-time").replace("20151212T121212Z", "yesterday"),
            COMMANDS,
            "c-time",
            &["header.timestamp"],
        ),
    ]
}

/// What no table forbids, and a careless reader would not survive.
fn odd_texts() -> Vec<Odd> {
    vec![
        odd(
            "a NUL in a string",
            confirm("c-nul\\u0000"),
            COMMANDS,
            "c-nul\0",
            &[],
        ),
        odd(
            "Chinese keys and unknown fields",
            confirm("c-中文").replace("\"body\":{}", "\"body\":{\"温度\":21},\"新\":[{}]"),
            COMMANDS,
            "c-中文",
            &[],
        ),
        odd(
            "integers beyond 2^53",
            confirm("c-large").replace("\"body\":{}", "\"body\":{\"n\":9007199254740993}"),
            COMMANDS,
            "c-large",
            &[],
        ),
        odd(
            "another order of keys, and white space",
            " {\"header\": {\"timestamp\":\"20151212T121212Z\",\"status\":\"sent\",\"to\":\"a\",\
             \"from\":\"/devices/d\",\"requestId\":\"c-order\"},\r\n\"body\":{},\
             \"notifyType\":\"messageConfirm\"}\n"
                .to_owned(),
            COMMANDS,
            "c-order",
            &[],
        ),
        odd(
            "a type that nobody has heard of",
            "{\"notifyType\":\"deviceTeleported\",\"deviceId\":\"d-new\"}".to_owned(),
            OTHERS,
            "d-new",
            &[],
        ),
    ]
}

fn odd(
    what: &'static str,
    body: String,
    topic: &'static str,
    key: &'static str,
    drift: &'static [&'static str],
) -> Odd {
    Odd {
        what,
        body,
        topic,
        key,
        drift,
    }
}

fn confirm(request: &str) -> String {
    message_confirm(request, "d", "delivered")
}

fn upgrade(device: &str) -> String {
    upgrade_result(device, "o", "SUCCESS")
}

/// A push that cannot be keyed: why, and the key as far as known.
const UNREADABLE: &[(&[u8], &str, &str)] = &[
    (b"not JSON", "not-json", ""),
    (b"{\"notifyType\":\"messageConfirm\"", "not-json", ""),
    (b"[]", "not-an-object", ""),
    (b"null", "not-an-object", ""),
    (b"{\"a\":\"\xff\"}", "not-utf8", ""),
    (b"{}", "unknown-shape", ""),
    (b"{\"x\":1,\"deviceId\":\"d-9\"}", "unknown-shape", "d-9"),
    (b"{\"notifyType\":\"messageConfirm\",\"header\":{}}", "id-missing", ""),
    (
        b"{\"notifyType\":\"messageConfirm\",\"header\":{\"requestId\":null,\"from\":\"/devices/d-1\"}}",
        "id-missing",
        "d-1",
    ),
    (
        b"{\"notifyType\":\"messageConfirm\",\"header\":{\"requestId\":7,\"from\":\"/devices/d-2\"}}",
        "id-not-a-string",
        "d-2",
    ),
    (b"{\"notifyType\":\"swUpgradeResultNotify\",\"deviceId\":\"\"}", "id-empty", ""),
];

#[test]
fn what_cannot_be_keyed_is_answered_200_and_is_in_the_dead_letter_topic() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for (body, reason, _) in UNREADABLE {
        assert_stored(&northbridge, body, reason);
    }
    let stored = mock.all_records();
    assert_eq!(stored.len(), UNREADABLE.len());
    for (body, reason, key) in UNREADABLE {
        let shown = String::from_utf8_lossy(body);
        let (topic, record) = find(&stored, body);
        assert_eq!(topic, DEAD, "{shown}");
        assert_eq!(
            record.header("northbridge-reason"),
            Some(*reason),
            "{shown}"
        );
        let detail = record.header("northbridge-detail").expect("a detail");
        assert!(!detail.is_empty() && detail.len() <= 512, "{detail}");
        assert_eq!(record.key_text(), *key, "{shown}");
    }
    let count = u32::try_from(UNREADABLE.len()).unwrap();
    northbridge.wait_for_outcome("dead_lettered", count);
    northbridge.wait_for_metric("northbridge_dead_letters_total", &[], count.into());
    northbridge.wait_for_metric(
        "northbridge_dead_letters_total",
        &[r#"reason="not-json""#],
        2.0,
    );
}

#[test]
fn an_id_beyond_256_bytes_is_a_dead_letter_and_one_of_256_is_not() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for length in [256, 257] {
        let body = upgrade_result(&"d".repeat(length), "o", "SUCCESS");
        assert_stored(&northbridge, body.as_bytes(), "a long id");
    }
    assert_eq!(only(mock.records(UPGRADES)).key_text().len(), 256);
    assert_eq!(
        only(mock.records(DEAD)).header("northbridge-reason"),
        Some("id-too-long")
    );
}

#[test]
fn under_strict_validation_what_breaks_a_published_table_is_a_dead_letter() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.validation", "strict")]);
    let odd = upgrade_result("d-1", "o", "SUCCESSFUL");
    assert_stored(&northbridge, odd.as_bytes(), "an odd one");
    assert_stored(
        &northbridge,
        &body("swUpgradeResultNotify"),
        "a published one",
    );
    let dead = only(mock.records(DEAD));
    assert_eq!(dead.header("northbridge-reason"), Some("field-table"));
    assert!(
        dead.header("northbridge-detail")
            .unwrap()
            .contains("swUpgradeResult")
    );
    assert_eq!((dead.key_text().as_str(), dead.value_text()), ("d-1", odd));
    only(mock.records(UPGRADES));
}

#[test]
fn commands_can_be_keyed_by_their_device() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("topics.command_status.key", "device-id")]);
    assert_stored(&northbridge, &body("messageConfirm"), "a command");
    let no_device = message_confirm("r-1", "", "sent");
    assert_stored(&northbridge, no_device.as_bytes(), "one without a device");
    assert_eq!(only(mock.records(COMMANDS)).key_text(), DEVICE);
    let dead = only(mock.records(DEAD));
    assert_eq!(dead.key_text(), "r-1");
}

#[test]
fn topics_have_the_names_that_are_configured() {
    let mock = Mock::start();
    let settings = [
        ("topics.prefix", "site-1."),
        ("topics.command_status.name", "commands"),
    ];
    let names = ["commands", "upgrade-result", "notifications", "dead-letter"];
    for name in names {
        mock.create(&format!("site-1.{name}"));
    }
    let northbridge = mock.ready_ingress(&settings);
    assert_stored(&northbridge, &body("messageConfirm"), "a command");
    only(mock.records("site-1.commands"));
}

#[test]
fn equal_keys_are_in_one_partition_in_the_order_of_their_answers() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let bodies: Vec<_> = ["sent", "delivered", "executed"]
        .map(|status| message_confirm("r-1", "d-1", status))
        .into();
    for body in &bodies {
        assert_stored(&northbridge, body.as_bytes(), body);
    }
    let stored = mock.records(COMMANDS);
    let values: Vec<_> = stored.iter().map(Record::value_text).collect();
    assert_eq!(values, bodies);
    assert!(
        stored
            .iter()
            .all(|record| record.partition == stored[0].partition)
    );
}

#[test]
fn a_compressed_push_is_stored_as_it_was_before_compression() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let plain = body("messageConfirm");
    for encoding in ["gzip", "GZIP", "x-gzip"] {
        let headers = [("content-encoding", encoding)];
        let answer = post_with(
            northbridge.address(),
            "/notifications",
            &headers,
            gzip(&plain),
        );
        assert_eq!(answer.status, 200, "{encoding}");
    }
    let identity = [("content-encoding", "identity")];
    assert_eq!(
        post_with(northbridge.address(), "/notifications", &identity, &plain).status,
        200
    );
    let stored = mock.records(COMMANDS);
    assert_eq!(stored.len(), 4);
    assert!(
        stored
            .iter()
            .all(|record| record.value.as_ref() == Some(&plain))
    );
}

#[test]
fn a_push_whose_compression_is_corrupt_is_a_dead_letter_as_it_came() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut cut = gzip(&body("messageConfirm"));
    cut.truncate(cut.len() - 9);
    for body in [&cut[..], b"{\"notifyType\":\"x\"}"] {
        let headers = [("content-encoding", "gzip")];
        let answer = post_with(northbridge.address(), "/notifications", &headers, body);
        assert_eq!(answer.status, 200);
    }
    let dead = mock.records(DEAD);
    assert_eq!(dead.len(), 2);
    assert!(
        dead.iter()
            .any(|record| record.value.as_ref() == Some(&cut))
    );
    for record in dead {
        assert_eq!(record.header("northbridge-reason"), Some("not-gzip"));
    }
}

fn bodies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bodies")
}

fn body(name: &str) -> Vec<u8> {
    fs::read(bodies().join(format!("{name}.json"))).unwrap()
}

fn assert_stored(northbridge: &Northbridge, body: &[u8], what: &str) {
    let answer = post_with(northbridge.address(), "/notifications", &[], body);
    assert_eq!(answer.status, 200, "{what}");
}

/// The one record with this value.
fn find<'a>(stored: &'a [(&'static str, Record)], value: &[u8]) -> (&'static str, &'a Record) {
    let mut found = stored
        .iter()
        .filter(|(_, record)| record.value.as_deref() == Some(value));
    let (topic, record) = found.next().expect("the sender's bytes are stored");
    assert!(found.next().is_none(), "stored twice");
    (topic, record)
}

fn only(mut records: Vec<Record>) -> Record {
    assert_eq!(records.len(), 1);
    records.remove(0)
}
