//! Reading the input again changes no state: not after the groups or their
//! offsets are lost, and not under other groups.

use std::collections::{BTreeMap, BTreeSet};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::input::Input;
use super::outputs::{assert_states_equal_to_model, states};
use super::topics::{GROUPS, Topics};
use crate::support::groups::{change_offsets, delete_group};
use crate::support::kafka_cluster::shared;
use crate::support::records::{NewRecord, Record};

const STATE_TOPICS: [&str; 3] = ["command-state", "device-software", "upgrade-operation"];

/// A short session, so that a group is soon empty after its processes ended.
const SETTINGS: [(&str, &str); 1] = [("streams.session_timeout_ms", "6000")];

#[test]
fn reading_everything_again_changes_no_state() {
    let topics = Topics::create(shared().bootstrap(), "again", &SETTINGS);
    let mut input = Input::random(60);
    topics.write("command-status", &input.commands(300));
    topics.write("upgrade-result", &input.upgrades(300));
    topics.write("upgrade-result", &[result("d1"), result("d2")]);
    process_everything(&topics);
    let before = records(&topics);
    assert_eq!(devices(&topics), json!(2));

    delete_groups(&topics);
    process_everything(&topics);
    assert_eq!(devices(&topics), json!(2), "after the groups were deleted");
    assert_unchanged(&before, &topics);

    reset_offsets(&topics, 0);
    process_everything(&topics);
    assert_eq!(devices(&topics), json!(2), "after the offsets were reset");
    assert_unchanged(&before, &topics);

    let topics = topics.with_group_prefix("other.");
    process_everything(&topics);
    assert_eq!(devices(&topics), json!(2), "under other groups");
    assert_unchanged(&before, &topics);

    // What follows is counted, though it was never read under the first groups.
    topics.write("upgrade-result", &[result("d3")]);
    topics.write("upgrade-result", &input.upgrades(100));
    process_everything(&topics);
    assert_eq!(devices(&topics), json!(3));
    assert_states_equal_to_model(&topics);
}

#[test]
fn groups_with_new_names_change_no_state() {
    let topics = Topics::create(shared().bootstrap(), "renamed", &SETTINGS);
    // The groups are those that earlier versions, which did not add `topics.prefix`,
    // made of the `streams.group_prefix` that follows.
    let earlier = topics.with_group_prefix("earlier.");
    let mut input = Input::random(60);
    earlier.write("command-status", &input.commands(300));
    earlier.write("upgrade-result", &input.upgrades(300));
    earlier.write("upgrade-result", &[result("d1"), result("d2")]);
    process_everything(&earlier);
    let before = records(&earlier);

    let later = topics.with_group_prefix(&format!("earlier.{}", topics.prefix));
    later.write("upgrade-result", &[result("d2")]);
    process_everything(&later);
    assert_unchanged(&before, &later);
    later.write("command-status", &input.commands(100));
    later.write("upgrade-result", &input.upgrades(100));
    later.write("upgrade-result", &[result("d3")]);
    process_everything(&later);
    assert_eq!(devices(&later), json!(3));
    assert_states_equal_to_model(&later);
}

/// Runs both streams until they have processed all of their input.
fn process_everything(topics: &Topics) {
    let processes = ["command-status", "upgrade-result"].map(|command| topics.start(command, &[]));
    topics.wait_until_caught_up();
    for process in processes {
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
}

/// Deletes the groups of all stages.
pub(super) fn delete_groups(topics: &Topics) {
    for (stage, _) in GROUPS {
        delete_group(&topics.bootstrap, &topics.group(stage));
    }
}

/// Commits this offset for every partition of every input.
pub(super) fn reset_offsets(topics: &Topics, offset: i64) {
    for (stage, topic) in GROUPS {
        let (group, topic) = (topics.group(stage), topics.name(topic));
        change_offsets(&topics.bootstrap, &group, &topic, |_| offset);
    }
}

fn result(device: &str) -> NewRecord {
    let push = json!({"deviceId": device, "operationId": "counted", "swUpgradeResult": "SUCCESS"});
    NewRecord::keyed(device, push.to_string())
}

fn devices(topics: &Topics) -> Value {
    states(topics, "upgrade-operation")["counted"]["devices"].clone()
}

fn records(topics: &Topics) -> BTreeMap<&'static str, Vec<Record>> {
    let of_topic = |topic| (topic, topics.read(topic));
    STATE_TOPICS.into_iter().map(of_topic).collect()
}

/// Checks that no state has been written since.
fn assert_unchanged(before: &BTreeMap<&str, Vec<Record>>, topics: &Topics) {
    for (topic, records) in records(topics) {
        let known: BTreeSet<_> = before[topic].iter().map(position).collect();
        let written = records
            .iter()
            .find(|record| !known.contains(&position(record)));
        assert_eq!(written, None, "{topic}");
    }
}

fn position(record: &Record) -> (i32, i64) {
    (record.partition, record.offset)
}
