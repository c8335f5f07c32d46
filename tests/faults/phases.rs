//! The phases: each injects one kind of fault under load and checks the laws that
//! must hold for it.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::laws;
use crate::recovery::RecoveryWatch;
use crate::simulation::{Load, SimulationResult};
use crate::support::eventually;
use crate::testbed::{FULL_DISK_BROKER, Testbed};

/// Longer than Kafka's default broker session of 9 s plus leader election.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(12);
/// How long all brokers are down.
const OUTAGE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(8);

/// No fault: shows that the machine can carry the load at all.
pub(crate) fn quiet(testbed: &Testbed) {
    let phase = "no fault";
    let results = testbed.run_under_load(phase, &loads(testbed), || sleep(QUIET));
    laws::all_answers_are_200(&testbed.journal, phase, &results);
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}

/// One broker of three is killed and stays down for longer than its session.
pub(crate) fn one_broker_killed(testbed: &Testbed, random: &mut Rng) {
    let index = random.usize(..3);
    let broker = testbed.cluster.broker(index);
    expect_only_200_during(testbed, "one broker killed", || {
        testbed
            .journal
            .fault("broker killed", &broker.id().to_string());
        broker.kill();
        sleep(LONGER_THAN_A_SESSION);
        broker.restart();
        testbed.journal.annotate("the broker is up");
    });
}

/// One broker of three is frozen for longer than its session.
pub(crate) fn one_broker_frozen(testbed: &Testbed, random: &mut Rng) {
    let broker = testbed.cluster.broker(random.usize(..3));
    expect_only_200_during(testbed, "one broker frozen", || {
        testbed
            .journal
            .fault("broker frozen", &broker.id().to_string());
        broker.freeze();
        sleep(LONGER_THAN_A_SESSION);
        broker.thaw();
        testbed.journal.annotate("the broker resumed");
    });
}

/// Every node and every process is restarted gracefully, one after the other.
pub(crate) fn rolling_restart(testbed: &Testbed) {
    expect_only_200_during(testbed, "rolling restart", || {
        for node in testbed.cluster.nodes() {
            testbed
                .journal
                .fault("node restarted", &node.id().to_string());
            node.stop_gracefully();
            node.restart();
            testbed.cluster.wait_until_in_sync();
        }
        for instance in testbed.fleet.instances() {
            instance.terminate();
            instance.wait_until_ready();
        }
    });
}

/// One broker's disk fills up; the broker exits and is restarted with free space.
pub(crate) fn full_disk(testbed: &Testbed) {
    let phase = "full disk";
    let broker = testbed.cluster.broker(FULL_DISK_BROKER);
    let results = testbed.run_under_load(phase, &loads(testbed), || {
        testbed.journal.fault("disk full", &broker.id().to_string());
        broker.fill_disk();
        eventually("the broker exits because its disk is full", || {
            broker.has_ended().then_some(())
        });
        testbed.journal.annotate("the broker exited");
        broker.restart();
        testbed
            .journal
            .annotate("the broker is up, with free space");
    });
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}

/// All brokers are down for a minute, under each of the platform's policies.
pub(crate) fn all_brokers_gone(testbed: &Testbed) {
    let phase = "all brokers gone";
    let eighth = testbed.plan.rate / 8;
    let loads = [
        load("outage-discard", eighth, "discard", true),
        load("outage-retry", eighth, "retry", false),
    ];
    let mut recovery = None;
    let results = testbed.run_under_load(phase, &loads, || {
        let mut watch = RecoveryWatch::begin(testbed);
        sleep(Duration::from_secs(2));
        testbed.journal.fault("all brokers killed", "for a minute");
        testbed.cluster.kill_all();
        watch.outage_begins();
        sleep(OUTAGE);
        watch.outage_ends(testbed);
        testbed.cluster.restart_all();
        testbed.journal.annotate("all brokers are up");
        recovery = Some(watch.end().0);
    });
    if let Some(recovery) = recovery {
        laws::recovery_is_prompt(&testbed.journal, phase, &recovery);
    }
    laws::answers_are_in_time(&testbed.journal, phase, &results);
    laws::discard_loss_is_bounded(&testbed.journal, phase, &results[0]);
}

/// After all faults there is no other load, so the counts of senders and product
/// must be equal.
pub(crate) fn at_the_end(testbed: &Testbed) {
    let phase = "after all faults";
    let ingresses = || testbed.fleet.ingresses();
    ingresses().for_each(|ingress| laws::received_equals_settled(&testbed.journal, ingress));
    let before = counts(testbed);
    let results = testbed.run_under_load(phase, &loads(testbed), || sleep(QUIET));
    ingresses().for_each(|ingress| laws::received_equals_settled(&testbed.journal, ingress));
    laws::counts_match(&testbed.journal, before, counts(testbed), &results);
    laws::all_answers_are_200(&testbed.journal, phase, &results);
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}

/// The load that runs through all phases; it is verified at the end, including the
/// states.
pub(crate) fn throughout(testbed: &Testbed) -> Load {
    Load {
        state: true,
        ..load("throughout", testbed.plan.rate / 2, "none", false)
    }
}

/// The loads of one phase, in addition to the one that runs throughout.
pub(crate) fn loads(testbed: &Testbed) -> [Load; 2] {
    let quarter = testbed.plan.rate / 4;
    [
        load("http1", quarter, "discard", false),
        load("http2", quarter, "discard", true),
    ]
}

pub(crate) fn load(name: &'static str, rate: u32, policy: &'static str, http2: bool) -> Load {
    Load {
        name,
        rate,
        policy,
        http2,
        state: false,
    }
}

fn expect_only_200_during(
    testbed: &Testbed,
    phase: &str,
    act: impl FnOnce(),
) -> Vec<SimulationResult> {
    let results = testbed.run_under_load(phase, &loads(testbed), act);
    laws::all_answers_are_200(&testbed.journal, phase, &results);
    laws::answers_are_in_time(&testbed.journal, phase, &results);
    results
}

/// How many pushes the product received, and how many it answered 200.
fn counts(testbed: &Testbed) -> (f64, f64) {
    let sum = |name: &str, labels: &[&str]| -> f64 {
        let ingresses = testbed.fleet.ingresses();
        ingresses.map(|ingress| ingress.metric(name, labels)).sum()
    };
    let outcome = |label: &str| sum("northbridge_pushes_total", &[label]);
    let stored = outcome("outcome=\"stored\"") + outcome("outcome=\"dead_lettered\"");
    (sum("northbridge_pushes_received_total", &[]), stored)
}
