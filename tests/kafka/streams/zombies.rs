//! Zombies: processes that were frozen until others had taken over their
//! partitions. What they do after they resume must have no effect.

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

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

const SETTINGS: [(&str, &str); 3] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
    ("streams.session_timeout_ms", "6000"),
];

/// The brokers abort a zombie's transaction 10 to 20 s after it began; this is the
/// minimum that the product accepts.
const SHORT: (&str, &str) = ("streams.transaction_timeout_ms", "10000");
/// The brokers never abort a zombie's transaction during a test. Only for
/// processes with one transactional ID, or if a successor takes over all of them,
/// because the open transactions of other stages stay open too.
const LONG: (&str, &str) = ("streams.transaction_timeout_ms", "600000");

/// A static member whose transactional IDs contain its instance name.
const NAMED: Option<&str> = Some("zombie");
/// A dynamic member whose transactional IDs contain the host name.
const NAMELESS: Option<&str> = None;

#[test]
fn a_zombie_that_has_not_sent_its_offsets_is_rejected_and_continues() {
    thread::scope(|scope| {
        for (name, at) in [
            (NAMED, "3:4:STOP"),
            (NAMED, "5:4:STOP"),
            (NAMELESS, "4:4:STOP"),
            (NAMELESS, "5:4:STOP"),
        ] {
            scope.spawn(move || refused_before_its_offsets(name, at, &[]));
        }
    });
}

/// Its own open transaction would keep it from restoring any of its partitions,
/// and nobody else from reading them.
#[test]
fn a_zombie_that_is_no_member_any_more_before_it_sends_its_offsets_ends_its_transaction() {
    let one_batch = [
        ("streams.max_batch_records", "1000"),
        ("streams.max_batch_wait_ms", "1000"),
    ];
    refused_before_its_offsets(NAMED, "5:1:STOP:3", &one_batch);
}

fn refused_before_its_offsets(name: Option<&str>, at: &str, batches: &[(&str, &str)]) {
    let mut fixture = Fixture::new("zombie", "command-status", LONG);
    let zombie = fixture.freeze(name, at, batches);
    let successor = fixture.start(Some("successor"));
    fixture.write();
    fixture.topics.wait_until_caught_up();

    thaw(&zombie);
    fixture.write();
    assert_equal_to_model(&fixture.topics);

    // Once it is alone again, its states must include what others wrote meanwhile.
    successor.signal(Signal::TERM);
    assert_eq!(successor.wait(), 0);
    assert!(matches!(zombie.exit_code(), None | Some(UNSETTLED)));
    let _next = zombie.exit_code().map(|_| fixture.start(name));
    fixture.write();
    assert_equal_to_model(&fixture.topics);
}

#[test]
fn a_zombie_that_has_not_committed_is_fenced_and_continues() {
    fenced_by_its_successor("committing", SHORT, Some("successor"));
}

#[test]
fn a_successor_with_the_same_name_fences_the_zombie_without_waiting_for_a_timeout() {
    fenced_by_its_successor("successor", LONG, NAMED);
}

/// If both have the same name, one of the two may end.
fn fenced_by_its_successor(test: &str, time_out: (&str, &str), name: Option<&str>) {
    let mut fixture = Fixture::new(test, "upgrade-result", time_out);
    let zombie = fixture.freeze(NAMED, "6:4:STOP", &[]);
    let successor = fixture.start(name);
    fixture.write();
    fixture.topics.wait_until_caught_up();

    thaw(&zombie);
    fixture.write();
    assert_equal_to_model(&fixture.topics);
    assert!(zombie.exit_code().is_none() || successor.exit_code().is_none());
    if name != NAMED {
        assert_eq!(zombie.exit_code(), None);
    }
}

/// Resumes a zombie and waits until it has noticed the takeover.
pub(super) fn thaw(zombie: &Northbridge) {
    zombie.signal(Signal::CONT);
    eventually("the zombie notices the takeover", || {
        let has_noticed =
            |line: &String| line.contains("partitions revoked") || line.contains("starts again");
        let noticed = zombie.log().iter().any(has_noticed);
        (noticed || zombie.exit_code() == Some(UNSETTLED)).then_some(())
    });
}

/// Waits until a process has stopped itself at its fail point.
pub(super) fn wait_until_frozen(process: &Northbridge) {
    eventually("the process is frozen", || {
        is_frozen(process.pid()).then_some(())
    });
}

fn is_frozen(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    status.is_ok_and(|status| status.contains(") T "))
}

/// Both streams, and the command whose first instance becomes a zombie.
struct Fixture {
    topics: Topics,
    input: Input,
    command: &'static str,
    _other: Northbridge,
}

impl Fixture {
    fn new(test: &str, command: &'static str, transaction_timeout: (&str, &str)) -> Self {
        let settings: Vec<_> = SETTINGS.into_iter().chain([transaction_timeout]).collect();
        let topics = Topics::create(shared().bootstrap(), test, &settings);
        let other = STREAM_COMMANDS
            .iter()
            .find(|other| **other != command)
            .unwrap();
        Self {
            _other: topics.start(other, &[]),
            topics,
            input: Input::random(60),
            command,
        }
    }

    /// Every other record is a poison record, so a zombie that writes anything
    /// duplicates a dead letter.
    fn write(&mut self) {
        for (topic, records) in STREAM_COMMANDS
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

    /// Starts a process that freezes in the middle of its transactions, with input
    /// left.
    fn freeze(&mut self, name: Option<&str>, at: &str, batches: &[(&str, &str)]) -> Northbridge {
        self.write();
        let settings = [&settings(name), batches].concat();
        let zombie = self
            .topics
            .start_with_fail_point(self.command, &settings, at);
        wait_until_frozen(&zombie);
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
