//! Brokers that die while the streams run, or are down when they start.

use std::thread;
use std::time::{Duration, Instant};

use super::input::{Input, under_load};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::http;
use crate::support::kafka_cluster::{Cluster, ClusterOptions};
use crate::support::northbridge::{Northbridge, parse_metrics};
use crate::support::supervised::Supervised;

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

const SETTINGS: [(&str, &str); 2] = [
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
];

/// How long the streams may stall. Losing a coordinator costs its session of nine
/// seconds and then the completion of its open transactions, longer on a busy
/// machine.
const OUTAGE: Duration = Duration::from_secs(180);

#[test]
fn killing_brokers_and_coordinators_loses_no_record() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let topics = Topics::create(&cluster.bootstrap(), "brokers", &SETTINGS);
    let mut input = Input::random(200);
    // A process may exit with 75: if its transaction exceeds the timeout, or if a
    // call into librdkafka does not return.
    let processes = STREAM_COMMANDS.map(|command| topics.supervise(command));
    under_load(&topics, &mut input, || {
        processes.iter().for_each(wait_for_more_commits);
        let group = topics.group("upgrade-result");
        let host = rustix::system::uname();
        let transactions = format!("{group}.{}", host.nodename().to_string_lossy());
        let coordinators: [&dyn Fn() -> usize; 2] =
            [&|| cluster.group_coordinator(&group), &|| {
                cluster.transaction_coordinator(&transactions)
            }];
        for coordinator in coordinators {
            let coordinator = coordinator();
            cluster.broker(coordinator).kill();
            processes.iter().for_each(wait_for_more_commits);
            cluster.broker(coordinator).restart();
            cluster.wait_until_in_sync();
        }
        cluster.kill_all();
        cluster.restart_all();
        processes.iter().for_each(wait_for_more_commits);
    });
    assert_equal_to_model(&topics);
}

/// Waits until every stage has committed two more transactions; the first one may
/// have been in progress before the call.
fn wait_for_more_commits(process: &Supervised) {
    let deadline = Instant::now() + OUTAGE;
    let mut before = committed(&process.process());
    loop {
        let now = committed(&process.process());
        let mut counts = now.iter().zip(&before);
        if now.len() != before.len() || counts.any(|(now, before)| now < before) {
            // The process was restarted, or is exiting and exposes no metrics.
            before = now;
        } else if !now.is_empty()
            && now
                .iter()
                .zip(&before)
                .all(|(now, before)| now - before > 1.0)
        {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "timed out waiting for further transactions"
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn without_kafka_a_stream_stays_live_warns_once_and_starts_when_kafka_returns() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        ..ClusterOptions::default()
    });
    let topics = Topics::create(&cluster.bootstrap(), "absent", &SETTINGS);
    topics.write("command-status", &Input::random(60).commands(60));
    topics.write("upgrade-result", &Input::random(60).upgrades(60));
    cluster.kill_all();
    let processes = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    for process in &processes {
        process.wait_for_message("topics not ready; waiting");
        let live = http::get(process.admin_address(), "/livez").unwrap();
        assert_eq!(live.status, 200);
        assert!(!process.is_ready());
    }
    cluster.restart_all();
    processes.iter().for_each(Northbridge::wait_until_ready);
    assert_equal_to_model(&topics);
    for process in &processes {
        let log = process.log();
        let warnings = log
            .iter()
            .filter(|line| line.contains("topics not ready; waiting"));
        assert_eq!(warnings.count(), stages(process));
    }
}

fn committed(process: &Northbridge) -> Vec<f64> {
    // A process that has just exited exposes no metrics.
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
