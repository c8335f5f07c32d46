//! A process that is told to end under load.

use northbridge::simulate::model;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeMap;

use super::input::Input;
use super::outputs::{assert_equal_to_model, assert_states, pushes};
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::records::Record;

const SETTINGS: [(&str, &str); 3] = [
    ("streams.instance", "only"),
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
];

/// They wait in the inputs before the processes start, for dozens of
/// transactions: however fast these are, they are told to end amid them.
const WAITING: usize = 600;

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

#[test]
fn sigterm_under_load_ends_with_0_and_with_output_for_exactly_what_is_committed() {
    let topics = Topics::create(shared().bootstrap(), "sigterm", &SETTINGS);
    let mut input = Input::random(200);
    topics.write("command-status", &input.commands(WAITING));
    topics.write("upgrade-result", &input.upgrades(WAITING));
    for command in COMMANDS {
        let process = topics.start(command, &[]);
        eventually("it works", || {
            let metrics = process.metrics();
            let applied = metrics.iter().find(|(name, _)| {
                name.contains("stream_records_total{result=\"applied\"") && name.contains(command)
            })?;
            (*applied.1 > 0.0).then_some(())
        });
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
    assert_prefix(
        &topics,
        "command-status",
        "command-state",
        model::command_states,
    );
    assert_prefix(
        &topics,
        "upgrade-result",
        "device-software",
        model::device_software,
    );

    let _next = COMMANDS.map(|command| topics.start(command, &[]));
    assert_equal_to_model(&topics);
}

/// The states are those of the records before the committed offsets, and more
/// records came after them.
fn assert_prefix(
    topics: &Topics,
    group: &str,
    states: &str,
    model: impl Fn(&[model::Push]) -> BTreeMap<String, Value>,
) {
    let all = topics.read(group);
    let committed = topics.committed(group, 0..6);
    let before = |record: &&Record| {
        committed
            .get(&record.partition)
            .is_some_and(|next| record.offset < *next)
    };
    let processed: Vec<Record> = all.iter().filter(before).cloned().collect();
    assert!(processed.len() < all.len(), "there was no load at the end");
    assert_states(topics, states, &model(&pushes(&processed)));
}
