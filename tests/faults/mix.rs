//! Every other fault, in an order that follows from the seed.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::fleet::{Member, ZONES};
use crate::laws;
use crate::phases::loads;
use crate::scene::Scene;
use crate::support::kafka_cluster::Broker;
use crate::support::network::Weather;

/// Shorter than the answer's deadline and than every session: who is silent for
/// so long is not given up.
const A_WHILE: Duration = Duration::from_secs(3);
const BAD_WEATHER: Duration = Duration::from_secs(6);

const CUT: Weather = Weather {
    cut: true,
    delay: Duration::ZERO,
    loss_percent: 0,
};
const SLOW: Weather = Weather {
    cut: false,
    delay: Duration::from_millis(200),
    loss_percent: 0,
};
const LOSSY: Weather = Weather {
    cut: false,
    delay: Duration::ZERO,
    loss_percent: 3,
};

/// One fault, from its beginning to its end.
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

/// Plays every fault once.
pub(crate) fn mix(scene: &Scene, random: &mut Rng) {
    let phase = "mix";
    let mut deck = deck(scene, random);
    random.shuffle(&mut deck);
    let outcomes = scene.under(phase, &loads(scene), || {
        for fault in deck {
            fault.play(scene);
        }
    });
    laws::in_time(&scene.journal, phase, &outcomes);
}

fn deck(scene: &Scene, random: &mut Rng) -> Vec<Fault> {
    let processes = 0..scene.fleet.members().len();
    let mut deck = vec![
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
    deck.extend(processes.clone().map(Fault::KillProcess));
    deck.extend(processes.map(Fault::FreezeProcess));
    deck.extend((0..ZONES.len()).map(Fault::CutZone));
    deck
}

impl Fault {
    fn play(self, scene: &Scene) {
        let member = |index: usize| &scene.fleet.members()[index];
        match self {
            Self::KillProcess(index) => {
                member(index).kill();
                scene.fleet.ingresses().for_each(Member::await_ready);
            }
            Self::FreezeProcess(index) => {
                member(index).freeze_for(A_WHILE);
                scene.fleet.ingresses().for_each(Member::await_ready);
                scene.fleet.ingresses().for_each(Member::await_calm);
            }
            Self::TerminateProcess(index) => {
                member(index).terminate();
                member(index).await_ready();
            }
            Self::KillController => {
                scene
                    .journal
                    .fault("controller killed", "and started at once");
                scene.cluster.controller().restart();
                scene.journal.mark("the controller is up");
            }
            Self::FreezeAllBrokers => {
                scene.journal.fault("all brokers frozen", "for a while");
                scene.cluster.brokers().iter().for_each(Broker::freeze);
                sleep(A_WHILE);
                scene.cluster.brokers().iter().for_each(Broker::thaw);
                scene.journal.mark("the brokers go on");
            }
            Self::KillAllBrokers => {
                scene
                    .journal
                    .fault("all brokers killed", "and started at once");
                scene.cluster.kill_all();
                scene.cluster.restart_all();
                scene.journal.mark("all brokers are up");
                scene.settle();
            }
            Self::CutZone(zone) => {
                scene
                    .journal
                    .fault("network cut", &format!("zone {}", ZONES[zone]));
                scene.network.set_zone(zone, CUT);
                clear_up(scene, A_WHILE);
            }
            Self::CutBroker(broker) => {
                scene
                    .journal
                    .fault("network cut", &format!("broker {}", broker + 1));
                scene.network.set_broker(broker, CUT);
                clear_up(scene, A_WHILE);
            }
            Self::CutAll => weather(scene, "network cut", CUT, A_WHILE),
            Self::Slow => weather(scene, "network slow", SLOW, BAD_WEATHER),
            Self::Lossy => weather(scene, "network lossy", LOSSY, BAD_WEATHER),
            Self::SlowAndLossy => {
                let both = Weather {
                    delay: SLOW.delay,
                    ..LOSSY
                };
                weather(scene, "network slow and lossy", both, BAD_WEATHER);
            }
        }
    }
}

fn weather(scene: &Scene, kind: &str, weather: Weather, time: Duration) {
    scene.journal.fault(kind, "everywhere");
    scene.network.set_all(weather);
    clear_up(scene, time);
}

fn clear_up(scene: &Scene, after: Duration) {
    sleep(after);
    scene.network.set_all(Weather::default());
    scene.journal.mark("fine weather");
}
