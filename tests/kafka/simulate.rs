//! `northbridge simulate` on a real cluster: the whole chain is proved, what is
//! broken in it is found, and the delivery rules take an outage as published.

use std::cell::Cell;
use std::collections::BTreeSet;

use northbridge::config::Settings;
use northbridge::kafka::scan::{self, Scan};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::northbridge::{Northbridge, run};
use crate::support::records::{Isolation, NewRecord, Record, create_topic, produce, read_topic_as};
use crate::support::{PATIENCE, eventually};

const PROVED: [&str; 2] = ["--verify-state", "--catch-up=60s"];

/// The ingress and both streams, with topics of their own.
struct Chain {
    bootstrap: String,
    prefix: String,
    ingress: Northbridge,
    streams: Vec<Northbridge>,
}

impl Chain {
    fn on(bootstrap: &str, test: &str) -> Self {
        let prefix = unique_prefix(test);
        let settings = settings(bootstrap, &prefix);
        let created = run(&["topics", "create"], &settings);
        assert!(created.status.success(), "{created:?}");
        let start = |command| Northbridge::start(&[command], &settings);
        let chain = Self {
            bootstrap: bootstrap.to_owned(),
            ingress: start("ingress"),
            streams: ["command-status", "upgrade-result"].map(start).into(),
            prefix: prefix.clone(),
        };
        chain.ingress.ready();
        chain.streams.iter().for_each(Northbridge::ready);
        chain
    }

    fn url(&self) -> String {
        format!("http://{}/notifications", self.ingress.address())
    }

    fn flags(&self, flags: &[&str]) -> Vec<String> {
        let (url, prefix) = (self.url(), format!("--topics-prefix={}", self.prefix));
        let own = ["simulate", &url, "--json", "--verify", &self.bootstrap];
        let own = own.into_iter().chain([prefix.as_str()]);
        own.chain(flags.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    fn simulate(&self, flags: &[&str]) -> (Option<i32>, Value) {
        let flags = self.flags(flags);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let output = run(&flags, &settings(&self.bootstrap, &self.prefix));
        let outcome = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), outcome)
    }

    /// The last state of each key.
    fn states(&self, topic: &str) -> Vec<Record> {
        let name = format!("{}{topic}", self.prefix);
        let mut states = read_topic_as(&self.bootstrap, &name, Isolation::Committed);
        states.reverse();
        let mut seen = BTreeSet::new();
        states.retain(|state| seen.insert(state.key.clone()));
        states
    }

    fn overwrite(&self, topic: &str, partition: i32, key: &str, value: Option<String>) {
        let record = NewRecord {
            partition: Some(partition),
            key: Some(key.as_bytes().to_vec()),
            value: value.map(String::into_bytes),
            ..NewRecord::default()
        };
        produce(
            &self.bootstrap,
            &format!("{}{topic}", self.prefix),
            &[record],
        );
    }

    /// Writes another state of the same key in a transaction, and aborts it.
    fn overwrite_and_abort(&self, topic: &str, state: &Record) {
        let topic = format!("{}{topic}", self.prefix);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("transactional.id", &self.prefix)
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let key = state.key_text();
        let record = BaseRecord::to(&topic).partition(state.partition);
        producer.send(record.key(&key).payload("{}")).unwrap();
        producer.flush(PATIENCE).unwrap();
        producer.abort_transaction(PATIENCE).unwrap();
    }
}

fn add_partition(bootstrap: &str, topic: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let two = [NewPartitions::new(topic, 2)];
    let made = runtime.block_on(admin.create_partitions(&two, &AdminOptions::new()));
    assert!(made.unwrap()[0].is_ok());
}

fn settings<'a>(bootstrap: &'a str, prefix: &'a str) -> [(&'static str, &'a str); 7] {
    [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
        ("streams.group_prefix", prefix),
        ("shutdown.announce_ms", "0"),
        ("shutdown.idle_ms", "0"),
        ("http.body_timeout_ms", "1000"),
        ("http.answer_deadline_ms", "3000"),
    ]
}

