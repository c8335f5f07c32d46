//! Brokers die under way, or are not there yet.

use std::thread;
use std::time::{Duration, Instant};

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::http;
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::northbridge::{Northbridge, parse_metrics};
use crate::support::supervised::Supervised;

const COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

const SETTINGS: [(&str, &str); 2] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
];

/// A coordinator's end costs its session of nine seconds, then the markers of
/// the transactions that it had under way; all the longer on a busy machine.
const OUTAGE: Duration = Duration::from_secs(180);

#[test]
fn killed_brokers_and_coordinators_cost_no_record() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let topics = Topics::create(&cluster.bootstrap(), "brokers", &SETTINGS);
    let mut input = Input::random(200);
    // Some end by themselves: their transaction was open for longer than its
    // time-out, or a call into librdkafka did not come back.
    let processes = COMMANDS.map(|command| topics.supervise(command));
    under_load(&topics, &mut input, || {
        processes.iter().for_each(await_more_work);
        let group = topics.name("upgrade-result");
        let host = rustix::system::uname();
        let transactions = format!("{group}.{}", host.nodename().to_string_lossy());
        for (topic, name) in [
            ("__consumer_offsets", group),
            ("__transaction_state", transactions),
        ] {
            let coordinator = cluster.leader_of(topic, coordinating(&name));
            cluster.broker(coordinator).kill();
            processes.iter().for_each(await_more_work);
            cluster.broker(coordinator).restart();
            cluster.wait_until_in_sync();
        }
        cluster.kill_all();
        cluster.restart_all();
        processes.iter().for_each(await_more_work);
    });
    assert_equal_to_model(&topics);
}

/// Waits until every stage has committed more than now: twice, for the first
/// may have been on its way.
fn await_more_work(process: &Supervised) {
    let give_up = Instant::now() + OUTAGE;
    let mut before = committed(&process.process());
    loop {
        let now = committed(&process.process());
        let mut counts = now.iter().zip(&before);
        if now.len() != before.len() || counts.any(|(now, before)| now < before) {
            // It is another life, or tells nothing as it ends.
            before = now;
        } else if !now.is_empty()
            && now
                .iter()
                .zip(&before)
                .all(|(now, before)| now - before > 1.0)
        {
            return;
        }
        assert!(Instant::now() < give_up, "the streams do not go on");
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn without_kafka_a_process_lives_says_so_once_and_goes_to_work_when_it_is_there() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    });
    let topics = Topics::create(&cluster.bootstrap(), "absent", &SETTINGS);
    topics.write("command-status", &Input::random(60).commands(60));
    topics.write("upgrade-result", &Input::random(60).upgrades(60));
    cluster.kill_all();
    let processes = COMMANDS.map(|command| topics.start(command, &[]));
    for process in &processes {
        process.wait_for_message("waiting for the topics");
        let live = http::get(process.admin_address(), "/livez").unwrap();
        assert_eq!(live.status, 200);
        assert!(!process.is_ready());
    }
    cluster.restart_all();
    processes.iter().for_each(Northbridge::ready);
    assert_equal_to_model(&topics);
    for process in &processes {
        let said = process.log();
        let said = said
            .iter()
            .filter(|line| line.contains("waiting for the topics"));
        assert_eq!(said.count(), stages(process));
    }
}

fn committed(process: &Northbridge) -> Vec<f64> {
    // Nothing is told by one that has just ended.
    let answer = http::get(process.admin_address(), "/metrics");
    let metrics = parse_metrics(&answer.map(|answer| answer.text()).unwrap_or_default());
    let committed = metrics.into_iter().filter(|(name, _)| {
        name.contains("stream_transactions_total") && name.contains("\"committed\"")
    });
    committed.map(|(_, count)| count).collect()
}

fn stages(process: &Northbridge) -> usize {
    committed(process).len()
}

/// The partition of the internal topic that keeps a group or a transactional
/// id: the hash of Java's `String` over the test cluster's six partitions.
fn coordinating(name: &str) -> i32 {
    let hash = name.bytes().fold(0_i32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(i32::from(byte))
    });
    (hash & i32::MAX) % 6
}
