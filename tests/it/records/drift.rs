//! Pushes that deviate from the published tables but can still be keyed.

use super::{COMMANDS, OTHERS, UPGRADES, assert_stored, find};
use crate::support::bodies::{message_confirm, upgrade_result};
use crate::support::mock::Mock;

/// A push that deviates from the published tables, and the fields that count as
/// drift.
struct DriftCase {
    what: &'static str,
    body: String,
    topic: &'static str,
    key: &'static str,
    drift: &'static [&'static str],
}

#[test]
fn a_push_with_drift_is_stored_in_its_topic_and_counted() {
    let mock = Mock::start();
    let northbridge = mock.ready_ingress(&[]);
    let drift_cases = drift_cases();
    for case in &drift_cases {
        assert_stored(&northbridge, case.body.as_bytes(), case.what);
    }
    let stored = mock.all_records();
    assert_eq!(stored.len(), drift_cases.len());
    for case in &drift_cases {
        let (topic, record) = find(&stored, case.body.as_bytes());
        assert_eq!(
            (topic, record.key_text().as_str()),
            (case.topic, case.key),
            "{}",
            case.what
        );
        for field in case.drift {
            let label = format!("field=\"{field}\"");
            let count = northbridge.metric("northbridge_payload_drift_total", &[&label]);
            assert!(count >= 1.0, "{}: {field}", case.what);
        }
    }
    let expected: usize = drift_cases.iter().map(|case| case.drift.len()).sum();
    let expected = f64::from(u32::try_from(expected).unwrap());
    northbridge.wait_for_metric("northbridge_payload_drift_total", &[], expected);
}

fn drift_cases() -> Vec<DriftCase> {
    let mut all = field_drift();
    all.extend(unusual_texts());
    all
}

/// Fields of the published tables with other types or values.
fn field_drift() -> Vec<DriftCase> {
    vec![
        drift_case(
            "nulls where the table expected mandatory",
            confirm("c-null").replace("\"body\":{}", "\"body\":null"),
            COMMANDS,
            "c-null",
            &["body"],
        ),
        drift_case(
            "a missing field",
            confirm("c-less").replace("\"to\":\"northbound-application\",", ""),
            COMMANDS,
            "c-less",
            &["header.to"],
        ),
        drift_case(
            "a number instead of a string",
            upgrade("u-number").replace("\"errorCode\":\"0\"", "\"errorCode\":0"),
            UPGRADES,
            "u-number",
            &["errorCode"],
        ),
        drift_case(
            "ids that are numbers",
            confirm("17").replace("\"17\"", "17.50"),
            COMMANDS,
            "17.50",
            &["header.requestId"],
        ),
        drift_case(
            "a device id that is a number",
            upgrade("18").replace("\"deviceId\":\"18\"", "\"deviceId\":18"),
            UPGRADES,
            "18",
            &["deviceId"],
        ),
        drift_case(
            "a rule's own selection of fields",
            r#"{"notify_data.header.device_id":"flat","requestId":"constant"}"#.to_owned(),
            OTHERS,
            "flat",
            &["notifyType"],
        ),
        drift_case(
            "a duration as a number, as on another page",
            upgrade("u-long").replace(
                "\"upgradeTime\":\"20151212T121212Z\"",
                "\"upgradeTime\":183",
            ),
            UPGRADES,
            "u-long",
            &[],
        ),
        drift_case(
            "SUCCESSFUL instead of SUCCESS",
            upgrade_result("u-drifted", "o", "SUCCESSFUL"),
            UPGRADES,
            "u-drifted",
            &["swUpgradeResult"],
        ),
        drift_case(
            "an unknown status",
            message_confirm("c-status", "d", "TIMEOUT"),
            COMMANDS,
            "c-status",
            &["header.status"],
        ),
        drift_case(
            "milliseconds, as in a sibling dialect",
            confirm("c-ms").replace("20151212T121212Z", "20151212T121212.123Z"),
            COMMANDS,
            "c-ms",
            &[],
        ),
        drift_case(
            "an invalid timestamp",
            confirm("c-time").replace("20151212T121212Z", "yesterday"),
            COMMANDS,
            "c-time",
            &["header.timestamp"],
        ),
    ]
}

/// Texts that no table forbids but a careless parser would mishandle.
fn unusual_texts() -> Vec<DriftCase> {
    vec![
        drift_case(
            "a NUL in a string",
            confirm("c-nul\\u0000"),
            COMMANDS,
            "c-nul\0",
            &[],
        ),
        drift_case(
            "Chinese keys and unknown fields",
            confirm("c-中文").replace("\"body\":{}", "\"body\":{\"温度\":21},\"新\":[{}]"),
            COMMANDS,
            "c-中文",
            &[],
        ),
        drift_case(
            "integers beyond 2^53",
            confirm("c-large").replace("\"body\":{}", "\"body\":{\"n\":9007199254740993}"),
            COMMANDS,
            "c-large",
            &[],
        ),
        drift_case(
            "a different key order, and whitespace",
            " {\"header\": {\"timestamp\":\"20151212T121212Z\",\"status\":\"sent\",\"to\":\"a\",\
             \"from\":\"/devices/d\",\"requestId\":\"c-order\"},\r\n\"body\":{},\
             \"notifyType\":\"messageConfirm\"}\n"
                .to_owned(),
            COMMANDS,
            "c-order",
            &[],
        ),
        drift_case(
            "an unknown type",
            "{\"notifyType\":\"deviceTeleported\",\"deviceId\":\"d-new\"}".to_owned(),
            OTHERS,
            "d-new",
            &[],
        ),
    ]
}

fn drift_case(
    what: &'static str,
    body: String,
    topic: &'static str,
    key: &'static str,
    drift: &'static [&'static str],
) -> DriftCase {
    DriftCase {
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
