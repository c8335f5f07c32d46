//! The faults of the streams: brokers that are away for less than a session, the
//! coordinators of the streams among them, and offsets and states that are lost.

use std::thread::sleep;
use std::time::Duration;

use fastrand::Rng;

use crate::fleet::{Instance, ZONES};
use crate::laws;
use crate::phases::loads;
use crate::support::groups::{change_offsets, delete_group};
use crate::support::kafka_cluster::Broker;
use crate::support::records::delete_topic;
use crate::testbed::Testbed;

const STAGES: [&str; 3] = ["command-status", "upgrade-result", "upgrade-operation"];
/// Shorter than the session of a broker, and of a stream in its group.
const SHORT_FREEZES_S: std::ops::RangeInclusive<u64> = 3..=8;
/// The time between two freezes, in which transactions are committed.
const BETWEEN_FREEZES: Duration = Duration::from_secs(2);
/// How far the offsets of a group are set back.
const REWOUND_RECORDS: i64 = 20_000;

/// Each broker is frozen for some seconds, then two together, then the coordinator
/// of a group and that of a transactional id. Nothing would restart a stream.
pub(crate) fn short_freezes(testbed: &Testbed, random: &mut Rng) {
    let phase = "short freezes";
    let results = testbed.run_under_load(phase, &loads(testbed), || {
        let _unsupervised = testbed.fleet.without_supervisor();
        for broker in 0..3 {
            freeze(testbed, "broker frozen briefly", &[broker], random);
        }
        let awake = random.usize(..3);
        let two: Vec<usize> = (0..3).filter(|broker| *broker != awake).collect();
        freeze(testbed, "two brokers frozen briefly", &two, random);
        let stage = STAGES[random.usize(..STAGES.len())];
        let group = testbed.group(stage);
        let coordinator = testbed.cluster.group_coordinator(&group);
        freeze(
            testbed,
            "coordinator of a group frozen",
            &[coordinator],
            random,
        );
        let id = format!("{group}.{}", ZONES[random.usize(..ZONES.len())]);
        let coordinator = testbed.cluster.transaction_coordinator(&id);
        freeze(
            testbed,
            "coordinator of a transactional id frozen",
            &[coordinator],
            random,
        );
        testbed.wait_until_recovered();
    });
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}

fn freeze(testbed: &Testbed, kind: &str, brokers: &[usize], random: &mut Rng) {
    let time = Duration::from_secs(random.u64(SHORT_FREEZES_S));
    let brokers: Vec<&Broker> = brokers
        .iter()
        .map(|index| testbed.cluster.broker(*index))
        .collect();
    let ids: Vec<i32> = brokers.iter().map(|broker| broker.id()).collect();
    testbed
        .journal
        .fault(kind, &format!("{ids:?} for {} s", time.as_secs()));
    for broker in &brokers {
        broker.freeze();
    }
    sleep(time);
    for broker in &brokers {
        broker.thaw();
    }
    testbed.journal.annotate("thawed");
    sleep(BETWEEN_FREEZES);
}

/// A state topic is made again under its stream; then, while the streams are
/// stopped, two groups lose their offsets and the third is set back. What is read
/// again restores the lost states and changes no other.
pub(crate) fn lost_offsets(testbed: &Testbed) {
    let phase = "lost offsets";
    let results = testbed.run_under_load(phase, &loads(testbed), || {
        let bootstrap = testbed.cluster.bootstrap();
        let topic = |name: &str| format!("{}{name}", testbed.prefix);
        let states = topic("upgrade-operation");
        testbed.journal.fault("topic made again", &states);
        delete_topic(&bootstrap, &states);
        testbed.create_topics();
        let streams = || testbed.fleet.streams();
        streams().for_each(Instance::stop);
        for stage in ["upgrade-result", "upgrade-operation"] {
            testbed.journal.fault("group deleted", stage);
            delete_group(&bootstrap, &testbed.group(stage));
        }
        let stage = "command-status";
        testbed.journal.fault("group set back", stage);
        change_offsets(&bootstrap, &testbed.group(stage), &topic(stage), |offset| {
            (offset - REWOUND_RECORDS).max(0)
        });
        streams().for_each(Instance::launch);
    });
    laws::all_answers_are_200(&testbed.journal, phase, &results);
    laws::answers_are_in_time(&testbed.journal, phase, &results);
}
