//! The formats of the states: those of the version before are taken over, and
//! those of a newer version are left alone.

use std::thread;
use std::time::SystemTime;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::outputs::states;
use super::rereading::{delete_groups, reset_offsets};
use super::topics::Topics;
use crate::support::TIMEOUT;
use crate::support::bodies;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::shared;
use crate::support::records::{NewRecord, Record, produce};

const SETTINGS: [(&str, &str); 1] = [("streams.session_timeout_ms", "6000")];
const HEADER: &str = "northbridge-state";
/// How many deltas the states from before the header have counted.
const COUNTED: i64 = 2;

#[test]
fn states_from_before_the_header_are_taken_over_and_counted_on() {
    thread::scope(|scope| {
        scope.spawn(|| taking_over("taken-over", true));
        scope.spawn(|| taking_over("taken-over-without-offsets", false));
    });
}

/// Without committed offsets, the groups have been deleted or renamed since the
/// version before ran.
fn taking_over(test: &str, has_committed_offsets: bool) {
    let topics = Topics::create(shared().bootstrap(), test, &SETTINGS);
    let latest = json!(["2026-01-01T00:00:02.000Z", "2026-01-01T00:00:01.000Z"]);
    let partition = write_deltas(&topics);
    let operation = json!({"operationId": "o1", "targetVersions": {}, "succeeded": COUNTED,
        "failed": 0, "devices": COUNTED, "errors": {}, "firstAt": "2026-01-01T00:00:01.000Z",
        "lastAt": "2026-01-01T00:00:02.000Z", "latest": latest});
    write_state(&topics, "upgrade-operation", partition, "o1", &operation);
    let attempt = |operation: &str| {
        json!({"operationId": operation, "result": "FAIL",
            "receivedAt": "2026-01-01T00:00:01.000Z"})
    };
    let device = json!({"deviceId": "d1", "operationId": "o2", "result": "FAIL",
        "receivedAt": "2026-01-01T00:00:01.000Z", "attempts": [attempt("o2")],
        "older": [attempt("o3")]});
    topics.write("device-software", &[state("d1", &device)]);
    let command = json!({"requestId": "r1", "status": "executed",
        "executedAt": "2026-01-01T00:00:01Z", "body": "latest", "bodyAt": "2026-01-01T00:00:09Z"});
    topics.write("command-state", &[state("r1", &command)]);
    if has_committed_offsets {
        reset_offsets(&topics, COUNTED);
    }

    let commands = topics.start("command-status", &[]);
    let upgrades = topics.start("upgrade-result", &[]);
    // At once: by its next delta, the offset may be lost.
    eventually("the operation is rewritten", || {
        newest(&topics, "upgrade-operation", "o1")
            .header(HEADER)
            .map(drop)
    });
    let header = header(&newest(&topics, "upgrade-operation", "o1"));
    assert_eq!(header["latest"], latest);
    let counted = &header["counted"];
    let offset = has_committed_offsets.then(|| json!(COUNTED - 1));
    assert_eq!(counted.get("offset"), offset.as_ref());

    // The deltas are read again, and one more is counted.
    if !has_committed_offsets {
        topics.wait_until_caught_up();
    }
    let result = json!({"deviceId": "d9", "operationId": "o1", "swUpgradeResult": "SUCCESS"});
    let retried = json!({"deviceId": "d1", "operationId": "o3", "swUpgradeResult": "SUCCESS"});
    topics.write(
        "upgrade-result",
        &[
            NewRecord::keyed("d9", result.to_string()),
            NewRecord::keyed("d1", retried.to_string()),
        ],
    );
    let sent = bodies::message_confirm("r1", "device", "sent");
    topics.write("command-status", &[NewRecord::keyed("r1", sent)]);
    wait_for_devices(&topics, COUNTED + 1);
    eventually("the states of command and device are rewritten", || {
        newest(&topics, "command-state", "r1").header(HEADER)?;
        newest(&topics, "device-software", "d1").header(HEADER)?;
        Some(())
    });
    let operations = states(&topics, "upgrade-operation");
    assert_eq!(operations["o1"].get("latest"), None);
    // d1 failed in o3 before: as `older` says, it was counted there.
    let delta = topics.read("upgrade-delta");
    let delta = delta.iter().find(|delta| delta.key_text() == "o3").unwrap();
    let delta: Value = serde_json::from_str(&delta.value_text()).unwrap();
    assert_eq!(delta["before"]["result"], "FAIL");
    let command = newest(&topics, "command-state", "r1");
    assert_eq!(
        self::header(&command),
        json!({"version": 1, "bodyAt": "2026-01-01T00:00:09Z"})
    );
    assert_eq!(states(&topics, "command-state")["r1"].get("bodyAt"), None);

    for process in [commands, upgrades] {
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
    delete_groups(&topics);
    let _upgrades = topics.start("upgrade-result", &[]);
    let _commands = topics.start("command-status", &[]);
    topics.wait_until_caught_up();
    wait_for_devices(&topics, COUNTED + 1);
}

#[test]
fn a_stream_that_meets_a_newer_format_writes_nothing_and_leaves_its_group() {
    let topics = Topics::create(shared().bootstrap(), "newer", &SETTINGS);
    let push = bodies::message_confirm("r1", "device", "executed");
    topics.write("command-status", &[NewRecord::keyed("r1", push)]);
    let newer = json!({"requestId": "r1", "status": "sent"});
    let newer = state("r1", &newer).with_header(HEADER, r#"{"version":2,"added":1}"#);
    topics.write("command-state", &[newer]);

    let process = topics.start("command-status", &[("streams.instance", "older")]);
    let line = process.wait_for_message(
        "state topic has a newer format; stream leaves its group and writes nothing",
    );
    let error = line["error"].as_str().unwrap();
    for part in [
        topics.name("command-state").as_str(),
        "format version 2 is newer than version 1",
        "upgrade this instance",
        "operations.md",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let readiness = http::get(process.admin_address(), "/readyz").unwrap();
    assert_eq!(readiness.status, 503);
    assert!(readiness.text().contains("format version 2 is newer"));
    // Others can take over at once, though this member is static and lives on.
    eventually("the group is empty", || is_empty(&topics).then_some(()));
    assert_eq!(process.exit_code(), None);
    assert_eq!(topics.read("command-state").len(), 1);
    assert!(topics.read("dead-letter").is_empty());
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), 0);

    // Once the newer state is gone, an older instance goes to work.
    let tombstone = NewRecord {
        value: None,
        ..NewRecord::keyed("r1", "")
    };
    topics.write("command-state", &[tombstone]);
    let _process = topics.start("command-status", &[]);
    eventually("the command is executed", || {
        let states = states(&topics, "command-state");
        (states.get("r1")?["status"] == "executed").then_some(())
    });
}

/// Returns whether the group of `command-status` exists and has no members.
fn is_empty(topics: &Topics) -> bool {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &topics.bootstrap)
        .create()
        .unwrap();
    let group = topics.group("command-status");
    let groups = consumer.fetch_group_list(Some(&group), TIMEOUT).unwrap();
    let mut groups = groups.groups().iter();
    groups.any(|group| group.state() == "Empty")
}

