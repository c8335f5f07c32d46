//! Topics that are deleted and made again, partitions that are added, and brokers
//! that move, while an ingress runs on them.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::northbridge::{Northbridge, create_topics};
use crate::support::ordered::{PushesInOrder, first_values};
use crate::support::records::{
    Record, add_partitions, create_topic, delete_topic, read_topic, wait_until_every_broker_shows,
};
use crate::support::supervised::Supervised;
use crate::support::{bodies, eventually, http};

const KEYS: usize = 24;
/// How many keys have several pushes that wait while a topic is made again.
const WAITING_KEYS: usize = 4;
/// The partitions of a topic before it is made again.
const PARTITIONS: i32 = 6;
/// The longest retention that any topic needs.
const THIRTY_DAYS_MS: &str = "2592000000";

/// An ingress with topics of its own.
struct Installation {
    bootstrap: String,
    prefix: String,
    ingress: Northbridge,
}

impl Installation {
    fn start(bootstrap: &str, test: &str, partitions: &str) -> Self {
        let prefix = unique_prefix(test);
        let settings = settings(bootstrap, &prefix, partitions);
        create_topics(&settings);
        let ingress = Northbridge::start(&["ingress"], &settings);
        ingress.wait_until_ready();
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix,
            ingress,
        }
    }

    fn name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    fn delete(&self, topic: &str) {
        delete_topic(&self.bootstrap, &self.name(topic));
    }

    fn create(&self, topic: &str, partitions: i32) {
        let settings = [
            ("cleanup.policy", "delete"),
            ("retention.ms", THIRTY_DAYS_MS),
            ("min.insync.replicas", "2"),
            ("max.message.bytes", "2000000"),
        ];
        create_topic(&self.bootstrap, &self.name(topic), partitions, &settings);
        wait_until_every_broker_shows(&self.bootstrap, &self.name(topic), partitions);
    }

    /// Starts a constant load, which follows the delivery rule of the platform
    /// that loses nothing.
    fn simulate(&self) -> Simulation {
        let url = format!("http://{}/notifications", self.ingress.address());
        let mut flags = vec!["simulate", &url, "--json", "--verify", &self.bootstrap];
        flags.extend(["--rate=40", "--duration=1h", "--http2", "--connections=8"]);
        flags.extend([
            "--policy=retry",
            "--retry-interval=1s",
            "--probe-interval=1s",
        ]);
        let settings = settings(&self.bootstrap, &self.prefix, "6");
        Simulation(Northbridge::start(&flags, &settings))
    }

    /// Pushes under a load from before this call to its end, which then verifies.
    fn simulate_until_stored(&self, count: f64) {
        let load = self.simulate();
        self.wait_until_stored(count);
        load.stop_and_verify();
    }

    /// Waits until this many more pushes are stored.
    fn wait_until_stored(&self, count: f64) {
        let stored = || {
            let outcome = [r#"outcome="stored""#];
            self.ingress.metric("northbridge_pushes_total", &outcome)
        };
        let wanted = stored() + count;
        eventually("more pushes are stored", || {
            (stored() >= wanted).then_some(())
        });
    }

    fn assert_ingress_goes_on(&self) {
        assert_eq!(self.ingress.exit_code(), None);
        let log = self.ingress.log();
        assert!(!log.iter().any(|line| line.contains("panicked")), "{log:?}");
    }

    /// Pushes one record of each key at once. Returns the bodies answered 200.
    fn push_every_key(&self, topic: &str, round: usize) -> BTreeSet<String> {
        let push = |key: usize| {
            let body = body(topic, &format!("key-{key}"), &round.to_string());
            let answer = http::post_with(self.ingress.address(), "/notifications", &[], &body);
            (answer.status == 200).then_some(body)
        };
        thread::scope(|scope| {
            let keys = 0..KEYS;
            let pushes: Vec<_> = keys.map(|key| scope.spawn(move || push(key))).collect();
            let answers = pushes.into_iter().map(|push| push.join().unwrap());
            answers.flatten().collect()
        })
    }

    /// Pushes until every key is answered 200. Returns all bodies answered 200.
    fn push_until_every_key_is_stored(&self, topic: &str) -> BTreeSet<String> {
        let (mut round, mut acknowledged) = (0, BTreeSet::new());
        eventually("every key is answered 200", || {
            round += 1;
            let stored = self.push_every_key(topic, round);
            let is_complete = stored.len() == KEYS;
            acknowledged.extend(stored);
            is_complete.then_some(())
        });
        acknowledged
    }

    /// Everything acknowledged is in the topic, and each key in one partition.
    fn assert_stored_by_key(
        &self,
        topic: &str,
        partitions_now: i32,
        acknowledged: &BTreeSet<String>,
    ) {
        let records = read_topic(&self.bootstrap, &self.name(topic));
        let stored: BTreeSet<String> = records.iter().map(Record::value_text).collect();
        let missing: Vec<_> = acknowledged.difference(&stored).collect();
        assert!(missing.is_empty(), "{missing:?}");
        self.assert_ingress_goes_on();
        if partitions_now > PARTITIONS {
            // As when partitions are added: what was waiting keeps its partition.
            return;
        }
        let mut partitions: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
        for record in records.iter().filter(|record| record.key.is_some()) {
            let of_key = partitions.entry(record.key_text()).or_default();
            of_key.insert(record.partition);
        }
        let is_split = |(_, of_key): &(&String, &BTreeSet<i32>)| of_key.len() > 1;
        let split: Vec<_> = partitions.iter().filter(is_split).collect();
        assert!(split.is_empty(), "{split:?}");
    }

    /// Those of these pushes that are stored are in their order, by key; repeats
    /// may follow.
    fn assert_stored_in_order(&self, topic: &str, pushes: &[String]) {
        let records = read_topic(&self.bootstrap, &self.name(topic));
        let mut found = 0;
        for key in (0..WAITING_KEYS).map(|key| format!("key-{key}")) {
            let mut stored = first_values(&records, &key);
            stored.retain(|value| pushes.contains(value));
            let mut in_order = pushes.to_vec();
            in_order.retain(|push| stored.contains(push));
            assert_eq!(stored, in_order);
            found += stored.len();
        }
        assert!(
            found > WAITING_KEYS,
            "there is no order to be seen: {found}"
        );
    }

    /// A stream of the same installation processes what is pushed now.
    fn assert_stream_goes_on(&self, id: &str) {
        eventually("the push is answered 200", || {
            let body = bodies::message_confirm(id, "device", "sent");
            let answer = http::post_with(self.ingress.address(), "/notifications", &[], &body);
            (answer.status == 200).then_some(())
        });
        eventually("the command has a state", || {
            let states = read_topic(&self.bootstrap, &self.name("command-state"));
            let mut keys = states.iter().map(Record::key_text);
            keys.any(|key| key == id).then_some(())
        });
    }
}

