//! Transactions that brokers end late, or whose id they have forgotten.

use rustix::process::Signal;

use super::topics::Topics;
use crate::support::held_requests::{END_TXN, HeldRequests};
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::northbridge::Northbridge;
use crate::support::records::{NewRecord, Record, read_topic};
use crate::support::{bodies, eventually, http};

/// A broker rejects a request of a producer that has been replaced.
const FENCED: [i16; 2] = [47, 90];

/// A broker that is frozen, or a slow network, lets the client repeat a request
/// whose first copy arrives as well, later.
#[test]
fn a_late_copy_of_the_end_of_a_transaction_does_not_end_the_next_one() {
    let cluster = one_broker(&[]);
    let network = HeldRequests::open(cluster.broker(0).link(0));
    let topics = Topics::create(&cluster.zone_bootstrap(0), "late", &[]);
    let stream = topics.start("command-status", &[]);
    write(&topics, "first");
    wait_for_state(&topics, "first");

    network.hold(END_TXN);
    write(&topics, "repeated");
    network.wait_for(1);
    network.forward();
    wait_for_state(&topics, "repeated");

    // No request that ends this transaction arrives.
    network.hold(END_TXN);
    write(&topics, "open");
    network.wait_for(2);
    let error = network.release();
    assert!(!has_state(&topics, "open"), "{error}");
    assert!(FENCED.contains(&error), "{error}");

    network.forward();
    wait_for_state(&topics, "open");
    stream.signal(Signal::TERM);
    assert_eq!(stream.wait(), 0);
}

/// Brokers forget a transactional id after a week without a transaction, and a
/// producer id after a day.
#[test]
fn after_an_idle_week_everything_goes_on() {
    let cluster = one_broker(&[
        ("transactional.id.expiration.ms", "2000"),
        (
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            "500",
        ),
        ("producer.id.expiration.ms", "2000"),
        ("producer.id.expiration.check.interval.ms", "500"),
        ("transaction.state.log.num.partitions", "1"),
    ]);
    let topics = Topics::create(&cluster.bootstrap(), "idle", &[]);
    let commands = ["ingress", "command-status", "upgrade-result"];
    let processes = commands.map(|command| topics.start(command, &[]));
    processes.iter().for_each(Northbridge::wait_until_ready);
    let [ingress, ..] = &processes;
    push_one_of_each(ingress, "before");
    wait_for_states(&topics, "before");
    eventually("the transactional ids are forgotten", || {
        let log = read_topic(&cluster.bootstrap(), "__transaction_state");
        let last_of_each = [&topics.group("command-status"), &topics.group("upgrade")]
            .map(|id| log.iter().rev().find(|record| is_of_id(record, id)));
        let is_forgotten = |last: Option<&Record>| last.is_some_and(|last| last.value.is_none());
        last_of_each.into_iter().all(is_forgotten).then_some(())
    });
    push_one_of_each(ingress, "after");
    wait_for_states(&topics, "after");
    for process in &processes {
        assert_eq!(process.exit_code(), None);
        process.wait_until_ready();
    }
}

fn one_broker(properties: &[(&str, &str)]) -> Cluster {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Cluster::start(&ClusterOptions {
        brokers: 1,
        zones: 1,
        properties: properties.iter().map(owned).collect(),
        ..ClusterOptions::default()
    })
}

/// Returns whether a record of the log of transactions is about an id that
/// begins with this.
fn is_of_id(record: &Record, id: &str) -> bool {
    record.key_text().contains(id)
}

fn write(topics: &Topics, id: &str) {
    let body = bodies::message_confirm(id, "device", "sent");
    topics.write("command-status", &[NewRecord::keyed(id, body)]);
}

fn push_one_of_each(ingress: &Northbridge, id: &str) {
    for body in [
        bodies::message_confirm(id, "device", "sent"),
        bodies::upgrade_result(id, "operation", "SUCCESS"),
    ] {
        let answer = http::post_with(ingress.address(), "/notifications", &[], &body);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

fn wait_for_states(topics: &Topics, id: &str) {
    wait_for_state(topics, id);
    eventually("the device has a state", || {
        let states = topics.read("device-software");
        let mut keys = states.iter().map(Record::key_text);
        keys.any(|key| key == id).then_some(())
    });
}

fn wait_for_state(topics: &Topics, id: &str) {
    eventually("the command has a state", || {
        has_state(topics, id).then_some(())
    });
}

/// Returns whether a command has a committed state.
fn has_state(topics: &Topics, id: &str) -> bool {
    let states = topics.read("command-state");
    states.iter().any(|record| record.key_text() == id)
}
