//! What software a device runs: the upgrade result (event), the value in
//! `iot.device-software` (state), and the merge of the two.
//!
//! Each change that matters to an operation leaves as a [`Delta`]; how
//! operations count is the business of `upgrade_operation`.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::push::{Field, Poison, UnusableId, fields_of_record};
use super::texts::{Text, Texts};
use super::time::Receipt;
use super::upgrade_operation::{Delta, Outcome, UpgradeResult};

/// Every attempt of this many days before the newest one is kept.
pub const KEPT_DAYS: i64 = 7;

/// However old, this many attempts are kept.
pub const KEPT_ATTEMPTS: usize = 16;

/// One `swUpgradeResultNotify` push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The device, as allocated at its registration.
    pub device_id: Cow<'a, str>,
    attempt: Attempt,
}

/// The state of one device, as it stands in its topic.
///
/// `attempts` are those of the last 7 days before the newest and at least the
/// 16 newest. Dropping is by rank alone, and as long as a push keeps its
/// receipt no rank can rise again: so any order of the same records, with any
/// repeats of them, gives the same attempts.
///
/// An operation counts each device once and forgets none, so an operation's
/// newest attempt of this device must be known even when 16 attempts in other
/// operations have pushed it out. It then moves to the internal field `older`,
/// one attempt for each such operation; without it, a late record would count
/// its device twice. `older` is absent as long as `attempts` has all.
///
/// What is not kept is forgotten, with one consequence: an attempt over 7 days
/// older than the newest, with 16 newer ones, that was followed by another in
/// its own operation (or belongs to none), would count as new if the platform
/// pushed it again. The platform holds pushes for 24 hours at most, so no
/// repeat comes that late. And where a repeat shows that a push was received
/// *earlier* than known, what was dropped behind it does not come back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Read")]
pub struct DeviceSoftware {
    device_id: String,
    /// Newest first, never empty.
    attempts: Vec<Attempt>,
    /// Newest first.
    older: Vec<Attempt>,
}

/// One distinct push: two with all published fields equal are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// All that the platform published but the result, in the order of [`TEXTS`].
    texts: Texts<10>,
    result: UpgradeResult,
    received_at: Receipt,
}

/// The names of an attempt's texts, in a push as in a state; the order is that
/// of attempts received in the same millisecond.
const TEXTS: [&str; 10] = [
    "appId",
    "operationId",
    "subOperationId",
    "curVersion",
    "targetVersion",
    "sourceVersion",
    "upgradeTime",
    "errorCode",
    "resultDesc",
    "description",
];

/// What one upgrade result did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// The state to write; `None` where it is as it was.
    pub state: Option<Box<DeviceSoftware>>,
    /// The result of an attempt not seen before, to be counted.
    pub new_result: Option<UpgradeResult>,
    /// What the attempt's operation must know.
    pub delta: Option<Delta<'a>>,
}

/// Merges an upgrade result into the state of its device.
///
/// Commutative, associative and idempotent over events within the bounds that
/// [`DeviceSoftware`] tells.
pub fn apply<'a>(state: Option<&'a DeviceSoftware>, event: &'a Event<'_>) -> Change<'a> {
    let known = state.and_then(|state| state.find(&event.attempt));
    if known.is_some_and(|known| known.received_at <= event.attempt.received_at) {
        return Change::default();
    }
    let next = DeviceSoftware::with(state, event);
    let kept = next.find(&event.attempt).is_some();
    Change {
        delta: delta(state, event),
        new_result: (known.is_none() && kept).then_some(event.attempt.result),
        state: (state != Some(&next)).then(|| Box::new(next)),
    }
}

