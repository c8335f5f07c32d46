use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::model;
use crate::streams::tests::campaigns::{self, Disorder, Record};
use crate::streams::tests::{records, schemas};

/// In half days, the unit of the receipts in these tests.
const WEEK: i64 = 14;

fn push(operation: &str, number: i64, result: &str) -> String {
    json!({"deviceId": "d1", "operationId": operation, "subOperationId": number,
        "swUpgradeResult": result})
    .to_string()
}

fn state(records: &[Record]) -> Value {
    let (states, _) = campaigns::fold_devices(records);
    serde_json::to_value(&states["d1"]).unwrap()
}

fn header(records: &[Record]) -> Value {
    let (states, _) = campaigns::fold_devices(records);
    records::header(&states["d1"])
}

fn numbers(state: &Value, field: &str) -> Vec<i64> {
    let attempts = state[field].as_array().into_iter().flatten();
    attempts
        .map(|attempt| attempt["subOperationId"].as_str().unwrap().parse().unwrap())
        .collect()
}

fn poison(push: &str) -> Option<&'static str> {
    let receipt = ReceivedAt::of_record(None, None);
    let poison = Event::decode(push.as_bytes(), receipt).err();
    poison.map(Poison::reason)
}

#[test]
fn a_result_is_written_as_the_documented_value() {
    let push = r#"{"notifyType":"swUpgradeResultNotify","deviceId":"d1","appId":"a1",
        "operationId":"o1","subOperationId":"s1","curVersion":"1.5","targetVersion":1.50,
        "sourceVersion":"1.0","swUpgradeResult":"Successful","upgradeTime":1700000000000,
        "resultDesc":null,"errorCode":"0","description":"","added":[1]}"#;
    let attempt = json!({"appId": "a1", "operationId": "o1", "subOperationId": "s1",
        "result": "SUCCESS", "curVersion": "1.5", "targetVersion": "1.50",
        "sourceVersion": "1.0", "upgradeTime": "1700000000000", "errorCode": "0",
        "description": "", "receivedAt": "1970-01-02T00:00:00.000Z"});
    let mut expected = attempt.clone();
    expected["deviceId"] = json!("d1");
    expected["attempts"] = json!([attempt]);
    assert_eq!(state(&[(push.to_owned(), 2)]), expected);
}

#[test]
fn the_fields_of_a_state_are_written_in_a_fixed_order() {
    let push = r#"{"description":"d","resultDesc":"r","errorCode":"0","upgradeTime":"9",
        "sourceVersion":"1.0","targetVersion":"1.5","curVersion":"1.5","subOperationId":"s1",
        "operationId":"o1","appId":"a1","swUpgradeResult":"SUCCESS","deviceId":"d1"}"#;
    let (states, _) = campaigns::fold_devices(&[(push.to_owned(), 2)]);
    let attempt = r#""appId":"a1","operationId":"o1","subOperationId":"s1","curVersion":"1.5","targetVersion":"1.5","sourceVersion":"1.0","upgradeTime":"9","errorCode":"0","resultDesc":"r","description":"d","result":"SUCCESS","receivedAt":"1970-01-02T00:00:00.000Z""#;
    assert_eq!(
        serde_json::to_string(&states["d1"]).unwrap(),
        format!(r#"{{"deviceId":"d1",{attempt},"attempts":[{{{attempt}}}]}}"#)
    );
}

