//! Limits of the states: retention, number and size.

use std::thread;
use std::time::SystemTime;

use serde_json::json;

use super::outputs::states;
use super::topics::{Topics, gauge};
use super::zombies::{thaw, wait_until_frozen};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, set_topic_settings, topic_settings};

const HOUR_MS: i64 = 3_600_000;
/// The age of a state that is still restored but expires soon after. The margin
/// lets a process start on a busy machine.
const ALMOST_TOO_OLD_MS: i64 = HOUR_MS - 30_000;
const RETENTION: (&str, &str) = ("topics.command_state.retention_hours", "1");

#[test]
fn a_state_older_than_the_retention_is_deleted_from_topic_and_memory() {
    let topics = Topics::create(shared().bootstrap(), "expired", &[RETENTION]);
    // The first is too old to be restored; the second expires while in memory.
    topics.write(
        "command-state",
        &[
            written("older", 2 * HOUR_MS),
            written("old", ALMOST_TOO_OLD_MS),
            written("young", 0),
        ],
    );
    let process = topics.start("command-status", &[]);
    eventually("the unexpired states are restored", || {
        (entries(&process) == "2").then_some(())
    });
    eventually("one state is left", || {
        (entries(&process) == "1").then_some(())
    });
    topics.wait_until_caught_up();
    let remaining = states(&topics, "command-state");
    assert!(remaining.contains_key("young") && !remaining.contains_key("old"));

    // An expired command starts over: nothing is left of its previous state.
    let sent = |id: &str| NewRecord::keyed(id, bodies::message_confirm(id, "device", "sent"));
    topics.write(
        "command-status",
        &[sent("old"), sent("older"), sent("young")],
    );
    topics.wait_until_caught_up();
    let states = states(&topics, "command-state");
    assert_eq!(states["old"]["status"], "sent");
    assert_eq!(states["older"]["status"], "sent");
    assert_eq!(states["young"]["status"], "executed");
}

#[test]
fn a_zombie_does_not_delete_what_its_successor_wrote() {
    // There is no input, so its first transaction deletes the expired state.
    thread::scope(|scope| {
        for at in ["4:1:STOP", "6:1:STOP"] {
            scope.spawn(move || deleting_as_a_zombie(at));
        }
    });
}

fn deleting_as_a_zombie(at: &str) {
    let settings = [
        RETENTION,
        ("streams.session_timeout_ms", "6000"),
        // Longer than a successor takes to start.
        ("streams.transaction_timeout_ms", "25000"),
    ];
    let topics = Topics::create(shared().bootstrap(), "zombie-expiry", &settings);
    topics.write("command-state", &[written("command", ALMOST_TOO_OLD_MS)]);
    let zombie =
        topics.start_with_fail_point("command-status", &[("streams.instance", "zombie")], at);
    wait_until_frozen(&zombie);
    let _successor = topics.start("command-status", &[("streams.instance", "successor")]);
    let push = bodies::message_confirm("command", "device", "sent");
    topics.write("command-status", &[NewRecord::keyed("command", push)]);
    topics.wait_until_caught_up();
    thaw(&zombie);
    topics.wait_until_caught_up();
    assert_eq!(
        states(&topics, "command-state")["command"]["status"],
        "sent"
    );
}

#[test]
fn too_many_states_cause_one_warning_and_none_is_dropped() {
    let topics = Topics::create(shared().bootstrap(), "many", &[]);
    let process = topics.start(
        "command-status",
        &[("streams.command_status.max_entries", "10")],
    );
    let write = |range: std::ops::Range<u32>| {
        let push = |id: u32| bodies::message_confirm(&id.to_string(), "device", "sent");
        let records: Vec<_> = range
            .map(|id| NewRecord::keyed(id.to_string(), push(id)))
            .collect();
        topics.write("command-status", &records);
    };
    let passed = || {
        let name = "northbridge_stream_state_max_entries_exceeded{stream=\"command-status\"}";
        gauge(&process, name)
    };
    write(0..10);
    eventually("ten states are in memory", || {
        (entries(&process) == "10").then_some(())
    });
    assert_eq!(passed(), "0");
    write(10..30);
    eventually("thirty states are in memory", || {
        (entries(&process) == "30").then_some(())
    });
    assert_eq!(passed(), "1");
    write(30..40);
    eventually("forty states are in memory", || {
        (entries(&process) == "40").then_some(())
    });
    let log = process.log();
    let warnings = log
        .iter()
        .filter(|line| line.contains("more states in memory than max_entries"));
    assert_eq!(warnings.count(), 1);
    topics.wait_until_caught_up();
    assert_eq!(states(&topics, "command-state").len(), 40);
}

