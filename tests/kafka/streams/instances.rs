//! Several instances share the partitions and take them over from each other.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::supervised::UNSETTLED;

pub(super) const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

/// The stages of each command.
pub(super) const STAGES: [&[&str]; 2] = [
    &["command-status"],
    &["upgrade-result", "upgrade-operation"],
];

/// The shortest timeouts that the brokers accept, so that expired sessions and
/// transactions hold up the test as little as possible.
const SETTINGS: [(&str, &str); 4] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
    ("streams.session_timeout_ms", "6000"),
    ("streams.transaction_timeout_ms", "10000"),
];

/// An instance of this age keeps its name.
const OLD: Duration = Duration::from_secs(35);

#[test]
fn a_second_instance_is_assigned_partitions_and_gives_them_back() {
    let topics = Topics::create(shared().bootstrap(), "shared", &SETTINGS);
    let mut input = Input::random(200);
    under_load(&topics, &mut input, || {
        let first = STREAM_COMMANDS.map(|command| named(&topics, command, "first"));
        first.iter().for_each(wait_for_commits);
        let second = STREAM_COMMANDS.map(|command| named(&topics, command, "second"));
        second.iter().for_each(wait_for_commits);
        for process in &second {
            process.signal(Signal::TERM);
            assert_eq!(process.wait(), 0);
        }
        let third = STREAM_COMMANDS.map(|command| named(&topics, command, "second"));
        third.iter().for_each(wait_for_commits);
        assert!(first.iter().all(|process| process.exit_code().is_none()));
    });
    let _last = STREAM_COMMANDS.map(|command| named(&topics, command, "first"));
    assert_equal_to_model(&topics);
}

#[test]
fn reassigned_partitions_have_the_states_that_the_other_instance_left() {
    let topics = Topics::create(shared().bootstrap(), "returned", &SETTINGS);
    let mut input = Input::random(60);
    let mut write = || {
        topics.write("command-status", &input.commands(200));
        topics.write("upgrade-result", &input.upgrades(200));
    };
    let first = STREAM_COMMANDS.map(|command| named(&topics, command, "first"));
    write();
    topics.wait_until_caught_up();
    // Without an instance name it is a dynamic member and leaves its groups on exit.
    let second = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    for (process, stages) in second.iter().zip(STAGES) {
        for stage in stages {
            wait_for_assignment(process, stage);
        }
    }
    write();
    topics.wait_until_caught_up();
    second.iter().for_each(wait_for_commits);
    for process in &second {
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
    write();
    assert_equal_to_model(&topics);
    assert!(first.iter().all(|process| process.exit_code().is_none()));
}

#[test]
fn of_two_processes_with_one_instance_name_the_younger_ends_and_names_the_setting() {
    let topics = Topics::create(shared().bootstrap(), "namesake", &SETTINGS);
    let mut input = Input::random(60);
    let first = STREAM_COMMANDS.map(|command| named(&topics, command, "one"));
    under_load(&topics, &mut input, || {
        first.iter().for_each(wait_for_commits);
        thread::sleep(OLD);
        let second = STREAM_COMMANDS.map(|command| named(&topics, command, "one"));
        for process in &second {
            assert_eq!(process.wait(), UNSETTLED);
            process.wait_for_log(|line| line.contains("set streams.instance"));
        }
    });
    assert_equal_to_model(&topics);
    assert!(first.iter().all(|process| process.exit_code().is_none()));
}

pub(super) fn named(topics: &Topics, command: &str, instance: &str) -> Northbridge {
    topics.start(command, &[("streams.instance", instance)])
}

/// Waits until partitions have been assigned to a stage.
pub(super) fn wait_for_assignment(process: &Northbridge, stage: &str) {
    let stage = format!("\"stream\":\"{stage}\"");
    process.wait_for_log(|line| line.contains("partitions assigned") && line.contains(&stage));
}

/// Waits until every stage of the process has committed a transaction.
fn wait_for_commits(process: &Northbridge) {
    eventually("every stage commits", || {
        let metrics = process.metrics();
        let committed = |(name, _): &(&String, &f64)| {
            name.contains("stream_transactions_total") && name.contains("\"committed\"")
        };
        let mut counts = metrics.iter().filter(committed);
        counts.all(|(_, count)| *count > 0.0).then_some(())
    });
}
