//! `northbridge simulate` on a real cluster: it verifies the whole pipeline, detects
//! defects in it, and follows the published delivery rules during an outage.

use std::cell::Cell;
use std::collections::BTreeSet;

use northbridge::config::Settings;
use northbridge::kafka::failures::Failures;
use northbridge::kafka::log_reader::{self, LogReaderConfig};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::northbridge::{Northbridge, create_topics, run};
use crate::support::records::{
    Isolation, NewRecord, Record, add_partitions, create_topic, produce, read_topic_as,
    wait_until_every_broker_shows,
};
use crate::support::{TIMEOUT, eventually};

const WITH_STATES: [&str; 2] = ["--verify-state", "--catch-up=60s"];

/// The ingress and both streams, with topics of their own.
struct Pipeline {
    bootstrap: String,
    prefix: String,
    ingress: Northbridge,
    streams: Vec<Northbridge>,
}

impl Pipeline {
    fn on(bootstrap: &str, test: &str) -> Self {
        Self::with_ingress(bootstrap, test, &[])
    }

    fn with_ingress(bootstrap: &str, test: &str, of_ingress: &[(&str, &str)]) -> Self {
        let prefix = unique_prefix(test);
        let settings = settings(bootstrap, &prefix);
        create_topics(&settings);
        let start = |command| Northbridge::start(&[command], &settings);
        let pipeline = Self {
            bootstrap: bootstrap.to_owned(),
            ingress: Northbridge::start(&["ingress"], &[&settings[..], of_ingress].concat()),
            streams: ["command-status", "upgrade-result"].map(start).into(),
            prefix: prefix.clone(),
        };
        pipeline.ingress.wait_until_ready();
        pipeline
            .streams
            .iter()
            .for_each(Northbridge::wait_until_ready);
        pipeline
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
        let summary = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (output.status.code(), summary)
    }

    /// The newest state of each key.
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

    /// Writes another state for the same key in a transaction that it aborts.
    fn overwrite_and_abort(&self, topic: &str, state: &Record) {
        let topic = format!("{}{topic}", self.prefix);
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("transactional.id", &self.prefix)
            .create()
            .unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        producer.begin_transaction().unwrap();
        let key = state.key_text();
        let record = BaseRecord::to(&topic).partition(state.partition);
        producer.send(record.key(&key).payload("{}")).unwrap();
        producer.flush(TIMEOUT).unwrap();
        producer.abort_transaction(TIMEOUT).unwrap();
    }
}

fn settings<'a>(bootstrap: &'a str, prefix: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("kafka.bootstrap_servers", bootstrap),
        ("topics.prefix", prefix),
        ("shutdown.announce_ms", "0"),
        ("shutdown.idle_ms", "0"),
    ]
}

#[test]
fn the_whole_pipeline_is_verified_from_push_to_state() {
    let pipeline = Pipeline::on(shared().bootstrap(), "pipeline");
    let mut flags = vec!["--count=3000", "--rate=400", "--devices=200"];
    flags.extend(["--oddities=10", "--disorder=20", "--repeats=10"]);
    flags.extend(WITH_STATES);
    let (code, summary) = pipeline.simulate(&flags);
    assert_eq!(code, Some(0), "{summary}");
    assert_eq!(summary["answers"]["200"], 3_000);
    assert_eq!(summary["verification"]["stored"], 3_000);
    let states = &summary["states"];
    assert_eq!(states["differing"], 0);
    assert_eq!(states["behind"], Value::Null);
    for kind in ["commands", "devices", "operations"] {
        assert!(states[kind].as_u64() > Some(0), "{summary}");
    }
}

/// The second run's pushes change no state, so the streams write none.
#[test]
fn the_verification_holds_for_a_second_run_with_the_same_seed() {
    let pipeline = Pipeline::on(shared().bootstrap(), "again");
    let flags = ["--count=500", "--rate=400", "--seed=5"];
    for _ in 0..2 {
        let (code, summary) = pipeline.simulate(&[&flags[..], &WITH_STATES].concat());
        assert_eq!(code, Some(0), "{summary}");
    }
}

#[test]
fn an_uncommitted_state_is_not_a_difference() {
    let pipeline = Pipeline::on(shared().bootstrap(), "aborted");
    let flags = ["--count=200", "--rate=400", "--seed=5", "--oddities=0"];
    let (code, summary) = pipeline.simulate(&[&flags[..], &WITH_STATES].concat());
    assert_eq!(code, Some(0), "{summary}");
    pipeline.overwrite_and_abort("command-state", &pipeline.states("command-state")[0]);
    let (code, summary) = pipeline.simulate(&[&flags[..], &WITH_STATES].concat());
    assert_eq!(code, Some(0), "{summary}");
}

/// Partitions may be added to a topic during a run.
#[test]
fn a_partition_added_during_the_run_is_read_from_its_beginning() {
    let (bootstrap, topic) = (shared().bootstrap(), unique_prefix("grown") + "topic");
    create_topic(bootstrap, &topic, 1, &[]);
    wait_until_every_broker_shows(bootstrap, &topic, 1);
    let mut settings = Settings::default();
    bootstrap.clone_into(&mut settings.kafka.bootstrap_servers);
    let reader = LogReaderConfig::new(&settings, &Failures::of_command(&settings))
        .stall_timeout(TIMEOUT)
        .create()
        .unwrap();
    let isolation = log_reader::Isolation::Uncommitted;
    let mut at = reader.end_offsets(&topic, isolation).unwrap();
    add_partitions(bootstrap, &topic, 2);
    let record = NewRecord {
        partition: Some(1),
        ..NewRecord::keyed("key", "value")
    };
    produce(bootstrap, &topic, &[record]);
    eventually("the record is read", || {
        let mut read = 0;
        reader
            .read_since(&topic, &mut at, isolation, |_| read += 1)
            .unwrap();
        (read == 1).then_some(())
    });
}

