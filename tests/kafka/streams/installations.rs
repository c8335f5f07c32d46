//! Several installations on one cluster.

use super::input::Input;
use super::outputs::assert_equal_to_model;
use super::topics::Topics;
use crate::support::kafka_cluster::shared;
use crate::support::northbridge::Northbridge;

const STREAM_COMMANDS: [&str; 2] = ["command-status", "upgrade-result"];

/// The same in both installations, as in two releases of one chart.
const SETTINGS: [(&str, &str); 1] = [("streams.instance", "streams-0")];

#[test]
fn installations_with_other_topics_do_not_fence_each_other() {
    let installations =
        ["here", "there"].map(|name| Topics::create(shared().bootstrap(), name, &SETTINGS));
    let processes = installations
        .each_ref()
        .map(|topics| STREAM_COMMANDS.map(|command| topics.start(command, &[])));
    let mut input = Input::random(60);
    for topics in &installations {
        topics.write("command-status", &input.commands(200));
        topics.write("upgrade-result", &input.upgrades(200));
    }
    installations.iter().for_each(assert_equal_to_model);
    let mut processes = processes.iter().flatten();
    let ended = processes.find_map(Northbridge::exit_code);
    assert_eq!(ended, None);
}
