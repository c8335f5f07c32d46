//! Everything that a process knows comes from its state topic.

use rustix::process::Signal;
use serde_json::json;

use super::foreign::Foreign;
use super::outputs::states;
use super::topics::{Topics, await_progress, gauge};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{Isolation, NewRecord, create_topic, read_topic_as};

const KEYS: usize = 200_000;
/// Every fourth state is written twice before the restore.
const SUPERSEDED: usize = KEYS / 4;

const RESTORED_RECORDS: &str =
    "northbridge_stream_restored_records_total{stream=\"command-status\"}";
const RESTORE_SECONDS: &str = "northbridge_stream_restore_seconds{stream=\"command-status\"}";

/// Compaction is to run now, not in a week.
const COMPACTED: [(&str, &str); 7] = [
    ("cleanup.policy", "compact,delete"),
    ("min.insync.replicas", "2"),
    ("max.message.bytes", "1056768"),
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
    confirm(&topics, 1, "sent");
    confirm(&topics, 4, "delivered");
    await_records(&writer, KEYS + SUPERSEDED);
    await_entries(&writer);
    // A partition's newest segment is never compacted, and becomes an older one
    // with the first record that comes more than segment.ms later.
    confirm(&topics, 1_000, "executed");
    await_records(&writer, KEYS + SUPERSEDED + KEYS / 1_000);
    writer.signal(Signal::TERM);
    assert_eq!(writer.wait(), 0);
    await_compaction(&topics);

    let reader = topics.start("command-status", &[]);
    await_restored(&reader);
    assert_eq!(entries(&reader), KEYS.to_string());
    assert!(number(&reader, RESTORED_RECORDS) >= KEYS);
    assert_ne!(gauge(&reader, RESTORE_SECONDS), "0");
    confirm(&topics, 625, "executed");
    await_records(&reader, KEYS / 625);
    topics.await_caught_up();
    let all = states(&topics, "command-state");
    assert_eq!(all.len(), KEYS);
    for key in 0..KEYS {
        let state = &all[&id(key)];
        let delivered = key % 4 == 0;
        let executed = key % 1_000 == 0 || key % 625 == 0;
        let status = match (delivered, executed) {
            (_, true) => "executed",
            (true, false) => "delivered",
            (false, false) => "sent",
        };
        assert_eq!(state["status"], status, "{key}");
        let told = ["sentAt", "deliveredAt", "executedAt"].map(|at| state.get(at).is_some());
        assert_eq!(told, [true, delivered, executed], "{state}");
    }
}

#[test]
fn a_restore_waits_for_open_transactions_and_skips_aborted_ones() {
    let topics = Topics::create(shared().bootstrap(), "hidden", &[]);
    let aborted = Foreign::begin(&topics);
    aborted.write("command-state", &[state("aborted")]);
    aborted.abort();
    topics.write("command-state", &[state("plain")]);
    let open = Foreign::begin(&topics);
    let states_to_come: Vec<_> = (0..20).map(|key| state(&id(key))).collect();
    open.write("command-state", &states_to_come);

    let process = topics.start("command-status", &[]);
    let progress = process.wait_for_message("restoring states");
    assert!(progress["total"].as_u64() > Some(21), "{progress}");
    assert!(!process.is_ready());
    open.commit();
    process.ready();
    assert_eq!(entries(&process), "21");
    assert_known(&topics, "aborted", false);
    assert_known(&topics, "plain", true);
    assert_known(&topics, &id(7), true);
}

#[test]
fn a_state_that_was_deleted_is_not_restored() {
    let topics = Topics::create(shared().bootstrap(), "deleted", &[]);
    topics.write("command-state", &[state("deleted"), state("kept")]);
    let tombstone = NewRecord {
        value: None,
        ..state("deleted")
    };
    topics.write("command-state", &[tombstone]);

    let process = topics.start("command-status", &[]);
    process.ready();
    assert_eq!(entries(&process), "1");
    assert_known(&topics, "deleted", false);
    assert_known(&topics, "kept", true);
}

/// The state of a command that was carried out.
fn state(id: &str) -> NewRecord {
    let state = json!({"requestId": id, "status": "executed"});
    NewRecord::keyed(id, state.to_string())
}

/// Sends a push of a command: only what is known of it tells that it was
/// carried out.
fn assert_known(topics: &Topics, id: &str, known: bool) {
    let push = bodies::message_confirm(id, "device", "sent");
    topics.write("command-status", &[NewRecord::keyed(id, push)]);
    topics.await_caught_up();
    let status = if known { "executed" } else { "sent" };
    assert_eq!(
        states(topics, "command-state")[id]["status"],
        status,
        "{id}"
    );
}

/// Pushes of every `step`th command.
fn confirm(topics: &Topics, step: usize, status: &str) {
    let push = |key| (id(key), bodies::message_confirm(&id(key), "device", status));
    topics.write_many("command-status", (0..KEYS).step_by(step).map(push));
}

fn id(key: usize) -> String {
    format!("request-{key:06}")
}

fn entries(process: &Northbridge) -> String {
    gauge(
        process,
        "northbridge_stream_state_entries{stream=\"command-status\"}",
    )
}

fn number(process: &Northbridge, name: &str) -> usize {
    gauge(process, name).parse().unwrap()
}

/// Waits until so many records are applied.
fn await_records(process: &Northbridge, count: usize) {
    let name = "northbridge_stream_records_total{result=\"applied\",stream=\"command-status\"}";
    await_progress("the stream", || {
        let applied = gauge(process, name);
        (applied == count.to_string(), applied)
    });
}

/// Waits until the gauge, which is brought up to date every five seconds, tells
/// of every key.
fn await_entries(process: &Northbridge) {
    eventually("every key is in memory", || {
        (entries(process) == KEYS.to_string()).then_some(())
    });
}

fn await_restored(process: &Northbridge) {
    await_progress("the restore", || {
        (process.is_ready(), gauge(process, RESTORED_RECORDS))
    });
}

/// Waits until next to nothing is left of what was written again later.
fn await_compaction(topics: &Topics) {
    let name = topics.name("command-state");
    await_progress("compaction", || {
        let left = read_topic_as(&topics.bootstrap, &name, Isolation::Committed).len();
        (left < KEYS + SUPERSEDED / 10, format!("{left} records"))
    });
}
