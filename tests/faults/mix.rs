//! The phase `mix`: every other fault once, in an order that the seed determines.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::fleet::{Instance, ZONES};
use crate::laws;
use crate::phases::loads;
use crate::support::kafka_cluster::Broker;
use crate::support::network::Conditions;
use crate::testbed::Testbed;

/// Shorter than the answer deadline and every session timeout, so nothing that is
/// silent for this long is considered dead.
const SHORT_PAUSE: Duration = Duration::from_secs(3);
/// How long the network is slow or lossy.
const IMPAIRMENT: Duration = Duration::from_secs(6);

const CUT: Conditions = Conditions {
    cut: true,
    delay: Duration::ZERO,
    loss_percent: 0,
};
const SLOW: Conditions = Conditions {
    cut: false,
    delay: Duration::from_millis(200),
    loss_percent: 0,
};
const LOSSY: Conditions = Conditions {
    cut: false,
    delay: Duration::ZERO,
    loss_percent: 3,
};

/// One fault, including recovery from it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillProcess(usize),
    FreezeProcess(usize),
    TerminateProcess(usize),
    KillController,
    FreezeAllBrokers,
    KillAllBrokers,
    CutZone(usize),
    CutBroker(usize),
    CutAll,
    Slow,
    Lossy,
    SlowAndLossy,
}

/// Injects every fault once, under load.
pub(crate) fn mix(testbed: &Testbed, random: &mut Rng) {
    let phase = "mix";
    let mut faults = faults(testbed, random);
    random.shuffle(&mut faults);
    let results = testbed.run_under_load(phase, &loads(testbed), || {
        for fault in faults {
            fault.inject(testbed);
        }
    });
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}

fn faults(testbed: &Testbed, random: &mut Rng) -> Vec<Fault> {
    let processes = 0..testbed.fleet.instances().len();
    let mut faults = vec![
        Fault::TerminateProcess(random.usize(processes.clone())),
        Fault::KillController,
        Fault::FreezeAllBrokers,
        Fault::KillAllBrokers,
        Fault::CutBroker(random.usize(..3)),
        Fault::CutAll,
        Fault::Slow,
        Fault::Lossy,
        Fault::SlowAndLossy,
    ];
    faults.extend(processes.clone().map(Fault::KillProcess));
    faults.extend(processes.map(Fault::FreezeProcess));
    faults.extend((0..ZONES.len()).map(Fault::CutZone));
    faults
}

impl Fault {
    fn inject(self, testbed: &Testbed) {
        let instance = |index: usize| &testbed.fleet.instances()[index];
        match self {
            Self::KillProcess(index) => {
                instance(index).kill();
                testbed
                    .fleet
                    .ingresses()
                    .for_each(Instance::wait_until_ready);
            }
            Self::FreezeProcess(index) => {
                instance(index).freeze_for(SHORT_PAUSE);
                testbed
                    .fleet
                    .ingresses()
                    .for_each(Instance::wait_until_ready);
                testbed
                    .fleet
                    .ingresses()
                    .for_each(Instance::wait_until_few_in_flight);
            }
            Self::TerminateProcess(index) => {
                instance(index).terminate();
                instance(index).wait_until_ready();
            }
            Self::KillController => {
                testbed
                    .journal
                    .fault("controller killed", "and restarted at once");
                testbed.cluster.controller().restart();
                testbed.journal.annotate("the controller is up");
            }
            Self::FreezeAllBrokers => {
                testbed.journal.fault("all brokers frozen", "for a while");
                testbed.cluster.brokers().iter().for_each(Broker::freeze);
                sleep(SHORT_PAUSE);
                testbed.cluster.brokers().iter().for_each(Broker::thaw);
                testbed.journal.annotate("the brokers resumed");
            }
            Self::KillAllBrokers => {
                testbed
                    .journal
                    .fault("all brokers killed", "and restarted at once");
                testbed.cluster.kill_all();
                testbed.cluster.restart_all();
                testbed.journal.annotate("all brokers are up");
                testbed.wait_until_recovered();
            }
            Self::CutZone(zone) => {
                testbed
                    .journal
                    .fault("network cut", &format!("zone {}", ZONES[zone]));
                testbed.network.set_zone(zone, CUT);
                heal_after(testbed, SHORT_PAUSE);
            }
            Self::CutBroker(broker) => {
                testbed
                    .journal
                    .fault("network cut", &format!("broker {}", broker + 1));
                testbed.network.set_broker(broker, CUT);
                heal_after(testbed, SHORT_PAUSE);
            }
            Self::CutAll => impair_all(testbed, "network cut", CUT, SHORT_PAUSE),
            Self::Slow => impair_all(testbed, "network slow", SLOW, IMPAIRMENT),
            Self::Lossy => impair_all(testbed, "network lossy", LOSSY, IMPAIRMENT),
            Self::SlowAndLossy => {
                let both = Conditions {
                    delay: SLOW.delay,
                    ..LOSSY
                };
                impair_all(testbed, "network slow and lossy", both, IMPAIRMENT);
            }
        }
    }
}

fn impair_all(testbed: &Testbed, kind: &str, conditions: Conditions, time: Duration) {
    testbed.journal.fault(kind, "everywhere");
    testbed.network.set_all(conditions);
    heal_after(testbed, time);
}

fn heal_after(testbed: &Testbed, after: Duration) {
    sleep(after);
    testbed.network.set_all(Conditions::default());
    testbed.journal.annotate("the network is back to normal");
}
