//! The test support itself: that the cluster keeps what it acknowledged, breaks
//! as told, and ends with the tests.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Pid;

use crate::support::guarded::{Guarded, is_alive};
use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::records::{
    Isolation, NewRecord, Record, create_topic, produce, read_topic, read_topic_as,
};
use crate::support::{PATIENCE, eventually};

const TOPIC: &str = "pushes";
const DURABLE: [(&str, &str); 1] = [("min.insync.replicas", "2")];

#[test]
fn a_topic_is_read_back_as_it_was_written() {
    let bootstrap = shared().bootstrap();
    let topic = unique_prefix("written") + TOPIC;
    create_topic(bootstrap, &topic, 3, &DURABLE);
    let mut written = records(200);
    written[7] = written[7].clone().with_header("ce_id", "seven");
    let places = produce(bootstrap, &topic, &written);
    let read = read_topic(bootstrap, &topic);
    assert_eq!(read.len(), written.len());
    for (place, record) in places.iter().zip(&written) {
        let found = read
            .iter()
            .find(|read| (read.partition, read.offset) == *place)
            .unwrap();
        assert_eq!(found.key, record.key);
        assert_eq!(found.value, record.value);
        assert_eq!(found.headers, record.headers);
    }
}

#[test]
fn an_aborted_transaction_is_seen_by_uncommitted_readers_alone() {
    let bootstrap = shared().bootstrap();
    let prefix = unique_prefix("aborted");
    let topic = format!("{prefix}{TOPIC}");
    create_topic(bootstrap, &topic, 1, &DURABLE);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", &prefix)
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
        .send(BaseRecord::to(&topic).key("kept").payload("1"))
        .unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    producer
        .send(BaseRecord::to(&topic).key("aborted").payload("2"))
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();

    let keys = |isolation| {
        let records = read_topic_as(bootstrap, &topic, isolation);
        records.iter().map(Record::key_text).collect::<Vec<_>>()
    };
    assert_eq!(keys(Isolation::Committed), ["kept"]);
    assert_eq!(keys(Isolation::Uncommitted), ["kept", "aborted"]);
}

#[test]
fn producing_goes_on_without_the_leader_that_was_killed_or_frozen() {
    let cluster = Cluster::start(&ClusterOptions::default());
    create_topic(&cluster.bootstrap(), TOPIC, 1, &DURABLE);
    produce(&cluster.bootstrap(), TOPIC, &records(10));

    let killed = cluster.leader_of(TOPIC, 0);
    cluster.broker(killed).kill();
    produce(&cluster.bootstrap(), TOPIC, &records(10));
    assert_ne!(cluster.leader_of(TOPIC, 0), killed);
    cluster.broker(killed).restart();
    cluster.wait_until_in_sync();

    let frozen = cluster.leader_of(TOPIC, 0);
    cluster.broker(frozen).freeze();
    produce(&cluster.bootstrap(), TOPIC, &records(10));
    assert_ne!(cluster.leader_of(TOPIC, 0), frozen);
    cluster.broker(frozen).thaw();
    cluster.wait_until_in_sync();

    assert_eq!(read_topic(&cluster.bootstrap(), TOPIC).len(), 30);
}

#[test]
fn a_cluster_keeps_its_records_when_all_nodes_were_killed() {
    let cluster = Cluster::start(&ClusterOptions {
        controller_apart: true,
        ..ClusterOptions::default()
    });
    create_topic(&cluster.bootstrap(), TOPIC, 3, &DURABLE);
    produce(&cluster.bootstrap(), TOPIC, &records(50));
    let written = read_topic(&cluster.bootstrap(), TOPIC);
    cluster.kill_all();
    assert!(cluster.nodes().all(|node| node.pid().is_none()));
    cluster.restart_all();
    assert_eq!(read_topic(&cluster.bootstrap(), TOPIC), written);
}

#[test]
fn a_broker_that_stops_gracefully_hands_its_partitions_over_first() {
    let cluster = Cluster::start(&ClusterOptions::default());
    create_topic(&cluster.bootstrap(), TOPIC, 1, &DURABLE);
    let stopped = cluster.leader_of(TOPIC, 0);
    cluster.broker(stopped).stop_gracefully();
    assert_ne!(cluster.leader_of(TOPIC, 0), stopped);
}

/// The variable that turns the test below into the owner that it kills.
const OWNER: &str = "NORTHBRIDGE_TEST_OWNER";

#[test]
fn brokers_end_and_leave_nothing_when_their_owner_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        own_brokers_for_ever();
    }
    let mut owner = this_test_as_owner();
    let lines = owner.take_stdout().unwrap().lines().map_while(Result::ok);
    let told = lines.filter_map(|line| line.split_once("owned: ").map(|(_, told)| told.to_owned()));
    let told: Vec<_> = told.take(3).collect();
    let directory = PathBuf::from(&told[2]);
    let pids: Vec<_> = told[..2]
        .iter()
        .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
        .collect();
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert!(directory.exists());

    owner.kill();
    eventually("the brokers are gone", || {
        pids.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
    eventually("their data is gone", || (!directory.exists()).then_some(()));
}

fn own_brokers_for_ever() -> ! {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 2,
        ..ClusterOptions::default()
    });
    cluster.broker(1).freeze();
    for broker in cluster.brokers() {
        println!("owned: {}", broker.pid().unwrap().as_raw_nonzero());
    }
    println!("owned: {}", cluster.directory().display());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn this_test_as_owner() -> Guarded {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.env(OWNER, "1");
    test.args(["--exact", "--nocapture"]);
    test.arg("cluster::brokers_end_and_leave_nothing_when_their_owner_is_killed");
    Guarded::spawn(&test, Stdio::inherit())
}

fn records(count: u32) -> Vec<NewRecord> {
    let record = |number| NewRecord::keyed(format!("key-{number}"), format!("value-{number}"));
    (0..count).map(record).collect()
}
