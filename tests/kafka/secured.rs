//! A Kafka that asks who its clients are and grants only what the documentation
//! lists.

use crate::support::northbridge::Northbridge;

use installation::{Installation, Way};
use sessions::assert_renewed;

mod changes;
mod denied;
mod granted;
mod installation;
mod looking;
mod mistakes;
mod rights;
mod sessions;

#[test]
fn every_way_to_authenticate_works_with_the_documented_rights_alone() {
    std::thread::scope(|scope| {
        for way in Way::ALL {
            scope.spawn(move || works_end_to_end(way));
        }
    });
}

fn works_end_to_end(way: Way) {
    let installation = Installation::with_topics("ways", way);
    let verified = installation.run_as("topics verify", &["topics", "verify"]);
    assert_eq!(verified.status.code(), Some(0), "{way:?}: {verified:?}");
    let ingress = installation.start_as("ingress");
    let streams = ["command-status", "upgrade-result"].map(|it| installation.start_as(it));
    ingress.wait_until_ready();
    streams.iter().for_each(Northbridge::wait_until_ready);
    let answers = installation.simulate(&ingress);
    let codes: Vec<_> = answers.as_object().unwrap().keys().collect();
    assert_eq!(codes, ["200"], "{way:?}: {answers}");
    if way.has_sessions() {
        streams.iter().chain([&ingress]).for_each(assert_renewed);
    }
    installation.write_readable_dead_letter();
    let replayed = installation.run_as("replay", &["replay"]);
    assert_eq!(replayed.status.code(), Some(0), "{way:?}: {replayed:?}");
    let printed = String::from_utf8(replayed.stdout).unwrap();
    assert!(printed.contains(" 1 replayed"), "{way:?}: {printed}");
}
