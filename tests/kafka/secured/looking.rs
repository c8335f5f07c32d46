//! `northbridge show` and `northbridge tap` with their documented rights, and without
//! the right to read what they may see.

use super::installation::{Installation, Way, borrowed, user_with};
use crate::support::bodies;
use crate::support::kafka_cluster::secured;
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{NewRecord, produce};

fn write(installation: &Installation, topic: &str, value: &str) {
    let topic = format!("{}{topic}", installation.prefix);
    let record = NewRecord::keyed("r-1", value);
    produce(&secured::cluster().bootstrap(), &topic, &[record]);
}

#[test]
fn the_documented_rights_suffice_to_look() {
    let installation = Installation::with_topics("looking", Way::Scram512);
    for (kind, topic) in [
        ("command", "command-state"),
        ("device", "device-software"),
        ("operation", "upgrade-operation"),
    ] {
        write(&installation, topic, "{}");
        let shown = installation.run_as(&format!("show {kind}"), &["show", kind, "r-1"]);
        assert_eq!(shown.status.code(), Some(0), "{kind}: {shown:?}");
        assert_eq!(shown.stdout, b"{}\n", "{kind}: {shown:?}");
    }
    let tap = installation.start_as("tap");
    tap.wait_for_log(|line| line.starts_with("following "));
    let push = bodies::message_confirm("r-1", "d-1", "sent");
    write(&installation, "command-status", &push);
    tap.wait_for_output(|line| line.contains("key r-1"));
}

#[test]
fn a_topic_that_may_be_seen_but_not_read_is_named() {
    let installation = Installation::with_topics("unread", Way::Plain);
    let see_only = |command: &str, topic: &str| {
        let name = format!("{}{topic}", installation.prefix);
        let mut rights = installation.rights(command);
        for right in rights.iter_mut().filter(|right| right.name == name) {
            "Describe".clone_into(&mut right.operation);
        }
        installation.settings(&user_with(&rights))
    };
    let named = |topic: &str| {
        let topic = format!("{}{topic}", installation.prefix);
        format!("not authorized: `Read` on topic {topic}; grant it to")
    };

    write(&installation, "command-state", "{}");
    let settings = see_only("show command", "command-state");
    let shown = run(&["show", "command", "r-1"], &borrowed(&settings));
    let said = String::from_utf8_lossy(&shown.stderr);
    assert_eq!(shown.status.code(), Some(69), "{said}");
    assert!(said.contains(&named("command-state")), "{said}");

    let settings = see_only("tap", "notifications");
    let tap = Northbridge::start(&["tap"], &borrowed(&settings));
    assert_eq!(tap.wait(), 69);
    tap.wait_for_log(|line| line.contains(&named("notifications")));
}
