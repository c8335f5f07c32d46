//! The whole ingress on librdkafka's mock cluster, beside its floor in the same
//! run: CPU a push, and memory with 1,000 pushes in flight.
//!
//! Both are processes of their own and get the same load in turns, so that
//! what else the machine does meets both. The floor is `support/floor.rs`.
//! Figures of one run compare with each other, not with those of another run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::fs;
use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use northbridge::config::Settings;
use northbridge::topics;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use support::guarded::Guarded;
use support::load::{Load, Report, Until};
use support::northbridge::Northbridge;
use usage::{cpu_time, median, percentile};

#[path = "support/floor.rs"]
mod floor;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

/// How this program is called to be the floor.
const FLOOR: &str = "--floor";
/// Pushes a second: the platform's flush of a backlog, and well above it.
const RATES_PER_S: [u32; 2] = [800, 2_000];
const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(6);
/// So slow that at the higher rate every connection has a push that waits.
const SLOW_ROUND_TRIP: Duration = Duration::from_millis(600);
const SLOW_CONNECTIONS: u32 = 1_050;

type Broker = MockCluster<'static, DefaultProducerContext>;

/// One of the two processes that are compared.
struct Contestant {
    name: &'static str,
    pid: String,
    address: SocketAddr,
}

/// One turn of one contestant.
struct Turn {
    cpu_us_per_push: f64,
    latencies: Vec<Duration>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, bootstrap_servers] = arguments.as_slice()
        && flag == FLOOR
    {
        return floor::run(bootstrap_servers);
    }
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    let broker = broker();
    cpu(&broker);
    memory(&broker);
}

fn cpu(broker: &Broker) {
    let program = ingress(broker);
    let (_floor_process, floor) = start_floor(broker);
    let contestants = [contestant(&program), floor];
    println!("CPU a push, {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND:?} each, in turns");
    println!("rate/s  process   CPU µs/push   p50 ms   p99 ms");
    for rate_per_s in RATES_PER_S {
        let mut turns = contestants.each_ref().map(|_| Vec::new());
        for contestant in &contestants {
            contestant.turn(rate_per_s, ROUND / 3);
        }
        for _ in 0..ROUNDS {
            for (contestant, turns) in contestants.iter().zip(&mut turns) {
                turns.push(contestant.turn(rate_per_s, ROUND));
            }
        }
        for (contestant, turns) in contestants.iter().zip(&turns) {
            print_row(rate_per_s, contestant.name, turns);
        }
        print_ratio(&turns);
    }
}

fn print_row(rate_per_s: u32, name: &str, turns: &[Turn]) {
    let cpu = median(turns.iter().map(|turn| turn.cpu_us_per_push).collect());
    let mut latencies: Vec<_> = turns
        .iter()
        .flat_map(|turn| &turn.latencies)
        .copied()
        .collect();
    latencies.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| percentile(&latencies, percent).as_secs_f64() * 1e3);
    println!("{rate_per_s:6}  {name:8} {cpu:12.1} {p50:8.2} {p99:8.2}");
}

fn print_ratio([ingress, floor]: &[Vec<Turn>; 2]) {
    let pairs = ingress.iter().zip(floor);
    let mut ratios: Vec<f64> = pairs
        .map(|(ingress, floor)| ingress.cpu_us_per_push / floor.cpu_us_per_push)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let middle = median(ratios);
    println!("        ingress / floor: {middle:.2} (of the rounds {least:.2} to {most:.2})");
}

/// Fresh processes, so that their peaks are those of this load alone.
fn memory(broker: &Broker) {
    let program = ingress(broker);
    let ingress = contestant(&program);
    let idle = memory_mb(&ingress.pid, "VmRSS");
    // Connections, partitions and the producer's id are known before the broker
    // is slow: what is measured is pushes in flight, not a cold start.
    ingress.turn(RATES_PER_S[0], ROUND / 3);
    broker
        .broker_round_trip_time(1, SLOW_ROUND_TRIP)
        .expect("the mock's round trip");
    let running = ingress
        .load(RATES_PER_S[1], SLOW_CONNECTIONS, ROUND)
        .start();
    let mut most_in_flight = 0.0;
    let mut at_most = 0.0;
    let samples = ROUND.as_millis() / 250;
    for _ in 0..samples {
        std::thread::sleep(Duration::from_millis(250));
        let in_flight = program.metrics()["northbridge_pushes_in_flight"];
        if in_flight > most_in_flight {
            most_in_flight = in_flight;
            at_most = memory_mb(&ingress.pid, "VmRSS");
        }
    }
    all_stored(&running.finish());
    let peak = memory_mb(&ingress.pid, "VmHWM");
    println!("\nMemory at {SLOW_ROUND_TRIP:?} round trip, {SLOW_CONNECTIONS} connections");
    println!(
        "resident idle {idle:.1} MB; with {most_in_flight} pushes in flight {at_most:.1} MB; peak {peak:.1} MB"
    );
}

impl Contestant {
    fn turn(&self, rate_per_s: u32, duration: Duration) -> Turn {
        let before = cpu_time(&self.pid);
        let report = self
            .load(rate_per_s, CONNECTIONS, duration)
            .start()
            .finish();
        let used = cpu_time(&self.pid).saturating_sub(before);
        all_stored(&report);
        let pushes = u32::try_from(report.pushes.len()).expect("a number of pushes");
        Turn {
            cpu_us_per_push: used.as_secs_f64() * 1e6 / f64::from(pushes),
            latencies: report.pushes.iter().map(|push| push.latency).collect(),
        }
    }

    fn load(&self, rate_per_s: u32, connections: u32, duration: Duration) -> Load {
        Load {
            rate_per_s,
            connections,
            until: Until::Elapsed(duration),
            ..Load::to(self.address)
        }
    }
}

/// A line of `/proc/PID/status` in MB, such as `VmRSS` or `VmHWM`.
fn memory_mb(process: &str, line: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let value = status
        .lines()
        .find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
    let kib: f64 = kib.expect("a line in kB").parse().expect("a number");
    kib * 1024.0 / 1e6
}

fn all_stored(report: &Report) {
    let answers = report.answers();
    assert!(
        answers.keys().eq(["200"]),
        "every push is answered 200: {answers:?}"
    );
}

fn broker() -> Broker {
    let broker = MockCluster::new(1).expect("a mock cluster");
    for plan in topics::plans(&Settings::default()) {
        broker
            .create_topic(&plan.name, plan.partitions, 1)
            .expect("a topic");
    }
    broker
}

fn ingress(broker: &Broker) -> Northbridge {
    let bootstrap_servers = broker.bootstrap_servers();
    let settings = [("kafka.bootstrap_servers", bootstrap_servers.as_str())];
    // Not until it is ready: the mock does not describe topics, and being told
    // so takes long. The warm-up waits for all that a push needs.
    Northbridge::start(&["ingress"], &settings)
}

fn contestant(program: &Northbridge) -> Contestant {
    Contestant {
        name: "ingress",
        pid: program.pid().to_string(),
        address: program.address(),
    }
}

fn start_floor(broker: &Broker) -> (Guarded, Contestant) {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args([FLOOR, &broker.bootstrap_servers()]);
    let mut process = Guarded::spawn(&program, Stdio::inherit());
    let mut address = String::new();
    let mut output = process.take_stdout().expect("its output");
    output.read_line(&mut address).expect("its first line");
    let contestant = Contestant {
        name: "floor",
        pid: process.pid().to_string(),
        address: address.trim().parse().expect("an address"),
    };
    (process, contestant)
}