impl<'a> Event<'a> {
    /// Reads a `swUpgradeResultNotify` push that was received at `received_at`.
    ///
    /// # Errors
    ///
    /// [`Poison`] where the bytes are no JSON object, the push is of another
    /// type, no usable `deviceId` says which device it is about, or its result
    /// is neither a success nor a failure. No other field is needed.
    pub fn decode(push: &'a [u8], received_at: Receipt) -> Result<Self, Poison> {
        let [
            app,
            operation,
            sub,
            cur,
            target,
            source,
            time,
            error,
            desc,
            description,
        ] = TEXTS;
        let [notify_type, device_id, result, texts @ ..] = fields_of_record(
            push,
            [
                "notifyType",
                "deviceId",
                "swUpgradeResult",
                app,
                operation,
                sub,
                cur,
                target,
                source,
                time,
                error,
                desc,
                description,
            ],
        )?;
        notify_type.expect_notify_type("swUpgradeResultNotify")?;
        let device_id = device_id.id().map_err(|unusable| match unusable {
            UnusableId::Missing => Poison::DeviceIdMissing,
            UnusableId::TooLong => Poison::DeviceIdTooLong,
        })?;
        let attempt = Attempt::read(result, texts, received_at)?;
        Ok(Self { device_id, attempt })
    }
}

impl DeviceSoftware {
    fn with(state: Option<&Self>, event: &Event<'_>) -> Self {
        let known = state.into_iter().flat_map(Self::all);
        let others = known.filter(|known| !known.is_same_push(&event.attempt));
        let attempts = others.chain([&event.attempt]).cloned().collect();
        Self::settle(event.device_id.clone().into_owned(), attempts)
    }

    /// Keeps what must be kept of distinct attempts in any order.
    fn settle(device_id: String, mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_unstable_by(|a, b| b.cmp(a));
        let horizon = attempts
            .first()
            .map(|newest| newest.received_at.days_before(KEPT_DAYS));
        let recent = attempts.partition_point(|attempt| Some(attempt.received_at) >= horizon);
        let mut older = attempts.split_off(recent.max(KEPT_ATTEMPTS).min(attempts.len()));
        if !older.is_empty() {
            keep_newest_of_operations(&mut older, &attempts);
        }
        Self {
            device_id,
            attempts,
            older,
        }
    }

    /// Everything known, newest first.
    fn all(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().chain(&self.older)
    }

    fn find(&self, push: &Attempt) -> Option<&Attempt> {
        self.all().find(|known| known.is_same_push(push))
    }

    fn in_operation(&self, operation: &str) -> impl Iterator<Item = &Attempt> {
        self.all()
            .filter(move |attempt| attempt.operation() == Some(operation))
    }
}

/// Leaves in `older` one attempt for each operation that `attempts` lacks.
fn keep_newest_of_operations(older: &mut Vec<Attempt>, attempts: &[Attempt]) {
    let owned = |attempt: &Attempt| attempt.operation().map(str::to_owned);
    let mut known: BTreeSet<String> = attempts.iter().filter_map(owned).collect();
    older.retain(|attempt| owned(attempt).is_some_and(|operation| known.insert(operation)));
}

/// What the operation of an attempt must know of it: another attempt of the
/// device counts there now, or the device's earliest receipt there fell.
fn delta<'a>(before: Option<&'a DeviceSoftware>, event: &'a Event<'_>) -> Option<Delta<'a>> {
    let attempt = &event.attempt;
    let operation = attempt.operation()?;
    let known = || {
        before
            .into_iter()
            .flat_map(|state| state.in_operation(operation))
    };
    let others = known().filter(|known| !known.is_same_push(attempt));
    let outcome_before = known().next().map(Attempt::outcome);
    let outcome_after = others
        .fold(attempt, |newest, other| newest.max(other))
        .outcome();
    let earliest_before = known().map(|attempt| attempt.received_at).min();
    let earlier = earliest_before.is_none_or(|earliest| attempt.received_at < earliest);
    if !earlier && outcome_before.as_ref() == Some(&outcome_after) {
        return None;
    }
    Some(Delta {
        operation_id: operation.into(),
        device_id: Text::from(&*event.device_id),
        before: outcome_before,
        after: outcome_after,
        earliest_at: earliest_before.map_or(attempt.received_at, |earliest| {
            earliest.min(attempt.received_at)
        }),
    })
}