#[test]
fn the_whole_chain_is_proved_from_the_push_to_the_states() {
    let chain = Chain::on(shared().bootstrap(), "chain");
    let mut flags = vec!["--count=3000", "--rate=400", "--devices=200"];
    flags.extend(["--oddities=10", "--disorder=20", "--repeats=10"]);
    flags.extend(PROVED);
    let (code, outcome) = chain.simulate(&flags);
    assert_eq!(code, Some(0), "{outcome}");
    assert_eq!(outcome["answers"]["200"], 3_000);
    assert_eq!(outcome["verification"]["stored"], 3_000);
    let states = &outcome["states"];
    assert_eq!(states["differing"], 0);
    assert_eq!(states["behind"], Value::Null);
    for kind in ["commands", "devices", "operations"] {
        assert!(states[kind].as_u64() > Some(0), "{outcome}");
    }
}

/// Its pushes change no state, so the streams write none.
#[test]
fn a_second_run_with_the_same_seed_holds() {
    let chain = Chain::on(shared().bootstrap(), "again");
    let flags = ["--count=500", "--rate=400", "--seed=5"];
    for _ in 0..2 {
        let (code, outcome) = chain.simulate(&[&flags[..], &PROVED].concat());
        assert_eq!(code, Some(0), "{outcome}");
    }
}

#[test]
fn a_state_that_was_never_committed_is_no_difference() {
    let chain = Chain::on(shared().bootstrap(), "aborted");
    let flags = ["--count=200", "--rate=400", "--seed=5", "--oddities=0"];
    let (code, outcome) = chain.simulate(&[&flags[..], &PROVED].concat());
    assert_eq!(code, Some(0), "{outcome}");
    chain.overwrite_and_abort("command-state", &chain.states("command-state")[0]);
    let (code, outcome) = chain.simulate(&[&flags[..], &PROVED].concat());
    assert_eq!(code, Some(0), "{outcome}");
}

/// A topic may be given more partitions while a run lasts.
#[test]
fn records_of_a_partition_that_came_since_are_read_from_its_beginning() {
    let (bootstrap, topic) = (shared().bootstrap(), unique_prefix("grown") + "topic");
    create_topic(bootstrap, &topic, 1, &[]);
    let mut settings = Settings::default();
    bootstrap.clone_into(&mut settings.kafka.bootstrap_servers);
    let scan = Scan::new(&settings, scan::Isolation::Uncommitted).unwrap();
    let mut at = scan.ends(&topic).unwrap();
    add_partition(bootstrap, &topic);
    let record = NewRecord {
        partition: Some(1),
        ..NewRecord::keyed("key", "value")
    };
    produce(bootstrap, &topic, &[record]);
    eventually("the record is read", || {
        let mut read = 0;
        scan.read(&topic, &mut at, |_| read += 1).unwrap();
        (read == 1).then_some(())
    });
}

#[test]
fn altered_and_deleted_states_are_caught_and_named() {
    let chain = Chain::on(shared().bootstrap(), "altered");
    let flags = ["--count=500", "--rate=400", "--seed=6", "--oddities=0"];
    let (code, outcome) = chain.simulate(&[&flags[..], &PROVED].concat());
    assert_eq!(code, Some(0), "{outcome}");
    let command = chain.states("command-state").remove(0);
    let altered = command
        .value_text()
        .replace("\"status\":\"", "\"status\":\"not-");
    let place = command.partition;
    chain.overwrite("command-state", place, &command.key_text(), Some(altered));
    for topic in ["device-software", "upgrade-operation"] {
        let state = chain.states(topic).remove(0);
        chain.overwrite(topic, state.partition, &state.key_text(), None);
    }
    let in_vain = ["--verify-state", "--catch-up=2s"];
    let (code, outcome) = chain.simulate(&[&flags[..], &in_vain].concat());
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["holds"], true);
    assert_eq!(outcome["states"]["differing"], 3);
    let faults = outcome["states"]["faults"].to_string();
    assert!(faults.contains(&command.key_text()), "{faults}");
    assert!(faults.contains("status must be"), "{faults}");
    assert_eq!(faults.matches("there is no state").count(), 2, "{faults}");
}

