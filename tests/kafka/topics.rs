//! `topics create` and `topics verify` on real topics, and what an ingress does
//! when a topic changes under it.

use std::process::Output;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::bodies;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{create_topic, set_topic_settings, topic_settings};

const TOPICS: [&str; 8] = [
    "command-status",
    "upgrade-result",
    "notifications",
    "dead-letter",
    "command-state",
    "device-software",
    "upgrade-delta",
    "upgrade-operation",
];

const SAFE: [(&str, &str); 3] = [
    ("unclean.leader.election.enable", "false"),
    ("message.timestamp.type", "CreateTime"),
    ("min.insync.replicas", "2"),
];

const SHORT_RESTORES: [(&str, &str); 3] = [
    ("segment.bytes", "16777216"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "86400000"),
];

/// The topics of one test.
struct Topics {
    bootstrap: String,
    prefix: String,
}

impl Topics {
    fn named(bootstrap: &str, test: &str) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: unique_prefix(test),
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(arguments, &self.settings())
    }

    fn settings(&self) -> [(&str, &str); 2] {
        [
            ("kafka.bootstrap_servers", &self.bootstrap),
            ("topics.prefix", &self.prefix),
        ]
    }

    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// Sets configurations of a topic, besides those that are set on it. All at once:
    /// the broker that is asked for those next may not know of these yet.
    fn set(&self, topic: &str, changes: &[(&str, &str)]) {
        let topic = self.name(topic);
        let mut settings = topic_settings(&self.bootstrap, &topic);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        settings.extend(changes.iter().map(owned));
        set_topic_settings(&self.bootstrap, &topic, &settings);
    }

    /// Waits until these settings are set on a topic: each broker learns of them
    /// at its own time.
    fn wait_for_settings(&self, topic: &str, expected: &[(&str, &str)]) {
        eventually("the settings are set on the topic", || {
            let settings = topic_settings(&self.bootstrap, &self.name(topic));
            let is_set = |(name, value): &(&str, &str)| {
                settings.get(*name).map(String::as_str) == Some(*value)
            };
            expected.iter().all(is_set).then_some(())
        });
    }

    /// Asserts that a line of the output has this severity, topic and text.
    fn assert_line(&self, output: &Output, severity: &str, topic: &str, text: &str) {
        let start = format!("{severity:<8} {}: ", self.name(topic));
        let printed = String::from_utf8_lossy(&output.stdout);
        let is_it = |line: &str| line.starts_with(&start) && line.contains(text);
        assert!(printed.lines().any(is_it), "{start}…{text}: {printed}");
    }
}

