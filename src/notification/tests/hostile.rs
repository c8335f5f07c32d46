//! Input that no platform sends: not JSON, nested too deeply, or too large.

use super::super::*;
use super::{DEVICE, REQUEST, STRICT, TOLERANT, drift, key, reason, set, with};

#[test]
fn a_body_that_is_not_a_json_object_is_unreadable() {
    let table: &[(&[u8], &str)] = &[
        (b"", "not-json"),
        (b" ", "not-json"),
        (b"\xef\xbb\xbf", "not-json"),
        (b"{", "not-json"),
        (b"{\"notifyType\":\"messageConfirm\"", "not-json"),
        (b"{\"a\":1,}", "not-json"),
        (b"{\"a\":01}", "not-json"),
        (b"{\"a\":\"\t\"}", "not-json"),
        (b"{\"a\nb\":1}", "not-json"),
        (b"{\"a\\x\":1}", "not-json"),
        (b"{'a':1}", "not-json"),
        (b"{} {}", "several-values"),
        (
            b"{\"deviceId\":\"a\"}\n{\"deviceId\":\"b\"}\n",
            "several-values",
        ),
        (b"{}[]7", "several-values"),
        (b"{}{", "not-json"),
        (b"{}x", "not-json"),
        (b"{}\0", "not-json"),
        (b"[1,2", "not-json"),
        (b"notifyType=messageConfirm", "not-json"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "not-json"),
        (b"[]", "not-an-object"),
        (b"[{\"notifyType\":\"messageConfirm\"}]", "not-an-object"),
        (b"\"secret\"", "not-an-object"),
        (b"null", "not-an-object"),
        (b"1e99999", "not-an-object"),
        (b"\xff", "not-utf8"),
        (b"{\"a\":\"\xc3\"}", "not-utf8"),
        (b"{\"a\":\"\xed\xa0\x80\"}", "not-utf8"),
        (b"\xff\xfe{\0}\0", "not-utf8"),
    ];
    for (body, why) in table {
        assert_eq!(reason(body, TOLERANT), *why, "{}", body.escape_ascii());
        let unreadable = read(body, TOLERANT).unwrap_err();
        assert_eq!(unreadable.subject().type_name(), "other");
        assert_eq!(unreadable.subject().key(), None);
    }
}

#[test]
fn nesting_of_any_depth_needs_a_bounded_stack() {
    let depth = 1_000_000;
    let lists = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for deep in [&lists, &objects] {
        for place in ["unknown", "body"] {
            let text = with("messageConfirm", &format!("\"{place}\":{deep}"));
            assert_eq!(key(&text, TOLERANT).as_deref(), Some(REQUEST));
        }
        let text = set("messageConfirm", "requestId", deep);
        assert_eq!(reason(text, TOLERANT), "id-not-a-string");
        let text = format!(r#"{{"notifyType":"x","notify_data":{{"header":{deep}}}}}"#);
        assert_eq!(key(&text, TOLERANT), None);
    }
    assert_eq!(reason(&lists, TOLERANT), "not-an-object");
    assert_eq!(reason("{\"a\":".repeat(depth), TOLERANT), "not-json");
}

#[test]
fn a_number_of_any_size_is_accepted_anywhere() {
    for number in [
        "9".repeat(400),
        "-1e99999".to_owned(),
        "0.1e-99999".to_owned(),
    ] {
        let text = with("deviceDataChanged", &format!("\"x\":{number}"));
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(DEVICE));
        let text = set("deviceDataChanged", "deviceId", &number);
        assert_eq!(key(&text, TOLERANT).as_deref(), Some(&*number));
        assert_eq!(drift(&text), ["deviceId"]);
    }
}

#[test]
fn a_detail_never_repeats_the_body() {
    let secret = "hunter2".repeat(200);
    let bodies = [
        format!("\"{secret}\""),
        secret.clone(),
        format!("{{\"{secret}\":{secret}}}"),
        format!(r#"{{"notifyType":"messageConfirm","header":{{"requestId":"{secret}"}}}}"#),
        format!(r#"{{"notifyType":"swUpgradeResultNotify","deviceId":["{secret}"]}}"#),
        format!(r#"{{"{secret}":"{secret}"}}"#),
        set("messageConfirm", "status", &format!("\"{secret}\"")),
    ];
    for body in bodies {
        let detail = read(body.as_bytes(), STRICT).unwrap_err().to_string();
        assert!(!detail.contains("hunter2"), "{detail}");
        assert!(detail.len() <= 512, "{detail}");
    }
}
