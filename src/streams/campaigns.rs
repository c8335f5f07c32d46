//! Upgrade results for property tests: a few devices and operations, so that
//! equal receipts, repeats and retries are common.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::Value;

use super::device_software::{self, DeviceSoftware, Event};
use super::model::{self, Push};
use super::stream::Draft;
use super::time::Receipt;
use super::upgrade_operation::{self, Delta, OperationState};

/// Half a day, the grain of receipts: coarse, so that many are equal.
const GRAIN_HOURS: i64 = 12;

/// A push and its receipt, in grains since 1970.
pub(super) type Record = (String, i64);

/// Records and the same in another order with some of them repeated.
pub(super) type Disorder = (Vec<Record>, Vec<Record>);

/// Up to 60 distinct pushes over two months: enough to push attempts out.
pub(super) fn distinct_over_months() -> impl Strategy<Value = Disorder> {
    let records = prop::collection::vec((any_push(), 0_i64..120), 1..60);
    let numbered = records.prop_map(|records| {
        let distinct = |(at, (push, receipt)): (usize, (Template, i64))| (push.with(at), receipt);
        records.into_iter().enumerate().map(distinct).collect()
    });
    with_disorder(numbered)
}

/// Pushes that come again with other receipts, all within seven days.
pub(super) fn repeated_within_a_week() -> impl Strategy<Value = Disorder> {
    let one = (any_push(), 0_usize..3, 0_i64..=14);
    let records = prop::collection::vec(one, 1..60);
    with_disorder(records.prop_map(|records| {
        let record = |(push, number, receipt): (Template, usize, i64)| (push.with(number), receipt);
        records.into_iter().map(record).collect()
    }))
}

/// Few pushes for each device, that come again whenever they like.
pub(super) fn few_repeated_over_months() -> impl Strategy<Value = Disorder> {
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
/// Every state goes through its JSON, as if restored.
pub(super) fn fold_devices(
    records: &[Record],
) -> (BTreeMap<String, DeviceSoftware>, Vec<Delta<'static>>) {
    let mut states: BTreeMap<String, DeviceSoftware> = BTreeMap::new();
    let mut deltas = Vec::new();
    for (push, receipt) in records {
        let event = event(push, *receipt);
        let change = device_software::apply(states.get(&*event.device_id), &event);
        deltas.extend(change.delta.as_ref().map(written));
        if let Some(state) = change.state {
            let written = serde_json::to_vec(&state).unwrap();
            let restored: DeviceSoftware = serde_json::from_slice(&written).unwrap();
            assert_eq!(restored, *state);
            states.insert(event.device_id.into_owned(), restored);
        }
    }
    (states, deltas)
}

/// A delta as it is read again; its bytes outlive the test.
fn written(delta: &Delta<'_>) -> Delta<'static> {
    Delta::decode(serde_json::to_vec(delta).unwrap().leak()).unwrap()
}

/// The states of all operations; every delta and every state goes through its
/// JSON.
pub(super) fn fold_operations(deltas: &[Delta<'_>]) -> BTreeMap<String, OperationState> {
    let mut states: BTreeMap<String, OperationState> = BTreeMap::new();
    for delta in deltas {
        let delta = written(delta);
        let mut draft = Draft::of(states.get(delta.operation_id.as_str()), None);
        upgrade_operation::apply(&mut draft, &delta);
        if let Some(state) = draft.changed() {
            let written = serde_json::to_vec(&state).unwrap();
            let restored: OperationState = serde_json::from_slice(&written).unwrap();
            assert_eq!(restored, *state);
            states.insert(delta.operation_id.0.into_owned(), restored);
        }
    }
    states
}

/// Its bytes outlive the test, so that an event can stand without them.
pub(super) fn event(push: &str, receipt: i64) -> Event<'static> {
    let hours = DateTime::UNIX_EPOCH + TimeDelta::hours(receipt * GRAIN_HOURS);
    let received_at = Receipt::of_record(None, Some(hours.timestamp_millis()));
    Event::decode(push.to_owned().leak().as_bytes(), received_at).unwrap()
}

/// The records as the model wants them.
pub(super) fn for_the_model(records: &[Record]) -> Vec<Push> {
    let push = |(push, receipt): &Record| Push {
        bytes: push.clone().into_bytes(),
        received_at: DateTime::UNIX_EPOCH + TimeDelta::hours(receipt * GRAIN_HOURS),
    };
    records.iter().map(push).collect()
}

/// The states as others see them.
pub(super) fn visible<S: serde::Serialize>(
    states: &BTreeMap<String, S>,
) -> BTreeMap<String, Value> {
    let value = |state: &S| model::visible(serde_json::to_value(state).unwrap());
    let pair = |(id, state): (&String, &S)| (id.clone(), value(state));
    states.iter().map(pair).collect()
}

/// The fields of a push but the one that makes it distinct.
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
