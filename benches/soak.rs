//! Ten million pushes on a real Apache Kafka while each broker in turn is killed and
//! comes back: what is stored, what the states are, and the memory of every process at
//! the beginning and at the end.
//!
//! `NORTHBRIDGE_SOAK_PUSHES` and `NORTHBRIDGE_SOAK_RATE` change how many pushes, and how
//! many a second.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::env;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::eventually;
use support::kafka_cluster::{Cluster, ClusterOptions};
use support::northbridge::{Northbridge, create_topics};
use usage::{cpu_time, memory_mb};

#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

const PUSHES: u64 = 10_000_000;
const RATE_PER_S: u64 = 3_000;
/// A state keeps all attempts of a week. With few devices each would have thousands, and
/// every further one would write them all.
const DEVICES: &str = "200000";
/// Long enough for every connection and client to be warm.
const BEGINNING: Duration = Duration::from_secs(60);
/// From the return of one broker to the death of the next.
const BETWEEN_FAULTS: Duration = Duration::from_secs(240);
/// Longer than Kafka's default broker session of 9 s plus leader election.
const LONGER_THAN_A_SESSION: Duration = Duration::from_secs(12);
const POLL: Duration = Duration::from_millis(500);

fn main() {
    let pushes = number("NORTHBRIDGE_SOAK_PUSHES", PUSHES);
    let rate = number("NORTHBRIDGE_SOAK_RATE", RATE_PER_S);
    let cluster = Cluster::start(&ClusterOptions {
        dedicated_controller: true,
        ..ClusterOptions::default()
    });
    let bootstrap = cluster.bootstrap();
    let settings = [("kafka.bootstrap_servers", bootstrap.as_str())];
    create_topics(&settings);
    let start = |command| {
        let process = Northbridge::start(&[command], &settings);
        process.wait_until_ready();
        process
    };
    let processes = ["ingress", "command-status", "upgrade-result"].map(|name| (name, start(name)));
    let url = format!("http://{}/notifications", processes[0].1.address());
    let sending = Duration::from_secs(pushes / rate);
    let (pushes, rate) = (pushes.to_string(), rate.to_string());
    let mut arguments = vec!["simulate", &url, "--rate", &rate, "--count", &pushes];
    arguments.extend(["--connections", "512", "--json", "--verify", &bootstrap]);
    arguments.extend(["--verify-state", "--catch-up", "10m", "--devices", DEVICES]);
    let simulation = Northbridge::start(&arguments, &[]);
    // The last minutes have no fault, like the first ones.
    let last_fault = Instant::now() + sending.saturating_sub(BETWEEN_FAULTS);
    sleep(BEGINNING);
    println!("after {BEGINNING:?}:");
    print_usage(&processes);
    let mut victims = (0..3).cycle();
    let mut next_fault = Instant::now() + BETWEEN_FAULTS;
    let mut faults = 0;
    while simulation.exit_code().is_none() {
        if (next_fault..last_fault).contains(&Instant::now()) {
            let broker = cluster.broker(victims.next().expect("a cycle"));
            broker.kill();
            sleep(LONGER_THAN_A_SESSION);
            broker.restart();
            faults += 1;
            next_fault = Instant::now() + BETWEEN_FAULTS;
        }
        sleep(POLL);
    }
    println!("at the end, after {faults} brokers were killed:");
    print_usage(&processes);
    let summary: Value = eventually("the simulation has printed its result", || {
        serde_json::from_str(&simulation.output().join("\n")).ok()
    });
    println!(
        "simulate ended with {:?}\n{summary:#}",
        simulation.exit_code()
    );
}

fn print_usage(processes: &[(&str, Northbridge)]) {
    for (name, process) in processes {
        let pid = process.pid().to_string();
        println!(
            "{name:15} {:6.1} MB, at most {:6.1} MB, {:6.1} s of CPU",
            memory_mb(&pid, "VmRSS"),
            memory_mb(&pid, "VmHWM"),
            cpu_time(&pid).as_secs_f64(),
        );
    }
}

fn number(variable: &str, default: u64) -> u64 {
    let text = env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}
