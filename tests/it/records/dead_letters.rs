//! Pushes that cannot be keyed are stored in the dead-letter topic.

use super::{DEAD_LETTERS, UPGRADES, assert_stored, body, find, only};
use crate::gzip;
use crate::support::bodies::upgrade_result;
use crate::support::http::post_with;
use crate::support::mock::Mock;

/// Pushes that cannot be keyed: the body, the reason, and the key as far as known.
const UNREADABLE: &[(&[u8], &str, &str)] = &[
    (b"not JSON", "not-json", ""),
    (b"{\"notifyType\":\"messageConfirm\"", "not-json", ""),
    (b"[]", "not-an-object", ""),
    (b"null", "not-an-object", ""),
    (b"{\"a\":\"\xff\"}", "not-utf8", ""),
    (b"{}", "unknown-shape", ""),
    (b"{\"x\":1}", "unknown-shape", ""),
    (b"{\"deviceId\":\"a\"}\n{\"deviceId\":\"b\"}", "several-values", ""),
    (b"{\"notifyType\":\"messageConfirm\",\"header\":{}}", "id-missing", ""),
    (
        b"{\"notifyType\":\"messageConfirm\",\"header\":{\"requestId\":null,\"from\":\"/devices/d-1\"}}",
        "id-missing",
        "d-1",
    ),
    (
        b"{\"notifyType\":\"messageConfirm\",\"header\":{\"requestId\":[],\"from\":\"/devices/d-2\"}}",
        "id-not-a-string",
        "d-2",
    ),
    (b"{\"notifyType\":\"swUpgradeResultNotify\",\"deviceId\":\"\"}", "id-empty", ""),
];

#[test]
fn an_unreadable_push_is_answered_200_and_dead_lettered() {
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
        assert_eq!(topic, DEAD_LETTERS, "{shown}");
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
fn only_an_id_above_512_bytes_is_dead_lettered() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    for length in [512, 513] {
        let body = upgrade_result(&"d".repeat(length), "o", "SUCCESS");
        assert_stored(&northbridge, body.as_bytes(), "a long id");
    }
    assert_eq!(only(mock.records(UPGRADES)).key_text().len(), 512);
    assert_eq!(
        only(mock.records(DEAD_LETTERS)).header("northbridge-reason"),
        Some("id-too-long")
    );
}

#[test]
fn strict_validation_dead_letters_a_push_with_drift() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[("http.validation", "strict")]);
    let drifted = upgrade_result("d-1", "o", "SUCCESSFUL");
    assert_stored(&northbridge, drifted.as_bytes(), "a push with drift");
    assert_stored(
        &northbridge,
        &body("swUpgradeResultNotify"),
        "a push as published",
    );
    let dead = only(mock.records(DEAD_LETTERS));
    assert_eq!(dead.header("northbridge-reason"), Some("field-table"));
    assert!(
        dead.header("northbridge-detail")
            .unwrap()
            .contains("swUpgradeResult")
    );
    assert_eq!(
        (dead.key_text().as_str(), dead.value_text()),
        ("d-1", drifted)
    );
    only(mock.records(UPGRADES));
}

#[test]
fn a_dead_letter_keeps_the_content_type_of_its_sender() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let long = "x".repeat(257);
    let cases = [
        (Some("text/xml; charset=gbk"), "text/xml; charset=gbk"),
        (Some("text/\u{fc}"), "application/octet-stream"),
        (Some(&*long), "application/octet-stream"),
        (None, "application/octet-stream"),
    ];
    for (number, (sent, _)) in cases.iter().enumerate() {
        let headers: Vec<_> = sent.iter().map(|sent| ("content-type", *sent)).collect();
        let body = format!("not JSON {number}");
        let answer = post_with(northbridge.address(), "/notifications", &headers, body);
        assert_eq!(answer.status, 200);
    }
    let stored = mock.all_records();
    for (number, (_, kept)) in cases.iter().enumerate() {
        let body = format!("not JSON {number}");
        let (_, record) = find(&stored, body.as_bytes());
        assert_eq!(record.header("content-type"), Some(*kept), "{body}");
    }
}

#[test]
fn a_corrupt_gzip_body_is_dead_lettered_unchanged() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let mut cut = gzip(&body("messageConfirm"));
    cut.truncate(cut.len() - 9);
    for body in [&cut[..], b"{\"notifyType\":\"x\"}"] {
        let headers = [("content-encoding", "gzip")];
        let answer = post_with(northbridge.address(), "/notifications", &headers, body);
        assert_eq!(answer.status, 200);
    }
    let dead = mock.records(DEAD_LETTERS);
    assert_eq!(dead.len(), 2);
    assert!(
        dead.iter()
            .any(|record| record.value.as_ref() == Some(&cut))
    );
    for record in dead {
        assert_eq!(record.header("northbridge-reason"), Some("not-gzip"));
    }
}