/// A running `northbridge simulate --verify`.
///
/// It may not begin before a topic is deleted and end after that: what was
/// acknowledged before is gone with the topic, as it must be. So one ends before,
/// and another one begins when the new topic is there.
struct Simulation(Northbridge);

impl Simulation {
    /// Ends the load once every push is answered 200, and requires that each is
    /// stored under its key. Returns the answers by code.
    fn stop_and_verify(self) -> Value {
        self.0.signal(Signal::INT);
        let (code, summary) = self.0.wait_for_end();
        assert_eq!(code, 0, "{summary}");
        let mut summary: Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["backlogAtEnd"], 0, "{summary}");
        assert_eq!(summary["lostByPolicy"], 0, "{summary}");
        let verification = &summary["verification"];
        assert_eq!(verification["holds"], true, "{summary}");
        assert_eq!(verification["answered200"], summary["pushes"], "{summary}");
        summary["answers"].take()
    }
}

/// A push that belongs in this topic.
fn body(topic: &str, key: &str, round: &str) -> String {
    match topic {
        "command-status" => bodies::message_confirm(key, round, "sent"),
        "upgrade-result" => bodies::upgrade_result(key, round, "SUCCESS"),
        _ => format!(r#"{{"notifyType":"deviceAdded","deviceId":"{key}","round":"{round}"}}"#),
    }
}

fn settings<'a>(
    bootstrap: &'a str,
    prefix: &'a str,
    partitions: &'a str,
) -> [(&'a str, &'a str); 3] {
    [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
        ("topics.partitions", partitions),
    ]
}

#[test]
fn a_topic_made_again_takes_every_key_without_a_restart() {
    thread::scope(|scope| {
        for (test, partitions) in [("fewer", 2), ("as-many", 6), ("more", 9)] {
            scope.spawn(move || takes_every_key_again(test, partitions));
        }
    });
}

/// Pushes wait in the ingress while the topic is deleted and made again.
fn takes_every_key_again(test: &str, partitions: i32) {
    let topic = "command-status";
    let installation = Installation::start(shared().bootstrap(), test, "6");
    installation.push_until_every_key_is_stored(topic);
    installation.simulate_until_stored(40.0);
    installation.delete(topic);
    let waiting = waiting_bodies(topic);
    let pushes = PushesInOrder::send(&installation.ingress, &waiting);
    installation.create(topic, partitions);
    let load = installation.simulate();
    let mut acknowledged = installation.push_until_every_key_is_stored(topic);
    installation.wait_until_stored(40.0);
    load.stop_and_verify();
    let answers = waiting.iter().zip(pushes.statuses());
    let answered_200 = answers.filter(|(_, status)| *status == 200);
    acknowledged.extend(answered_200.map(|(body, _)| body.clone()));
    installation.assert_stored_by_key(topic, partitions, &acknowledged);
    if partitions <= PARTITIONS {
        installation.assert_stored_in_order(topic, &waiting);
    }
}

