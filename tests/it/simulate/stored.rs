//! The verification of the stored records detects every broken guarantee and reports
//! nothing else as a fault.

use std::sync::Arc;

use northbridge::topics::Topic;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rustix::process::Signal;
use serde_json::Value;

use super::listener::{Listener, Load, PUSHES, Script, Stored, stored, write};
use crate::support::records::NewRecord;

#[test]
fn a_listener_that_stores_every_push_passes() {
    for load in [Load::Commands, Load::Upgrades, Load::Oddities] {
        let (code, summary) = Listener::start(Script::of(load)).verify();
        assert_eq!(code, Some(0), "{load:?}: {summary}");
        assert_eq!(summary["verification"]["stored"], PUSHES);
    }
}

#[test]
fn a_listener_that_stores_nothing_is_caught() {
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
fn a_wrong_key_is_caught() {
    assert_caught(
        |records| records[7].record.key = Some(b"another".to_vec()),
        1,
    );
}

#[test]
fn a_wrong_topic_is_caught() {
    assert_caught(|records| records[7].topic = Topic::Notifications, 1);
}

#[test]
fn records_of_an_earlier_run_do_not_count() {
    let listener = Listener::start(Script::of(Load::Commands));
    assert_eq!(listener.verify().0, Some(0));
    listener.set_script(Script::storing(Load::Commands, |records| {
        records.truncate(5);
    }));
    let (code, summary) = listener.verify();
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["missing"], PUSHES - 5);
}

fn assert_caught(change: fn(&mut Vec<Stored>), missing: usize) {
    let (code, summary) = Listener::start(Script::storing(Load::Commands, change)).verify();
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["missing"], missing);
    let faults = summary["verification"]["faults"].as_array().unwrap();
    assert!(faults.len() >= missing.min(20), "{summary}");
}

/// Only 200 promises anything.
#[test]
fn a_push_answered_503_or_202_may_be_stored_or_not() {
    let mut script = Script::storing(Load::Commands, |records| drop(records.drain(..10)));
    script.answering = |number| match number {
        0..5 | 10..15 => 503,
        5..10 => 202,
        _ => 200,
    };
    let (code, summary) = Listener::start(script).verify();
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["verification"]["answered200"], 5);
    assert_eq!(summary["verification"]["storedUnanswered"], 5);
}

#[test]
fn duplicates_and_records_of_other_senders_are_not_faults() {
    let (code, summary) = Listener::start(Script::storing(Load::Commands, |records| {
        let twice = records[7].clone();
        let record = NewRecord::keyed("foreign", "{}");
        let topic = Topic::CommandStatus;
        records.extend([twice, Stored { topic, record }]);
    }))
    .verify();
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["verification"]["doubled"], 1);
    assert_eq!(summary["verification"]["others"], 1);
}

#[test]
fn records_of_streams_and_replays_are_ignored() {
    let (code, summary) = Listener::start(Script::storing(Load::Commands, |records| {
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
    .verify();
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["verification"]["doubled"], 0);
    assert_eq!(summary["verification"]["others"], 0);
}

/// Right after a leader election, a partition's high watermark can be below
/// acknowledged offsets; until it is not, the leader rejects requests for the
/// end offset (KIP-207).
#[test]
fn a_record_that_becomes_visible_late_is_not_missing() {
    let listener = Listener::start(Script::storing(Load::Commands, Vec::clear));
    let simulate = listener.start_run(&["--rate=10"]);
    simulate.wait_for_log(|line| line.contains("200: "));
    let not_available = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE;
    let kafka = listener.kafka();
    kafka.fail_requests(RDKafkaApiKey::ListOffsets, &[not_available; 1_000]);
    simulate.wait_for_log(|line| line == "reading the stored records");
    write(&listener.bootstrap, &stored(Load::Commands));
    kafka.stop_failing(RDKafkaApiKey::ListOffsets);
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 0, "{summary}");
}

#[test]
fn nothing_is_verified_if_kafka_is_unreachable_at_the_end() {
    // With nothing to write, the listener itself never waits for Kafka.
    let script = Script {
        storing: Arc::new(Vec::clear),
        ..Script::writing(Load::Commands, Vec::clear)
    };
    let mut listener = Listener::start(script);
    let simulate = listener.start_run(&["--count=1000000", "--rate=100"]);
    simulate.wait_for_log(|line| line.contains("200: "));
    listener.stop_kafka();
    simulate.signal(Signal::INT);
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 69, "{summary}");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["answers"]["200"].as_u64() > Some(0), "{summary}");
    assert_eq!(summary["verification"], Value::Null);
}

#[test]
fn a_signal_during_verification_ends_it_without_a_result() {
    let listener = Listener::start(Script::writing(Load::Commands, Vec::clear));
    let simulate = listener.start_run(&["--verify-state", "--catch-up=1h"]);
    simulate.wait_for_log(|line| line.starts_with("waiting for the streams"));
    simulate.signal(Signal::INT);
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 75, "{summary}");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["answers"]["200"], PUSHES);
    assert_eq!(summary["verification"], Value::Null);
    simulate.wait_for_log(|line| line.ends_with("nothing was verified"));
}
