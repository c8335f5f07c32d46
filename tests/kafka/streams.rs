//! The streams on a real cluster.

use crate::support::bodies;
use crate::support::eventually;
use crate::support::kafka_cluster::{shared, unique_prefix};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{Isolation, NewRecord, produce, read_topic_as};

#[test]
fn smoke() {
    let bootstrap = shared().bootstrap();
    let prefix = unique_prefix("smoke");
    let settings = [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix.as_str()),
        ("streams.group_prefix", prefix.as_str()),
    ];
    assert!(run(&["topics", "create"], &settings).status.success());
    let commands = Northbridge::start(&["command-status"], &settings);
    let upgrades = Northbridge::start(&["upgrade-result"], &settings);
    let input: Vec<NewRecord> = (0..50)
        .flat_map(|n| {
            ["sent", "delivered", "executed"].map(|status| {
                let id = format!("r-{n}");
                NewRecord::keyed(id.clone(), bodies::message_confirm(&id, "d-1", status))
            })
        })
        .collect();
    produce(bootstrap, &format!("{prefix}command-status"), &input);
    let input: Vec<NewRecord> = (0..50)
        .map(|n| {
            let id = format!("d-{n}");
            NewRecord::keyed(id.clone(), bodies::upgrade_result(&id, "op-1", "SUCCESS"))
        })
        .collect();
    produce(bootstrap, &format!("{prefix}upgrade-result"), &input);
    commands.ready();
    upgrades.ready();
    let states = eventually("all states", || {
        let states = read_topic_as(
            bootstrap,
            &format!("{prefix}command-state"),
            Isolation::Committed,
        );
        (states
            .iter()
            .filter(|s| s.value_text().contains("executed"))
            .count()
            >= 50)
            .then_some(states)
    });
    println!("{}", states[0].value_text());
    let states = eventually("operation", || {
        let states = read_topic_as(
            bootstrap,
            &format!("{prefix}upgrade-operation"),
            Isolation::Committed,
        );
        states
            .iter()
            .find(|s| s.value_text().contains("\"devices\":50"))
            .cloned()
    });
    println!("{}", states.value_text());
    for process in [&commands, &upgrades] {
        for (name, value) in process.metrics() {
            if name.contains("stream") || name.contains("command") {
                println!("{name} {value}");
            }
        }
        process.signal(rustix::process::Signal::TERM);
        assert_eq!(process.wait(), 0);
    }
}
