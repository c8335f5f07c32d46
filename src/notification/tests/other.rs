//! Types without a stream of their own, callbacks, envelopes, and objects of unknown shape.

use super::super::*;
use super::{STRICT, TOLERANT, body, drift, key, quoted, readable, reason};

#[test]
fn an_object_of_unknown_shape_without_an_id_is_unreadable() {
    let table = [
        "{}",
        r#"{"notifyType":null}"#,
        r#"{"notifyType":7}"#,
        r#"{"notifyType":""}"#,
        r#"{"notifyType":["messageConfirm"]}"#,
        r#"{"notifyType":"\ud800"}"#,
        r#"{"NotifyType":"messageConfirm"}"#,
        r#"{"deviceId":""}"#,
        r#"{"commandId":null,"x":1}"#,
        r#"{"resource":"device"}"#,
    ];
    for body in table {
        assert_eq!(reason(body, TOLERANT), "unknown-shape", "{body}");
    }
}

#[test]
fn an_object_of_unknown_shape_is_stored_under_its_id() {
    let table = [
        (r#"{"type":"x","header":{"deviceId":"d"}}"#, "d", Some("d")),
        (r#"{"deviceId":"d","requestId":"constant"}"#, "d", Some("d")),
        (
            r#"{"deviceIdIot":"i","requestId":"constant"}"#,
            "i",
            Some("i"),
        ),
        (r#"{"device_id":"f","temperature":7}"#, "f", Some("f")),
        (
            r#"{"notify_data.header.device_id":"n","notify_data.body.services":[]}"#,
            "n",
            Some("n"),
        ),
        (r#"{"requestId":"r"}"#, "r", None),
        (r#"{"commandId":"c"}"#, "c", None),
    ];
    for (body, id, device) in table {
        let notification = readable(body, STRICT);
        assert_eq!(notification.category(), Category::Notifications, "{body}");
        let subject = notification.subject();
        assert_eq!(subject.notify_type(), NotifyType::Other, "{body}");
        assert_eq!(subject.type_name(), "other", "{body}");
        assert_eq!(subject.key(), Some(id), "{body}");
        assert_eq!(subject.device_id(), device, "{body}");
        assert_eq!(drift(body), ["notifyType"], "{body}");
    }
}

#[test]
fn a_type_in_the_header_counts_if_there_is_none_outside() {
    let inside = r#""header":{"notifyType":"deviceAdded","deviceId":"d"}"#;
    for outside in ["", r#""notifyType":null,"#, r#""notifyType":"","#] {
        let body = format!("{{{outside}{inside}}}");
        let subject = readable(&body, STRICT).subject().clone();
        assert_eq!(subject.notify_type(), NotifyType::DeviceAdded, "{body}");
    }
    let body = format!(r#"{{"notifyType":"bindDevice",{inside}}}"#);
    let subject = readable(&body, STRICT).subject().clone();
    assert_eq!(subject.notify_type(), NotifyType::BindDevice);
}

#[test]
fn an_id_that_is_a_number_counts_in_its_literal_text_and_is_drift() {
    for number in ["7", "0", "-1.50", "1E400", "18446744073709551616"] {
        let text = format!(r#"{{"notifyType":"x","deviceId":{number}}}"#);
        assert_eq!(key(&text, STRICT).as_deref(), Some(number));
        assert_eq!(drift(&text), ["deviceId"], "{number}");
    }
}

#[test]
fn an_unlisted_type_keeps_its_name_if_a_header_can_hold_it() {
    let long = "x".repeat(257);
    let table = [
        ("deviceTeleported", "deviceTeleported", vec![]),
        ("设备", "设备", vec![]),
        ("MESSAGECONFIRM", "MESSAGECONFIRM", vec![]),
        ("envelope", "envelope", vec![]),
        (r"a\nb", "other", vec!["notifyType"]),
        (r"a\u0000", "other", vec!["notifyType"]),
        (r"a\u0085", "other", vec!["notifyType"]),
        (&long, "other", vec!["notifyType"]),
    ];
    for (written, name, fields) in table {
        let text = format!(r#"{{"notifyType":{},"deviceId":"d"}}"#, quoted(written));
        let notification = readable(&text, STRICT);
        assert_eq!(
            notification.category(),
            Category::Notifications,
            "{written}"
        );
        assert_eq!(
            notification.subject().notify_type(),
            NotifyType::Other,
            "{written}"
        );
        assert_eq!(notification.subject().type_name(), name, "{written}");
        assert_eq!(notification.subject().key(), Some("d"), "{written}");
        assert_eq!(drift(&text), fields, "{written}");
    }
}

#[test]
fn a_callback_or_an_envelope_is_recognized_despite_an_unusable_type() {
    for unusable in ["null", r#""""#, "3"] {
        let text = format!(r#"{{"notifyType":{unusable},"commandId":"c","result":null}}"#);
        let notification = readable(&text, STRICT);
        assert_eq!(
            notification.subject().notify_type(),
            NotifyType::CommandCallback
        );
        assert_eq!(notification.subject().key(), Some("c"));

        let text = format!(r#"{{"notifyType":{unusable},"resource":"r","event":"e"}}"#);
        let notification = readable(&text, STRICT);
        assert_eq!(notification.subject().notify_type(), NotifyType::Envelope);
        assert_eq!(notification.subject().type_name(), "r.e");
    }
}

#[test]
fn an_envelope_without_a_usable_name_is_still_readable() {
    let long = format!(r#"{{"resource":"{0}","event":"{0}"}}"#, "x".repeat(128));
    let table = [
        (r#"{"event":"e","notify_data":{}}"#, vec!["resource"]),
        (
            r#"{"resource":"r","event":null,"notify_data":null}"#,
            vec!["event"],
        ),
        (r#"{"resource":"","event":7}"#, vec!["resource", "event"]),
        (r#"{"resource":"r","event":"\n"}"#, vec!["event"]),
        (&long, vec!["event"]),
    ];
    for (body, fields) in table {
        let notification = readable(body, STRICT);
        assert_eq!(
            notification.subject().notify_type(),
            NotifyType::Envelope,
            "{body}"
        );
        assert_eq!(notification.subject().type_name(), "other", "{body}");
        assert_eq!(drift(body), fields, "{body}");
    }
}

#[test]
fn a_push_names_its_request_at_any_place_that_a_key_may_come_from() {
    let rows = [
        (r#"{"deviceId":"d","requestId":"r"}"#, true),
        (r#"{"deviceId":"d","header":{"requestId":"r"}}"#, true),
        (r#"{"deviceId":"d","request_id":"r"}"#, true),
        (r#"{"deviceId":"d","commandId":"\u0072"}"#, true),
        (r#"{"requestId":"s","commandId":"r"}"#, true),
        (
            r#"{"deviceId":"r","operationId":"r","body":{"requestId":"r"}}"#,
            false,
        ),
        (r#"{"header":"r","requestId":null}"#, false),
        (r#"["r"]"#, false),
        ("r", false),
        ("\u{feff}{\"requestId\":\"r\"}", true),
    ];
    for (body, expected) in rows {
        assert_eq!(names_request(body.as_bytes(), "r"), expected, "{body}");
    }
}

#[test]
fn other_types_are_keyed_by_their_best_id() {
    let devices = [
        (
            r#""deviceId":"d","header":{"deviceId":"h"},"requestId":"r""#,
            "d",
        ),
        (
            r#""header":{"requestId":"r","from":"/devices/f","deviceId":"h"}"#,
            "h",
        ),
        (
            r#""header":{"requestId":"r","from":"/devices/f/services/s"}"#,
            "f",
        ),
        (
            r#""notify_data":{"header":{"device_id":"n"}},"request_id":"r""#,
            "n",
        ),
    ];
    let requests = [
        (r#""requestId":"r","header":{"requestId":"h"}"#, "r"),
        (r#""request_id":"v","header":{"requestId":"h"}"#, "h"),
        (r#""request_id":"v","commandId":"c""#, "v"),
        (r#""commandId":"c","operationId":"o""#, "c"),
        (r#""operationId":"o","ruleId":"u""#, "o"),
        (r#""ruleId":"u","id":"x""#, "u"),
    ];
    for (members, id) in devices {
        let text = format!(r#"{{"notifyType":"x",{members}}}"#);
        assert_eq!(
            readable(&text, TOLERANT).subject().device_id(),
            Some(id),
            "{members}"
        );
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(id), "{members}");
        assert!(drift(&text).is_empty(), "{members}");
    }
    for (members, id) in requests {
        let text = format!(r#"{{"notifyType":"x",{members}}}"#);
        assert_eq!(
            readable(&text, TOLERANT).subject().device_id(),
            None,
            "{members}"
        );
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(id), "{members}");
        assert!(drift(&text).is_empty(), "{members}");
    }
    assert_eq!(key(r#"{"notifyType":"x","id":"y"}"#, TOLERANT), None);
}

#[test]
fn an_unusable_id_is_reported_and_the_next_one_is_used() {
    let long = quoted(&"x".repeat(513));
    for unusable in ["null", "true", r#""""#, "{}", r#""\ud800""#, &long] {
        let text = format!(
            r#"{{"notifyType":"x","deviceId":{unusable},
            "header":{{"deviceId":{unusable},"from":{unusable},"requestId":{unusable}}},
            "notify_data":{{"header":{{"device_id":{unusable}}}}},
            "requestId":{unusable},"request_id":{unusable},"commandId":{unusable},
            "operationId":{unusable},"ruleId":"u"}}"#
        );
        assert_eq!(key(&text, STRICT).as_deref(), Some("u"), "{unusable}");
        let fields = [
            "header.requestId",
            "header.deviceId",
            "header.from",
            "deviceId",
            "operationId",
            "requestId",
            "commandId",
            "request_id",
            "notify_data.header.device_id",
        ];
        assert_eq!(drift(&text), fields, "{unusable}");
    }
}

#[test]
fn a_container_of_ids_that_is_not_an_object_is_reported_unless_null() {
    let table = [
        (
            r#"{"notifyType":"x","header":null,"notify_data":null}"#,
            vec![],
        ),
        (
            r#"{"notifyType":"x","notify_data":{"header":null}}"#,
            vec![],
        ),
        (
            r#"{"notifyType":"x","header":[],"notify_data":"y"}"#,
            vec!["header", "notify_data"],
        ),
        (
            r#"{"notifyType":"x","notify_data":{"header":1}}"#,
            vec!["notify_data.header"],
        ),
    ];
    for (body, fields) in table {
        assert_eq!(drift(body), fields, "{body}");
    }
}

#[test]
fn the_null_request_id_of_device_data_is_not_drift() {
    assert!(body("deviceDataChanged").contains(r#""requestId":null"#));
    assert!(drift(body("deviceDataChanged")).is_empty());
}
