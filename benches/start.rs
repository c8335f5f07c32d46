//! How soon the program is ready: the ingress beside a real cluster that is up, and `dev`
//! with its streams.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::kafka_cluster::{shared, unique_prefix};
use support::northbridge::{Northbridge, create_topics};
use usage::median;

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

const ROUNDS: usize = 9;
/// How often readiness is asked for.
const INTERVAL: Duration = Duration::from_millis(5);

fn main() {
    let prefix = unique_prefix("start");
    let settings = [
        ("kafka.bootstrap_servers", shared().bootstrap()),
        ("topics.prefix", &prefix),
    ];
    create_topics(&settings);
    measure("ingress", &settings);
    measure("command-status", &settings);
    // It logs its address of administration.
    measure("dev", &[("log.level", "info")]);
}

/// Each process ends in order before the next one starts, which would wait for its place
/// in the group otherwise.
fn measure(command: &str, settings: &[(&str, &str)]) {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        let program = Northbridge::start(&[command], settings);
        while !program.is_ready() {
            thread::sleep(INTERVAL);
        }
        let took = began.elapsed().as_secs_f64() * 1e3;
        program.signal(Signal::TERM);
        program.wait();
        took
    });
    let rounds: Vec<f64> = rounds.collect();
    let longest = rounds.iter().copied().fold(0.0, f64::max);
    let middle = median(rounds);
    println!("{command}: ready after {middle:.0} ms, the longest {longest:.0} ms, of {ROUNDS}");
}