impl Attempt {
    fn read(
        result: Field<'_>,
        texts: [Field<'_>; 10],
        received_at: Receipt,
    ) -> Result<Self, Poison> {
        let result = result.text().ok_or(Poison::ResultMissing)?;
        let texts = texts.map(Field::text);
        Ok(Self {
            texts: Texts::of(texts.each_ref().map(Option::as_deref)),
            result: UpgradeResult::read(&result).ok_or(Poison::ResultUnknown)?,
            received_at,
        })
    }

    /// Whether the platform published the same of both.
    fn is_same_push(&self, other: &Self) -> bool {
        self.result == other.result && self.texts == other.texts
    }

    /// The operation that counts the attempt; one without a name does not.
    fn operation(&self) -> Option<&str> {
        let [_, operation, ..] = self.texts.all();
        operation.filter(|id| !id.is_empty())
    }

    fn outcome(&self) -> Outcome<'_> {
        let [_, _, _, _, target_version, _, _, error_code, ..] = self.texts.all();
        Outcome {
            result: self.result,
            target_version: target_version.map(Text::from),
            error_code: error_code.map(Text::from),
            received_at: self.received_at,
        }
    }

    /// Adds its fields to an object.
    fn write<M: SerializeMap>(&self, object: &mut M) -> Result<(), M::Error> {
        for (name, text) in TEXTS.iter().zip(self.texts.all()) {
            if let Some(text) = text {
                object.serialize_entry(name, text)?;
            }
        }
        object.serialize_entry("result", &self.result)?;
        object.serialize_entry("receivedAt", &self.received_at)
    }
}

impl Ord for Attempt {
    fn cmp(&self, other: &Self) -> Ordering {
        let receipts = self.received_at.cmp(&other.received_at);
        receipts
            .then_with(|| self.result.cmp(&other.result))
            .then_with(|| self.texts.all().cmp(&other.texts.all()))
    }
}

impl PartialOrd for Attempt {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        self.write(&mut object)?;
        object.end()
    }
}

/// The fields of the newest attempt stand at the top once more.
impl Serialize for DeviceSoftware {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("deviceId", &self.device_id)?;
        if let Some(newest) = self.attempts.first() {
            newest.write(&mut object)?;
        }
        object.serialize_entry("attempts", &self.attempts)?;
        if !self.older.is_empty() {
            object.serialize_entry("older", &self.older)?;
        }
        object.end()
    }
}

/// An attempt as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    #[serde(borrow)]
    app_id: Option<Text<'a>>,
    #[serde(borrow)]
    operation_id: Option<Text<'a>>,
    #[serde(borrow)]
    sub_operation_id: Option<Text<'a>>,
    result: UpgradeResult,
    #[serde(borrow)]
    cur_version: Option<Text<'a>>,
    #[serde(borrow)]
    target_version: Option<Text<'a>>,
    #[serde(borrow)]
    source_version: Option<Text<'a>>,
    #[serde(borrow)]
    upgrade_time: Option<Text<'a>>,
    #[serde(borrow)]
    error_code: Option<Text<'a>>,
    #[serde(borrow)]
    result_desc: Option<Text<'a>>,
    #[serde(borrow)]
    description: Option<Text<'a>>,
    received_at: Receipt,
}

