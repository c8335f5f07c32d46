//! Brokers die under way: the processes live on, and their output is right.

use rustix::process::Signal;

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::http;
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::northbridge::Northbridge;

const SETTINGS: [(&str, &str); 3] = [
    ("streams.instance", "only"),
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
];

#[test]
fn killed_brokers_and_coordinators_cost_neither_a_process_nor_a_record() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let topics = Topics::create(&cluster.bootstrap(), "brokers", &SETTINGS);
    let mut input = Input::random(200);
    let processes = ["command-status", "upgrade-result"].map(|command| topics.start(command, &[]));
    under_load(&topics, &mut input, || {
        processes.iter().for_each(await_more_work);
        let group = topics.name("upgrade-result");
        let of_group = cluster.leader_of("__consumer_offsets", coordinating(&group));
        kill_and_restart(&cluster, of_group, &processes);
        let transactions = format!("{group}.only");
        let of_transactions = cluster.leader_of("__transaction_state", coordinating(&transactions));
        kill_and_restart(&cluster, of_transactions, &processes);

        cluster.kill_all();
        eventually("they notice", || {
            let mut noticed = processes.iter().map(|process| process.log().len());
            noticed.all(|lines| lines > 0).then_some(())
        });
        cluster.restart_all();
        processes.iter().for_each(await_more_work);
    });
    assert_equal_to_model(&topics);
    for process in &processes {
        assert_eq!(process.exit_code(), None);
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), 0);
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
    let processes = ["command-status", "upgrade-result"].map(|command| topics.start(command, &[]));
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

fn kill_and_restart(cluster: &Cluster, broker: usize, processes: &[Northbridge]) {
    cluster.broker(broker).kill();
    processes.iter().for_each(await_more_work);
    cluster.broker(broker).restart();
    cluster.wait_until_in_sync();
}

/// Waits until every stage has committed more than now: twice, for the first
/// may have been on its way.
fn await_more_work(process: &Northbridge) {
    let before = committed(process);
    eventually("every stage commits", || {
        let mut counts = committed(process).into_iter().zip(&before);
        counts.all(|(now, before)| now > before + 1.0).then_some(())
    });
}

fn committed(process: &Northbridge) -> Vec<f64> {
    let metrics = process.metrics().into_iter();
    let committed = metrics.filter(|(name, _)| {
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
