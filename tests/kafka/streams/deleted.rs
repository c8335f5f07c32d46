//! Records that Kafka deletes before a stream has processed them.

use std::ops::Range;
use std::thread;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rustix::process::Signal;

use super::outputs::states;
use super::topics::Topics;
use crate::support::bodies;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, block_on};

const LOST: &str = "northbridge_stream_records_lost_total";
const MESSAGE: &str =
    "records were deleted before they were processed; continuing at the first one left";

#[test]
fn a_stream_that_starts_goes_on_at_the_first_record_left_and_counts_those_gone() {
    let topics = Topics::create(shared().bootstrap(), "deleted", &[]);
    // The group has no committed offset: nothing of this is lost.
    write(&topics, 1, 0..4);
    delete_before(&topics, 1, 3);
    write(&topics, 0, 0..10);
    run_until_caught_up(&topics, 0.0);

    write(&topics, 0, 10..30);
    delete_before(&topics, 0, 25);
    let log = run_until_caught_up(&topics, 15.0);
    let lines: Vec<_> = log.iter().filter(|line| line.contains(MESSAGE)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    for field in ["command-status", "partition", "10", "24", "15"] {
        assert!(lines[0].contains(field), "{field}: {lines:?}");
    }
    let states = states(&topics, "command-state");
    let present = |number: &i64| states.contains_key(&id(0, *number));
    let expected: Vec<_> = (0..10).chain(25..30).collect();
    assert_eq!((0..30).filter(present).collect::<Vec<_>>(), expected);

    // The loss is committed: the next start does not find it again.
    delete_before(&topics, 0, 30);
    run_until_caught_up(&topics, 0.0);
}

#[test]
fn everything_that_was_deleted_is_counted_once_though_no_record_is_left() {
    let topics = Topics::create(shared().bootstrap(), "emptied", &[]);
    write(&topics, 0, 0..10);
    run_until_caught_up(&topics, 0.0);
    write(&topics, 0, 10..30);
    delete_before(&topics, 0, 30);
    let process = topics.start("command-status", &[]);
    process.wait_for_metric(LOST, &["command-status"], 20.0);
    drop(process);
    run_until_caught_up(&topics, 0.0);
}

#[test]
fn a_running_stream_goes_on_at_the_first_record_left_and_counts_those_gone() {
    let settings = [
        ("streams.session_timeout_ms", "60000"),
        ("kafka.options.fetch.wait.max.ms", "100"),
    ];
    let topics = Topics::create(shared().bootstrap(), "deleting", &settings);
    write(&topics, 0, 0..10);
    let process = topics.start("command-status", &[]);
    topics.wait_until_caught_up();
    process.signal(Signal::STOP);
    // A request that is on its way would still return the records.
    thread::sleep(Duration::from_secs(2));
    write(&topics, 0, 10..30);
    delete_before(&topics, 0, 25);
    process.signal(Signal::CONT);
    topics.wait_until_caught_up();
    process.wait_for_metric(LOST, &["command-status"], 15.0);
    process.wait_for_log(|line| line.contains(MESSAGE));
    assert_eq!(states(&topics, "command-state").len(), 15);
    assert_eq!(process.exit_code(), None);
}

/// Runs the stream until it has processed everything, and has counted `lost`.
/// Returns its log.
fn run_until_caught_up(topics: &Topics, lost: f64) -> Vec<String> {
    let process: Northbridge = topics.start("command-status", &[]);
    process.wait_until_ready();
    topics.wait_until_caught_up();
    process.wait_for_metric(LOST, &["command-status"], lost);
    let log = process.log();
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), 0);
    log
}

/// Writes confirmations of these numbers, whose offsets they are.
fn write(topics: &Topics, partition: i32, numbers: Range<i64>) {
    let record = |number| {
        let id = id(partition, number);
        NewRecord {
            partition: Some(partition),
            ..NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "device", "sent"))
        }
    };
    topics.write("command-status", &numbers.map(record).collect::<Vec<_>>());
}

fn id(partition: i32, number: i64) -> String {
    format!("{partition}-{number}")
}

fn delete_before(topics: &Topics, partition: i32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &topics.bootstrap)
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let name = topics.name("command-status");
    list.add_partition_offset(&name, partition, Offset::Offset(offset))
        .unwrap();
    block_on(admin.delete_records(&list, &AdminOptions::new())).unwrap();
}
