//! The verification of the states detects every kind of wrong state and reports nothing
//! else as a fault.

use std::sync::Arc;

use northbridge::topics::Topic;
use serde_json::{Value, json};

use super::listener::{Listener, Load, PUSHES, Script, Stored, states, stored, write};
use crate::support::bodies::message_confirm;
use crate::support::records::NewRecord;

/// Each state topic, with a load that produces states in it.
const STATES: [(Load, Topic); 3] = [
    (Load::Commands, Topic::CommandState),
    (Load::Upgrades, Topic::DeviceSoftware),
    (Load::Upgrades, Topic::UpgradeOperation),
];

#[test]
fn states_that_match_the_stored_records_pass() {
    for (load, counts) in [
        (Load::Commands, [PUSHES, 0, 0]),
        (Load::Upgrades, [0, 3, 1]),
    ] {
        let (code, summary) = Listener::start(Script::of(load)).verify_with_states();
        assert_eq!(code, Some(0), "{summary}");
        let compared = ["commands", "devices", "operations"].map(|kind| &summary["states"][kind]);
        assert_eq!(compared, counts.map(Value::from).each_ref());
        assert_eq!(summary["states"]["differing"], 0);
    }
}

#[test]
fn a_missing_state_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| {
            let position = states.iter().position(|one| one.topic == topic);
            states.remove(position.unwrap());
        };
        assert_caught(Script::writing(load, change), "there is no state");
    }
}

#[test]
fn a_deleted_or_overwritten_state_is_caught() {
    for (load, topic) in STATES {
        for (value, expected) in [(None, "there is no state"), (Some("{}"), "must be")] {
            let change = move |states: &mut Vec<Stored>| {
                let mut last = first(states, topic).clone();
                last.record.value = value.map(Into::into);
                states.push(last);
            };
            assert_caught(Script::writing(load, change), expected);
        }
    }
}

#[test]
fn a_state_under_the_wrong_key_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| {
            first(states, topic).record.key = Some(b"another".to_vec());
        };
        let (code, summary) = Listener::start(Script::writing(load, change)).verify_with_states();
        assert_eq!(code, Some(1), "{summary}");
        let faults = summary["states"]["faults"].to_string();
        assert!(faults.contains("there is no state"), "{faults}");
    }
}

#[test]
fn a_stale_state_is_caught() {
    let script = Script {
        states_of: PUSHES - 1,
        ..Script::of(Load::Upgrades)
    };
    let (code, summary) = Listener::start(script).verify_with_states();
    assert_eq!(code, Some(1), "{summary}");
    // The push's device and its operation.
    assert_eq!(summary["states"]["differing"], 2);
    let faults = summary["states"]["faults"].to_string();
    assert!(faults.contains("attempts must be"), "{faults}");
    assert!(faults.contains("lastAt must be"), "{faults}");
}

#[test]
fn a_changed_field_is_caught_and_named() {
    for (load, topic, field, value) in [
        (
            Load::Commands,
            Topic::CommandState,
            "status",
            json!("delivered"),
        ),
        (
            Load::Commands,
            Topic::CommandState,
            "sentAt",
            json!("2001-01-01T00:00:00Z"),
        ),
        (
            Load::Commands,
            Topic::CommandState,
            "body",
            json!({"another": true}),
        ),
        (
            Load::Upgrades,
            Topic::DeviceSoftware,
            "curVersion",
            json!("0.1"),
        ),
        (Load::Upgrades, Topic::UpgradeOperation, "failed", json!(77)),
        (
            Load::Upgrades,
            Topic::UpgradeOperation,
            "targetVersions",
            json!({}),
        ),
    ] {
        let change = move |states: &mut Vec<Stored>| {
            edit(first(states, topic), |state| state[field] = value.clone());
        };
        assert_caught(
            Script::writing(load, change),
            &format!("\": {field} must be"),
        );
    }
}

#[test]
fn attempts_in_the_wrong_order_are_caught() {
    let change = |states: &mut Vec<Stored>| {
        edit(first(states, Topic::DeviceSoftware), |state| {
            state["attempts"].as_array_mut().unwrap().reverse();
        });
    };
    let script = Script::writing(Load::Upgrades, change);
    assert_caught(script, "\": attempts must be");
}

#[test]
fn a_state_for_a_key_without_valid_pushes_is_caught() {
    let load = Load::Oddities;
    let with_state: Vec<_> = keys(states(&stored(load)), Topic::DeviceSoftware);
    let mut all = keys(stored(load), Topic::UpgradeResult);
    all.retain(|key| !with_state.contains(key));
    let key = all.pop().unwrap();
    let change = move |states: &mut Vec<Stored>| {
        let record = NewRecord::keyed(key.clone(), "{}");
        let topic = Topic::DeviceSoftware;
        states.push(Stored { topic, record });
    };
    assert_caught(Script::writing(load, change), "there must be no state");
}