#[test]
fn beside_a_broker_that_is_down_no_topic_gets_fewer_replicas_than_all_brokers_can_hold() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let topics = Topics::named(&cluster.bootstrap(), "degraded");
    cluster.broker(2).kill();
    wait_for_brokers(&topics.bootstrap, 2);

    let refused = topics.run(&["topics", "create"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let reason = "2 of 3 brokers are alive; offsets.topic.replication.factor is 3";
    for topic in TOPICS {
        topics.assert_line(&refused, "problem", topic, reason);
        topics.assert_line(&refused, "problem", topic, "--allow-degraded");
    }
    let verified = topics.run(&["topics", "verify"]);
    for topic in TOPICS {
        topics.assert_line(&verified, "problem", topic, "does not exist");
    }

    let allowed = topics.run(&["topics", "create", "--allow-degraded"]);
    assert_eq!(allowed.status.code(), Some(0), "{allowed:?}");
    // Each broker learns of a new topic at its own time.
    let verified = eventually("every topic is known", || {
        let verified = topics.run(&["topics", "verify"]);
        let printed = String::from_utf8_lossy(&verified.stdout).into_owned();
        (!printed.contains("does not exist")).then_some(verified)
    });
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    for topic in TOPICS {
        topics.assert_line(&allowed, "ok", topic, "created");
        let degraded = "replication factor is 2, must be at least 3 (2 of 3 brokers are alive";
        topics.assert_line(&verified, "problem", topic, degraded);
    }
}

#[test]
fn dev_creates_what_is_missing_on_a_real_kafka_and_keeps_the_states() {
    let topics = Topics::named(shared().bootstrap(), "dev");
    let arguments = ["dev", "--kafka", &topics.bootstrap];
    let settings = [
        ("topics.prefix", topics.prefix.as_str()),
        ("log.level", "info"),
    ];
    let dev = Northbridge::start(&arguments, &settings);
    for topic in TOPICS {
        let created = format!("ok       {}: created", topics.name(topic));
        dev.wait_for_output(|line| line == created);
    }
    let body = bodies::message_confirm("r-1", "d-1", "sent");
    let answer = http::try_post(dev.address(), "/notifications", &body);
    assert_eq!(answer, Some(200));
    dev.wait_for_output(|line| line.starts_with("state   command-status  key r-1"));
    dev.signal(Signal::INT);
    assert_eq!(dev.wait(), 0);

    topics.wait_for_settings("command-status", &SAFE);
    let shown = topics.run(&["show", "command", "r-1"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");

    let again = Northbridge::start(&arguments, &settings);
    again.wait_until_ready();
    assert!(!again.output().join("\n").contains("created"));
}

#[test]
fn a_created_topic_keeps_the_promise_and_its_restores_short() {
    let topics = Topics::named(shared().bootstrap(), "created");
    let created = topics.run(&["topics", "create"]);
    assert_eq!(created.status.code(), Some(0), "{created:?}");
    for topic in TOPICS {
        topics.wait_for_settings(topic, &SAFE);
    }
    for topic in ["command-state", "device-software", "upgrade-operation"] {
        topics.wait_for_settings(topic, &SHORT_RESTORES);
    }
    let verified = topics.run(&["topics", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
    for topic in TOPICS {
        topics.assert_line(&verified, "ok", topic, "replication factor 3");
    }
}

#[test]
fn verify_finds_each_fault_of_a_topic() {
    let topics = Topics::named(shared().bootstrap(), "faults");
    let compacted = [
        ("cleanup.policy", "compact"),
        ("min.insync.replicas", "2"),
        ("max.message.bytes", "1056768"),
    ];
    let create = |topic: &str, partitions| {
        create_topic(
            &topics.bootstrap,
            &topics.name(topic),
            partitions,
            &compacted,
        );
    };
    create("device-software", 7);
    create("upgrade-operation", 5);
    let created = topics.run(&["topics", "create"]);
    assert_eq!(created.status.code(), Some(1), "{created:?}");
    let faults = [
        ("command-status", "unclean.leader.election.enable", "true"),
        ("command-status", "min.insync.replicas", "1"),
        ("upgrade-result", "retention.ms", "3600000"),
        ("upgrade-result", "cleanup.policy", "compact"),
        ("notifications", "message.timestamp.before.max.ms", "1000"),
        ("notifications", "max.message.bytes", "1000"),
        ("dead-letter", "message.timestamp.after.max.ms", "1000"),
    ];
    let differences = [
        ("command-state", "retention.ms", "-1"),
        ("command-state", "segment.bytes", "1073741824"),
        ("upgrade-delta", "message.timestamp.type", "LogAppendTime"),
    ];
    for topic in TOPICS {
        let all = faults.into_iter().chain(differences);
        let own = all.filter(|(of, ..)| *of == topic);
        let changes: Vec<_> = own.map(|(_, name, value)| (name, value)).collect();
        topics.set(topic, &changes);
        topics.wait_for_settings(topic, &changes);
    }
    let verified = topics.run(&["topics", "verify"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    for (topic, name, value) in faults {
        topics.assert_line(&verified, "problem", topic, &format!("{name} is {value}"));
    }
    for (topic, name, value) in differences {
        topics.assert_line(&verified, "warning", topic, &format!("{name} is {value}"));
    }
    let fewer = format!(
        "has 5 partitions and its input {} has 6",
        topics.name("upgrade-delta")
    );
    topics.assert_line(&verified, "problem", "upgrade-operation", &fewer);
    let more = format!(
        "has 7 partitions and its input {} has 6",
        topics.name("upgrade-result")
    );
    topics.assert_line(&verified, "warning", "device-software", &more);
}

#[test]
fn an_ingress_that_was_ready_stays_ready_when_a_topic_is_changed_for_the_worse() {
    let topics = Topics::named(shared().bootstrap(), "worse");
    let created = topics.run(&["topics", "create"]);
    assert_eq!(created.status.code(), Some(0), "{created:?}");
    let ingress = Northbridge::start(&["ingress"], &topics.settings());
    ingress.wait_until_ready();
    let metrics = ingress.metrics();
    for severity in ["warning", "problem"] {
        let series = format!("northbridge_topic_findings{{severity=\"{severity}\"}}");
        assert_eq!(metrics.get(&series), Some(&0.0), "{metrics:?}");
    }

    topics.set("notifications", &[("min.insync.replicas", "1")]);
    let finding = "min.insync.replicas is 1, must be at least 2";
    let problems = |count| {
        let labels = [r#"severity="problem""#];
        ingress.wait_for_metric("northbridge_topic_findings", &labels, count);
    };
    problems(1.0);
    ingress.wait_for_log(|line| line.contains("ERROR") && line.contains(finding));
    let condition = topics_condition(&ingress);
    assert_eq!(condition["met"], true, "{condition}");
    assert!(
        condition["why"].as_str().unwrap().contains(finding),
        "{condition}"
    );
    assert!(ingress.is_ready());

    topics.set("notifications", &[("min.insync.replicas", "2")]);
    problems(0.0);
    let why = topics_condition(&ingress)["why"].clone();
    assert_eq!(why, "all topics meet their requirements");
}

fn wait_for_brokers(bootstrap: &str, count: usize) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    eventually("the cluster knows which brokers are alive", || {
        let timeout = std::time::Duration::from_secs(5);
        let metadata = consumer.fetch_metadata(None, timeout).ok()?;
        (metadata.brokers().len() == count).then_some(())
    });
}

fn topics_condition(ingress: &Northbridge) -> Value {
    let answer = http::get(ingress.admin_address(), "/readyz").unwrap();
    let report: Value = serde_json::from_slice(&answer.body).unwrap();
    let mut conditions = report["conditions"].as_array().unwrap().iter();
    let found = conditions.find(|condition| condition["name"] == "topics");
    found.unwrap().clone()
}
