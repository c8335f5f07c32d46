//! The record that each push becomes: its topic, key and headers, and the sender's
//! bytes as its value.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::gzip;
use crate::support::bodies::message_confirm;
use crate::support::http::post_with;
use crate::support::mock::{Mock, TOPICS};
use crate::support::northbridge::Northbridge;
use crate::support::records::Record;

mod dead_letters;
mod drift;

const COMMANDS: &str = TOPICS[0];
const UPGRADES: &str = TOPICS[1];
const OTHERS: &str = TOPICS[2];
const DEAD_LETTERS: &str = TOPICS[3];

/// The device ID in the bodies of `tests/bodies`.
const DEVICE: &str = "d4922d8a-6c8e-4396-852c-164aefa6638f";

/// Each body of `tests/bodies`: its name, topic, key and `ce_subject`.
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
fn every_platform_body_is_stored_unchanged_in_its_topic_under_its_key() {
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
        // The type of an envelope is composed of the names inside it.
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
    // `requestId` is null in practice where data changed; the page expected string.
    assert!(drift <= 2.0, "{drift}");
}

#[test]
fn the_table_lists_every_file_of_tests_bodies() {
    let files: BTreeSet<_> = fs::read_dir(bodies())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_owned())
        .collect();
    let named: BTreeSet<_> = BODIES.iter().map(|(name, ..)| (*name).into()).collect();
    assert_eq!(files, named);
}

#[test]
fn a_record_carries_cloudevents_headers() {
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
fn only_repeated_pushes_share_an_event_id() {
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

#[test]
fn commands_can_be_keyed_by_device_id() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("topics.command_status.key", "device-id")]);
    assert_stored(&northbridge, &body("messageConfirm"), "a command");
    let no_device = message_confirm("r-1", "", "sent");
    assert_stored(&northbridge, no_device.as_bytes(), "one without a device");
    assert_eq!(only(mock.records(COMMANDS)).key_text(), DEVICE);
    let dead = only(mock.records(DEAD_LETTERS));
    assert_eq!(dead.key_text(), "r-1");
}

#[test]
fn records_go_to_the_configured_topic_names() {
    let mock = Mock::start();
    let settings = [
        ("topics.prefix", "site-1."),
        ("topics.command_status.name", "commands"),
    ];
    let names = ["commands", "upgrade-result", "notifications", "dead-letter"];
    for name in names {
        mock.create_topic(&format!("site-1.{name}"));
    }
    let northbridge = mock.ready_ingress(&settings);
    assert_stored(&northbridge, &body("messageConfirm"), "a command");
    only(mock.records("site-1.commands"));
}

#[test]
fn records_with_equal_keys_keep_their_order_in_one_partition() {
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
fn a_compressed_push_is_stored_decompressed() {
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
    let mut members_and_padding = [gzip(&plain[..9]), gzip(&plain[9..])].concat();
    members_and_padding.extend([0; 512]);
    let headers = [("content-encoding", "gzip")];
    let (address, path) = (northbridge.address(), "/notifications");
    let answer = post_with(address, path, &headers, members_and_padding);
    assert_eq!(answer.status, 200, "padded");
    for identity in ["identity", "UTF-8", "gbk"] {
        let headers = [("content-encoding", identity)];
        let answer = post_with(address, path, &headers, &plain);
        assert_eq!(answer.status, 200, "{identity}");
    }
    let stored = mock.records(COMMANDS);
    assert_eq!(stored.len(), 7);
    assert!(
        stored
            .iter()
            .all(|record| record.value.as_ref() == Some(&plain))
    );
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

/// The only record with this value.
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
