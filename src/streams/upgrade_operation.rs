//! How far one upgrade operation is: the delta of a device (event), the value
//! in `iot.upgrade-operation` (state), and the count of the one in the other.
//!
//! This is the second stage: it is keyed by operation, sees each device only
//! through deltas, and remembers no device. That each delta is applied exactly
//! once, and those of one device in their order, is the promise of the stage
//! before and of its transactions; between devices any order is the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::push::Poison;
use super::stream::Draft;
use super::texts::Text;
use super::time::Receipt;

/// How many of the latest receipts an operation keeps; see [`OperationState`].
pub const LATEST_KEPT: usize = 16;

/// How an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum UpgradeResult {
    /// The device runs the target version.
    Success,
    /// It does not.
    Fail,
}

/// What counts of a device in an operation: its newest attempt there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome<'a> {
    /// How that attempt ended.
    pub result: UpgradeResult,
    /// The version that the device should run.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub target_version: Option<Text<'a>>,
    /// The published code of a failure.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<Text<'a>>,
    /// When that attempt was first received.
    pub received_at: Receipt,
}

/// One device's outcome in one operation changed: the value in
/// `iot.upgrade-delta`.
///
/// It carries both sides of the change, so that the operation can take the one
/// back and count the other without knowing the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta<'a> {
    /// The operation, the key of the record.
    #[serde(borrow)]
    pub operation_id: Text<'a>,
    /// The device; told for people who read along, never used.
    #[serde(borrow)]
    pub device_id: Text<'a>,
    /// What counted for the device so far; absent for its first attempt.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub before: Option<Outcome<'a>>,
    /// What counts now; equal to `before` where only `earliest_at` is news.
    #[serde(borrow)]
    pub after: Outcome<'a>,
    /// The earliest receipt of any attempt of the device in the operation.
    pub earliest_at: Receipt,
}

/// The progress of one operation, as it stands in its topic.
///
/// `firstAt` is the earliest receipt of *any* attempt in the operation, also
/// of one that the device has since repeated with another outcome: when the
/// operation's first result came. A minimum only ever falls, so it is exact
/// without a memory of devices; the earliest among the newest attempts alone
/// could rise with every retry, and would need them all.
///
/// `lastAt` is the latest receipt, which belongs to some device's newest
/// attempt. It can fall: when a push turns out to have been received earlier
/// than known, by a repeat that was overtaken on its way. Then the second
/// latest is needed, so the state keeps the 16 latest receipts that count, in
/// the internal field `latest` (absent where that is `lastAt` alone). Only if
/// 16 of them fell without a new result in between, `lastAt` would stay at the
/// last one known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct OperationState {
    operation_id: String,
    target_versions: BTreeMap<String, u64>,
    succeeded: u64,
    failed: u64,
    errors: BTreeMap<String, u64>,
    first_at: Receipt,
    last_at: Receipt,
    /// The latest receipts that count, newest first.
    latest: Vec<Receipt>,
}

/// Counts a delta in the state of its operation; one that says nothing new
/// leaves it as it is.
///
/// Deltas of different devices commute; those of one device follow each other.
/// One operation has the deltas of all its devices, so its state is changed in
/// place.
pub fn apply(state: &mut Draft<'_, OperationState>, delta: &Delta<'_>) {
    if state.get().is_some_and(|state| state.knows(delta)) {
        return;
    }
    let state = state.edit(|| OperationState::empty(delta));
    state.remember(delta);
    if let Some(before) = &delta.before {
        state.take_back(before);
    }
    state.count(&delta.after);
    state.first_at = state.first_at.min(delta.earliest_at);
}

impl UpgradeResult {
    /// Both results.
    pub const ALL: [Self; 2] = [Self::Success, Self::Fail];

    /// The word in a state and in a metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Fail => "FAIL",
        }
    }

    /// Reads the published words and those that were seen in their place, in
    /// any case.
    pub(super) fn read(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "SUCCESS" | "SUCCESSFUL" | "SUCCEEDED" => Some(Self::Success),
            "FAIL" | "FAILED" | "FAILURE" => Some(Self::Fail),
            _ => None,
        }
    }
}

impl<'a> Delta<'a> {
    /// Reads a value of `iot.upgrade-delta`.
    ///
    /// # Errors
    ///
    /// [`Poison::NotADelta`] where another writer put something else there.
    pub fn decode(value: &'a [u8]) -> Result<Self, Poison> {
        serde_json::from_slice(value).map_err(|_| Poison::NotADelta)
    }
}

impl OperationState {
    /// How many devices have an outcome: always the sum of both results.
    pub fn devices(&self) -> u64 {
        self.succeeded.saturating_add(self.failed)
    }