#[test]
fn an_additional_state_without_any_records_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| states.push(stranger(topic));
        let script = Script::writing(load, change);
        assert_caught(script, "\"stranger\": there must be no state");
    }
}

#[test]
fn a_deleted_state_without_any_records_is_not_a_difference() {
    let change = |states: &mut Vec<Stored>| {
        states.push(stranger(Topic::CommandState));
        let mut deleted = stranger(Topic::CommandState);
        deleted.record.value = None;
        states.push(deleted);
    };
    let (code, summary) =
        Listener::start(Script::writing(Load::Commands, change)).verify_with_states();
    assert_eq!(code, Some(0), "{summary}");
}

/// Their records may arrive during the run, or before it if the stream lags.
#[test]
fn states_of_other_senders_are_not_a_difference() {
    let foreign = || Stored {
        topic: Topic::CommandStatus,
        record: NewRecord::keyed("stranger", message_confirm("stranger", "d", "sent")),
    };
    for before in [true, false] {
        let mut script = Script::writing(Load::Commands, |states| {
            states.push(stranger(Topic::CommandState));
        });
        if !before {
            script.storing = Arc::new(move |records| records.push(foreign()));
        }
        let listener = Listener::start(script);
        if before {
            write(&listener.bootstrap, &[foreign()]);
        }
        let (code, summary) = listener.verify_with_states();
        assert_eq!(code, Some(0), "{before}: {summary}");
        assert_eq!(summary["states"]["commands"], PUSHES);
    }
}

#[test]
fn an_internal_field_is_caught_unless_the_state_is_from_before_the_header() {
    for ((load, topic), field) in STATES.into_iter().zip(["bodyAt", "older", "latest"]) {
        let with_field = move |states: &mut Vec<Stored>| {
            edit(first(states, topic), |state| state[field] = json!([1]));
        };
        let with_header = move |states: &mut Vec<Stored>| {
            with_field(states);
            let record = &mut first(states, topic).record;
            let header = ("northbridge-state".to_owned(), b"{}".to_vec());
            record.headers.push(header);
        };
        let (code, summary) =
            Listener::start(Script::writing(load, with_field)).verify_with_states();
        assert_eq!(code, Some(0), "{summary}");
        let expected = format!("{field} must be absent but is [1]");
        assert_caught(Script::writing(load, with_header), &expected);
    }
}

/// The states are compared with what is stored, not with what should be.
#[test]
fn a_state_is_not_expected_for_a_push_that_was_not_stored() {
    let script = Script {
        states_of: PUSHES - 1,
        ..Script::storing(Load::Commands, |records| drop(records.pop()))
    };
    let (code, summary) = Listener::start(script).verify_with_states();
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["missing"], 1);
    assert_eq!(summary["states"]["holds"], true);
}

/// The second run's pushes change no state because the earliest receipt counts,
/// and a stream does not write unchanged states.
#[test]
fn states_of_an_earlier_run_with_the_same_seed_are_not_a_difference() {
    for (load, compared) in [(Load::Commands, "commands"), (Load::Upgrades, "devices")] {
        let listener = Listener::start(Script::of(load));
        assert_eq!(listener.verify_with_states().0, Some(0));
        listener.set_script(Script {
            storing: Arc::new(received_later),
            ..Script::writing(load, Vec::clear)
        });
        let (code, summary) = listener.verify_with_states();
        assert_eq!(code, Some(0), "{summary}");
        assert!(summary["states"][compared].as_u64() > Some(0), "{summary}");
    }
}

fn received_later(records: &mut Vec<Stored>) {
    for one in records {
        one.record.headers[0].1 = b"2026-01-01T00:00:00Z".to_vec();
    }
}

fn assert_caught(script: Script, expected: &str) {
    let (code, summary) = Listener::start(script).verify_with_states();
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["holds"], true);
    assert_eq!(summary["states"]["differing"], 1, "{summary}");
    let fault = summary["states"]["faults"][0].as_str().unwrap();
    assert!(fault.contains(expected), "{fault}");
}

fn first(states: &mut [Stored], topic: Topic) -> &mut Stored {
    states.iter_mut().find(|one| one.topic == topic).unwrap()
}

fn stranger(topic: Topic) -> Stored {
    let record = NewRecord::keyed("stranger", r#"{"status":"sent"}"#);
    Stored { topic, record }
}

fn edit(state: &mut Stored, change: impl Fn(&mut Value)) {
    let mut value = serde_json::from_slice(state.record.value.as_ref().unwrap()).unwrap();
    change(&mut value);
    state.record.value = Some(value.to_string().into_bytes());
}

fn keys(all: Vec<Stored>, topic: Topic) -> Vec<Vec<u8>> {
    let of_topic = all.into_iter().filter(|one| one.topic == topic);
    of_topic.filter_map(|one| one.record.key).collect()
}