#[test]
fn altered_and_deleted_states_are_caught_and_named() {
    let pipeline = Pipeline::on(shared().bootstrap(), "altered");
    let flags = ["--count=500", "--rate=400", "--seed=6", "--oddities=0"];
    let (code, summary) = pipeline.simulate(&[&flags[..], &WITH_STATES].concat());
    assert_eq!(code, Some(0), "{summary}");
    let command = pipeline.states("command-state").remove(0);
    let altered = command
        .value_text()
        .replace("\"status\":\"", "\"status\":\"not-");
    pipeline.overwrite(
        "command-state",
        command.partition,
        &command.key_text(),
        Some(altered),
    );
    for topic in ["device-software", "upgrade-operation"] {
        let state = pipeline.states(topic).remove(0);
        pipeline.overwrite(topic, state.partition, &state.key_text(), None);
    }
    let short_catch_up = ["--verify-state", "--catch-up=2s"];
    let (code, summary) = pipeline.simulate(&[&flags[..], &short_catch_up].concat());
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["holds"], true);
    assert_eq!(summary["states"]["differing"], 3);
    let faults = summary["states"]["faults"].to_string();
    assert!(faults.contains(&command.key_text()), "{faults}");
    assert!(faults.contains("status must be"), "{faults}");
    assert_eq!(faults.matches("there is no state").count(), 2, "{faults}");
}

#[test]
fn stopped_streams_are_caught_and_their_lag_is_reported() {
    let mut pipeline = Pipeline::on(shared().bootstrap(), "stopped");
    for stream in pipeline.streams.drain(..) {
        stream.signal(Signal::TERM);
        assert_eq!(stream.wait(), 0);
    }
    let only_commands = ["--others=0", "--upgrades=0", "--oddities=0"];
    let flags = [&["--count=100", "--rate=400"], &only_commands[..]].concat();
    let short_catch_up = ["--verify-state", "--catch-up=2s"];
    let (code, summary) = pipeline.simulate(&[&flags[..], &short_catch_up].concat());
    assert_eq!(code, Some(1), "{summary}");
    let behind = summary["states"]["behind"].as_str().unwrap();
    assert!(
        behind.ends_with("command-status is 100 records behind"),
        "{behind}"
    );
}

#[test]
fn missing_pushes_are_listed() {
    let pipeline = Pipeline::on(shared().bootstrap(), "pushed");
    let other = Pipeline::on(shared().bootstrap(), "verified");
    // Pushes to the ingress of one pipeline and verifies the topics of the other.
    let mismatched = Pipeline {
        prefix: other.prefix.clone(),
        ..pipeline
    };
    let (code, summary) = mismatched.simulate(&["--count=100", "--rate=400"]);
    assert_eq!(code, Some(1), "{summary}");
    assert_eq!(summary["verification"]["missing"], 100);
    let faults = summary["verification"]["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 20);
    assert!(faults[0].as_str().unwrap().contains("was answered 200"));
}

#[test]
fn an_outage_under_the_discard_policy_loses_only_failed_pushes() {
    let summary = run_through_an_outage("discard");
    let number = |name: &str| summary[name].as_u64().unwrap();
    let answers = summary["answers"].as_object().unwrap();
    let failed = answers.iter().filter(|(answer, _)| *answer != "200");
    let failed: u64 = failed.map(|(_, count)| count.as_u64().unwrap()).sum();
    // Each blacklisting ends with the one probe that succeeds.
    let failed_probes = number("probes") - number("blacklistings");
    assert_eq!(number("lostByPolicy"), failed - failed_probes, "{summary}");
    assert!(number("lostByPolicy") >= 10 * number("blacklistings"));
    assert_eq!(number("retries"), 0);
}

#[test]
fn an_outage_under_the_retry_policy_loses_nothing() {
    let summary = run_through_an_outage("retry");
    assert_eq!(summary["lostByPolicy"], 0);
    assert!(summary["retries"].as_u64() >= Some(10), "{summary}");
}

/// Kills all brokers under load and restarts them once the host is blacklisted.
/// Checks that the verification holds and that the backlog is empty at the end.
fn run_through_an_outage(policy: &str) -> Value {
    let cluster = Cluster::start(&ClusterOptions::default());
    let soon_blacklisted = [
        ("http.body_timeout_ms", "1000"),
        ("http.answer_deadline_ms", "3000"),
    ];
    let pipeline = Pipeline::with_ingress(&cluster.bootstrap(), policy, &soon_blacklisted);
    let policy = format!("--policy={policy}");
    let mut flags = vec!["--rate=40", "--duration=1h", "--connections=32", &policy];
    flags.extend(["--probe-interval=1s", "--retry-interval=2s"]);
    let flags = pipeline.flags(&flags);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let simulate = Northbridge::start(&flags, &settings(&pipeline.bootstrap, &pipeline.prefix));
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
    let (code, summary) = simulate.wait_for_end();
    assert_eq!(code, 0, "{summary}");
    let summary: Value = serde_json::from_str(&summary).unwrap();
    assert!(summary["blacklistings"].as_u64() >= Some(1), "{summary}");
    assert!(summary["probes"].as_u64() >= Some(1), "{summary}");
    assert_eq!(summary["backlogAtEnd"], 0);
    let (pushes, lost) = (summary["pushes"].as_u64(), summary["lostByPolicy"].as_u64());
    let acknowledged = summary["verification"]["answered200"].as_u64();
    assert_eq!(acknowledged.zip(lost).map(|(a, l)| a + l), pushes);
    summary
}
