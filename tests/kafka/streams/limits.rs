//! What is kept has limits: of time, of number, of size.

use std::thread;
use std::time::SystemTime;

use serde_json::json;

use super::outputs::states;
use super::topics::{Topics, gauge};
use super::zombies::{await_frozen, thaw};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::NewRecord;

const HOUR_MS: i64 = 3_600_000;
/// The age of a state that is to be restored and then to grow too old: time
/// for a process to start on a busy machine.
const ALMOST_TOO_OLD_MS: i64 = HOUR_MS - 30_000;
const RETENTION: (&str, &str) = ("topics.command_state.retention_hours", "1");

#[test]
fn a_state_that_was_not_written_within_the_retention_leaves_topic_and_memory() {
    let topics = Topics::create(shared().bootstrap(), "expired", &[RETENTION]);
    // The first is too old to be restored, the second grows too old while it is in memory.
    topics.write(
        "command-state",
        &[
            written("older", 2 * HOUR_MS),
            written("old", ALMOST_TOO_OLD_MS),
            written("young", 0),
        ],
    );
    let process = topics.start("command-status", &[]);
    eventually("the young ones are restored", || {
        (entries(&process) == "2").then_some(())
    });
    eventually("one is left", || (entries(&process) == "1").then_some(()));
    topics.await_caught_up();
    let remaining = states(&topics, "command-state");
    assert!(remaining.contains_key("young") && !remaining.contains_key("old"));

    // It begins anew: nothing of what was known is left.
    let sent = |id: &str| NewRecord::keyed(id, bodies::message_confirm(id, "device", "sent"));
    topics.write(
        "command-status",
        &[sent("old"), sent("older"), sent("young")],
    );
    topics.await_caught_up();
    let states = states(&topics, "command-state");
    assert_eq!(states["old"]["status"], "sent");
    assert_eq!(states["older"]["status"], "sent");
    assert_eq!(states["young"]["status"], "executed");
}

#[test]
fn a_zombie_deletes_nothing_that_its_successor_wrote() {
    // Nothing comes in: its first transaction is the deletion of what expired.
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
        // For longer than a successor takes to be there.
        ("streams.transaction_timeout_ms", "25000"),
    ];
    let topics = Topics::create(shared().bootstrap(), "undead", &settings);
    topics.write("command-state", &[written("command", ALMOST_TOO_OLD_MS)]);
    let zombie = topics.start_failing("command-status", &[("streams.instance", "zombie")], at);
    await_frozen(&zombie);
    let _successor = topics.start("command-status", &[("streams.instance", "successor")]);
    let push = bodies::message_confirm("command", "device", "sent");
    topics.write("command-status", &[NewRecord::keyed("command", push)]);
    topics.await_caught_up();
    thaw(&zombie);
    topics.await_caught_up();
    assert_eq!(
        states(&topics, "command-state")["command"]["status"],
        "sent"
    );
}

#[test]
fn too_many_states_are_told_of_once_and_none_is_dropped() {
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
        let name = "northbridge_stream_state_max_entries_passed{stream=\"command-status\"}";
        gauge(&process, name)
    };
    write(0..10);
    eventually("ten are in memory", || {
        (entries(&process) == "10").then_some(())
    });
    assert_eq!(passed(), "0");
    write(10..30);
    eventually("thirty are in memory", || {
        (entries(&process) == "30").then_some(())
    });
    assert_eq!(passed(), "1");
    write(30..40);
    eventually("forty are in memory", || {
        (entries(&process) == "40").then_some(())
    });
    let log = process.log();
    let warnings = log
        .iter()
        .filter(|line| line.contains("more states in memory than max_entries"));
    assert_eq!(warnings.count(), 1);
    topics.await_caught_up();
    assert_eq!(states(&topics, "command-state").len(), 40);
}

#[test]
fn what_would_be_too_large_is_a_dead_letter_and_the_stream_goes_on() {
    // A state may have 1,024 bytes, a record 8 KiB more.
    let topics = Topics::create(
        shared().bootstrap(),
        "large",
        &[("http.max_body_bytes", "1024")],
    );
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
            // Without room for the reason beside it.
            NewRecord::keyed("poison", "x".repeat(9_000)),
            result("other", "first", ""),
        ],
    );
    let _process = topics.start("upgrade-result", &[]);
    topics.await_caught_up();
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
    let letter = |reason: &str| {
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
    assert!(letter("state-too-large").value_text().contains(&long));
    assert_eq!(letter("not-json-object").value, None);
}

/// The state of a command that was carried out, written so long ago.
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

/// How many states are in memory, as the gauge tells it within five seconds.
fn entries(process: &Northbridge) -> String {
    gauge(
        process,
        "northbridge_stream_state_entries{stream=\"command-status\"}",
    )
}
