//! SIGTERM under load.

use northbridge::model;
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

/// Records in each input before the processes start: dozens of transactions, so
/// SIGTERM arrives between them however fast they are.
const BACKLOG: usize = 600;

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

#[test]
fn sigterm_under_load_exits_with_0_and_output_matches_the_committed_offsets() {
    let topics = Topics::create(shared().bootstrap(), "sigterm", &SETTINGS);
    let mut input = Input::random(200);
    topics.write("command-status", &input.commands(BACKLOG));
    topics.write("upgrade-result", &input.upgrades(BACKLOG));
    for command in STREAM_COMMANDS {
        let process = topics.start(command, &[]);
        eventually("the stream applies records", || {
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

    let _next = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    assert_equal_to_model(&topics);
}

/// Checks that the states are those of the records before the committed offsets,
/// and that there are further records.
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
    assert!(
        processed.len() < all.len(),
        "the backlog was empty before SIGTERM"
    );
    assert_states(topics, states, &model(&pushes(&processed)));
}