    fn empty(delta: &Delta<'_>) -> Self {
        Self {
            operation_id: delta.operation_id.0.clone().into_owned(),
            target_versions: BTreeMap::new(),
            succeeded: 0,
            failed: 0,
            errors: BTreeMap::new(),
            first_at: delta.earliest_at,
            last_at: delta.after.received_at,
            latest: Vec::new(),
        }
    }

    /// Whether a delta says nothing new.
    fn knows(&self, delta: &Delta<'_>) -> bool {
        delta.before.as_ref() == Some(&delta.after) && delta.earliest_at >= self.first_at
    }

    fn count(&mut self, outcome: &Outcome<'_>) {
        let total = self.total(outcome.result);
        *total = total.saturating_add(1);
        for (counts, name) in self.named(outcome) {
            match counts.get_mut(name) {
                Some(count) => *count = count.saturating_add(1),
                None => drop(counts.insert(name.to_owned(), 1)),
            }
        }
    }

    fn take_back(&mut self, outcome: &Outcome<'_>) {
        let total = self.total(outcome.result);
        *total = total.saturating_sub(1);
        for (counts, name) in self.named(outcome) {
            let left = counts.get(name).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                counts.remove(name);
            } else {
                counts.insert(name.to_owned(), left);
            }
        }
    }

    fn total(&mut self, result: UpgradeResult) -> &mut u64 {
        match result {
            UpgradeResult::Success => &mut self.succeeded,
            UpgradeResult::Fail => &mut self.failed,
        }
    }

    /// The counts by name that an outcome belongs to. An empty name says
    /// nothing, and the code of a success is no error.
    fn named<'s, 'o>(
        &'s mut self,
        outcome: &'o Outcome<'_>,
    ) -> impl Iterator<Item = (&'s mut BTreeMap<String, u64>, &'o str)> {
        let failed = outcome.result == UpgradeResult::Fail;
        let error = outcome.error_code.as_ref().filter(|_| failed);
        let error = error.map(Text::as_str);
        let version = outcome.target_version.as_ref().map(Text::as_str);
        [
            (&mut self.target_versions, version),
            (&mut self.errors, error),
        ]
        .into_iter()
        .filter_map(|(counts, name)| Some((counts, name.filter(|name| !name.is_empty())?)))
    }

    /// Keeps `latest` the greatest receipts of all that count. Called with the
    /// counts as they were before the delta.
    fn remember(&mut self, delta: &Delta<'_>) {
        let after = delta.after.received_at;
        let complete = u64::try_from(self.latest.len()) == Ok(self.devices());
        let rank = self.latest.partition_point(|known| *known > after);
        // Below the last one known there may be others that were let go.
        if complete || rank < self.latest.len() {
            self.latest.insert(rank, after);
        }
        let before = delta.before.as_ref().map(|outcome| outcome.received_at);
        if let Some(at) = self.latest.iter().position(|known| Some(*known) == before) {
            self.latest.remove(at);
        }
        self.latest.truncate(LATEST_KEPT);
        match self.latest.first() {
            Some(last) => self.last_at = *last,
            None => self.latest.push(self.last_at),
        }
    }
}

/// The fields of the value, in the contract's words.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    operation_id: String,
    target_versions: BTreeMap<String, u64>,
    succeeded: u64,
    failed: u64,
    devices: u64,
    errors: BTreeMap<String, u64>,
    first_at: Receipt,
    last_at: Receipt,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    latest: Vec<Receipt>,
}

impl From<OperationState> for Written {
    fn from(state: OperationState) -> Self {
        let more = state.latest.len() > 1;
        Self {
            devices: state.devices(),
            operation_id: state.operation_id,
            target_versions: state.target_versions,
            succeeded: state.succeeded,
            failed: state.failed,
            errors: state.errors,
            first_at: state.first_at,
            last_at: state.last_at,
            latest: if more { state.latest } else { Vec::new() },
        }
    }
}

