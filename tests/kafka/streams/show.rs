//! `northbridge show` on a real cluster: only committed states count, the newest of
//! their key, in whichever partition it is.

use std::process::Output;

use serde_json::{Value, json};

use super::external_transactions::ExternalTransaction;
use super::topics::Topics;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::run;
use crate::support::records::{NewRecord, add_partitions};
use crate::support::{bodies, eventually};

fn show(topics: &Topics, kind: &str, id: &str) -> Output {
    run(&["show", kind, id], &topics.settings(&[]))
}

/// The state that was printed.
#[track_caller]
fn shown(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn assert_none(output: &Output, why: &str) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.starts_with("no state of command ") && said.contains(why),
        "{said}"
    );
}

fn state(id: &str, status: &str) -> NewRecord {
    NewRecord::keyed(id, json!({"requestId": id, "status": status}).to_string())
}

#[test]
fn the_states_that_the_streams_wrote_are_shown() {
    let topics = Topics::create(shared().bootstrap(), "shown", &[]);
    let streams = ["command-status", "upgrade-result"].map(|it| topics.start(it, &[]));
    for round in ["sent", "delivered"] {
        let commands = (0..20).map(|number| {
            let id = format!("r-{number}");
            NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "d-1", round))
        });
        topics.write("command-status", &commands.collect::<Vec<_>>());
    }
    let upgrade = bodies::upgrade_result("d-1", "op-1", "FAIL");
    topics.write("upgrade-result", &[NewRecord::keyed("d-1", upgrade)]);
    topics.wait_until_caught_up();
    for number in 0..20 {
        let id = format!("r-{number}");
        let output = show(&topics, "command", &id);
        let state = shown(&output);
        assert_eq!(
            (&state["requestId"], &state["status"]),
            (&json!(id), &json!("delivered"))
        );
        assert_eq!(output.stderr, b"");
    }
    assert_eq!(shown(&show(&topics, "device", "d-1"))["result"], "FAIL");
    assert_eq!(shown(&show(&topics, "operation", "op-1"))["devices"], 1);
    assert_none(&show(&topics, "command", "d-1"), "has no record of it");
    drop(streams);
}

#[test]
fn only_committed_states_are_shown() {
    let topics = Topics::create(shared().bootstrap(), "isolated", &[]);
    topics.write("command-state", &[state("both", "sent")]);
    let aborted = ExternalTransaction::begin(&topics);
    aborted.write(
        "command-state",
        &[state("both", "executed"), state("aborted", "sent")],
    );
    aborted.abort();
    assert_eq!(shown(&show(&topics, "command", "both"))["status"], "sent");
    assert_none(&show(&topics, "command", "aborted"), "has no record of it");

    let open = ExternalTransaction::begin(&topics);
    open.write(
        "command-state",
        &[state("both", "delivered"), state("open", "sent")],
    );
    assert_eq!(shown(&show(&topics, "command", "both"))["status"], "sent");
    assert_none(&show(&topics, "command", "open"), "has no record of it");
    open.commit();
    // A coordinator acknowledges a commit before its markers are in every partition.
    eventually("the committed state is shown", || {
        let shown = shown(&show(&topics, "command", "both"));
        (shown["status"] == "delivered").then_some(())
    });
    assert_eq!(shown(&show(&topics, "command", "open"))["status"], "sent");
}

#[test]
fn an_expired_state_is_none() {
    let topics = Topics::create(shared().bootstrap(), "gone", &[]);
    let tombstone = NewRecord {
        value: None,
        ..state("gone", "")
    };
    topics.write("command-state", &[state("gone", "sent"), tombstone]);
    assert_none(&show(&topics, "command", "gone"), "it has expired");
}

#[test]
fn a_state_from_before_partitions_were_added_is_found() {
    let topics = Topics::create(
        shared().bootstrap(),
        "extended",
        &[("topics.partitions", "2")],
    );
    let id = |number: usize| format!("r-{number}");
    let states: Vec<_> = (0..20).map(|number| state(&id(number), "sent")).collect();
    topics.write("command-state", &states);
    for topic in ["command-status", "command-state"] {
        add_partitions(&topics.bootstrap, &topics.name(topic), 6);
    }
    let mut moved = Vec::new();
    for number in 0..20 {
        let output = show(&topics, "command", &id(number));
        assert_eq!(shown(&output)["status"], "sent");
        if output.stderr.starts_with(b"note: found in partition ") {
            moved.push(state(&id(number), "executed"));
        }
    }
    assert!(!moved.is_empty());
    // What comes later goes to the new partition of its key, and counts.
    topics.write("command-state", &moved);
    for record in moved {
        let id = String::from_utf8(record.key.unwrap()).unwrap();
        let output = show(&topics, "command", &id);
        assert_eq!(shown(&output)["status"], "executed");
        assert_eq!(output.stderr, b"");
    }
}
