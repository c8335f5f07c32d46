//! What the test binaries share: a real Apache Kafka, the built program, HTTP
//! clients, load and bodies.
//!
//! It knows the product from outside only: its command line, its addresses, its
//! logs, its topics. It must not use anything of the crate under test, so that
//! no mistake there can excuse itself here.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary is a crate of its own and uses its own part of this tree"
)]

use std::thread;
use std::time::{Duration, Instant};

pub mod balancer;
pub mod bodies;
pub mod guarded;
pub mod http;
pub mod kafka_cluster;
pub mod load;
pub mod mock;
pub mod network;
pub mod northbridge;
pub mod records;
pub mod supervised;

/// How long anything that must happen may take before a test gives up on it.
///
/// Generous, for it is no assertion: a loaded machine of two cores starts a
/// broker in ten seconds, and Kafka itself waits nine before it gives one up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `condition` again and again until it has an answer, and panics with
/// `what` when [`PATIENCE`] is over.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
