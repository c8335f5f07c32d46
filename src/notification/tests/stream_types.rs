//! Confirmations and upgrade results: their keys, what is drift in them, what makes them unreadable.

use super::super::*;
use super::{
    BY_DEVICE, DEVICE, REQUEST, STRICT, TOLERANT, body, drift, key, quoted, readable, reason, set,
    with, without,
};

fn confirm(key: &str, json: &str) -> String {
    set("messageConfirm", key, json)
}

fn upgrade(key: &str, json: &str) -> String {
    set("swUpgradeResultNotify", key, json)
}

#[test]
fn a_confirmation_is_keyed_by_the_device_in_from_if_the_operator_chooses_so() {
    for path in [
        "/devices/d-1",
        "/devices/d-1/services/s",
        "/devices/d-1/x",
        r"\/devices\/d-1",
    ] {
        let text = confirm("from", &quoted(path));
        assert_eq!(key(&text, BY_DEVICE).as_deref(), Some("d-1"), "{path}");
        assert_eq!(
            readable(&text, TOLERANT).subject().device_id(),
            Some("d-1"),
            "{path}"
        );
    }
}

#[test]
fn an_id_that_cannot_be_a_key_makes_a_push_unreadable() {
    let long = quoted(&"x".repeat(513));
    let long_when_decoded = quoted(&r"\u8bbe".repeat(171));
    let table = [
        ("null", "id-missing", "id-missing"),
        (r#""""#, "id-empty", "id-empty"),
        ("true", "id-not-a-string", "id-not-a-string"),
        (r#"["a"]"#, "id-not-a-string", "id-not-a-string"),
        (r#"{"a":"b"}"#, "id-not-a-string", "id-not-a-string"),
        (r#""\ud800""#, "id-not-a-string", "id-not-a-string"),
        (&long, "id-too-long", "id-not-in-path"),
        (&long_when_decoded, "id-too-long", "id-not-in-path"),
    ];
    for (id, why, why_as_path) in table {
        assert_eq!(
            reason(confirm("requestId", id), TOLERANT),
            why,
            "requestId {id}"
        );
        assert_eq!(
            reason(upgrade("deviceId", id), TOLERANT),
            why,
            "deviceId {id}"
        );
        assert_eq!(
            reason(confirm("from", id), BY_DEVICE),
            why_as_path,
            "from {id}"
        );
    }
}

#[test]
fn a_missing_id_makes_a_push_unreadable() {
    assert_eq!(
        reason(without("messageConfirm", "requestId"), TOLERANT),
        "id-missing"
    );
    assert_eq!(
        reason(without("messageConfirm", "from"), BY_DEVICE),
        "id-missing"
    );
    assert_eq!(
        reason(without("swUpgradeResultNotify", "deviceId"), TOLERANT),
        "id-missing"
    );
    assert_eq!(
        reason(without("messageConfirm", "header"), TOLERANT),
        "id-missing"
    );
    for header in ["null", "[]", "{}", r#""requestId""#] {
        assert_eq!(
            reason(confirm("header", header), TOLERANT),
            "id-missing",
            "{header}"
        );
    }
}

#[test]
fn an_id_that_is_not_the_key_may_be_anything() {
    for id in ["null", r#""""#, "17", r#""\ud800""#] {
        assert_eq!(
            key(&confirm("from", id), TOLERANT).as_deref(),
            Some(REQUEST),
            "{id}"
        );
        assert_eq!(
            key(&confirm("requestId", id), BY_DEVICE).as_deref(),
            Some(DEVICE),
            "{id}"
        );
        assert_eq!(drift(&confirm("from", id)), ["header.from"], "{id}");
    }
}

#[test]
fn a_path_without_a_usable_device_cannot_key_a_confirmation() {
    let long = format!("/devices/{}", "x".repeat(513));
    let table = [
        ("/devices/", "id-empty"),
        ("/devices//services/s", "id-empty"),
        ("/devices", "id-not-in-path"),
        ("devices/d", "id-not-in-path"),
        ("/things/d", "id-not-in-path"),
        (&long, "id-too-long"),
    ];
    for (path, why) in table {
        let text = confirm("from", &quoted(path));
        assert_eq!(reason(&text, BY_DEVICE), why, "{path}");
        assert_eq!(drift(&text), ["header.from"], "{path}");
    }
}

#[test]
fn an_id_of_128_characters_of_any_script_is_a_key() {
    for character in ["x", "设", "😀"] {
        let id = character.repeat(128);
        let written = quoted(&id);
        for (text, what) in [
            (confirm("requestId", &written), "requestId"),
            (upgrade("deviceId", &written), "deviceId"),
        ] {
            assert_eq!(key(&text, STRICT).as_ref(), Some(&id), "{what} {id}");
        }
    }
}

#[test]
fn an_id_that_is_a_number_is_a_key_in_its_literal_text_and_drift() {
    let text = confirm("requestId", "0017.50");
    assert_eq!(reason(&text, TOLERANT), "not-json");
    for number in ["17", "-1.50", "18446744073709551616"] {
        let text = confirm("requestId", number);
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(number));
        assert_eq!(drift(&text), ["header.requestId"], "{number}");
        assert_eq!(reason(&text, STRICT), "field-table", "{number}");
        let text = upgrade("deviceId", number);
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(number));
        assert_eq!(drift(&text), ["deviceId"], "{number}");
    }
}

#[test]
fn a_key_is_the_decoded_text_of_the_id() {
    let table = [
        (r"a\u0000b", "a\0b"),
        (r"\u8bbe\u5907", "设备"),
        ("设备", "设备"),
        (r"\ud83d\ude00", "😀"),
        (r#"a\"\\\/b"#, "a\"\\/b"),
        (" a ", " a "),
    ];
    for (written, id) in table {
        let written = quoted(written);
        assert_eq!(
            key(&upgrade("deviceId", &written), STRICT).as_deref(),
            Some(id)
        );
        assert_eq!(
            key(&confirm("requestId", &written), STRICT).as_deref(),
            Some(id)
        );
    }
}

#[test]
fn an_unreadable_push_keeps_the_ids_that_could_be_read() {
    let text = confirm("requestId", "null");
    let unreadable = read(text.as_bytes(), TOLERANT).unwrap_err();
    assert_eq!(
        unreadable.subject().notify_type(),
        NotifyType::MessageConfirm
    );
    assert_eq!(unreadable.subject().key(), Some(DEVICE));
    assert_eq!(unreadable.subject().device_id(), Some(DEVICE));

    let text = upgrade("deviceId", "{}");
    let unreadable = read(text.as_bytes(), TOLERANT).unwrap_err();
    assert_eq!(
        unreadable.subject().notify_type(),
        NotifyType::SwUpgradeResultNotify
    );
    assert_eq!(unreadable.subject().key(), Some("5bd4b2a2c6f7d63a1a8f4e21"));
    assert_eq!(unreadable.subject().device_id(), None);
}

/// Bodies that each violate their table in one field, and that field.
fn violations() -> Vec<(String, &'static str)> {
    let [x33, x129] = [33, 129].map(|count| quoted(&"x".repeat(count)));
    let long_path = format!("\"/devices/{}\"", "x".repeat(120));
    let digits = "9".repeat(400);
    let text = [
        "null",
        "7",
        "1e99999",
        &digits,
        "true",
        "{}",
        "[]",
        r#""\ud800""#,
    ];
    let filled = [r#""""#, &x129];
    let path = [r#""""#, r#""/devices/""#, r#""/devices/d/x/s""#, &long_path];
    let status = [r#""DELIVERED""#, r#""expired""#, r#""""#, &x33];
    let time = [
        r#""2015-12-12T12:12:12Z""#,
        r#""""#,
        r#""20151312T121212Z""#,
    ];
    let result = [r#""SUCCESSFUL""#, r#""success""#, r#""FAILED""#, r#""""#];

    let confirm_rows: [(&str, &str, &[&str]); 6] = [
        ("requestId", "header.requestId", &[&x129]),
        ("from", "header.from", &[&text[..], &path].concat()),
        ("to", "header.to", &[&text[..], &filled].concat()),
        ("status", "header.status", &[&text[..], &status].concat()),
        (
            "timestamp",
            "header.timestamp",
            &[&text[..], &time].concat(),
        ),
        ("body", "body", &["null", "[]", "7", r#""{}""#]),
    ];
    let upgrade_rows: [(&'static str, &[&str]); 11] = [
        ("appId", &text),
        ("operationId", &text),
        ("subOperationId", &text),
        ("curVersion", &text),
        ("targetVersion", &text),
        ("sourceVersion", &text),
        ("swUpgradeResult", &[&text[..], &result].concat()),
        ("upgradeTime", &["null", "true", "{}", "[]", r#""\ud800""#]),
        ("resultDesc", &text),
        ("errorCode", &text),
        ("description", &text),
    ];
    let mut violations = Vec::new();
    for (key, field, values) in confirm_rows {
        violations.extend(values.iter().map(|json| (confirm(key, json), field)));
    }
    for (key, field, _) in &confirm_rows[1..] {
        violations.push((without("messageConfirm", key), *field));
    }
    for (field, values) in upgrade_rows {
        violations.push((without("swUpgradeResultNotify", field), field));
        violations.extend(values.iter().map(|json| (upgrade(field, json), field)));
    }
    violations
}

#[test]
fn a_violation_of_a_published_table_is_reported_as_drift_of_its_field() {
    for (body, field) in violations() {
        assert_eq!(drift(&body), [field], "{body}");
    }
}

#[test]
fn a_violation_of_a_published_table_is_unreadable_under_strict_validation() {
    for (body, field) in violations() {
        let unreadable = read(body.as_bytes(), STRICT).unwrap_err();
        assert_eq!(unreadable.reason(), "field-table", "{body}");
        assert!(unreadable.to_string().starts_with(field), "{unreadable}");
        assert_eq!(
            unreadable.subject(),
            readable(&body, TOLERANT).subject(),
            "{body}"
        );
    }
}

#[test]
fn every_field_of_a_push_can_drift_at_once() {
    let text = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d"}"#;
    assert_eq!(drift(text).len(), 11);
    let text = r#"{"notifyType":"messageConfirm","header":{"requestId":"r"}}"#;
    let fields = [
        "header.from",
        "header.to",
        "header.status",
        "header.timestamp",
        "body",
    ];
    assert_eq!(drift(text), fields);
}

#[test]
fn an_upgrade_time_may_be_a_string_or_a_number() {
    for time in ["183", "0", "18446744073709551616", "-1.83e2", r#""""#] {
        let text = upgrade("upgradeTime", time);
        assert!(readable(&text, STRICT).drift().is_empty(), "{time}");
    }
}

#[test]
fn milliseconds_are_not_drift_but_violate_the_strict_table() {
    for stamp in ["20151212T121212.123Z", "20151212T121212123Z"] {
        let text = confirm("timestamp", &quoted(stamp));
        assert!(drift(&text).is_empty(), "{stamp}");
        assert_eq!(reason(&text, STRICT), "field-table", "{stamp}");
    }
}

#[test]
fn a_value_at_its_published_limit_is_not_drift() {
    let x128 = quoted(&"x".repeat(128));
    let wide = quoted(&"设".repeat(128));
    let path = format!("\"/devices/{}/services/s\"", "x".repeat(108));
    let table = [
        ("requestId", x128.as_str()),
        ("from", &path),
        ("to", &x128),
        ("to", &wide),
        ("status", r#""sent""#),
        ("status", r#""executed""#),
        ("body", "{}"),
    ];
    for (key, json) in table {
        assert!(
            readable(&confirm(key, json), STRICT).drift().is_empty(),
            "{key} {json}"
        );
    }
    for (key, json) in [("swUpgradeResult", r#""FAIL""#), ("errorCode", r#""""#)] {
        assert!(
            readable(&upgrade(key, json), STRICT).drift().is_empty(),
            "{key} {json}"
        );
    }
}

#[test]
fn an_id_is_limited_in_bytes_although_its_table_counts_characters() {
    let wide = "😀".repeat(128);
    assert!(
        readable(&confirm("requestId", &quoted(&wide)), STRICT)
            .drift()
            .is_empty()
    );
    assert_eq!(
        reason(confirm("requestId", &format!("\"{wide}x\"")), TOLERANT),
        "id-too-long"
    );
}

#[test]
fn unknown_keys_are_not_drift() {
    let unknown = r#""设备":[1,{"x":null}],"\ud800":1,"":0,"big":12345678901234567890123"#;
    for label in ["messageConfirm", "swUpgradeResultNotify"] {
        assert!(
            readable(&with(label, unknown), STRICT).drift().is_empty(),
            "{label}"
        );
    }
}

#[test]
fn the_order_of_keys_and_the_space_around_them_do_not_matter() {
    let text = r#"
        { "body" : { } , "header" : { "timestamp":"20151212T121212Z", "status":"sent", "to":"t",
        "from":"/devices/d", "requestId":"r" } , "notifyType" : "messageConfirm" }"#;
    let text = format!("{text}\r\n\t ");
    assert_eq!(key(&text, STRICT).as_deref(), Some("r"));
}

#[test]
fn a_byte_order_mark_is_ignored() {
    let text = format!("\u{feff}{}", body("messageConfirm"));
    assert_eq!(key(&text, STRICT).as_deref(), Some(REQUEST));
}

#[test]
fn the_last_of_a_repeated_key_counts_even_if_it_has_escapes() {
    let text = r#"{"notifyType":"x","notifyType":"messageConfirm","header":{"requestId":"a"},
        "header":{"requestId":"b","\u0072equestId":"c","from":"/devices/d"}}"#;
    assert_eq!(key(text, TOLERANT).as_deref(), Some("c"));
    let text = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"a","deviceId":null}"#;
    assert_eq!(reason(text, TOLERANT), "id-missing");
}