impl<'de> Deserialize<'de> for Attempt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let texts = [
            &written.app_id,
            &written.operation_id,
            &written.sub_operation_id,
            &written.cur_version,
            &written.target_version,
            &written.source_version,
            &written.upgrade_time,
            &written.error_code,
            &written.result_desc,
            &written.description,
        ];
        Ok(Self {
            texts: Texts::of(texts.map(|text| text.as_ref().map(Text::as_str))),
            result: written.result,
            received_at: written.received_at,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    device_id: String,
    attempts: Vec<Attempt>,
    #[serde(default)]
    older: Vec<Attempt>,
}

#[derive(Debug, Error)]
#[error("a device without attempts")]
struct NoAttempts;

impl TryFrom<Read> for DeviceSoftware {
    type Error = NoAttempts;

    fn try_from(read: Read) -> Result<Self, NoAttempts> {
        if read.attempts.is_empty() {
            return Err(NoAttempts);
        }
        let attempts = read.attempts.into_iter().chain(read.older).collect();
        Ok(Self::settle(read.device_id, attempts))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::streams::campaigns::{self, Disorder, Record};
    use crate::streams::{model, schemas};

    /// Half days, the grain of the receipts in these tests.
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

    fn numbers(state: &Value, field: &str) -> Vec<i64> {
        let attempts = state[field].as_array().into_iter().flatten();
        attempts
            .map(|attempt| attempt["subOperationId"].as_str().unwrap().parse().unwrap())
            .collect()
    }

    fn poison(push: &str) -> Option<&'static str> {
        let receipt = Receipt::of_record(None, None);
        let poison = Event::decode(push.as_bytes(), receipt).err();
        poison.map(Poison::reason)
    }

    #[test]
    fn a_result_is_the_published_value() {
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
    fn both_results_are_read_in_all_their_words_and_no_other_is() {
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
    fn what_names_no_device_is_poison() {
        let long = format!(r#"{{"deviceId":"{}"}}"#, "x".repeat(257));
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
    fn the_earliest_receipt_of_a_push_stands() {
        let push = push("o1", 1, "FAIL");
        let state = state(&[(push.clone(), 4), (push.clone(), 2), (push, 6)]);
        assert_eq!(state["receivedAt"], "1970-01-02T00:00:00.000Z");
        assert_eq!(numbers(&state, "attempts"), [1]);
    }

    #[test]
    fn a_new_result_is_counted_once_and_a_repeat_is_not() {
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
            Receipt::of_record(None, None)
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
    fn everything_of_the_last_seven_days_is_kept() {
        let mut records: Vec<Record> = (0..20)
            .map(|number| (push("", number, "FAIL"), 100 - WEEK))
            .collect();
        records.push((push("", 20, "FAIL"), 100));
        assert_eq!(numbers(&state(&records), "attempts").len(), 21);
        records.push((push("", 21, "FAIL"), 101));
        assert_eq!(numbers(&state(&records), "attempts").len(), 16);
    }

    #[test]
    fn an_operation_pushed_out_of_the_attempts_is_still_counted_once() {
        let mut records = vec![(push("o1", 0, "FAIL"), 0), (push("o1", 1, "FAIL"), 1)];
        records.extend((2..18).map(|number| (push("o2", number, "FAIL"), 50 + number)));
        assert_eq!(numbers(&state(&records), "older"), [1]);

        records.push((push("o1", 18, "SUCCESS"), 70));
        let (_, deltas) = campaigns::fold_devices(&records);
        let before = deltas.last().unwrap().before.as_ref().unwrap();
        assert_eq!(before.result, UpgradeResult::Fail);
        assert_eq!(state(&records).get("older"), None);
    }

    #[test]
    fn an_attempt_without_an_operation_leaves_no_delta() {
        for operation in [json!(null), json!("")] {
            let push = json!({"deviceId": "d1", "operationId": operation,
                "swUpgradeResult": "FAIL"});
            let event = campaigns::event(&push.to_string(), 0);
            assert_eq!(apply(None, &event).delta, None);
        }
    }

    #[test]
    fn a_device_without_attempts_is_no_state() {
        let written = r#"{"deviceId":"d1","attempts":[]}"#;
        assert!(serde_json::from_str::<DeviceSoftware>(written).is_err());
    }

    fn hold_the_laws((records, disorder): &Disorder) -> Result<(), TestCaseError> {
        let (states, _) = campaigns::fold_devices(records);
        prop_assert_eq!(&campaigns::fold_devices(disorder).0, &states);
        let expected = model::device_software(&campaigns::for_the_model(records));
        prop_assert_eq!(campaigns::visible(&states), expected);
        for state in states.values() {
            let value = serde_json::to_value(state).unwrap();
            prop_assert_eq!(schemas::broken(&schemas::DEVICE_SOFTWARE, &value), None);
        }
        Ok(())
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
    }
}
