//! Stream processes that are killed at every step of their loop.

use super::input::Input;
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::kafka_cluster::shared;

/// How often the processes are killed at each step, after a random number of
/// transactions each time.
const ROUNDS: usize = 3;
const STEPS: [u32; 7] = [1, 2, 3, 4, 5, 6, 7];
const KILLED: i32 = 128 + 9;

/// Many small transactions, and a fixed instance name, so that the next process
/// takes over its predecessor's partitions at once.
const SETTINGS: [(&str, &str); 3] = [
    ("streams.instance", "crashing"),
    ("streams.max_batch_records", "8"),
    ("streams.max_batch_wait_ms", "5"),
];

#[test]
fn streams_killed_at_every_step_are_exactly_once() {
    let topics = Topics::create(shared().bootstrap(), "killed", &SETTINGS);
    let mut input = Input::random(60);
    for _ in 0..ROUNDS {
        for step in STEPS {
            topics.write("command-status", &input.commands(60));
            topics.write("upgrade-result", &input.upgrades(60));
            let at = format!("{step}:{}", fastrand::u32(1..=6));
            let processes = ["command-status", "upgrade-result"]
                .map(|command| topics.start_with_fail_point(command, &[], &at));
            for process in processes {
                assert_eq!(process.wait(), KILLED, "at {at}");
            }
        }
    }
    let _commands = topics.start("command-status", &[]);
    let _upgrades = topics.start("upgrade-result", &[]);
    assert_equal_to_model(&topics);
}
