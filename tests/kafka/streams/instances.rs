//! Several instances: they share the work, take it over from each other, and
//! one that was given up does no harm when it comes back.

use std::thread;

use rustix::process::{Pid, Signal};

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];
const UNSETTLED: i32 = 75;

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
fn a_zombie_is_refused_wherever_in_its_transaction_it_was_frozen() {
    thread::scope(|scope| {
        for at in ["3:4:STOP", "4:4:STOP", "5:4:STOP", "6:4:STOP"] {
            scope.spawn(move || frozen_and_thawed(at));
        }
    });
}

fn frozen_and_thawed(at: &str) {
    let topics = Topics::create(shared().bootstrap(), "zombie", &SETTINGS);
    let mut input = Input::random(60);
    let mut write = || {
        topics.write("command-status", &input.commands(10));
        topics.write("upgrade-result", &input.upgrades(60));
    };
    let _commands = named(&topics, "command-status", "only");
    write();
    let zombie = topics.start_failing("upgrade-result", &[("streams.instance", "zombie")], at);
    eventually("it is frozen", || is_frozen(zombie.pid()).then_some(()));
    let _successor = named(&topics, "upgrade-result", "successor");
    write();
    topics.await_caught_up();

    thaw(&zombie);
    write();
    assert_equal_to_model(&topics);
    assert!(matches!(zombie.exit_code(), None | Some(UNSETTLED)));
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

/// Lets a zombie go on, and waits until it knows that it is one.
pub(super) fn thaw(zombie: &Northbridge) {
    zombie.signal(Signal::CONT);
    eventually("the zombie knows that it is one", || {
        let gave_way = zombie
            .log()
            .iter()
            .any(|line| line.contains("partitions went to others"));
        (gave_way || zombie.exit_code() == Some(UNSETTLED)).then_some(())
    });
}

pub(super) fn is_frozen(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|status| status.contains(") T "))
}
