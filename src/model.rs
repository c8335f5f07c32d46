//! A model of the streams: what the state topics must contain, computed from scratch from all pushes.
//!
//! It follows from the documented laws of the states alone: it keeps every push, sorts them, and
//! derives each state from all of its pushes at once. `simulate` and the tests check the streams
//! against it, so it shares no code with them, and must not know their merges, their truncation or
//! their internal fields.
//!
//! Times are compared as text, and receipts are in whole milliseconds.

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
    /// The body, as stored.
    pub bytes: Vec<u8>,
    /// When the ingress received it.
    pub received_at: DateTime<Utc>,
}

type Object = BTreeMap<String, Box<RawValue>>;

impl Push {
    /// A push received at the time in the `ce_time` header, or else at the record's timestamp.
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

    /// The object, if it is of this type or of none.
    fn object_of_type(&self, notify_type: &str) -> Option<Object> {
        let object = self.object()?;
        let other = text(&object, "notifyType").is_some_and(|name| name != notify_type);
        (!other).then_some(object)
    }
}

/// The expected value of `iot.command-state` for every `requestId`.
pub fn command_states(pushes: &[Push]) -> BTreeMap<String, Value> {
    let confirmations = grouped(pushes.iter().filter_map(Confirmation::read));
    states(&confirmations, |id, of_command| {
        commands::state(id, of_command)
    })
}

/// The expected value of `iot.device-software` for every `deviceId`.
pub fn device_software(pushes: &[Push]) -> BTreeMap<String, Value> {
    let upgrades = grouped(pushes.iter().filter_map(Upgrade::read));
    states(&upgrades, |id, of_device| {
        upgrades::device(id, &upgrades::kept(upgrades::distinct(of_device)))
    })
}

/// The expected value of `iot.upgrade-operation` for every `operationId`.
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

/// The command that a push confirms, even if its status is unknown.
pub(crate) fn command_id(push: &Push) -> Option<String> {
    commands::id(push)
}

/// The device of an upgrade result, even if the result is unknown.
pub(crate) fn device_id(push: &Push) -> Option<String> {
    usable_id(&push.object_of_type(upgrades::TYPE)?, "deviceId")
}

/// The operation of an upgrade result; `None` if its id is absent or empty.
pub(crate) fn operation_id(push: &Push) -> Option<String> {
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

/// Groups items by their names, each group in the order of its items.
pub fn grouped<T>(pairs: impl Iterator<Item = (String, T)>) -> BTreeMap<String, Vec<T>> {
    let mut groups: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (name, item) in pairs {
        groups.entry(name).or_default().push(item);
    }
    groups
}

fn put(state: &mut Map<String, Value>, field: &str, text: Option<&str>) {
    if let Some(text) = text {
        state.insert(field.into(), json!(text));
    }
}

/// The text of a string, or a number as it was written.
fn text(object: &Object, name: &str) -> Option<String> {
    let json = object.get(name)?.get();
    match serde_json::from_str(json).ok()? {
        Value::String(text) => Some(text),
        Value::Number(_) => Some(json.to_owned()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn usable_id(object: &Object, name: &str) -> Option<String> {
    text(object, name).filter(|id| (1..=512).contains(&id.len()))
}
