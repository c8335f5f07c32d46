//! What the test binaries and benchmarks share: a real Apache Kafka, a mock
//! cluster, the built program, HTTP clients, load and request bodies.
//!
//! It sees the product only from outside: its command line, its addresses, its
//! logs, its topics. It must not use the crate under test, because a mistake
//! there would then confirm itself here.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary compiles this tree on its own and uses only part of it"
)]

use std::thread;
use std::time::{Duration, Instant};

pub mod balancer;
pub mod bodies;
pub mod certificates;
pub mod child;
pub mod collector;
pub mod failing_disk;
pub mod groups;
pub mod held_requests;
pub mod http;
pub mod kafka_cluster;
pub mod load;
pub mod mock;
pub mod network;
pub mod northbridge;
pub mod ordered;
pub mod records;
pub mod supervised;
pub mod terminal;

/// How long a test waits for anything that must happen.
///
/// It is generous because it is not an assertion: on two busy cores a broker
/// takes ten seconds to start, and Kafka's default session timeout is nine.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Polls `condition` until it returns a value.
///
/// `what` completes the sentence "timed out waiting until …".
///
/// # Panics
///
/// Panics after [`TIMEOUT`].
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