/// Writes the deltas that the operation has counted. Returns their partition.
fn write_deltas(topics: &Topics) -> i32 {
    let delta = |number: i64| {
        let at = format!("2026-01-01T00:00:0{number}.000Z");
        json!({"operationId": "o1", "deviceId": format!("d{number}"), "earliestAt": at,
            "after": {"result": "SUCCESS", "receivedAt": at}})
    };
    let record = |number| NewRecord::keyed("o1", delta(number).to_string());
    let records: Vec<_> = (1..=COUNTED).map(record).collect();
    let positions = produce(&topics.bootstrap, &topics.name("upgrade-delta"), &records);
    positions[0].0
}

fn write_state(topics: &Topics, topic: &str, partition: i32, key: &str, value: &Value) {
    let record = NewRecord {
        partition: Some(partition),
        // Later than every delta that the state has counted.
        timestamp_ms: Some(now_ms()),
        ..state(key, value)
    };
    topics.write(topic, &[record]);
}

/// A state as the version before wrote it.
fn state(key: &str, value: &Value) -> NewRecord {
    NewRecord::keyed(key, value.to_string())
}

fn wait_for_devices(topics: &Topics, devices: i64) {
    eventually("the devices are counted", || {
        let states = states(topics, "upgrade-operation");
        (states["o1"]["devices"] == devices).then_some(())
    });
}

fn newest(topics: &Topics, topic: &str, key: &str) -> Record {
    let records = topics.read(topic).into_iter();
    let mut of_key = records.filter(|record| record.key_text() == key);
    of_key.next_back().unwrap()
}

fn header(record: &Record) -> Value {
    serde_json::from_str(record.header(HEADER).unwrap()).unwrap()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_millis()).unwrap()
}