#[test]
fn streams_that_do_not_run_are_caught_and_how_far_they_are_behind_is_told() {
    let mut chain = Chain::on(shared().bootstrap(), "stopped");
    for stream in chain.streams.drain(..) {
        stream.signal(Signal::TERM);
        assert_eq!(stream.wait(), 0);
    }
    let commands_alone = ["--others=0", "--upgrades=0", "--oddities=0"];
    let flags = [&["--count=100", "--rate=400"], &commands_alone[..]].concat();
    let in_vain = ["--verify-state", "--catch-up=2s"];
    let (code, outcome) = chain.simulate(&[&flags[..], &in_vain].concat());
    assert_eq!(code, Some(1), "{outcome}");
    let behind = outcome["states"]["behind"].as_str().unwrap();
    assert!(
        behind.ends_with("command-status is 100 records behind"),
        "{behind}"
    );
}

#[test]
fn pushes_that_are_not_in_the_topics_are_missing_and_named() {
    let chain = Chain::on(shared().bootstrap(), "here");
    let there = Chain::on(shared().bootstrap(), "there");
    let elsewhere = ["--count=100", "--rate=400"];
    let looking_there = Chain {
        prefix: there.prefix.clone(),
        ..chain
    };
    let (code, outcome) = looking_there.simulate(&elsewhere);
    assert_eq!(code, Some(1), "{outcome}");
    assert_eq!(outcome["verification"]["missing"], 100);
    let faults = outcome["verification"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 20);
    assert!(faults[0].as_str().unwrap().contains("was answered 200"));
}

#[test]
fn an_outage_under_the_newer_rules_costs_what_was_sent_and_nothing_that_was_held_back() {
    let outcome = through_an_outage("discard");
    let number = |name: &str| outcome[name].as_u64().unwrap();
    let answers = outcome["answers"].as_object().unwrap();
    let failed = answers.iter().filter(|(answer, _)| *answer != "200");
    let failed: u64 = failed.map(|(_, count)| count.as_u64().unwrap()).sum();
    // Each blacklisting ends with the one probe that succeeds.
    let failed_probes = number("probes") - number("blacklistings");
    assert_eq!(number("lostByPolicy"), failed - failed_probes, "{outcome}");
    assert!(number("lostByPolicy") >= 10 * number("blacklistings"));
    assert_eq!(number("retries"), 0);
}

#[test]
fn an_outage_under_the_older_rules_costs_nothing() {
    let outcome = through_an_outage("retry");
    assert_eq!(outcome["lostByPolicy"], 0);
    assert!(outcome["retries"].as_u64() >= Some(10), "{outcome}");
}

/// All brokers go once there is load, and come back once the host is
/// blacklisted. The proof holds, and no push is left waiting.
fn through_an_outage(policy: &str) -> Value {
    let cluster = Cluster::start(&ClusterOptions::default());
    let chain = Chain::on(&cluster.bootstrap(), policy);
    let policy = format!("--policy={policy}");
    let mut flags = vec!["--rate=40", "--duration=1h", "--connections=32", &policy];
    flags.extend(["--probe-interval=1s", "--retry-interval=2s"]);
    let flags = chain.flags(&flags);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let simulate = Northbridge::start(&flags, &settings(&chain.bootstrap, &chain.prefix));
    simulate.wait_for_log(|line| line.contains("200: "));
    cluster.kill_all();
    simulate.wait_for_log(|line| line.contains("BLACKLISTED"));
    cluster.restart_all();
    let was_blacklisted = Cell::new(false);
    simulate.wait_for_log(|line| {
        let (waits, is_blacklisted) = (line.contains("backlog"), line.contains("BLACKLISTED"));
        was_blacklisted.set(was_blacklisted.get() || is_blacklisted);
        was_blacklisted.get() && !is_blacklisted && !waits
    });
    simulate.signal(Signal::INT);
    let (code, outcome) = simulate.wait_for_end();
    assert_eq!(code, 0, "{outcome}");
    let outcome: Value = serde_json::from_str(&outcome).unwrap();
    assert!(outcome["blacklistings"].as_u64() >= Some(1), "{outcome}");
    assert!(outcome["probes"].as_u64() >= Some(1), "{outcome}");
    assert_eq!(outcome["backlogAtEnd"], 0);
    let (pushes, lost) = (outcome["pushes"].as_u64(), outcome["lostByPolicy"].as_u64());
    let acknowledged = outcome["verification"]["answered200"].as_u64();
    assert_eq!(acknowledged.zip(lost).map(|(a, l)| a + l), pushes);
    outcome
}
