//! `northbridge show` on the mock cluster and on `dev`: which record is the state, and
//! what is printed if there is none.

use std::process::Output;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::bodies;
use crate::support::http;
use crate::support::mock::Mock;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, produce};

/// More than are read at first, and in the second step.
const MANY: usize = 12_000;

/// A cluster with the topics of the commands, of two partitions each.
struct Commands(Mock);

impl Commands {
    fn start() -> Self {
        let mock = Mock::start();
        mock.create_topic("iot.command-state");
        Self(mock)
    }

    fn write(&self, records: &[NewRecord]) -> Vec<(i32, i64)> {
        produce(&self.0.bootstrap(), "iot.command-state", records)
    }

    fn show(&self, id: &str, settings: &[(&str, &str)]) -> Output {
        let bootstrap = self.0.bootstrap();
        let kafka = [("kafka.bootstrap_servers", bootstrap.as_str())];
        run(&["show", "command", id], &[&kafka[..], settings].concat())
    }
}

fn state(id: &str, status: &str) -> NewRecord {
    NewRecord::keyed(id, json!({"requestId": id, "status": status}).to_string())
}

fn tombstone(id: &str) -> NewRecord {
    NewRecord {
        key: Some(id.into()),
        ..NewRecord::default()
    }
}

/// The status in the state that was printed.
#[track_caller]
fn status(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let state: Value = serde_json::from_slice(&output.stdout).unwrap();
    state["status"].clone()
}

/// What was said instead of a state.
#[track_caller]
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"", "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_newest_of_many_records_is_shown_wherever_it_is() {
    let commands = Commands::start();
    let others: Vec<_> = (0..MANY)
        .map(|number| state(&format!("other-{number}"), "sent"))
        .collect();
    commands.write(&[state("old", "sent"), state("new", "sent")]);
    commands.write(&others);
    commands.write(&[state("new", "delivered"), state("new", "executed")]);
    assert_eq!(status(&commands.show("old", &[])), "sent");
    assert_eq!(status(&commands.show("new", &[])), "executed");
    assert_eq!(status(&commands.show("other-0", &[])), "sent");
    let said = refusal(&commands.show("none", &[]));
    assert_eq!(
        said,
        "no state of command none: iot.command-state has no record of it\n"
    );
}

#[test]
fn a_tombstone_is_no_state_and_a_later_record_is_one() {
    let commands = Commands::start();
    commands.write(&[state("expired", "sent"), tombstone("expired")]);
    let said = refusal(&commands.show("expired", &[]));
    assert!(said.contains("it has expired"), "{said}");
    commands.write(&[state("expired", "delivered")]);
    assert_eq!(status(&commands.show("expired", &[])), "delivered");
}

#[test]
fn a_state_in_another_partition_is_found_and_its_own_partition_counts_first() {
    let commands = Commands::start();
    let own = commands.write(&[state("own", "sent")])[0].0;
    let elsewhere = |id: &str, status: &str| NewRecord {
        partition: Some(1 - own),
        ..state(id, status)
    };
    commands.write(&[elsewhere("own", "executed")]);
    let shown = commands.show("own", &[]);
    assert_eq!((status(&shown), shown.stderr), (json!("sent"), Vec::new()));

    let moved: Vec<_> = (0..20)
        .map(|number| elsewhere(&format!("moved-{number}"), "executed"))
        .collect();
    commands.write(&moved);
    let notes = (0..20).filter(|number| {
        let shown = commands.show(&format!("moved-{number}"), &[]);
        assert_eq!(status(&shown), "executed");
        let said = String::from_utf8(shown.stderr).unwrap();
        assert!(said.is_empty() || said.contains(&format!("found in partition {}", 1 - own)));
        !said.is_empty()
    });
    // About half of the keys belong there anyway.
    assert!((1..20).contains(&notes.count()));
}

#[test]
fn commands_keyed_by_device_are_found_in_the_partition_of_the_device() {
    let commands = Commands::start();
    let by_device = [("topics.command_status.key", "device-id")];
    for partition in [0, 1] {
        let id = format!("r-{partition}");
        commands.write(&[NewRecord {
            partition: Some(partition),
            ..state(&id, "sent")
        }]);
        let shown = commands.show(&id, &by_device);
        assert_eq!((status(&shown), shown.stderr), (json!("sent"), Vec::new()));
    }
    let later = |partition, status| NewRecord {
        partition: Some(partition),
        timestamp_ms: Some(chrono::Utc::now().timestamp_millis() + i64::from(partition)),
        ..state("both", status)
    };
    commands.write(&[later(1, "executed"), later(0, "sent")]);
    assert_eq!(status(&commands.show("both", &by_device)), "executed");
}

#[test]
fn a_hostile_state_is_printed_as_the_same_json_without_control_characters() {
    let commands = Commands::start();
    let hostile = "\u{1b}[2J\u{9b}31m\r\n\u{202e}";
    let value = json!({ "status": hostile }).to_string();
    let pretty = value.replace('{', "{\r\n");
    commands.write(&[
        NewRecord::keyed("hostile", pretty),
        NewRecord::keyed("\u{1b}[2J", "\u{1b}[2J"),
    ]);
    let shown = commands.show("hostile", &[]);
    assert_eq!(status(&shown), hostile);
    let printed = String::from_utf8(shown.stdout).unwrap();
    let line = printed.strip_suffix('\n').unwrap();
    assert!(!line.contains(|it: char| it.is_control() || it == '\u{202e}'));
    let said = refusal(&commands.show("\u{1b}[2J", &[]));
    assert!(
        said.contains(r"\u{1b}[2J: ") && said.contains("is not JSON"),
        "{said}"
    );
}

#[test]
fn a_missing_topic_and_an_empty_id_are_wrong_usage() {
    let mock = Mock::start();
    let bootstrap = mock.bootstrap();
    let rows = [
        (["show", "device", "d-1"], "topics.device_software.name"),
        (["show", "command", ""], "ID"),
        (["show", "thing", "x"], "thing"),
    ];
    for (arguments, expected) in rows {
        let output = run(&arguments, &[("kafka.bootstrap_servers", &bootstrap)]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn the_states_of_dev_are_shown() {
    let dev = Northbridge::start(&["dev"], &[]);
    let word = |begin: &'static str, at: usize| {
        let line = dev.wait_for_output(|line| line.starts_with(begin));
        line.split_whitespace().nth(at).unwrap().to_owned()
    };
    let url = word("  pushes ", 1);
    let address = url.split('/').nth(2).unwrap().parse().unwrap();
    let broker = word("  broker ", 1);
    for body in [
        bodies::message_confirm("r-1", "d-1", "delivered"),
        bodies::upgrade_result("d-2", "op-1", "FAIL"),
    ] {
        let answer = http::post(address, "/notifications", body).await;
        assert_eq!(answer.status, 200);
    }
    dev.wait_for_output(|line| line.starts_with("state   command-status"));
    dev.wait_for_output(|line| line.starts_with("state   upgrade-operation"));
    for (kind, id, field, expected) in [
        ("command", "r-1", "status", json!("delivered")),
        ("device", "d-2", "result", json!("FAIL")),
        ("operation", "op-1", "failed", json!(1)),
    ] {
        let output = run(&["show", kind, id], &[("kafka.bootstrap_servers", &broker)]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let state: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(state[field], expected, "{state}");
    }
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), 0);
}