impl From<Written> for OperationState {
    fn from(written: Written) -> Self {
        let alone = written.latest.is_empty();
        Self {
            operation_id: written.operation_id,
            target_versions: written.target_versions,
            succeeded: written.succeeded,
            failed: written.failed,
            errors: written.errors,
            first_at: written.first_at,
            last_at: written.last_at,
            latest: if alone {
                vec![written.last_at]
            } else {
                written.latest
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::streams::campaigns::{self, Disorder, Record};
    use crate::streams::{model, schemas};

    fn push(device: &str, number: i64, result: &str, error: &str) -> String {
        json!({"deviceId": device, "operationId": "o1", "subOperationId": number,
            "swUpgradeResult": result, "targetVersion": "1.5", "errorCode": error})
        .to_string()
    }

    fn state(records: &[Record]) -> Value {
        let (_, deltas) = campaigns::fold_devices(records);
        serde_json::to_value(&campaigns::fold_operations(&deltas)["o1"]).unwrap()
    }

    fn receipt(seconds: i64) -> Receipt {
        let time = DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        Receipt::of_record(None, Some(time.timestamp_millis()))
    }

    fn outcome(seconds: i64) -> Outcome<'static> {
        Outcome {
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
    fn devices_are_counted_by_version_and_failures_by_error() {
        let records = [
            (push("d1", 1, "FAIL", "E1"), 0),
            (push("d2", 1, "FAIL", "E1"), 1),
            (push("d3", 1, "FAIL", ""), 2),
            (push("d4", 1, "SUCCESS", "0"), 2),
        ];
        let state = model::visible(state(&records));
        let expected = json!({"operationId": "o1", "targetVersions": {"1.5": 4}, "succeeded": 1,
            "failed": 3, "devices": 4, "errors": {"E1": 2},
            "firstAt": "1970-01-01T00:00:00.000Z", "lastAt": "1970-01-02T00:00:00.000Z"});
        assert_eq!(state, expected);
    }

    #[test]
    fn an_older_attempt_that_comes_late_moves_the_first_receipt_only() {
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
    fn the_last_receipt_falls_when_a_push_was_received_earlier_than_known() {
        let devices: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
        let mut deltas = devices;
        deltas.push(delta(Some(39), 10));
        deltas.push(delta(Some(38), 11));
        let state = count(&deltas);
        assert_eq!(state.last_at, receipt(37));
        assert_eq!(state.devices(), 40);
    }

    #[test]
    fn the_last_receipt_known_stands_when_all_kept_ones_fell() {
        let mut deltas: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
        deltas.extend((24..40).map(|second| delta(Some(second), 0)));
        assert_eq!(count(&deltas).last_at, receipt(39));

        deltas.push(delta(None, 50));
        assert_eq!(count(&deltas).last_at, receipt(50));
    }

    #[test]
    fn the_state_keeps_sixteen_receipts_however_many_devices_there_are() {
        let deltas: Vec<Delta<'_>> = (0..40).map(|second| delta(None, second)).collect();
        assert_eq!(count(&deltas).latest.len(), LATEST_KEPT);
    }

    #[test]
    fn a_delta_that_says_nothing_new_leaves_nothing_to_write() {
        let state = count(&[delta(None, 1)]);
        let mut draft = Draft::of(Some(&state), None);
        apply(&mut draft, &delta(Some(1), 1));
        assert_eq!(draft.changed(), None);
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
    fn what_is_no_delta_is_poison() {
        for value in ["", "{}", "[1]", r#"{"operationId":"o1"}"#] {
            let poison = Delta::decode(value.as_bytes()).unwrap_err();
            assert_eq!(poison.reason(), "not-a-delta");
        }
    }

    /// Holds both stages against the model, with the deltas of the devices
    /// once as they came and once device by device.
    fn hold_the_laws((records, disorder): &Disorder) -> Result<(), TestCaseError> {
        let (_, deltas) = campaigns::fold_devices(records);
        let states = campaigns::fold_operations(&deltas);
        let expected = model::upgrade_operations(&campaigns::for_the_model(records));
        prop_assert_eq!(campaigns::visible(&states), expected);

        let (_, mut deltas) = campaigns::fold_devices(disorder);
        prop_assert_eq!(&campaigns::fold_operations(&deltas), &states);
        deltas.sort_by(|a, b| a.device_id.cmp(&b.device_id));
        prop_assert_eq!(&campaigns::fold_operations(&deltas), &states);

        for state in states.values() {
            let value = serde_json::to_value(state).unwrap();
            prop_assert_eq!(schemas::broken(&schemas::UPGRADE_OPERATION, &value), None);
        }
        Ok(())
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
        fn any_order_of_distinct_pushes_with_any_repeats_gives_the_models_state(
            records in campaigns::distinct_over_months()
        ) {
            hold_the_laws(&records)?;
        }

        #[test]
        fn repeats_with_other_receipts_within_a_week_give_the_models_state(
            records in campaigns::repeated_within_a_week()
        ) {
            hold_the_laws(&records)?;
        }

        #[test]
        fn repeats_of_sixteen_attempts_at_any_time_give_the_models_state(
            records in campaigns::few_repeated_over_months()
        ) {
            hold_the_laws(&records)?;
        }

        #[test]
        fn the_last_receipt_is_exact_while_fewer_fall_than_are_kept(
            (receipts, corrections) in receipts_and_corrections()
        ) {
            let deltas: Vec<Delta<'_>> = receipts.iter().map(|at| delta(None, *at)).collect();
            let mut state = count(&deltas);
            let mut now = receipts;
            for (device, at) in corrections {
                let mut draft = Draft::of(Some(&state), None);
                apply(&mut draft, &delta(Some(now[device]), at));
                if let Some(next) = draft.changed() {
                    state = *next;
                }
                now[device] = at;
                let last = now.iter().copied().max().map(receipt);
                prop_assert_eq!(Some(state.last_at), last);
            }
        }
    }
}
