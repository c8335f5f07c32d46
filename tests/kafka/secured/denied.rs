//! Each documented right removed in turn: what the command says without it.

use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;

use super::installation::{Installation, Way, borrowed, user_with};
use crate::support::bodies;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::secured::{self, Resource, Right};
use crate::support::kafka_cluster::unique_prefix;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, produce};

/// The commands, in the words of the documentation.
const COMMANDS: [&str; 12] = [
    "topics create",
    "topics verify",
    "ingress",
    "command-status",
    "upgrade-result",
    "replay",
    "show command",
    "show device",
    "show operation",
    "tap",
    "simulate --verify",
    "simulate --verify-state",
];
/// How many cases are tried at a time.
const AT_A_TIME: usize = 4;

/// A command without one of its rights.
struct Case {
    command: &'static str,
    installation: Installation,
    removed: Right,
    left: Vec<Right>,
}

#[test]
fn a_command_without_one_of_its_rights_names_it() {
    let shared = Installation::with_topics("denied", Way::Plain);
    let states = ["command-status", "upgrade-result"].map(|command| shared.start_as(command));
    write_input(&shared, "first");
    for stream in &states {
        let applied = "result=\"applied\"";
        eventually("there are states to restore", || {
            let count = stream.metric("northbridge_stream_records_total", &[applied]);
            (count > 0.0).then_some(())
        });
    }
    let cases = Mutex::new(
        COMMANDS
            .iter()
            .flat_map(|command| cases(command, &shared.prefix)),
    );
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(case) = next(&cases) {
                    case.check();
                }
            });
        }
    });
}

fn next(cases: &Mutex<impl Iterator<Item = Case>>) -> Option<Case> {
    cases.lock().unwrap_or_else(PoisonError::into_inner).next()
}

fn cases(command: &'static str, prefix: &str) -> Vec<Case> {
    // Each with its own groups, so that none waits for the partitions of others.
    let rights = |installation: &Installation| installation.rights(command);
    let count = rights(&Installation::new("count", Way::Plain)).len();
    let case = |index: usize| {
        let mut installation = Installation::new("denied", Way::Plain);
        if command != "topics create" && command != "replay" {
            installation.groups = std::mem::replace(&mut installation.prefix, prefix.to_owned());
        }
        let mut left = rights(&installation);
        let removed = left.remove(index);
        if command == "simulate --verify-state" {
            left.extend(installation.rights("simulate --verify"));
        }
        Case {
            command,
            installation,
            removed,
            left,
        }
    };
    // The end of this topic matters only to a stream that runs.
    let is_needed = |case: &Case| {
        command != "simulate --verify-state" || !case.removed.name.ends_with("upgrade-delta")
    };
    (0..count).map(case).filter(is_needed).collect()
}

impl Case {
    fn check(&self) {
        let settings = self.installation.settings(&user_with(&self.left));
        let settings = borrowed(&settings);
        let words: Vec<&str> = self.command.split(' ').collect();
        match self.command {
            "topics create" | "topics verify" => self.assert_said(&printed(&words, &settings)),
            "replay" => {
                self.installation.create_topics();
                self.installation.write_readable_dead_letter();
                let printed = printed(&words, &settings);
                assert!(!printed.contains("No dead letters found"), "{printed}");
                self.assert_said(&printed);
            }
            "show command" | "show device" | "show operation" => {
                self.assert_said(&printed(&[&words[..], &["first"]].concat(), &settings));
            }
            "tap" => {
                let tap = Northbridge::start(&words, &settings);
                assert_eq!(tap.wait(), 69);
                self.assert_said(&tap.log().join("\n"));
            }
            "ingress" | "command-status" | "upgrade-result" => {
                self.assert_shown(&Northbridge::start(&words, &settings));
            }
            _ => {
                let mock = Mock::start();
                let ingress = mock.ready_ingress(&[]);
                let url = format!("http://{}/notifications", ingress.address());
                let cluster = secured::cluster().sasl();
                let mut words = vec!["simulate", &url, "--count=3", "--verify", &cluster];
                if self.command.ends_with("state") {
                    words.extend(["--verify-state", "--catch-up=3s"]);
                }
                self.assert_said(&printed(&words, &settings));
            }
        }
    }

    fn assert_said(&self, printed: &str) {
        assert!(
            self.is_named_in(printed),
            "{} without {:?}: {printed}",
            self.command,
            self.removed
        );
    }

    /// Waits until the log or `/readyz` names the right. A stream may need it
    /// only when it has input.
    fn assert_shown(&self, process: &Northbridge) {
        process.admin_address();
        write_input(&self.installation, &unique_prefix("input"));
        let what = format!("{} names {:?}", self.command, self.removed);
        eventually(&what, || {
            let log = process.log().join("\n");
            let readiness = http::get(process.admin_address(), "/readyz");
            let readiness = readiness.map(|answer| answer.text()).unwrap_or_default();
            (self.is_named_in(&log) || self.is_named_in(&readiness)).then_some(())
        });
        // A transaction that stays open would keep other cases from restoring.
        process.signal(Signal::TERM);
        process.wait();
    }

    /// Whoever may neither read nor write a topic may not see it either, and
    /// that is what a command meets first.
    fn is_named_in(&self, text: &str) -> bool {
        let resource = match self.removed.resource {
            Resource::Topic => "topic",
            Resource::Group => "group",
            Resource::TransactionalId => "transactional id",
            Resource::Cluster => "the cluster",
        };
        let mut operations = vec![self.removed.operation.as_str()];
        if !self.left.iter().any(|right| self.contains_describe(right)) {
            operations.push("Describe");
        }
        operations.iter().any(|operation| {
            let name = &self.removed.name;
            text.contains(&format!(
                "not authorized: `{operation}` on {resource} {name}"
            ))
        })
    }

    fn contains_describe(&self, right: &Right) -> bool {
        let Right {
            resource,
            name,
            operation,
            ..
        } = right;
        let is_same = *resource == self.removed.resource && *name == self.removed.name;
        is_same && ["Read", "Write", "Describe"].contains(&operation.as_str())
    }
}

fn printed(arguments: &[&str], settings: &[(&str, &str)]) -> String {
    let output = run(arguments, settings);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{:?}\n{}{}",
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Writes a record that changes a state, and a dead letter, to each input of the
/// streams.
fn write_input(installation: &Installation, id: &str) {
    let write = |topic: &str, body: String| {
        let records = [NewRecord::keyed(id, body), NewRecord::keyed(id, "hello")];
        let topic = format!("{}{topic}", installation.prefix);
        produce(&secured::cluster().bootstrap(), &topic, &records);
    };
    write("command-status", bodies::message_confirm(id, id, "sent"));
    write("upgrade-result", bodies::upgrade_result(id, id, "SUCCESS"));
}
