//! The phases: each makes one kind of fault under load, and holds the laws that
//! the product promises for it.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::laws;
use crate::pushes::{Load, Outcome};
use crate::recovery::Watch;
use crate::scene::{OWN_DISK, Scene};
use crate::support::eventually;

/// Kafka's stock session is 9 s; then comes the election.
const OUTLASTS_A_SESSION: Duration = Duration::from_secs(12);
/// How long all brokers are gone.
const OUTAGE: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(8);

/// No fault: what the machine carries by itself.
pub(crate) fn quiet(scene: &Scene) {
    let phase = "no fault";
    let outcomes = scene.under(phase, &loads(scene), || sleep(QUIET));
    laws::only_200(&scene.journal, phase, &outcomes);
    laws::in_time(&scene.journal, phase, &outcomes);
}

/// One broker of three is killed, and is gone for longer than its session.
pub(crate) fn one_broker_killed(scene: &Scene, random: &mut Rng) {
    let index = random.usize(..3);
    let broker = scene.cluster.broker(index);
    only_200_while(scene, "one broker killed", || {
        scene
            .journal
            .fault("broker killed", &broker.id().to_string());
        broker.kill();
        sleep(OUTLASTS_A_SESSION);
        broker.restart();
        scene.journal.mark("the broker is up");
    });
}

/// One broker of three is frozen, and silent for longer than its session.
pub(crate) fn one_broker_frozen(scene: &Scene, random: &mut Rng) {
    let broker = scene.cluster.broker(random.usize(..3));
    only_200_while(scene, "one broker frozen", || {
        scene
            .journal
            .fault("broker frozen", &broker.id().to_string());
        broker.freeze();
        sleep(OUTLASTS_A_SESSION);
        broker.thaw();
        scene.journal.mark("the broker goes on");
    });
}

/// Every node and every process is stopped in order and started again, one
/// after the other.
pub(crate) fn rolling_restart(scene: &Scene) {
    only_200_while(scene, "rolling restart", || {
        for node in scene.cluster.nodes() {
            scene
                .journal
                .fault("node restarted", &node.id().to_string());
            node.stop_gracefully();
            node.restart();
            scene.cluster.wait_until_in_sync();
        }
        for member in scene.fleet.members() {
            member.terminate();
            member.await_ready();
        }
    });
}

/// One broker's disk is full, until the broker has ended of it and was given
/// room again.
pub(crate) fn full_disk(scene: &Scene) {
    let phase = "full disk";
    let broker = scene.cluster.broker(OWN_DISK);
    let outcomes = scene.under(phase, &loads(scene), || {
        scene.journal.fault("disk full", &broker.id().to_string());
        broker.fill_disk();
        eventually("the broker ends of its full disk", || {
            broker.has_ended().then_some(())
        });
        scene.journal.mark("the broker has ended");
        broker.restart();
        scene.journal.mark("the broker is up, with room again");
    });
    laws::in_time(&scene.journal, phase, &outcomes);
}

/// All brokers are gone for a minute, under each of the platform's policies.
pub(crate) fn all_brokers_gone(scene: &Scene) {
    let phase = "all brokers gone";
    let eighth = scene.plan.rate / 8;
    let loads = [
        load("outage-discard", eighth, "discard", true),
        load("outage-retry", eighth, "retry", false),
    ];
    let mut recovery = None;
    let outcomes = scene.under(phase, &loads, || {
        let mut watch = Watch::begin(scene);
        sleep(Duration::from_secs(2));
        scene.journal.fault("all brokers killed", "for a minute");
        scene.cluster.kill_all();
        watch.outage_begins();
        sleep(OUTAGE);
        watch.outage_ends(scene);
        scene.cluster.restart_all();
        scene.journal.mark("all brokers are up");
        recovery = Some(watch.end().0);
    });
    if let Some(recovery) = recovery {
        laws::recovered(&scene.journal, phase, &recovery);
    }
    laws::in_time(&scene.journal, phase, &outcomes);
    laws::lost_by_discard(&scene.journal, phase, &outcomes[0]);
}

/// After everything: nothing else pushes, so that the books of both sides can
/// be compared to the push.
pub(crate) fn at_the_end(scene: &Scene) {
    let phase = "after all faults";
    let ingresses = || scene.fleet.ingresses();
    ingresses().for_each(|ingress| laws::books_balance(&scene.journal, ingress));
    let before = books(scene);
    let outcomes = scene.under(phase, &loads(scene), || sleep(QUIET));
    ingresses().for_each(|ingress| laws::books_balance(&scene.journal, ingress));
    laws::books_agree(&scene.journal, before, books(scene), &outcomes);
    laws::only_200(&scene.journal, phase, &outcomes);
    laws::in_time(&scene.journal, phase, &outcomes);
}

/// The load that goes on through all phases, and is proved after everything,
/// with the streams' output.
pub(crate) fn throughout(scene: &Scene) -> Load {
    Load {
        state: true,
        ..load("throughout", scene.plan.rate / 2, "none", false)
    }
}

/// The load of one phase, besides the one that goes on throughout.
pub(crate) fn loads(scene: &Scene) -> [Load; 2] {
    let quarter = scene.plan.rate / 4;
    [
        load("http1", quarter, "discard", false),
        load("http2", quarter, "discard", true),
    ]
}

fn load(name: &'static str, rate: u32, policy: &'static str, http2: bool) -> Load {
    Load {
        name,
        rate,
        policy,
        http2,
        state: false,
    }
}

fn only_200_while(scene: &Scene, phase: &str, act: impl FnOnce()) -> Vec<Outcome> {
    let outcomes = scene.under(phase, &loads(scene), act);
    laws::only_200(&scene.journal, phase, &outcomes);
    laws::in_time(&scene.journal, phase, &outcomes);
    outcomes
}

/// Pushes received, and pushes answered 200.
fn books(scene: &Scene) -> (f64, f64) {
    let sum = |name: &str, labels: &[&str]| -> f64 {
        let ingresses = scene.fleet.ingresses();
        ingresses.map(|ingress| ingress.metric(name, labels)).sum()
    };
    let outcome = |label: &str| sum("northbridge_pushes_total", &[label]);
    let stored = outcome("outcome=\"stored\"") + outcome("outcome=\"dead_lettered\"");
    (sum("northbridge_pushes_received_total", &[]), stored)
}
