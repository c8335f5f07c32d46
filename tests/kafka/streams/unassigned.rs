//! Groups whose leader assigns the partitions to no member.

use std::mem::ManuallyDrop;
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
use crate::support::supervised::Poller;

const REJOINING: &str = "no member of the group has a partition; rejoining";

#[test]
fn a_group_whose_members_have_no_partitions_rejoins() {
    thread::scope(|scope| {
        let dynamic: &[_] = &[];
        for settings in [dynamic, &[("streams.instance", "static")]] {
            scope.spawn(move || rejoins_if_unassigned(settings));
        }
    });
}

fn rejoins_if_unassigned(settings: &[(&str, &str)]) {
    let topics = Topics::create(shared().bootstrap(), "unassigned", settings);
    let mut input = Input::random(60);
    topics.write("command-status", &input.commands(60));
    topics.write("upgrade-result", &input.upgrades(60));
    let _upgrades = topics.start("upgrade-result", &[]);
    let unaware = Leader::Unaware.start(&topics);
    let process = topics.start("command-status", &[]);
    process.wait_for_log(|line| line.contains("states restored") && line.contains("\"[]\""));
    // The new leader has the same static membership, so it replaces the first one
    // and the group does not rebalance by itself.
    drop(unaware);
    let _aware = Leader::Aware.start(&topics);
    process.wait_for_message(REJOINING);
    assert_equal_to_model(&topics);
}

#[test]
fn an_instance_without_partitions_does_not_rejoin_if_others_have_them() {
    let topics = Topics::create(shared().bootstrap(), "spare", &[("topics.partitions", "1")]);
    let processes =
        ["one", "other"].map(|name| topics.start("command-status", &[("streams.instance", name)]));
    processes.iter().for_each(Northbridge::wait_until_ready);
    // It checks every ten seconds whether any member has a partition.
    thread::sleep(Duration::from_secs(15));
    for process in &processes {
        let log = process.log();
        assert!(!log.iter().any(|line| line.contains(REJOINING)), "{log:?}");
    }
}

/// A static member of the stream's group that subscribes to another topic. It
/// joins first, so it is the group leader and computes the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// Lacks metadata for the stream's topic, so it assigns none of its partitions.
    Unaware,
    Aware,
}

impl Leader {
    fn start(self, topics: &Topics) -> Poller {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &topics.bootstrap)
            .set("group.id", topics.group("command-status"))
            .set("group.instance.id", "leader")
            .set("partition.assignment.strategy", "cooperative-sticky");
        if self == Self::Unaware {
            let topic = topics.name("command-status");
            config.set("topic.blacklist", format!("^{topic}$"));
        }
        let consumer: BaseConsumer = config.create().unwrap();
        consumer
            .subscribe(&[&topics.name("notifications")])
            .unwrap();
        eventually("the leader has partitions of its own", || {
            consumer.poll(Duration::from_millis(10));
            (consumer.assignment().unwrap().count() > 0).then_some(())
        });
        // Never closed. rdkafka answers a rebalance by asking librdkafka for the
        // group's protocol, and a consumer that has just left never learns it:
        // closing during a rebalance can block forever.
        let consumer = ManuallyDrop::new(consumer);
        Poller::start(move || drop(consumer.poll(Duration::ZERO)))
    }
}
