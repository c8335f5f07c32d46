//! The proof of what is stored: each way of breaking the promise is caught, and
//! nothing else is called a fault.

use std::sync::Arc;

use northbridge::topics::Topic;
use rustix::process::Signal;
use serde_json::Value;

use super::listener::{Listener, Load, PUSHES, Script, Stored, stored, write};
use crate::support::records::NewRecord;

#[test]
fn a_listener_that_keeps_the_promise_passes() {
    for load in [Load::Commands, Load::Upgrades, Load::Oddities] {
        let (code, outcome) = Listener::start(Script::of(load)).proved();
        assert_eq!(code, Some(0), "{load:?}: {outcome}");
        assert_eq!(outcome["verification"]["stored"], PUSHES);
    }
}

#[test]
fn a_listener_that_answers_early_and_dies_is_caught() {
    assert_caught(Vec::clear, PUSHES);
}

#[test]
fn a_dropped_record_is_caught() {
    assert_caught(|records| drop(records.remove(7)), 1);
}

#[test]
fn a_changed_byte_is_caught() {
    assert_caught(
        |records| {
            let body = records[7].record.value.as_mut().unwrap();
            let last = body.len() - 2;
            body[last] = b' ';
        },
        1,
    );
}

#[test]
fn another_key_is_caught() {
    assert_caught(
        |records| records[7].record.key = Some(b"another".to_vec()),
        1,
    );
}

#[test]
fn another_topic_is_caught() {
    assert_caught(|records| records[7].topic = Topic::Notifications, 1);
}

#[test]
fn what_an_earlier_run_stored_does_not_count_for_this_one() {
    let listener = Listener::start(Script::of(Load::Commands));
    assert_eq!(listener.proved().0, Some(0));
    listener.turn_to(Script::storing(Load::Commands, |records| {
        records.truncate(5);
    }));
    let (code, outcome) = listener.proved();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], PUSHES - 5);
}

fn assert_caught(change: fn(&mut Vec<Stored>), missing: usize) {
    let (code, outcome) = Listener::start(Script::storing(Load::Commands, change)).proved();
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], missing);
    let faults = outcome["verification"]["faults"].as_array().unwrap();
    assert!(faults.len() >= missing.min(20), "{outcome}");
}

/// Nor is any other answer than 200 a promise.
#[test]
fn what_was_answered_503_or_202_may_be_stored_or_not() {
    let mut script = Script::storing(Load::Commands, |records| drop(records.drain(..10)));
    script.answering = |number| match number {
        0..5 | 10..15 => 503,
        5..10 => 202,
        _ => 200,
    };
    let (code, outcome) = Listener::start(script).proved();
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["verification"]["answered200"], 5);
    assert_eq!(outcome["verification"]["storedUnanswered"], 5);
}

#[test]
fn what_was_stored_twice_or_comes_from_others_is_no_fault() {
    let (code, outcome) = Listener::start(Script::storing(Load::Commands, |records| {
        let twice = records[7].clone();
        let record = NewRecord::keyed("foreign", "{}");
        let topic = Topic::CommandStatus;
        records.extend([twice, Stored { topic, record }]);
    }))
    .proved();
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["verification"]["doubled"], 1);
    assert_eq!(outcome["verification"]["others"], 1);
}

#[test]
fn copies_by_a_stream_or_a_replay_and_the_marks_of_one_count_as_nothing() {
    let (code, outcome) = Listener::start(Script::storing(Load::Commands, |records| {
        for header in [
            "northbridge-topic",
            "northbridge-replayed",
            "northbridge-replayed-from",
        ] {
            let mut copy = records[7].clone();
            copy.topic = Topic::DeadLetter;
            copy.record = copy.record.with_header(header, "0/7");
            records.push(copy);
        }
    }))
    .proved();
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["verification"]["doubled"], 0);
    assert_eq!(outcome["verification"]["others"], 0);
}

/// Right after an election a partition shows an end that is behind what was
/// acknowledged.
#[test]
fn what_comes_into_sight_a_moment_later_is_not_missing() {
    let listener = Listener::start(Script::storing(Load::Commands, Vec::clear));
    let simulate = listener.start_run(&[]);
    simulate.wait_for_log(|line| line == "reading what is stored");
    write(&listener.bootstrap, &stored(Load::Commands));
    let (code, outcome) = simulate.wait_for_end();
    assert_eq!(code, 0, "{outcome}");
}

#[test]
fn where_kafka_is_gone_by_the_end_nothing_is_called_proved() {
    // With nothing to write it never waits for Kafka itself.
    let script = Script {
        storing: Arc::new(Vec::clear),
        ..Script::writing(Load::Commands, Vec::clear)
    };
    let mut listener = Listener::start(script);
    let simulate = listener.start_run(&["--count=1000000", "--rate=100"]);
    simulate.wait_for_log(|line| line.contains("200: "));
    listener.lose_kafka();
    simulate.signal(Signal::INT);
    let (code, outcome) = simulate.wait_for_end();
    assert_eq!(code, 69, "{outcome}");
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    assert!(outcome["answers"]["200"].as_u64() > Some(0), "{outcome}");
    assert_eq!(outcome["verification"], Value::Null);
}

#[test]
fn a_signal_during_the_proofs_ends_them_without_a_verdict() {
    let listener = Listener::start(Script::writing(Load::Commands, Vec::clear));
    let simulate = listener.start_run(&["--verify-state", "--catch-up=1h"]);
    simulate.wait_for_log(|line| line.starts_with("waiting until the streams"));
    simulate.signal(Signal::INT);
    let (code, outcome) = simulate.wait_for_end();
    assert_eq!(code, 75, "{outcome}");
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    assert_eq!(outcome["answers"]["200"], PUSHES);
    assert_eq!(outcome["verification"], Value::Null);
    simulate.wait_for_log(|line| line.ends_with("nothing is proved"));
}
