//! Everything that a process knows comes from its state topic.

use std::time::Duration;

use rustix::process::Signal;

use super::outputs::states;
use super::topics::Topics;
use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{Isolation, NewRecord, create_topic, read_topic_as};

const KEYS: usize = 200_000;
/// Longer than a build without optimisation takes for the writing alone.
const MANY: Duration = Duration::from_secs(120);

/// Compaction is to run now, not in a week.
const COMPACTED: [(&str, &str); 6] = [
    ("cleanup.policy", "compact,delete"),
    ("min.insync.replicas", "2"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "1000"),
];

#[test]
fn a_compacted_topic_alone_restores_200_000_states() {
    let topics = Topics::named(
        shared().bootstrap(),
        "compacted",
        &[("streams.instance", "only")],
    );
    create_topic(
        &topics.bootstrap,
        &topics.name("command-state"),
        6,
        &COMPACTED,
    );
    topics.create_missing();
    let writer = topics.start("command-status", &[]);
    for status in ["sent", "delivered"] {
        let push = |key| (id(key), bodies::message_confirm(&id(key), "device", status));
        topics.write_many("command-status", (0..KEYS).map(push));
    }
    await_records(&writer, 2 * KEYS);
    assert_eq!(entries(&writer), KEYS);
    writer.signal(Signal::TERM);
    assert_eq!(writer.wait(), 0);
    eventually("compaction has run", || {
        let written = read_topic_as(
            &topics.bootstrap,
            &topics.name("command-state"),
            Isolation::Committed,
        );
        (written.len() < KEYS * 3 / 2).then_some(())
    });

    let reader = topics.start("command-status", &[]);
    reader.ready();
    assert_eq!(entries(&reader), KEYS);
    let later: Vec<NewRecord> = (0..KEYS)
        .step_by(1_000)
        .map(|key| {
            NewRecord::keyed(
                id(key),
                bodies::message_confirm(&id(key), "device", "executed"),
            )
        })
        .collect();
    topics.write("command-status", &later);
    await_records(&reader, later.len());
    let states = states(&topics, "command-state");
    assert_eq!(states.len(), KEYS);
    for key in 0..KEYS {
        let state = &states[&id(key)];
        let status = if key % 1_000 == 0 {
            "executed"
        } else {
            "delivered"
        };
        assert_eq!(state["status"], status);
        assert_eq!(state["sentAt"], state["deliveredAt"]);
        assert_eq!(state.get("executedAt").is_some(), status == "executed");
    }
    assert_eq!(entries(&reader), KEYS);
}

fn id(key: usize) -> String {
    format!("request-{key:06}")
}

fn entries(process: &Northbridge) -> usize {
    let entries = process.metrics()["northbridge_stream_state_entries{stream=\"command-status\"}"];
    format!("{entries}").parse().unwrap()
}

/// Waits until so many records are applied, and the gauges tell of it.
fn await_records(process: &Northbridge, count: usize) {
    let give_up = std::time::Instant::now() + MANY;
    let name = "northbridge_stream_records_total{result=\"applied\",stream=\"command-status\"}";
    while process.metrics()[name].to_string() != count.to_string() {
        assert!(
            std::time::Instant::now() < give_up,
            "{:?} of {count}",
            process.metrics()[name]
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    // Gauges are brought up to date every five seconds.
    std::thread::sleep(Duration::from_secs(6));
}
