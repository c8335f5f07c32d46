//! The test support itself: the cluster keeps acknowledged records, injects the
//! faults it is asked for, and ends with the test process.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Pid;

use crate::support::child::{ChildGuard, is_alive};
use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared, unique_prefix};
use crate::support::records::{
    Isolation, NewRecord, Record, create_topic, produce, read_topic, read_topic_as,
};
use crate::support::{TIMEOUT, eventually};

const TOPIC: &str = "pushes";
const DURABLE: [(&str, &str); 1] = [("min.insync.replicas", "2")];

#[test]
fn a_topic_is_read_back_as_written() {
    let bootstrap = shared().bootstrap();
    let topic = unique_prefix("written") + TOPIC;
    create_topic(bootstrap, &topic, 3, &DURABLE);
    let mut written = records(200);
    written[7] = written[7].clone().with_header("ce_id", "seven");
    let positions = produce(bootstrap, &topic, &written);
    let read = read_topic(bootstrap, &topic);
    assert_eq!(read.len(), written.len());
    for (position, record) in positions.iter().zip(&written) {
        let found = read
            .iter()
            .find(|read| (read.partition, read.offset) == *position)
            .unwrap();
        assert_eq!(found.key, record.key);
        assert_eq!(found.value, record.value);
        assert_eq!(found.headers, record.headers);
    }
}

#[test]
fn only_read_uncommitted_sees_an_aborted_transaction() {
    let bootstrap = shared().bootstrap();
    let prefix = unique_prefix("aborted");
    let topic = format!("{prefix}{TOPIC}");
    create_topic(bootstrap, &topic, 1, &DURABLE);
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("transactional.id", &prefix)
        .create()
        .unwrap();
    producer.init_transactions(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    producer
        .send(BaseRecord::to(&topic).key("kept").payload("1"))
        .unwrap();
    producer.commit_transaction(TIMEOUT).unwrap();
    producer.begin_transaction().unwrap();
    producer
        .send(BaseRecord::to(&topic).key("aborted").payload("2"))
        .unwrap();
    producer.flush(TIMEOUT).unwrap();
    producer.abort_transaction(TIMEOUT).unwrap();

    let keys = |isolation| {
        let records = read_topic_as(bootstrap, &topic, isolation);
        records.iter().map(Record::key_text).collect::<Vec<_>>()
    };
    assert_eq!(keys(Isolation::Committed), ["kept"]);
    assert_eq!(keys(Isolation::Uncommitted), ["kept", "aborted"]);
}

#[test]
fn producing_continues_after_the_leader_is_killed_or_frozen() {
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
fn a_cluster_keeps_its_records_when_all_nodes_are_killed() {
    let cluster = Cluster::start(&ClusterOptions {
        dedicated_controller: true,
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
fn a_controlled_shutdown_moves_leadership_first() {
    let cluster = Cluster::start(&ClusterOptions::default());
    create_topic(&cluster.bootstrap(), TOPIC, 1, &DURABLE);
    let stopped = cluster.leader_of(TOPIC, 0);
    cluster.broker(stopped).stop_gracefully();
    assert_ne!(cluster.leader_of(TOPIC, 0), stopped);
}

/// Set in the child process in which the test below runs as the cluster's owner.
const OWNER: &str = "NORTHBRIDGE_TEST_OWNER";

#[test]
fn brokers_and_their_data_disappear_when_their_owner_is_killed() {
    if std::env::var_os(OWNER).is_some() {
        own_brokers_forever();
    }
    let mut owner = spawn_owner();
    let lines = owner.take_stdout().unwrap().lines().map_while(Result::ok);
    let printed = lines.filter_map(|line| {
        let (_, printed) = line.split_once("owned: ")?;
        Some(printed.to_owned())
    });
    let printed: Vec<_> = printed.take(3).collect();
    let directory = PathBuf::from(&printed[2]);
    let pids: Vec<_> = printed[..2]
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

fn own_brokers_forever() -> ! {
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

fn spawn_owner() -> ChildGuard {
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.env(OWNER, "1");
    test.args(["--exact", "--nocapture"]);
    test.arg("cluster::brokers_and_their_data_disappear_when_their_owner_is_killed");
    ChildGuard::spawn(&test, Stdio::inherit())
}

fn records(count: u32) -> Vec<NewRecord> {
    let record = |number| NewRecord::keyed(format!("key-{number}"), format!("value-{number}"));
    (0..count).map(record).collect()
}
