//! Processes that were frozen until others had their place: what they do when
//! they go on does no harm.

use std::thread;

use rustix::process::{Pid, Signal};

use super::input::{Input, POISON};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::records::NewRecord;
use crate::support::supervised::UNSETTLED;

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

const SETTINGS: [(&str, &str); 3] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
    ("streams.session_timeout_ms", "6000"),
];

/// It is over for the brokers as soon as they can be told to, ten seconds or
/// twenty after it began.
const SHORT: (&str, &str) = ("streams.transaction_timeout_ms", "10000");
/// It is not over for the brokers while a test waits for anything. Only for
/// processes with one transactional id, or where somebody takes over all: what
/// another stage has under way when it is frozen stays open as well.
const LONG: (&str, &str) = ("streams.transaction_timeout_ms", "600000");

/// Its membership is static, and its transactions have its own name.
const NAMED: Option<&str> = Some("zombie");
/// Its membership is dynamic, and its transactions have the host's name.
const NAMELESS: Option<&str> = None;

#[test]
fn a_zombie_before_its_offsets_is_refused_and_then_works_on() {
    thread::scope(|scope| {
        for (name, at) in [
            (NAMED, "3:4:STOP"),
            (NAMED, "5:4:STOP"),
            (NAMELESS, "4:4:STOP"),
            (NAMELESS, "5:4:STOP"),
        ] {
            scope.spawn(move || refused_before_its_offsets(name, at));
        }
    });
}

fn refused_before_its_offsets(name: Option<&str>, at: &str) {
    let mut scene = Scene::new("zombie", "command-status", LONG);
    let zombie = scene.freeze(name, at);
    let successor = scene.start(Some("successor"));
    scene.write();
    scene.topics.await_caught_up();

    thaw(&zombie);
    scene.write();
    assert_equal_to_model(&scene.topics);

    // What it has learnt while it was away shows where it is alone again.
    successor.signal(Signal::TERM);
    assert_eq!(successor.wait(), 0);
    assert!(matches!(zombie.exit_code(), None | Some(UNSETTLED)));
    let _next = zombie.exit_code().map(|_| scene.start(name));
    scene.write();
    assert_equal_to_model(&scene.topics);
}

#[test]
fn a_zombie_before_its_commit_is_refused_and_ends() {
    ended_by_its_successor("committing", SHORT, Some("successor"));
}

#[test]
fn a_successor_of_the_same_name_waits_for_no_time_out_and_ends_the_zombie() {
    ended_by_its_successor("successor", LONG, NAMED);
}

fn ended_by_its_successor(test: &str, time_out: (&str, &str), name: Option<&str>) {
    let mut scene = Scene::new(test, "upgrade-result", time_out);
    let zombie = scene.freeze(NAMED, "6:4:STOP");
    let _successor = scene.start(name);
    scene.write();
    scene.topics.await_caught_up();

    zombie.signal(Signal::CONT);
    assert_eq!(zombie.wait(), UNSETTLED);
    scene.write();
    assert_equal_to_model(&scene.topics);
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

/// Waits until a process has frozen itself.
pub(super) fn await_frozen(process: &Northbridge) {
    eventually("it is frozen", || is_frozen(process.pid()).then_some(()));
}

fn is_frozen(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|status| status.contains(") T "))
}

/// Both streams, and the command of the one whose first instance is to be frozen.
struct Scene {
    topics: Topics,
    input: Input,
    command: &'static str,
    _other: Northbridge,
}

impl Scene {
    fn new(test: &str, command: &'static str, transaction_timeout: (&str, &str)) -> Self {
        let settings: Vec<_> = SETTINGS.into_iter().chain([transaction_timeout]).collect();
        let topics = Topics::create(shared().bootstrap(), test, &settings);
        let other = COMMANDS.iter().find(|other| **other != command).unwrap();
        Self {
            _other: topics.start(other, &[]),
            topics,
            input: Input::random(60),
            command,
        }
    }

    /// As many dead letters to come as anything else: whichever records a
    /// zombie has, it would double one.
    fn write(&mut self) {
        for (topic, records) in COMMANDS
            .iter()
            .zip([self.input.commands(60), self.input.upgrades(60)])
        {
            let poisoned = records.into_iter().flat_map(|record| [record, poison()]);
            self.topics.write(topic, &poisoned.collect::<Vec<_>>());
        }
    }

    fn start(&self, name: Option<&str>) -> Northbridge {
        self.topics.start(self.command, &settings(name))
    }

    /// A process that is frozen amid its transactions, with work left.
    fn freeze(&mut self, name: Option<&str>, at: &str) -> Northbridge {
        self.write();
        let zombie = self.topics.start_failing(self.command, &settings(name), at);
        await_frozen(&zombie);
        zombie
    }
}

fn poison() -> NewRecord {
    NewRecord::keyed(fastrand::u32(..).to_string(), "{").with_header(POISON, "not-json-object")
}

fn settings(name: Option<&str>) -> Vec<(&'static str, &str)> {
    name.map(|name| ("streams.instance", name))
        .into_iter()
        .collect()
}
