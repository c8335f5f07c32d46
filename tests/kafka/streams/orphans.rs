//! Partitions that a group has, and that its leader gives to nobody.

use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::input::Input;
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;
use crate::support::supervised::Supervisor;

const CLAIMED: &str = "nobody in the group has partitions; joining it anew";

#[test]
fn partitions_that_nobody_was_given_are_claimed() {
    thread::scope(|scope| {
        let dynamic: &[_] = &[];
        for settings in [dynamic, &[("streams.instance", "static")]] {
            scope.spawn(move || claimed(settings));
        }
    });
}

fn claimed(settings: &[(&str, &str)]) {
    let topics = Topics::create(shared().bootstrap(), "orphans", settings);
    let mut input = Input::random(60);
    topics.write("command-status", &input.commands(60));
    topics.write("upgrade-result", &input.upgrades(60));
    let _upgrades = topics.start("upgrade-result", &[]);
    let blind = Leader::Blind.start(&topics);
    let process = topics.start("command-status", &[]);
    process.wait_for_log(|line| line.contains("states restored") && line.contains("\"[]\""));
    // Its successor has its name: the brokers ask nobody to join again.
    drop(blind);
    let _sighted = Leader::Sighted.start(&topics);
    process.wait_for_message(CLAIMED);
    assert_equal_to_model(&topics);
}

#[test]
fn a_spare_instance_leaves_the_group_alone() {
    let topics = Topics::create(shared().bootstrap(), "spare", &[("topics.partitions", "1")]);
    let processes =
        ["one", "other"].map(|name| topics.start("command-status", &[("streams.instance", name)]));
    processes.iter().for_each(Northbridge::ready);
    // It asks every ten seconds whether anybody has the partition.
    thread::sleep(Duration::from_secs(15));
    for process in &processes {
        let log = process.log();
        assert!(!log.iter().any(|line| line.contains(CLAIMED)), "{log:?}");
    }
}

/// A member of the stream's group for another topic, static and the first, who
/// assigns partitions to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// As one whose coordinator does not tell of the stream's topic.
    Blind,
    Sighted,
}

impl Leader {
    fn start(self, topics: &Topics) -> Supervisor {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &topics.bootstrap)
            .set("group.id", topics.name("command-status"))
            .set("group.instance.id", "leader")
            .set("partition.assignment.strategy", "cooperative-sticky");
        if self == Self::Blind {
            let topic = topics.name("command-status");
            config.set("topic.blacklist", format!("^{topic}$"));
        }
        let consumer: BaseConsumer = config.create().unwrap();
        consumer
            .subscribe(&[&topics.name("notifications")])
            .unwrap();
        eventually("it has its partitions", || {
            consumer.poll(Duration::from_millis(10));
            (consumer.assignment().unwrap().count() > 0).then_some(())
        });
        Supervisor::start(move || drop(consumer.poll(Duration::ZERO)))
    }
}
