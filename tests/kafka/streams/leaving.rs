//! A stream that stops: an unnamed instance leaves its groups, a named one keeps its
//! partitions, and neither waits for a coordinator that is away.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::input::Input;
use super::instances::{STAGES, STREAM_COMMANDS, named, wait_for_assignment};
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::eventually;
use crate::support::kafka_cluster::{Broker, Cluster, ClusterOptions, shared};
use crate::support::northbridge::Northbridge;

/// A session that is long over [`SOON`].
const SETTINGS: [(&str, &str); 1] = [("streams.session_timeout_ms", "45000")];
const SOON: Duration = Duration::from_secs(20);
/// Longer than the time in which a member learns of a rebalance.
const HEARTBEAT: Duration = Duration::from_secs(12);

#[test]
fn the_partitions_of_an_unnamed_instance_that_stops_are_taken_over_soon() {
    let topics = Topics::create(shared().bootstrap(), "leaving", &SETTINGS);
    let staying = STREAM_COMMANDS.map(|command| named(&topics, command, "staying"));
    staying.iter().for_each(Northbridge::wait_until_ready);
    let leaving = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
    leaving.iter().for_each(Northbridge::wait_until_ready);
    for (process, stages) in leaving.iter().zip(STAGES) {
        for stage in stages {
            wait_for_assignment(process, stage);
        }
    }
    let before = staying.each_ref().map(assignments);
    let began = Instant::now();
    leaving.iter().for_each(stop);
    println!("ended after {:?}", began.elapsed());
    for ((process, before), stages) in staying.iter().zip(before).zip(STAGES) {
        eventually("every stage has taken over", || {
            (assignments(process) == before + stages.len()).then_some(())
        });
    }
    let took = began.elapsed();
    println!("taken over after {took:?}");
    assert!(took < SOON, "{took:?}");
}

#[test]
fn an_unnamed_instance_works_again_soon_after_a_restart() {
    let topics = Topics::create(shared().bootstrap(), "alone", &SETTINGS);
    let mut input = Input::random(60);
    for _ in 0..2 {
        let processes = STREAM_COMMANDS.map(|command| topics.start(command, &[]));
        let began = Instant::now();
        processes.iter().for_each(Northbridge::wait_until_ready);
        let took = began.elapsed();
        println!("ready after {took:?}");
        assert!(took < SOON, "{took:?}");
        topics.write("command-status", &input.commands(60));
        topics.write("upgrade-result", &input.upgrades(60));
        assert_equal_to_model(&topics);
        processes.iter().for_each(stop);
    }
}

#[test]
fn a_named_instance_keeps_its_partitions_across_a_restart() {
    let topics = Topics::create(shared().bootstrap(), "keeping", &SETTINGS);
    let first = STREAM_COMMANDS.map(|command| named(&topics, command, "first"));
    first.iter().for_each(Northbridge::wait_until_ready);
    let mut moves = Vec::new();
    for _ in 0..2 {
        let second = STREAM_COMMANDS.map(|command| named(&topics, command, "second"));
        for (process, stages) in second.iter().zip(STAGES) {
            for stage in stages {
                wait_for_assignment(process, stage);
            }
            process.wait_until_ready();
        }
        moves.push(first.each_ref().map(rebalances));
        second.iter().for_each(stop);
        // Had it left, the first instance would own its partitions by then.
        thread::sleep(HEARTBEAT);
    }
    assert_eq!(moves[0], moves[1]);
}

/// The session that brokers accept at least, so that rounds do not wait for it.
const SHORT_SESSION: [(&str, &str); 1] = [("streams.session_timeout_ms", "6000")];
/// Instances for each way in which the coordinator is away.
const INSTANCES: usize = 6;
/// So that the signals meet the clients in different states: a request in flight, a
/// connection that is lost, and a coordinator that is unknown.
const STAGGER: Duration = Duration::from_millis(700);
/// The default of `shutdown.deadline_ms`.
const DEADLINE: Duration = Duration::from_secs(25);

type Change = fn(&Broker);

#[test]
fn an_unnamed_instance_stops_while_its_coordinator_is_away() {
    let cluster = Cluster::start(&ClusterOptions::default());
    let topics = Topics::create(&cluster.bootstrap(), "away", &SHORT_SESSION);
    let ways: [(&str, Change, Change); 2] = [
        ("frozen", Broker::freeze, Broker::thaw),
        ("killed", Broker::kill, Broker::restart),
    ];
    for (way, leave, return_) in ways {
        let (coordinator, processes) = start_at_one_coordinator(&cluster, &topics, way);
        leave(cluster.broker(coordinator));
        thread::scope(|scope| {
            for process in &processes {
                scope.spawn(|| stop(process));
                thread::sleep(STAGGER);
            }
        });
        return_(cluster.broker(coordinator));
        cluster.wait_until_in_sync();
    }
}

/// Starts unnamed instances, each alone in its group, of which one broker is the
/// coordinator.
fn start_at_one_coordinator(
    cluster: &Cluster,
    topics: &Topics,
    way: &str,
) -> (usize, Vec<Northbridge>) {
    let coordinator = |topics: &Topics| cluster.group_coordinator(&topics.group("command-status"));
    let start = |topics: &Topics| topics.start("command-status", &[]);
    let mut groups = (0..).map(|number| topics.with_group_prefix(&format!("{way}-{number}.")));
    let first = groups.next().expect("there is no last");
    let mut processes = vec![start(&first)];
    // The topic of the groups exists once one has met.
    processes[0].wait_until_ready();
    let broker = coordinator(&first);
    let same = groups.filter(|topics| coordinator(topics) == broker);
    processes.extend(same.take(INSTANCES - 1).map(|topics| start(&topics)));
    processes.iter().for_each(Northbridge::wait_until_ready);
    (broker, processes)
}

fn stop(process: &Northbridge) {
    let began = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), 0);
    let took = began.elapsed();
    assert!(took < DEADLINE, "{took:?}");
}

fn assignments(process: &Northbridge) -> usize {
    count(process, "partitions assigned")
}

fn rebalances(process: &Northbridge) -> usize {
    assignments(process) + count(process, "partitions revoked")
}

fn count(process: &Northbridge, message: &str) -> usize {
    let log = process.log();
    log.iter().filter(|line| line.contains(message)).count()
}
