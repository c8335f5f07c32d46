use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;
use crate::model;
use crate::streams::states::format::{self, StateError};
use crate::streams::tests::campaigns::{self, Disorder, Record};
use crate::streams::tests::{records, schemas};

fn push(device: &str, number: i64, result: &str, error: &str) -> String {
    json!({"deviceId": device, "operationId": "o1", "subOperationId": number,
        "swUpgradeResult": result, "targetVersion": "1.5", "errorCode": error})
    .to_string()
}

fn state(records: &[Record]) -> Value {
    let (_, deltas) = campaigns::fold_devices(records);
    serde_json::to_value(&campaigns::fold_operations(&deltas)["o1"]).unwrap()
}

fn receipt(seconds: i64) -> ReceivedAt {
    let time = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
    ReceivedAt::of_record(None, Some(time.timestamp_millis()))
}

fn outcome(seconds: i64) -> DeviceOutcome<'static> {
    DeviceOutcome {
        result: UpgradeResult::Success,
        target_version: None,
        error_code: None,
        received_at: receipt(seconds),
    }
}

fn delta(before: Option<i64>, after: i64) -> Delta<'static> {
    Delta {
        operation_id: "o1".into(),
        device_id: "d1".into(),
        before: before.map(outcome),
        after: outcome(after),
        earliest_at: receipt(after),
    }
}

