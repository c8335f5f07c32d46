//! What is in the topics that the streams read: pushes, deltas, and their own states.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chrono::{DateTime, TimeDelta};
use serde::Serialize;
use serde_json::Value;

use super::draft::Draft;
use super::states::command::{self, CommandState};
use super::states::device::{self, DeviceSoftware};
use super::states::format::{self, StateError, StoredState};
use super::states::operation::{self, Delta, OperationState};
use super::states::position::{Counted, Position};
use super::states::time::ReceivedAt;
use crate::model::{self, Push};

/// More pushes make no more shapes, and make the model slow.
const MAX_PUSHES: usize = 24;

/// Processes pushes, one a line and each received an hour after the last one, and
/// compares the states with the model.
///
/// # Panics
///
/// Panics if a state differs from the model or from what is read again.
pub fn pushes(lines: &[u8]) {
    // The streams skip what they do not need without checking it; the model is strict.
    let is_json = |body: &&[u8]| serde_json::from_slice::<Value>(body).is_ok();
    let bodies = lines
        .split(|byte| *byte == b'\n')
        .filter(is_json)
        .take(MAX_PUSHES);
    let pushes: Vec<Push> = (0..)
        .zip(bodies)
        .map(|(hour, body)| Push {
            bytes: body.to_vec(),
            received_at: DateTime::UNIX_EPOCH + TimeDelta::hours(hour),
        })
        .collect();
    commands(&pushes);
    upgrades(&pushes);
}

fn commands(pushes: &[Push]) {
    let mut states: BTreeMap<String, CommandState> = BTreeMap::new();
    for push in pushes {
        let Ok(event) = command::Event::decode(&push.bytes) else {
            continue;
        };
        let before = states.get(&*event.request_id);
        if let command::Change::Changed { state, .. } = command::apply(before, &event) {
            states.insert(event.request_id.into_owned(), read_again(&*state));
        }
    }
    assert_eq!(values(&states), model::command_states(pushes));
}

fn upgrades(pushes: &[Push]) {
    let mut devices: BTreeMap<String, DeviceSoftware> = BTreeMap::new();
    let mut operations: BTreeMap<String, OperationState> = BTreeMap::new();
    for (offset, push) in (0..).zip(pushes) {
        let timestamp_ms = push.received_at.timestamp_millis();
        let received_at = ReceivedAt::of_record(None, Some(timestamp_ms));
        let Ok(event) = device::Event::decode(&push.bytes, received_at) else {
            continue;
        };
        let change = device::apply(devices.get(&*event.device_id), &event);
        if let Some(delta) = &change.delta {
            let written = serde_json::to_vec(delta).expect("a delta is JSON");
            let delta = Delta::decode(&written).expect("a delta is read again");
            let operation = delta.operation_id.as_str().to_owned();
            let position = Position {
                offset,
                timestamp_ms,
            };
            let mut draft = Draft::of(operations.get(&operation), None);
            operation::apply(&mut draft, &operation::Event { delta, position });
            if let Some(state) = draft.changed() {
                operations.insert(operation, read_again(&*state));
            }
        }
        if let Some(state) = change.state {
            devices.insert(event.device_id.into_owned(), read_again(&*state));
        }
    }
    assert_eq!(values(&devices), model::device_software(pushes));
    assert_eq!(values(&operations), model::upgrade_operations(pushes));
}

/// Reads records that another writer may have put into the topics of the streams: the
/// first byte chooses which, and a zero byte ends the value and begins the header.
///
/// # Panics
///
/// Panics if what can be read differs once it was written and read again.
pub fn stored(bytes: &[u8]) {
    let Some((choice, record)) = bytes.split_first() else {
        return;
    };
    let mut parts = record.splitn(2, |byte| *byte == 0);
    let value = parts.next().unwrap_or_default();
    let header = parts.next();
    match choice % 4 {
        0 => stored_state::<CommandState>(value, header),
        1 => stored_state::<DeviceSoftware>(value, header),
        2 => stored_state::<OperationState>(value, header),
        _ => {
            if let Ok(delta) = Delta::decode(value) {
                let written = serde_json::to_vec(&delta).expect("a delta is JSON");
                let again = Delta::decode(&written).expect("a delta is read again");
                assert_eq!(again, delta);
            }
        }
    }
}

fn stored_state<S: StoredState + Debug + PartialEq>(value: &[u8], header: Option<&[u8]>) {
    if let Ok(state) = read::<S>(value, header) {
        let _ = read_again(&state);
    }
}

/// The state as it is after it was written and read again.
fn read_again<S: StoredState + Debug + PartialEq>(state: &S) -> S {
    let value = serde_json::to_vec(state).expect("a state is JSON");
    let header = serde_json::to_vec(&state.header()).expect("a header is JSON");
    let again = read(&value, Some(&header)).expect("a state is read again");
    assert_eq!(&again, state);
    again
}

fn read<S: StoredState>(value: &[u8], header: Option<&[u8]>) -> Result<S, StateError> {
    format::read(value, header, Counted::default()).map(|state| *state)
}

fn values<S: Serialize>(states: &BTreeMap<String, S>) -> BTreeMap<String, Value> {
    let value = |state: &S| serde_json::to_value(state).expect("a state is JSON");
    states
        .iter()
        .map(|(id, state)| (id.clone(), value(state)))
        .collect()
}
