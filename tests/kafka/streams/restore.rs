//! A process restores its states from its state topic alone.

use rustix::process::Signal;
use serde_json::json;

use super::external_transactions::ExternalTransaction;
use super::outputs::states;
use super::topics::{Topics, gauge, wait_while_progressing};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{Isolation, NewRecord, create_topic, read_topic_as};

const KEYS: usize = 200_000;
/// How many states are written a second time before the restore.
const SUPERSEDED: usize = KEYS / 4;

const RESTORED_RECORDS: &str =
    "northbridge_stream_restored_records_total{stream=\"command-status\"}";
const RESTORE_SECONDS: &str = "northbridge_stream_restore_seconds{stream=\"command-status\"}";

/// Settings that make compaction run at once rather than after a week.
const COMPACTED: [(&str, &str); 8] = [
    ("cleanup.policy", "compact,delete"),
    ("retention.ms", "2592000000"),
    ("min.insync.replicas", "2"),
    ("max.message.bytes", "1056768"),
    ("segment.bytes", "1048576"),
    ("segment.ms", "1000"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "1000"),
];

#[test]
fn two_hundred_thousand_states_are_restored_from_a_compacted_topic() {
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
    wait_for_applied_records(&writer, KEYS + SUPERSEDED);
    wait_for_all_entries(&writer);
    // The active segment is never compacted, and rolls only when a record arrives
    // more than segment.ms after its first.
    confirm(&topics, 1_000, "executed");
    wait_for_applied_records(&writer, KEYS + SUPERSEDED + KEYS / 1_000);
    writer.signal(Signal::TERM);
    assert_eq!(writer.wait(), 0);
    wait_for_compaction(&topics);

    let reader = topics.start("command-status", &[]);
    wait_until_restored(&reader);
    assert_eq!(entries(&reader), KEYS.to_string());
    assert!(number(&reader, RESTORED_RECORDS) >= KEYS);
    assert_ne!(gauge(&reader, RESTORE_SECONDS), "0");
    confirm(&topics, 625, "executed");
    wait_for_applied_records(&reader, KEYS / 625);
    topics.wait_until_caught_up();
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
        let times = ["sentAt", "deliveredAt", "executedAt"].map(|at| state.get(at).is_some());
        assert_eq!(times, [true, delivered, executed], "{state}");
    }
}

#[test]
fn a_restore_waits_for_open_transactions_and_skips_aborted_ones() {
    let topics = Topics::create(shared().bootstrap(), "hidden", &[]);
    let aborted = ExternalTransaction::begin(&topics);
    aborted.write("command-state", &[state("aborted")]);
    aborted.abort();
    topics.write("command-state", &[state("plain")]);
    let open = ExternalTransaction::begin(&topics);
    let uncommitted: Vec<_> = (0..20).map(|key| state(&id(key))).collect();
    open.write("command-state", &uncommitted);

    let process = topics.start("command-status", &[]);
    let progress = process.wait_for_message("restoring states");
    assert!(progress["total"].as_u64() > Some(21), "{progress}");
    assert!(!process.is_ready());
    open.commit();
    process.wait_until_ready();
    assert_eq!(entries(&process), "21");
    assert_restored(&topics, "aborted", false);
    assert_restored(&topics, "plain", true);
    assert_restored(&topics, &id(7), true);
}

#[test]
fn a_deleted_state_is_not_restored() {
    let topics = Topics::create(shared().bootstrap(), "deleted", &[]);
    topics.write("command-state", &[state("deleted"), state("kept")]);
    let tombstone = NewRecord {
        value: None,
        ..state("deleted")
    };
    topics.write("command-state", &[tombstone]);

    let process = topics.start("command-status", &[]);
    process.wait_until_ready();
    assert_eq!(entries(&process), "1");
    assert_restored(&topics, "deleted", false);
    assert_restored(&topics, "kept", true);
}

/// The state of an executed command.
fn state(id: &str) -> NewRecord {
    let state = json!({"requestId": id, "status": "executed"});
    NewRecord::keyed(id, state.to_string())
}

/// Writes a `sent` push: the command's status stays `executed` only if its state
/// was restored.
fn assert_restored(topics: &Topics, id: &str, restored: bool) {
    let push = bodies::message_confirm(id, "device", "sent");
    topics.write("command-status", &[NewRecord::keyed(id, push)]);
    topics.wait_until_caught_up();
    let status = if restored { "executed" } else { "sent" };
    assert_eq!(
        states(topics, "command-state")[id]["status"],
        status,
        "{id}"
    );
}

/// Writes a push for every `step`th command.
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

/// Waits until `count` records have been applied.
fn wait_for_applied_records(process: &Northbridge, count: usize) {
    let name = "northbridge_stream_records_total{result=\"applied\",stream=\"command-status\"}";
    wait_while_progressing("the stream", || {
        let applied = gauge(process, name);
        (applied == count.to_string(), applied)
    });
}

/// Waits until the gauge, which is updated every five seconds, counts every key.
fn wait_for_all_entries(process: &Northbridge) {
    eventually("every key is in memory", || {
        (entries(process) == KEYS.to_string()).then_some(())
    });
}

fn wait_until_restored(process: &Northbridge) {
    wait_while_progressing("the restore", || {
        (process.is_ready(), gauge(process, RESTORED_RECORDS))
    });
}

/// Waits until compaction has removed nearly all superseded records.
fn wait_for_compaction(topics: &Topics) {
    let name = topics.name("command-state");
    wait_while_progressing("compaction", || {
        let left = read_topic_as(&topics.bootstrap, &name, Isolation::Committed).len();
        (left < KEYS + SUPERSEDED / 10, format!("{left} records"))
    });
}
