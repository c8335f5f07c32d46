//! Upgrade results for property tests: of so few devices and operations that equal receipts, repeats
//! and retries are common.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use super::records::restored;
use crate::model::Push;
use crate::streams::draft::Draft;
use crate::streams::states::device::{self, DeviceSoftware, Event};
use crate::streams::states::operation::{self, Delta, OperationState};
use crate::streams::states::position::Position;
use crate::streams::states::time::ReceivedAt;

/// The unit of receipts in these tests: coarse, so that many are equal.
const UNIT_HOURS: i64 = 12;

/// A push and its receipt, in units of 12 hours since 1970.
pub(crate) type Record = (String, i64);

/// Some records, and the same in another order with some repeated.
pub(crate) type Disorder = (Vec<Record>, Vec<Record>);

/// Up to 60 distinct pushes over two months: enough for attempts to be dropped.
pub(crate) fn distinct_over_months() -> impl Strategy<Value = Disorder> {
    let records = prop::collection::vec((any_push(), 0_i64..120), 1..60);
    let numbered = records.prop_map(|records| {
        let distinct = |(at, (push, receipt)): (usize, (Template, i64))| (push.with(at), receipt);
        records.into_iter().enumerate().map(distinct).collect()
    });
    with_disorder(numbered)
}

/// Pushes repeated with other receipts, all within seven days.
pub(crate) fn repeated_within_a_week() -> impl Strategy<Value = Disorder> {
    let one = (any_push(), 0_usize..3, 0_i64..=14);
    let records = prop::collection::vec(one, 1..60);
    with_disorder(records.prop_map(|records| {
        let record = |(push, number, receipt): (Template, usize, i64)| (push.with(number), receipt);
        records.into_iter().map(record).collect()
    }))
}

/// At most 16 distinct pushes, repeated at any time within two months.
pub(crate) fn few_repeated_over_months() -> impl Strategy<Value = Disorder> {
    let one = (any_push(), 0_i64..120);
    with_disorder(prop::collection::vec(one, 1..16).prop_flat_map(|pushes| {
        let again = prop::collection::vec((any::<Index>(), 0_i64..120), 0..20);
        again.prop_map(move |again| {
            let repeats = again
                .iter()
                .map(|(at, receipt)| (at.get(&pushes).0, *receipt));
            let all = pushes.iter().copied().chain(repeats);
            all.map(|(push, receipt)| (push.with(0), receipt)).collect()
        })
    }))
}

/// The states of all devices, and the deltas in the order they were written.
pub(crate) fn fold_devices(
    records: &[Record],
) -> (BTreeMap<String, DeviceSoftware>, Vec<Delta<'static>>) {
    let mut states = BTreeMap::new();
    let deltas = apply_results(&mut states, records);
    (states, deltas)
}

/// Applies upgrade results to the states of the devices. Returns the deltas in the order they were
/// written. Every state is written and read again, as after a restart.
pub(crate) fn apply_results(
    states: &mut BTreeMap<String, DeviceSoftware>,
    records: &[Record],
) -> Vec<Delta<'static>> {
    let mut deltas = Vec::new();
    for (push, receipt) in records {
        let event = event(push, *receipt);
        let change = device::apply(states.get(&*event.device_id), &event);
        deltas.extend(change.delta.as_ref().map(written));
        if let Some(state) = change.state {
            states.insert(event.device_id.into_owned(), restored(&*state));
        }
    }
    deltas
}

/// A delta, written and read again. Leaks its bytes.
fn written(delta: &Delta<'_>) -> Delta<'static> {
    Delta::decode(serde_json::to_vec(delta).unwrap().leak()).unwrap()
}

/// The states of all operations, from deltas at increasing offsets.
pub(crate) fn fold_operations(deltas: &[Delta<'_>]) -> BTreeMap<String, OperationState> {
    let mut states = BTreeMap::new();
    for (offset, delta) in (0..).zip(deltas) {
        let timestamp_ms = 0;
        let position = Position {
            offset,
            timestamp_ms,
        };
        apply_delta(&mut states, delta, position);
    }
    states
}

/// Applies a delta at this position. The delta and the state are written and read again.
pub(crate) fn apply_delta(
    states: &mut BTreeMap<String, OperationState>,
    delta: &Delta<'_>,
    position: Position,
) {
    let delta = written(delta);
    let operation = delta.operation_id.as_str().to_owned();
    let mut draft = Draft::of(states.get(&operation), None);
    operation::apply(&mut draft, &operation::Event { delta, position });
    if let Some(state) = draft.changed() {
        states.insert(operation, restored(&*state));
    }
}

/// Leaks the bytes, so that an event can be returned without them.
pub(crate) fn event(push: &str, receipt: i64) -> Event<'static> {
    let hours = DateTime::UNIX_EPOCH + TimeDelta::hours(receipt * UNIT_HOURS);
    let received_at = ReceivedAt::of_record(None, Some(hours.timestamp_millis()));
    Event::decode(push.to_owned().leak().as_bytes(), received_at).unwrap()
}

/// The records as the model reads them.
pub(crate) fn for_the_model(records: &[Record]) -> Vec<Push> {
    let push = |(push, receipt): &Record| Push {
        bytes: push.clone().into_bytes(),
        received_at: DateTime::UNIX_EPOCH + TimeDelta::hours(receipt * UNIT_HOURS),
    };
    records.iter().map(push).collect()
}

/// The values of the states.
pub(crate) fn values<S: serde::Serialize>(states: &BTreeMap<String, S>) -> BTreeMap<String, Value> {
    let pair = |(id, state): (&String, &S)| (id.clone(), serde_json::to_value(state).unwrap());
    states.iter().map(pair).collect()
}

/// The fields of a push, except the one that makes it distinct.
#[derive(Clone, Copy, Debug)]
struct Template {
    device: &'static str,
    operation: &'static str,
    result: &'static str,
    target: &'static str,
    error: &'static str,
}

impl Template {
    fn with(self, number: usize) -> String {
        let Self {
            device,
            operation,
            result,
            target,
            error,
        } = self;
        format!(
            r#"{{"notifyType":"swUpgradeResultNotify","deviceId":{device},"appId":"a1",
            "operationId":{operation},"subOperationId":{number},"curVersion":null,
            "targetVersion":{target},"swUpgradeResult":{result},"errorCode":{error}}}"#
        )
    }
}

fn any_push() -> impl Strategy<Value = Template> {
    let device = select(vec![r#""d1""#, r#""d2""#, "3"]);
    let operation = select(vec![r#""o1""#, r#""o2""#, r#""o3""#, "4", r#""""#, "null"]);
    let result = select(vec![
        r#""SUCCESS""#,
        r#""successful""#,
        r#""FAIL""#,
        r#""Failure""#,
    ]);
    let target = select(vec![r#""1.5""#, "1.50", "1.5", "null", r#""""#]);
    let error = select(vec![r#""E1""#, "17", "null", r#""""#]);
    (device, operation, result, target, error).prop_map(
        |(device, operation, result, target, error)| Template {
            device,
            operation,
            result,
            target,
            error,
        },
    )
}

fn with_disorder(records: impl Strategy<Value = Vec<Record>>) -> impl Strategy<Value = Disorder> {
    let repeats = prop::collection::vec(any::<Index>(), 0..12);
    (records, repeats).prop_flat_map(|(records, repeats)| {
        let again = repeats.iter().map(|at| at.get(&records).clone());
        let all: Vec<Record> = records.iter().cloned().chain(again).collect();
        (Just(records), Just(all).prop_shuffle())
    })
}
