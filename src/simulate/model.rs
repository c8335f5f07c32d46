//! What the state topics must hold, computed from scratch out of all pushes.
//!
//! Written from the published laws of the states alone: it keeps every push it
//! is given, sorts, and reads the answer off. It is the judge of the streams,
//! so it shares no code with them and knows nothing of their merges, their
//! truncation or their internal fields. The tests of the streams hold them
//! against the same model.
//!
//! Times stand for themselves as text: whoever compares, compares values as
//! [`visible`] leaves them. Receipts are in whole milliseconds.

mod commands;
pub mod upgrades;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use commands::Confirmation;
use upgrades::Upgrade;

/// A record of a raw topic: the sender's bytes and when they were received.
#[derive(Clone, Debug)]
pub struct Push {
    /// What was pushed.
    pub bytes: Vec<u8>,
    /// When it was received.
    pub received_at: DateTime<Utc>,
}

type Object = BTreeMap<String, Box<RawValue>>;

impl Push {
    /// Takes the receipt from the `ce_time` header, else from the record.
    pub fn from_record(bytes: &[u8], ce_time: Option<&str>, timestamp_ms: i64) -> Self {
        let header = ce_time.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
        let record = || DateTime::from_timestamp_millis(timestamp_ms).unwrap_or_default();
        Self {
            bytes: bytes.to_vec(),
            received_at: header.map_or_else(record, |time| time.with_timezone(&Utc)),
        }
    }

    fn object(&self) -> Option<Object> {
        let text = std::str::from_utf8(&self.bytes).ok()?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    }

    /// The object, where it is of this type or of none.
    fn object_of_type(&self, notify_type: &str) -> Option<Object> {
        let object = self.object()?;
        let other = text(&object, "notifyType").is_some_and(|name| name != notify_type);
        (!other).then_some(object)
    }
}

/// A state without the fields that are nobody else's business.
pub fn visible(mut state: Value) -> Value {
    if let Some(fields) = state.as_object_mut() {
        for internal in ["bodyAt", "older", "latest"] {
            fields.remove(internal);
        }
    }
    state
}

/// The value of `iot.command-state` for every `requestId`.
pub fn command_states(pushes: &[Push]) -> BTreeMap<String, Value> {
    let confirmations = grouped(pushes.iter().filter_map(Confirmation::read));
    states(&confirmations, |id, of_command| {
        commands::state(id, of_command)
    })
}

/// The value of `iot.device-software` for every `deviceId`.
pub fn device_software(pushes: &[Push]) -> BTreeMap<String, Value> {
    let upgrades = grouped(pushes.iter().filter_map(Upgrade::read));
    states(&upgrades, |id, of_device| {
        upgrades::device(id, &upgrades::kept(upgrades::distinct(of_device)))
    })
}

/// The value of `iot.upgrade-operation` for every `operationId`.
pub fn upgrade_operations(pushes: &[Push]) -> BTreeMap<String, Value> {
    let mut operations: BTreeMap<String, Vec<Vec<Upgrade>>> = BTreeMap::new();
    for upgrades in grouped(pushes.iter().filter_map(Upgrade::read)).into_values() {
        let of_operations = upgrades::distinct(&upgrades)
            .into_iter()
            .filter_map(|upgrade| Some((upgrade.operation()?.to_owned(), upgrade)));
        for (id, of_device) in grouped(of_operations) {
            operations.entry(id).or_default().push(of_device);
        }
    }
    states(&operations, upgrades::operation)
}

/// The command that a push confirms, whatever else is in it.
pub fn command_id(push: &Push) -> Option<String> {
    commands::id(push)
}

/// The device that a push tells an upgrade result of, whatever else is in it.
pub fn device_id(push: &Push) -> Option<String> {
    usable_id(&push.object_of_type(upgrades::TYPE)?, "deviceId")
}

/// The operation that an upgrade result belongs to.
pub fn operation_id(push: &Push) -> Option<String> {
    let object = push.object_of_type(upgrades::TYPE)?;
    text(&object, "operationId").filter(|id| !id.is_empty())
}

fn states<T>(
    groups: &BTreeMap<String, Vec<T>>,
    state: impl Fn(&str, &[T]) -> Option<Value>,
) -> BTreeMap<String, Value> {
    let of_group = |(id, group): (&String, &Vec<T>)| Some((id.clone(), state(id, group)?));
    groups.iter().filter_map(of_group).collect()
}

/// What has the same name, together, each group in the order of its items.
pub fn grouped<T>(pairs: impl Iterator<Item = (String, T)>) -> BTreeMap<String, Vec<T>> {
    let mut groups: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (id, one) in pairs {
        groups.entry(id).or_default().push(one);
    }
    groups
}

fn put(state: &mut Map<String, Value>, field: &str, text: Option<&str>) {
    if let Some(text) = text {
        state.insert(field.into(), json!(text));
    }
}

/// A string as it reads, a number as it was written, all else nothing.
fn text(object: &Object, name: &str) -> Option<String> {
    let json = object.get(name)?.get();
    match serde_json::from_str(json).ok()? {
        Value::String(text) => Some(text),
        Value::Number(_) => Some(json.to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn usable_id(object: &Object, name: &str) -> Option<String> {
    text(object, name).filter(|id| (1..=256).contains(&id.len()))
}
