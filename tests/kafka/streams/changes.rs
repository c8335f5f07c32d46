//! Topics that are deleted and made again, and partitions that are added, while
//! the streams run on them.

use std::thread;

use serde_json::Value;

use super::outputs::states;
use super::topics::Topics;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, add_partitions, create_topic, delete_topic};
use crate::support::{bodies, eventually, http};

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];
/// Commands and devices of one phase.
const IDS: u32 = 24;

#[test]
fn a_topic_made_again_is_processed_without_a_restart() {
    thread::scope(|scope| {
        scope.spawn(|| {
            goes_on_after("inputs", |topics| {
                make_again(topics, "command-status", 2);
                add_partitions(&topics.bootstrap, &topics.name("device-software"), 9);
                make_again(topics, "upgrade-result", 9);
            });
        });
        scope.spawn(|| {
            goes_on_after("states", |topics| {
                make_again(topics, "command-state", 6);
                make_again(topics, "device-software", 6);
                make_again(topics, "upgrade-operation", 6);
            });
        });
        scope.spawn(|| {
            goes_on_after("deltas", |topics| {
                make_again(topics, "command-status", 6);
                make_again(topics, "upgrade-delta", 2);
            });
        });
    });
}

fn goes_on_after(test: &str, change: impl Fn(&Topics)) {
    let topics = Topics::create(shared().bootstrap(), test, &[]);
    let processes = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    processes.iter().for_each(Northbridge::wait_until_ready);
    write_phase(&topics, "before");
    wait_for_states(&topics, "before");
    change(&topics);
    write_phase(&topics, "after");
    wait_for_states(&topics, "after");
    for process in &processes {
        assert_eq!(process.exit_code(), None);
        process.wait_until_ready();
    }
}

fn make_again(topics: &Topics, topic: &str, partitions: i32) {
    let name = topics.name(topic);
    let cleanup = match topic {
        "command-state" => "compact,delete",
        "device-software" | "upgrade-operation" => "compact",
        _ => "delete",
    };
    let settings = [
        ("cleanup.policy", cleanup),
        ("retention.ms", "2592000000"),
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "2000000"),
    ];
    delete_topic(&topics.bootstrap, &name);
    create_topic(&topics.bootstrap, &name, partitions, &settings);
}

/// Writes a command of each id, and the upgrade of each device in one operation.
fn write_phase(topics: &Topics, phase: &str) {
    let command = |id| {
        let id = format!("{phase}-{id}");
        NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "device", "sent"))
    };
    let upgrade = |id| {
        let id = format!("{phase}-{id}");
        NewRecord::keyed(id.clone(), bodies::upgrade_result(&id, phase, "SUCCESS"))
    };
    topics.write("command-status", &(0..IDS).map(command).collect::<Vec<_>>());
    topics.write("upgrade-result", &(0..IDS).map(upgrade).collect::<Vec<_>>());
}

fn wait_for_states(topics: &Topics, phase: &str) {
    for topic in ["command-state", "device-software"] {
        eventually("each record of the phase has a state", || {
            let states = states(topics, topic);
            let is_complete = (0..IDS).all(|id| states.contains_key(&format!("{phase}-{id}")));
            is_complete.then_some(())
        });
    }
    eventually("the operation counts each device once", || {
        let states = states(topics, "upgrade-operation");
        let devices = states.get(phase)?.get("devices").and_then(Value::as_u64);
        (devices == Some(IDS.into())).then_some(())
    });
}

#[test]
fn partitions_that_are_added_to_an_input_wait_for_those_of_the_states_alone() {
    let topics = Topics::create(shared().bootstrap(), "grown", &[]);
    let process = topics.start("command-status", &[]);
    process.wait_until_ready();
    add_partitions(&topics.bootstrap, &topics.name("command-status"), 8);
    process.wait_until_not_ready();
    only_added_partitions_wait(&topics, &process);
}

#[test]
fn a_stream_that_starts_with_too_few_state_partitions_processes_the_others() {
    let topics = Topics::create(shared().bootstrap(), "grown-before", &[]);
    add_partitions(&topics.bootstrap, &topics.name("command-status"), 8);
    let verified = topics.verify();
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let process = topics.start("command-status", &[]);
    only_added_partitions_wait(&topics, &process);
}

/// The partitions 6 and 7 of the input wait until the state topic has them.
fn only_added_partitions_wait(topics: &Topics, process: &Northbridge) {
    let set_aside = process.wait_for_message("partitions set aside");
    assert!(set_aside["reason"].to_string().contains("[6, 7]"));
    eventually("the reason says what the new partitions wait for", || {
        let report = http::get(process.admin_address(), "/readyz")?;
        let (text, state) = (report.text(), topics.name("command-state"));
        let is_explained = text.contains("[6, 7]") && text.contains(&state);
        (report.status == 503 && is_explained).then_some(())
    });
    let write = |partition, id: &str| {
        let record = NewRecord {
            partition: Some(partition),
            ..NewRecord::keyed(id, bodies::message_confirm(id, "device", "sent"))
        };
        topics.write("command-status", &[record]);
    };
    let wait_for = |id: &str| {
        eventually("the record has a state", || {
            states(topics, "command-state")
                .contains_key(id)
                .then_some(())
        });
    };
    write(7, "new");
    write(0, "old");
    wait_for("old");
    assert!(!states(topics, "command-state").contains_key("new"));
    assert!(!process.is_ready());
    add_partitions(&topics.bootstrap, &topics.name("command-state"), 8);
    wait_for("new");
    process.wait_until_ready();
}