#[test]
fn an_attempt_with_a_repeated_field_is_rejected() {
    let once = r#""result":"FAIL","receivedAt":"1970-01-02T00:00:00.000Z""#;
    for (fields, accepted) in [
        (r#""appId":"a""#, true),
        (r#""appId":"a","appId":"b""#, false),
    ] {
        let written = format!(r#"{{"deviceId":"d1","attempts":[{{{fields},{once}}}]}}"#);
        let state = serde_json::from_str::<DeviceSoftware>(&written);
        assert_eq!(state.is_ok(), accepted, "{fields}");
    }
}

#[test]
fn an_attempt_without_a_mandatory_field_is_rejected() {
    for attempt in [
        r#"{"result":"FAIL"}"#,
        r#"{"receivedAt":"1970-01-02T00:00:00.000Z"}"#,
    ] {
        let written = format!(r#"{{"deviceId":"d1","attempts":[{attempt}]}}"#);
        assert!(serde_json::from_str::<DeviceSoftware>(&written).is_err());
    }
}

#[test]
fn every_known_word_for_a_result_is_read_and_no_other() {
    for (result, reason) in [
        (r#""SUCCESS""#, None),
        (r#""successful""#, None),
        (r#""Succeeded""#, None),
        (r#""FAIL""#, None),
        (r#""failed""#, None),
        (r#""FailUre""#, None),
        (r#""FAILING""#, Some("result-unknown")),
        (r#""""#, Some("result-unknown")),
        ("1", Some("result-unknown")),
        ("null", Some("result-missing")),
        ("{}", Some("result-missing")),
    ] {
        let push = format!(r#"{{"deviceId":"d1","swUpgradeResult":{result}}}"#);
        assert_eq!(poison(&push), reason, "{result}");
    }
}

#[test]
fn a_push_without_a_usable_device_id_is_poison() {
    let long = format!(r#"{{"deviceId":"{}"}}"#, "x".repeat(513));
    for (push, reason) in [
        ("7", "not-json-object"),
        (r#"{"swUpgradeResult":"FAIL"}"#, "device-id-missing"),
        (
            r#"{"deviceId":"","swUpgradeResult":"FAIL"}"#,
            "device-id-missing",
        ),
        (&long, "device-id-too-long"),
        (
            r#"{"notifyType":"fwUpgradeResultNotify","deviceId":"d1"}"#,
            "other-notify-type",
        ),
    ] {
        assert_eq!(poison(push), Some(reason), "{push}");
    }
}

#[test]
fn a_repeated_old_result_never_hides_a_newer_one() {
    let old = push("o1", 1, "FAIL");
    let new = push("o2", 2, "SUCCESS");
    let state = state(&[(old.clone(), 0), (new, 1), (old, 9)]);
    assert_eq!(state["result"], "SUCCESS");
    assert_eq!(numbers(&state, "attempts"), [2, 1]);
}

#[test]
fn the_earliest_receipt_of_a_push_is_kept() {
    let push = push("o1", 1, "FAIL");
    let state = state(&[(push.clone(), 4), (push.clone(), 2), (push, 6)]);
    assert_eq!(state["receivedAt"], "1970-01-02T00:00:00.000Z");
    assert_eq!(numbers(&state, "attempts"), [1]);
}

#[test]
fn a_repeated_result_is_not_counted_again() {
    let event = campaigns::event(&push("o1", 1, "FAIL"), 0);
    let first = apply(None, &event);
    assert_eq!(first.new_result, Some(UpgradeResult::Fail));
    assert_eq!(apply(first.state.as_deref(), &event), Change::default());
}

#[test]
fn an_earlier_receipt_of_a_known_push_is_written_but_not_counted() {
    let push = push("o1", 1, "FAIL");
    let (late, early) = (campaigns::event(&push, 2), campaigns::event(&push, 1));
    let first = apply(None, &late);
    let again = apply(first.state.as_deref(), &early);
    assert_eq!((again.state.is_some(), again.new_result), (true, None));
}

#[test]
fn an_attempt_too_old_to_be_kept_is_neither_written_nor_counted() {
    let records: Vec<Record> = (0..16)
        .map(|number| (push("o1", number, "FAIL"), 100 + number))
        .collect();
    let (states, _) = campaigns::fold_devices(&records);
    let late = campaigns::event(&push("o1", 16, "SUCCESS"), 0);
    let change = apply(states.get("d1"), &late);
    assert_eq!((change.state, change.new_result), (None, None));
    assert_eq!(
        change.delta.unwrap().earliest_at,
        ReceivedAt::of_record(None, None)
    );
}

#[test]
fn never_fewer_than_sixteen_attempts_are_kept() {
    let records: Vec<Record> = (0..20)
        .map(|number| (push("", number, "FAIL"), number * 2 * WEEK))
        .collect();
    let kept: Vec<i64> = (4..20).rev().collect();
    assert_eq!(numbers(&state(&records), "attempts"), kept);
}

#[test]
fn all_attempts_of_the_last_seven_days_are_kept() {
    let mut records: Vec<Record> = (0..20)
        .map(|number| (push("", number, "FAIL"), 100 - WEEK))
        .collect();
    records.push((push("", 20, "FAIL"), 100));
    assert_eq!(numbers(&state(&records), "attempts").len(), 21);
    records.push((push("", 21, "FAIL"), 101));
    assert_eq!(numbers(&state(&records), "attempts").len(), 16);
}

#[test]
fn an_operation_whose_attempts_were_dropped_still_counts_the_device_once() {
    let mut records = vec![(push("o1", 0, "FAIL"), 0), (push("o1", 1, "FAIL"), 1)];
    records.extend((2..18).map(|number| (push("o2", number, "FAIL"), 50 + number)));
    assert_eq!(numbers(&header(&records), "older"), [1]);

    records.push((push("o1", 18, "SUCCESS"), 70));
    let (_, deltas) = campaigns::fold_devices(&records);
    let before = deltas.last().unwrap().before.as_ref().unwrap();
    assert_eq!(before.result, UpgradeResult::Fail);
    assert_eq!(header(&records), json!({"version": 1}));
}

#[test]
fn a_state_from_before_the_header_has_its_older_attempts_in_its_value() {
    let receipts = (0..16).map(|number| (push("o2", number, "FAIL"), 50 + number));
    let (states, _) = campaigns::fold_devices(&receipts.collect::<Vec<_>>());
    let mut value = serde_json::to_value(&states["d1"]).unwrap();
    value["older"] = json!([{"operationId": "o1", "subOperationId": "1", "result": "FAIL",
        "receivedAt": "1970-01-01T00:00:00.000Z"}]);
    let state: DeviceSoftware = records::read(value.to_string().as_bytes(), None).unwrap();
    assert_eq!(numbers(&records::header(&state), "older"), [1]);
    assert_eq!(
        serde_json::to_value(&state).unwrap(),
        serde_json::to_value(&states["d1"]).unwrap()
    );
}

#[test]
fn an_attempt_without_an_operation_has_no_delta() {
    for operation in [json!(null), json!("")] {
        let push = json!({"deviceId": "d1", "operationId": operation,
            "swUpgradeResult": "FAIL"});
        let event = campaigns::event(&push.to_string(), 0);
        assert_eq!(apply(None, &event).delta, None);
    }
}

#[test]
fn a_state_without_attempts_is_rejected() {
    let written = r#"{"deviceId":"d1","attempts":[]}"#;
    assert!(serde_json::from_str::<DeviceSoftware>(written).is_err());
}

fn check_laws((records, disorder): &Disorder) -> Result<(), TestCaseError> {
    let (states, _) = campaigns::fold_devices(records);
    prop_assert_eq!(&campaigns::fold_devices(disorder).0, &states);
    let expected = model::device_software(&campaigns::for_the_model(records));
    prop_assert_eq!(campaigns::values(&states), expected);
    for state in states.values() {
        let value = serde_json::to_value(state).unwrap();
        prop_assert_eq!(schemas::violations(&schemas::DEVICE_SOFTWARE, &value), None);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_order_of_distinct_pushes_with_any_repeats_leads_to_the_state_of_the_model(
        records in campaigns::distinct_over_months()
    ) {
        check_laws(&records)?;
    }

    #[test]
    fn repeats_with_other_receipts_within_a_week_lead_to_the_state_of_the_model(
        records in campaigns::repeated_within_a_week()
    ) {
        check_laws(&records)?;
    }

    #[test]
    fn repeats_of_sixteen_attempts_at_any_time_lead_to_the_state_of_the_model(
        records in campaigns::few_repeated_over_months()
    ) {
        check_laws(&records)?;
    }
}