/// Several pushes of some keys, in their order.
fn waiting_bodies(topic: &str) -> Vec<String> {
    let body = |index| {
        let (key, round) = (index % WAITING_KEYS, index / WAITING_KEYS);
        body(topic, &format!("key-{key}"), &format!("waiting-{round}"))
    };
    (0..WAITING_KEYS * 4).map(body).collect()
}

#[test]
fn partitions_that_are_added_take_their_keys() {
    let topic = "command-status";
    let installation = Installation::start(shared().bootstrap(), "added", "2");
    let load = installation.simulate();
    installation.push_until_every_key_is_stored(topic);
    add_partitions(&installation.bootstrap, &installation.name(topic), 6);
    eventually("records arrive in every partition", || {
        installation.push_until_every_key_is_stored(topic);
        let records = read_topic(&installation.bootstrap, &installation.name(topic));
        let used: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
        (used.len() == 6).then_some(())
    });
    let answers = load.stop_and_verify();
    assert_eq!(answers.as_object().unwrap().len(), 1, "{answers}");
    installation.assert_ingress_goes_on();
}

#[test]
fn brokers_that_move_and_another_cluster_in_their_place_need_no_restart() {
    let mut cluster = Cluster::start(&ClusterOptions {
        properties: vec![("broker.session.timeout.ms".to_owned(), "6000".to_owned())],
        ..ClusterOptions::default()
    });
    let mut installation = Installation::start(&cluster.bootstrap(), "moved", "6");
    let (bootstrap, prefix) = (installation.bootstrap.clone(), installation.prefix.clone());
    let stream = Supervised::start(move || {
        Northbridge::start(&["command-status"], &settings(&bootstrap, &prefix, "6"))
    });
    let process = stream.process().pid();
    every_push_is_stored_while_all_brokers_move(&mut cluster, &mut installation);
    installation.assert_stream_goes_on("after-the-move");
    // The moves have raised the leader epochs above those of new topics.
    topics_made_again_take_every_key(&installation);
    installation.assert_stream_goes_on("after-new-topics");
    assert_eq!(stream.process().pid(), process, "the stream was restarted");
    cluster.replace_with_another();
    let (bootstrap, prefix) = (&installation.bootstrap, &installation.prefix);
    create_topics(&settings(bootstrap, prefix, "6"));
    let acknowledged = installation.push_until_every_key_is_stored("command-status");
    installation.assert_stored_by_key("command-status", PARTITIONS, &acknowledged);
    let ids = installation
        .ingress
        .wait_for_message("another Kafka cluster answers; pushes are stored there");
    assert_ne!(ids["cluster_id"], ids["before"]);
    let ingress = &installation.ingress;
    eventually("the reason names the other cluster", || {
        let report = http::get(ingress.admin_address(), "/readyz")?.text();
        report.contains("another cluster answers").then_some(())
    });
}

fn every_push_is_stored_while_all_brokers_move(
    cluster: &mut Cluster,
    installation: &mut Installation,
) {
    let load = installation.simulate();
    installation.wait_until_stored(40.0);
    for index in 0..cluster.brokers().len() {
        cluster.broker_mut(index).move_to_another_port();
        cluster.wait_until_in_sync();
        installation.wait_until_stored(40.0);
    }
    let answers = load.stop_and_verify();
    assert_eq!(answers.as_object().unwrap().len(), 1, "{answers}");
    installation.bootstrap = cluster.bootstrap();
}

fn topics_made_again_take_every_key(installation: &Installation) {
    let topics = [
        ("command-status", 2),
        ("upgrade-result", 6),
        ("notifications", 9),
    ];
    for (topic, _) in topics {
        installation.push_until_every_key_is_stored(topic);
    }
    for (topic, partitions) in topics {
        installation.delete(topic);
        installation.create(topic, partitions);
    }
    let load = installation.simulate();
    thread::scope(|scope| {
        for (topic, partitions) in topics {
            scope.spawn(move || {
                let acknowledged = installation.push_until_every_key_is_stored(topic);
                installation.assert_stored_by_key(topic, partitions, &acknowledged);
            });
        }
    });
    installation.wait_until_stored(40.0);
    load.stop_and_verify();
}
