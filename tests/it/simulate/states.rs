//! The proof of the states: each way of not being what follows is caught, and
//! nothing else is called a fault.

use std::sync::Arc;

use northbridge::topics::Topic;
use serde_json::{Value, json};

use super::listener::{Listener, Load, PUSHES, Script, Stored, states, stored, write};
use crate::support::bodies::message_confirm;
use crate::support::records::NewRecord;

/// Each state topic, with a load that it follows from.
const STATES: [(Load, Topic); 3] = [
    (Load::Commands, Topic::CommandState),
    (Load::Upgrades, Topic::DeviceSoftware),
    (Load::Upgrades, Topic::UpgradeOperation),
];

#[test]
fn states_that_follow_from_what_is_stored_pass() {
    for (load, counts) in [
        (Load::Commands, [PUSHES, 0, 0]),
        (Load::Upgrades, [0, 3, 1]),
    ] {
        let (code, outcome) = Listener::start(Script::of(load)).proved_with_states();
        assert_eq!(code, Some(0), "{outcome}");
        let compared = ["commands", "devices", "operations"].map(|kind| &outcome["states"][kind]);
        assert_eq!(compared, counts.map(Value::from).each_ref());
        assert_eq!(outcome["states"]["differing"], 0);
    }
}

#[test]
fn a_state_that_is_not_there_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| {
            let place = states.iter().position(|one| one.topic == topic);
            states.remove(place.unwrap());
        };
        assert_caught(Script::writing(load, change), "there is no state");
    }
}

#[test]
fn a_state_that_was_deleted_or_overwritten_is_caught() {
    for (load, topic) in STATES {
        for (value, says) in [(None, "there is no state"), (Some("{}"), "must be")] {
            let change = move |states: &mut Vec<Stored>| {
                let mut last = first(states, topic).clone();
                last.record.value = value.map(Into::into);
                states.push(last);
            };
            assert_caught(Script::writing(load, change), says);
        }
    }
}

#[test]
fn a_state_under_another_key_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| {
            first(states, topic).record.key = Some(b"another".to_vec());
        };
        let (code, outcome) = Listener::start(Script::writing(load, change)).proved_with_states();
        assert_eq!(code, Some(1), "{outcome}");
        let faults = outcome["states"]["faults"].to_string();
        assert!(faults.contains("there is no state"), "{faults}");
    }
}

#[test]
fn a_state_from_before_the_last_push_is_caught() {
    let script = Script {
        states_of: PUSHES - 1,
        ..Script::of(Load::Upgrades)
    };
    let (code, outcome) = Listener::start(script).proved_with_states();
    assert_eq!(code, Some(1), "{outcome}");
    // The device of that push, and its operation.
    assert_eq!(outcome["states"]["differing"], 2);
    let faults = outcome["states"]["faults"].to_string();
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
fn attempts_in_another_order_are_caught() {
    let change = |states: &mut Vec<Stored>| {
        edit(first(states, Topic::DeviceSoftware), |state| {
            state["attempts"].as_array_mut().unwrap().reverse();
        });
    };
    let script = Script::writing(Load::Upgrades, change);
    assert_caught(script, "\": attempts must be");
}

#[test]
fn a_state_that_no_push_makes_is_caught() {
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
fn a_state_beside_the_right_ones_that_follows_from_no_record_is_caught() {
    for (load, topic) in STATES {
        let change = move |states: &mut Vec<Stored>| states.push(stranger(topic));
        let script = Script::writing(load, change);
        assert_caught(script, "\"stranger\": there must be no state");
    }
}

#[test]
fn a_state_that_follows_from_no_record_and_was_deleted_is_no_difference() {
    let change = |states: &mut Vec<Stored>| {
        states.push(stranger(Topic::CommandState));
        let mut deleted = stranger(Topic::CommandState);
        deleted.record.value = None;
        states.push(deleted);
    };
    let (code, outcome) =
        Listener::start(Script::writing(Load::Commands, change)).proved_with_states();
    assert_eq!(code, Some(0), "{outcome}");
}

/// Whether their records came during the run or before it, as they did where a
/// stream was behind.
#[test]
fn states_of_other_senders_are_no_difference() {
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
        let (code, outcome) = listener.proved_with_states();
        assert_eq!(code, Some(0), "{before}: {outcome}");
        assert_eq!(outcome["states"]["commands"], PUSHES);
    }
}

/// What decides is what is stored, not what should be.
#[test]
fn a_state_of_what_was_not_stored_is_not_asked_for() {
    let script = Script {
        states_of: PUSHES - 1,
        ..Script::storing(Load::Commands, |records| drop(records.pop()))
    };
    let (code, outcome) = Listener::start(script).proved_with_states();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], 1);
    assert_eq!(outcome["states"]["holds"], true);
}

/// Its pushes change no state, and no stream writes one that did not change:
/// what counts is when a push was received for the first time.
#[test]
fn states_of_an_earlier_run_with_the_same_seed_are_no_difference() {
    for (load, compared) in [(Load::Commands, "commands"), (Load::Upgrades, "devices")] {
        let listener = Listener::start(Script::of(load));
        assert_eq!(listener.proved_with_states().0, Some(0));
        listener.turn_to(Script {
            storing: Arc::new(received_later),
            ..Script::writing(load, Vec::clear)
        });
        let (code, outcome) = listener.proved_with_states();
        assert_eq!(code, Some(0), "{outcome}");
        assert!(outcome["states"][compared].as_u64() > Some(0), "{outcome}");
    }
}

fn received_later(records: &mut Vec<Stored>) {
    for one in records {
        one.record.headers[0].1 = b"2026-01-01T00:00:00Z".to_vec();
    }
}

fn assert_caught(script: Script, says: &str) {
    let (code, outcome) = Listener::start(script).proved_with_states();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["holds"], true);
    assert_eq!(outcome["states"]["differing"], 1, "{outcome}");
    let fault = outcome["states"]["faults"][0].as_str().unwrap();
    assert!(fault.contains(says), "{fault}");
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