fn event(delta: Delta<'_>, offset: i64) -> Event<'_> {
    let timestamp_ms = 0;
    let position = Position {
        offset,
        timestamp_ms,
    };
    Event { delta, position }
}

fn count(deltas: &[Delta<'_>]) -> OperationState {
    campaigns::fold_operations(deltas).remove("o1").unwrap()
}

#[test]
fn a_device_that_fails_and_succeeds_later_counts_once() {
    let records = [
        (push("d1", 1, "FAIL", "E1"), 0),
        (push("d1", 2, "SUCCESS", "0"), 2),
    ];
    let expected = json!({"operationId": "o1", "targetVersions": {"1.5": 1}, "succeeded": 1,
        "failed": 0, "devices": 1, "errors": {}, "firstAt": "1970-01-01T00:00:00.000Z",
        "lastAt": "1970-01-02T00:00:00.000Z"});
    assert_eq!(state(&records), expected);
}

#[test]
fn the_fields_of_a_state_are_written_in_a_fixed_order() {
    let records = [
        (push("d1", 1, "FAIL", "E1"), 0),
        (push("d2", 1, "SUCCESS", "0"), 2),
    ];
    let (_, deltas) = campaigns::fold_devices(&records);
    assert_eq!(
        serde_json::to_string(&count(&deltas)).unwrap(),
        r#"{"operationId":"o1","targetVersions":{"1.5":2},"succeeded":1,"failed":1,"devices":2,"errors":{"E1":1},"firstAt":"1970-01-01T00:00:00.000Z","lastAt":"1970-01-02T00:00:00.000Z"}"#
    );
    assert_eq!(
        serde_json::to_string(&count(&deltas).header()).unwrap(),
        r#"{"version":1,"counted":{"offset":1,"timestamp":0},"latest":["1970-01-02T00:00:00.000Z","1970-01-01T00:00:00.000Z"]}"#
    );
}

#[test]
fn devices_are_counted_by_version_and_failures_by_error() {
    let records = [
        (push("d1", 1, "FAIL", "E1"), 0),
        (push("d2", 1, "FAIL", "E1"), 1),
        (push("d3", 1, "FAIL", ""), 2),
        (push("d4", 1, "SUCCESS", "0"), 2),
    ];
    let state = state(&records);
    let expected = json!({"operationId": "o1", "targetVersions": {"1.5": 4}, "succeeded": 1,
        "failed": 3, "devices": 4, "errors": {"E1": 2},
        "firstAt": "1970-01-01T00:00:00.000Z", "lastAt": "1970-01-02T00:00:00.000Z"});
    assert_eq!(state, expected);
}

#[test]
fn an_older_attempt_received_later_changes_only_the_first_receipt() {
    let records = [
        (push("d1", 2, "SUCCESS", "0"), 2),
        (push("d1", 1, "FAIL", "E1"), 0),
    ];
    let state = state(&records);
    assert_eq!(state["firstAt"], "1970-01-01T00:00:00.000Z");
    assert_eq!(state["lastAt"], "1970-01-02T00:00:00.000Z");
    assert_eq!(
        (&state["succeeded"], &state["failed"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn the_last_receipt_falls_if_a_push_was_received_earlier_than_known() {
    let devices: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
    let mut deltas = devices;
    deltas.push(delta(Some(39), 10));
    deltas.push(delta(Some(38), 11));
    let state = count(&deltas);
    assert_eq!(state.last_at, receipt(37));
    assert_eq!(state.devices, 40);
}

#[test]
fn the_last_receipt_stays_if_all_kept_receipts_fell() {
    let mut deltas: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
    deltas.extend((24..40).map(|second| delta(Some(second), 0)));
    assert_eq!(count(&deltas).last_at, receipt(39));

    deltas.push(delta(None, 50));
    assert_eq!(count(&deltas).last_at, receipt(50));
}

#[test]
fn sixteen_receipts_are_kept_for_any_number_of_devices() {
    let deltas: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
    assert_eq!(count(&deltas).latest.len(), LATEST_KEPT);
}

#[test]
fn a_delta_without_news_changes_nothing() {
    let state = count(&[delta(None, 1)]);
    let mut draft = Draft::of(Some(&state), None);
    apply(&mut draft, &event(delta(Some(1), 1), 1));
    assert_eq!(draft.changed(), None);
}

#[test]
fn a_delta_that_was_counted_before_changes_nothing() {
    let deltas = [delta(None, 1), delta(None, 2)];
    let state = count(&deltas);
    for (offset, again) in (0..).zip(deltas) {
        let mut draft = Draft::of(Some(&state), None);
        apply(&mut draft, &event(again, offset));
        assert_eq!(draft.changed(), None);
    }
}

#[test]
fn a_state_from_before_the_header_has_counted_what_its_committed_offset_includes() {
    let value = json!({"operationId": "o1", "targetVersions": {}, "succeeded": 2, "failed": 0,
        "devices": 2, "errors": {}, "firstAt": "1970-01-01T00:00:01.000Z",
        "lastAt": "1970-01-01T00:00:02.000Z",
        "latest": ["1970-01-01T00:00:02.000Z", "1970-01-01T00:00:01.000Z"]});
    let counted = Counted {
        offset: Some(6),
        timestamp_ms: 9,
    };
    let state = format::read(value.to_string().as_bytes(), None, counted);
    let state: Box<OperationState> = state.unwrap();
    assert_eq!(
        records::header(&*state),
        json!({"version": 1, "counted": {"offset": 6, "timestamp": 9}, "latest": value["latest"]})
    );
    for (offset, devices) in [(6, None), (7, Some(3))] {
        let mut draft = Draft::of(Some(&*state), None);
        apply(&mut draft, &event(delta(None, 3), offset));
        assert_eq!(draft.changed().map(|state| state.devices), devices);
    }
}

#[test]
fn the_header_of_an_operation_must_say_what_is_counted() {
    let value = serde_json::to_vec(&count(&[delta(None, 1)])).unwrap();
    let state = records::read::<OperationState>(&value, Some(br#"{"version":1}"#));
    assert_eq!(state.err(), Some(StateError::Unreadable));
}

#[test]
fn a_delta_is_written_as_documented() {
    let (_, deltas) = campaigns::fold_devices(&[
        (push("d1", 1, "FAIL", "E1"), 0),
        (push("d1", 2, "SUCCESS", "0"), 2),
    ]);
    let expected = json!({"operationId": "o1", "deviceId": "d1",
        "before": {"result": "FAIL", "targetVersion": "1.5", "errorCode": "E1",
            "receivedAt": "1970-01-01T00:00:00.000Z"},
        "after": {"result": "SUCCESS", "targetVersion": "1.5", "errorCode": "0",
            "receivedAt": "1970-01-02T00:00:00.000Z"},
        "earliestAt": "1970-01-01T00:00:00.000Z"});
    assert_eq!(serde_json::to_value(&deltas[1]).unwrap(), expected);
}

#[test]
fn a_value_that_is_not_a_delta_is_poison() {
    for value in ["", "{}", "[1]", r#"{"operationId":"o1"}"#] {
        let poison = Delta::decode(value.as_bytes()).unwrap_err();
        assert_eq!(poison.reason(), "not-a-delta");
    }
}

/// Compares both stages with the model, with the deltas once in the order of the records and once
/// device by device.
fn check_laws((records, disorder): &Disorder) -> Result<(), TestCaseError> {
    let (_, deltas) = campaigns::fold_devices(records);
    let states = campaigns::fold_operations(&deltas);
    let expected = model::upgrade_operations(&campaigns::for_the_model(records));
    prop_assert_eq!(campaigns::values(&states), expected);

    let states = without_positions(states);
    let (_, mut deltas) = campaigns::fold_devices(disorder);
    prop_assert_eq!(
        &without_positions(campaigns::fold_operations(&deltas)),
        &states
    );
    deltas.sort_by(|a, b| a.device_id.cmp(&b.device_id));
    prop_assert_eq!(
        &without_positions(campaigns::fold_operations(&deltas)),
        &states
    );

    for state in states.values() {
        let value = serde_json::to_value(state).unwrap();
        prop_assert_eq!(
            schemas::violations(&schemas::UPGRADE_OPERATION, &value),
            None
        );
    }
    Ok(())
}

/// The states without what was counted, which is another in each order of deltas.
fn without_positions(
    mut states: BTreeMap<String, OperationState>,
) -> BTreeMap<String, OperationState> {
    for state in states.values_mut() {
        state.counted = Counted::default();
    }
    states
}

/// A part of a log that is read at one go: where it begins among the records read so far, and how
/// many records it has.
type Reading = (Index, usize);

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    prop::collection::vec((any::<Index>(), 0_usize..30), 0..6)
}

/// Reads a log in these parts, then to its end: a consumer that is set back at any time, to any
/// offset that it has read.
fn read_log(
    states: &mut BTreeMap<String, OperationState>,
    log: &[(Delta<'_>, Position)],
    readings: &[Reading],
) {
    let mut read = 0;
    for (begin, length) in readings {
        let begin = begin.index(read + 1);
        let end = (begin + length).min(log.len());
        for (delta, position) in &log[begin..end] {
            campaigns::apply_delta(states, delta, *position);
        }
        read = read.max(end);
    }
    for (delta, position) in &log[read..] {
        campaigns::apply_delta(states, delta, *position);
    }
}

/// Deltas at their offsets, with these timestamps in turn: clocks of different writers, and many
/// deltas in one millisecond.
fn log<'d>(deltas: &[Delta<'d>], first_ms: i64, steps_ms: &[i64]) -> Vec<(Delta<'d>, Position)> {
    let times = steps_ms.iter().cycle();
    let positioned = (0..).zip(deltas).zip(times);
    positioned
        .map(|((offset, delta), step_ms)| {
            let timestamp_ms = first_ms + step_ms;
            let position = Position {
                offset,
                timestamp_ms,
            };
            (delta.clone(), position)
        })
        .collect()
}

/// Receipts of 40 devices, and fewer corrections than receipts are kept.
fn receipts_and_corrections() -> impl Strategy<Value = (Vec<i64>, Vec<(usize, i64)>)> {
    let receipts = prop::collection::vec(0_i64..100, 40);
    (
        receipts,
        prop::collection::vec((0_usize..40, 0_i64..100), 0..LATEST_KEPT),
    )
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

    #[test]
    fn reading_any_part_of_the_deltas_again_changes_no_state(
        (records, _) in campaigns::distinct_over_months(),
        steps_ms in prop::collection::vec(0_i64..4, 1..8),
        made_again in any::<Index>(),
        before in readings(),
        after in readings(),
    ) {
        let (_, deltas) = campaigns::fold_devices(&records);
        let expected = without_positions(campaigns::fold_operations(&deltas));
        let (first, second) = deltas.split_at(made_again.index(deltas.len() + 1));
        let mut states = BTreeMap::new();
        read_log(&mut states, &log(first, 1_000, &steps_ms), &before);
        // The topic is deleted and made again.
        read_log(&mut states, &log(second, 2_000, &steps_ms), &after);
        prop_assert_eq!(without_positions(states), expected);
    }

    #[test]
    fn reading_any_prefix_of_the_results_again_changes_no_state(
        (records, _) in campaigns::distinct_over_months(),
        prefixes in prop::collection::vec(any::<Index>(), 1..4),
    ) {
        let (mut devices, mut deltas) = campaigns::fold_devices(&records);
        let before = devices.clone();
        let expected = without_positions(campaigns::fold_operations(&deltas));
        for prefix in prefixes {
            let again = &records[..prefix.index(records.len() + 1)];
            deltas.extend(campaigns::apply_results(&mut devices, again));
        }
        prop_assert_eq!(devices, before);
        prop_assert_eq!(without_positions(campaigns::fold_operations(&deltas)), expected);
    }

    #[test]
    fn the_last_receipt_is_exact_while_fewer_receipts_fall_than_are_kept(
        (receipts, corrections) in receipts_and_corrections()
    ) {
        let deltas: Vec<Delta<'_>> = receipts.iter().map(|at| delta(None, *at)).collect();
        let mut state = count(&deltas);
        let mut now = receipts;
        for (device, at) in corrections {
            let mut draft = Draft::of(Some(&state), None);
            let offset = state.counted.offset.unwrap_or_default() + 1;
            apply(&mut draft, &event(delta(Some(now[device]), at), offset));
            if let Some(next) = draft.changed() {
                state = *next;
            }
            now[device] = at;
            let last = now.iter().copied().max().map(receipt);
            prop_assert_eq!(Some(state.last_at), last);
        }
    }
}