#[test]
fn a_state_that_would_be_too_large_is_dead_lettered_and_the_stream_continues() {
    // A state may have 1,024 bytes, a record 8 KiB more than that.
    let limits = [
        ("http.max_body_bytes", "1024"),
        ("streams.max_state_bytes", "1024"),
    ];
    let topics = Topics::create(shared().bootstrap(), "large", &limits);
    let result = |device: &str, operation: &str, description: &str| {
        let push = json!({"deviceId": device, "operationId": operation, "swUpgradeResult": "SUCCESS",
            "description": description});
        NewRecord::keyed(device, push.to_string())
    };
    let long = "x".repeat(600);
    topics.write(
        "upgrade-result",
        &[
            result("d", "first", ""),
            result("d", "second", &long),
            result("d", "third", ""),
            // Too large to be written together with its reason.
            NewRecord::keyed("poison", "x".repeat(9_000)),
            result("other", "first", ""),
        ],
    );
    let _process = topics.start("upgrade-result", &[]);
    topics.wait_until_caught_up();
    let devices = states(&topics, "device-software");
    let operations: Vec<_> = devices["d"]["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attempt| attempt["operationId"].as_str().unwrap())
        .collect();
    assert_eq!(operations.len(), 2, "{operations:?}");
    assert!(operations.contains(&"first") && operations.contains(&"third"));
    assert!(devices.contains_key("other"));
    let operations = states(&topics, "upgrade-operation");
    assert_eq!(operations["first"]["devices"], 2);
    assert!(!operations.contains_key("second"));

    let letters = topics.read("dead-letter");
    let only_dead_letter = |reason: &str| {
        let mut found = letters
            .iter()
            .filter(|letter| letter.header("northbridge-reason") == Some(reason));
        let letter = found.next().unwrap();
        assert!(found.next().is_none());
        assert_eq!(
            letter.header("northbridge-topic"),
            Some(topics.name("upgrade-result").as_str())
        );
        assert!(letter.header("northbridge-offset").is_some());
        letter
    };
    assert!(
        only_dead_letter("state-too-large")
            .value_text()
            .contains(&long)
    );
    assert_eq!(only_dead_letter("not-json-object").value, None);
}

#[test]
fn a_state_may_hold_many_attempts_if_bodies_must_be_small() {
    const ATTEMPTS: usize = 24;
    let small = [("http.max_body_bytes", "4096")];
    let topics = Topics::create(shared().bootstrap(), "attempts", &small);
    let long = "x".repeat(3_000);
    let attempt = |number| {
        let push = json!({"deviceId": "d", "operationId": format!("operation-{number}"),
            "swUpgradeResult": "SUCCESS", "description": long});
        NewRecord::keyed("d", push.to_string())
    };
    let attempts: Vec<_> = (0..ATTEMPTS).map(attempt).collect();
    // The topic accepts no batch of more than 12 KiB.
    for three in attempts.chunks(3) {
        topics.write("upgrade-result", three);
    }
    let _process = topics.start("upgrade-result", &[]);
    topics.wait_until_caught_up();
    let devices = states(&topics, "device-software");
    let kept = devices["d"]["attempts"].as_array().map(Vec::len);
    assert_eq!(kept, Some(ATTEMPTS));
    assert_eq!(states(&topics, "upgrade-operation").len(), ATTEMPTS);
    assert_eq!(topics.read("dead-letter").len(), 0);
}

#[test]
fn topics_of_states_must_accept_the_largest_state_not_the_largest_body() {
    let small = [("http.max_body_bytes", "4096")];
    let topics = Topics::create(shared().bootstrap(), "verified", &small);
    let set = |topic: &str, bytes: &str| {
        let name = topics.name(topic);
        let mut settings = topic_settings(&topics.bootstrap, &name);
        let before = settings.insert("max.message.bytes".to_owned(), bytes.to_owned());
        set_topic_settings(&topics.bootstrap, &name, &settings);
        before.unwrap()
    };
    assert_eq!(set("device-software", "12288"), "1056768");
    assert_eq!(set("upgrade-delta", "12288"), "1056768");
    assert_eq!(set("upgrade-result", "12288"), "12288");
    let verified = String::from_utf8(topics.verify().stdout).unwrap();
    let too_small = verified.matches("max.message.bytes is 12288").count();
    assert_eq!(too_small, 2, "{verified}");
    assert!(verified.contains("streams.max_state_bytes"), "{verified}");
}

/// The state of an executed command, written `ago_ms` milliseconds ago.
fn written(id: &str, ago_ms: i64) -> NewRecord {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now_ms = i64::try_from(now.as_millis()).unwrap();
    let state = json!({"requestId": id, "status": "executed"});
    NewRecord {
        timestamp_ms: Some(now_ms - ago_ms),
        ..NewRecord::keyed(id, state.to_string())
    }
}

/// How many states are in memory; the gauge is updated every five seconds.
fn entries(process: &Northbridge) -> String {
    gauge(
        process,
        "northbridge_stream_state_entries{stream=\"command-status\"}",
    )
}
