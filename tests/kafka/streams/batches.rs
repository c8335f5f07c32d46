//! How many records one transaction has.

use super::outputs::states;
use super::topics::Topics;
use crate::support::bodies;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::NewRecord;

const RECORDS: usize = 3_000;

#[test]
fn a_batch_is_bounded_in_bytes() {
    let topics = backlog("bytes");
    let process = topics.start("command-status", &[("streams.max_batch_bytes", "10000")]);
    topics.wait_until_caught_up();
    let bytes: usize = topics
        .read("command-status")
        .iter()
        .map(|record| record.key_text().len() + record.value_text().len())
        .sum();
    // The last record of a batch may exceed the bound by its own size.
    let least = u32::try_from(bytes / 10_500).unwrap();
    let transactions = committed(&process);
    assert!(
        transactions >= f64::from(least),
        "{transactions} of {least}"
    );
    assert_eq!(states(&topics, "command-state").len(), RECORDS);
}

#[test]
fn batches_grow_with_the_lag() {
    let topics = backlog("lag");
    let process = topics.start("command-status", &[]);
    topics.wait_until_caught_up();
    let of_backlog = committed(&process);
    assert!(of_backlog <= 5.0, "{of_backlog} transactions");
    for number in 0..5 {
        let id = format!("late-{number}");
        let late = NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "device", "sent"));
        topics.write("command-status", &[late]);
        topics.wait_until_caught_up();
    }
    assert!((committed(&process) - of_backlog - 5.0).abs() < 0.5);
}

/// Topics with records that are all in one partition.
fn backlog(test: &str) -> Topics {
    let topics = Topics::create(shared().bootstrap(), test, &[]);
    let record = |number: usize| {
        let id = number.to_string();
        NewRecord {
            partition: Some(0),
            ..NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "device", "sent"))
        }
    };
    topics.write(
        "command-status",
        &(0..RECORDS).map(record).collect::<Vec<_>>(),
    );
    topics
}

fn committed(process: &Northbridge) -> f64 {
    let labels = ["command-status", "committed"];
    process.metric("northbridge_stream_transactions_total", &labels)
}
