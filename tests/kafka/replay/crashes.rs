//! Every dead letter is replayed exactly once, whatever interrupts a replay.

use std::process::Stdio;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use super::installation::{Installation, readable};
use crate::support::bodies;
use crate::support::child::ChildGuard;
use crate::support::held_requests::{END_TXN, HeldRequests};
use crate::support::kafka_cluster::{Cluster, ClusterOptions, shared};
use crate::support::northbridge::Northbridge;
use crate::support::{TIMEOUT, eventually};

#[test]
fn a_replay_killed_at_every_step_and_rerun_is_exactly_once() {
    let mut installation = Installation::new("killed");
    installation.batch = "2".to_owned();
    let letters: Vec<_> = (0..30).map(readable).collect();
    let positions = installation.write_dead_letters(&letters);
    let points = [
        "1:1", "2:1", "2:2", "3:1", "4:1", "5:1", "3:2", "4:2", "5:2", "4:1", "5:1",
    ];
    for point in points {
        let output = installation.with_fail_point(point).output().unwrap();
        assert_eq!(
            output.status.code(),
            None,
            "{point} was not met: {output:?}"
        );
    }
    installation.replay_successfully(&[]);
    installation.assert_each_replayed_once(&positions.iter().collect::<Vec<_>>());
}

#[test]
fn a_replay_killed_at_random_times_and_rerun_is_exactly_once() {
    let mut installation = Installation::new("killed-any");
    installation.batch = "1".to_owned();
    let letters: Vec<_> = (0..60).map(readable).collect();
    let positions = installation.write_dead_letters(&letters);
    for _ in 0..6 {
        let sent = installation.replayed_counts().len();
        let replay = Northbridge::start(&["replay"], &installation.settings());
        eventually("the replay makes progress or ends", || {
            (replay.exit_code().is_some() || installation.replayed_counts().len() > sent)
                .then_some(())
        });
        replay.kill();
    }
    installation.replay_successfully(&[]);
    installation.assert_each_replayed_once(&positions.iter().collect::<Vec<_>>());
}

#[test]
fn a_commit_without_an_answer_ends_a_replay_and_the_next_one_is_exactly_once() {
    let cluster = Cluster::start(&ClusterOptions {
        brokers: 1,
        zones: 1,
        ..ClusterOptions::default()
    });
    let network = HeldRequests::open(cluster.broker(0).link(0));
    let installation = Installation::on(&cluster.zone_bootstrap(0), "unanswered");
    let letters: Vec<_> = (0..30).map(readable).collect();
    let positions = installation.write_dead_letters(&letters);
    network.hold(END_TXN);
    let timeout = ["--set", "streams.transaction_timeout_ms=10000"];
    let ended = installation.replay(&timeout);
    assert_eq!(ended.status.code(), Some(69), "{ended:?}");
    let message = String::from_utf8_lossy(&ended.stderr);
    assert!(
        message.contains("is unknown; run the same command again"),
        "{message}"
    );
    network.forward();
    installation.replay_successfully(&[]);
    installation.assert_each_replayed_once(&positions.iter().collect::<Vec<_>>());
}

#[test]
fn the_newest_of_several_replays_fences_the_others_and_is_exactly_once() {
    let mut installation = Installation::new("two");
    installation.batch = "2".to_owned();
    let letters: Vec<_> = (0..30).map(readable).collect();
    let positions = installation.write_dead_letters(&letters);
    // Frozen just before a commit, between two transactions, and after reading
    // marks that are outdated by the time it resumes.
    let frozen = ["4:3:STOP", "5:1:STOP", "2:1:STOP"].map(|point| {
        let errors = tempfile::NamedTempFile::new().unwrap();
        let program = installation.with_fail_point(point);
        let process = ChildGuard::spawn(&program, Stdio::from(errors.reopen().unwrap()));
        eventually("the replay is frozen", || is_frozen(&process).then_some(()));
        (process, errors)
    });
    installation.replay_successfully(&[]);
    for (process, errors) in &frozen {
        process.signal(Signal::CONT);
        assert_eq!(process.wait(), 75);
        let stderr = std::fs::read_to_string(errors.path()).unwrap();
        assert!(stderr.contains("another replay"), "{stderr}");
    }
    installation.assert_each_replayed_once(&positions.iter().collect::<Vec<_>>());
}

#[test]
fn a_replay_waits_for_an_open_transaction_of_a_stream() {
    let installation = Installation::new("open");
    let positions = installation.write_dead_letters(&[readable(0), readable(1)]);
    let topic = installation.topic("dead-letter");
    let stream: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", shared().bootstrap())
        .set("transactional.id", &installation.prefix)
        .create()
        .unwrap();
    stream.init_transactions(TIMEOUT).unwrap();
    stream.begin_transaction().unwrap();
    let late = bodies::message_confirm("late", "d-1", "sent");
    let record = BaseRecord::<str, str>::to(&topic)
        .partition(0)
        .payload(&late);
    stream.send(record).unwrap();
    stream.flush(TIMEOUT).unwrap();
    // `read_committed` does not return records after an open transaction.
    let after_open = installation.write_dead_letters(&[readable(3)]);

    let replay = Northbridge::start(&["replay"], &installation.settings());
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(replay.exit_code(), None);
    stream.commit_transaction(TIMEOUT).unwrap();
    assert_eq!(replay.wait(), 0);
    let late = "0/1".to_owned();
    installation.assert_each_replayed_once(&[&positions[0], &positions[1], &late, &after_open[0]]);
}

#[test]
fn a_signal_stops_a_replay_between_transactions_with_75() {
    let mut installation = Installation::new("signal");
    installation.batch = "1".to_owned();
    let letters: Vec<_> = (0..30).map(readable).collect();
    let positions = installation.write_dead_letters(&letters);
    let errors = tempfile::NamedTempFile::new().unwrap();
    let program = installation.with_fail_point("4:3:STOP");
    let process = ChildGuard::spawn(&program, Stdio::from(errors.reopen().unwrap()));
    eventually("the replay is frozen", || is_frozen(&process).then_some(()));
    process.signal(Signal::TERM);
    process.signal(Signal::CONT);
    assert_eq!(process.wait(), 75);
    let sent = installation.replayed_counts().len();
    assert!((2..30).contains(&sent), "{sent} were sent");
    installation.replay_successfully(&[]);
    installation.assert_each_replayed_once(&positions.iter().collect::<Vec<_>>());
}

fn is_frozen(process: &ChildGuard) -> bool {
    let pid = process.pid().as_raw_nonzero();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc(5): the state follows the name, which is in parentheses.
    stat.rsplit_once(") ")
        .is_some_and(|(_, state)| state.starts_with('T'))
}
