//! Several instances: they share the work, and take it over from each other.

use rustix::process::Signal;

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::supervised::UNSETTLED;

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

/// The stages of each.
const STAGES: [&[&str]; 2] = [
    &["command-status"],
    &["upgrade-result", "upgrade-operation"],
];

/// The shortest times that the brokers take: for whom a session or a
/// transaction ends is not waited for longer than needed.
const SETTINGS: [(&str, &str); 4] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
    ("streams.session_timeout_ms", "6000"),
    ("streams.transaction_timeout_ms", "10000"),
];

#[test]
fn a_second_instance_takes_its_share_and_gives_it_back() {
    let topics = Topics::create(shared().bootstrap(), "shared", &SETTINGS);
    let mut input = Input::random(200);
    under_load(&topics, &mut input, || {
        let first = COMMANDS.map(|command| named(&topics, command, "first"));
        first.iter().for_each(await_work);
        let second = COMMANDS.map(|command| named(&topics, command, "second"));
        second.iter().for_each(await_work);
        for process in &second {
            process.signal(Signal::TERM);
            assert_eq!(process.wait(), 0);
        }
        let third = COMMANDS.map(|command| named(&topics, command, "second"));
        third.iter().for_each(await_work);
        assert!(first.iter().all(|process| process.exit_code().is_none()));
    });
    let _last = COMMANDS.map(|command| named(&topics, command, "first"));
    assert_equal_to_model(&topics);
}

#[test]
fn states_that_come_back_are_those_that_the_other_instance_left() {
    let topics = Topics::create(shared().bootstrap(), "returned", &SETTINGS);
    let mut input = Input::random(60);
    let mut write = || {
        topics.write("command-status", &input.commands(200));
        topics.write("upgrade-result", &input.upgrades(200));
    };
    let first = COMMANDS.map(|command| named(&topics, command, "first"));
    write();
    topics.await_caught_up();
    // Without a name of its own it leaves its groups as it ends.
    let second = COMMANDS.map(|command| topics.start(command, &[]));
    for (process, stages) in second.iter().zip(STAGES) {
        for stage in stages {
            await_share(process, stage);
        }
    }
    write();
    topics.await_caught_up();
    second.iter().for_each(await_work);
    for process in &second {
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
    write();
    assert_equal_to_model(&topics);
    assert!(first.iter().all(|process| process.exit_code().is_none()));
}

#[test]
fn a_second_process_of_the_same_name_ends_the_first() {
    let topics = Topics::create(shared().bootstrap(), "namesake", &SETTINGS);
    let mut input = Input::random(60);
    under_load(&topics, &mut input, || {
        for command in COMMANDS {
            let first = named(&topics, command, "one");
            await_work(&first);
            let second = named(&topics, command, "one");
            assert_eq!(first.wait(), UNSETTLED);
            await_work(&second);
            second.signal(Signal::TERM);
            assert_eq!(second.wait(), 0);
        }
    });
    let _both = COMMANDS.map(|command| named(&topics, command, "one"));
    assert_equal_to_model(&topics);
}

fn named(topics: &Topics, command: &str, instance: &str) -> Northbridge {
    topics.start(command, &[("streams.instance", instance)])
}

/// Waits until a stage has partitions.
fn await_share(process: &Northbridge, stage: &str) {
    let stage = format!("\"stream\":\"{stage}\"");
    process.wait_for_log(|line| line.contains("partitions came") && line.contains(&stage));
}

/// Waits until every stage of the process has committed something.
fn await_work(process: &Northbridge) {
    eventually("every stage commits", || {
        let metrics = process.metrics();
        let committed = |(name, _): &(&String, &f64)| {
            name.contains("stream_transactions_total") && name.contains("\"committed\"")
        };
        let mut counts = metrics.iter().filter(committed);
        counts.all(|(_, count)| *count > 0.0).then_some(())
    });
}
