//! Compares the ingress, without and with a spool, and with every push traced, with its
//! floor, on librdkafka's mock cluster: CPU per push, and memory with 1,000 pushes in flight.
//!
//! Each is a process of its own. They get the same load alternately, so that
//! whatever else the machine does affects both. The floor is
//! `support/floor.rs`. Compare the figures of one run only with each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use northbridge::config::Settings;
use northbridge::topics;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use support::child::ChildGuard;
use support::collector::Collector;
use support::load::{Load, Report, Until};
use support::northbridge::Northbridge;
use usage::{cpu_time, median, memory_mb, percentile};

#[path = "support/floor.rs"]
mod floor;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

/// Runs this program as the floor.
const FLOOR: &str = "--floor";
/// The rate at which the platform flushes a backlog, and one well above it.
const RATES_PER_S: [u32; 2] = [800, 2_000];
const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(6);
/// Slow enough that at the higher rate every connection has a push in flight.
const SLOW_ROUND_TRIP: Duration = Duration::from_millis(600);
const SLOW_CONNECTIONS: u32 = 1_050;

type Broker = MockCluster<'static, DefaultProducerContext>;

/// One of the processes to compare.
struct Candidate {
    name: &'static str,
    pid: String,
    address: SocketAddr,
}

/// What one candidate used and needed in one round.
struct Measurement {
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
    let program = ingress(broker, &[]);
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let spool = directory.path().display().to_string();
    let with_spool = ingress(broker, &[("spool.directory", &spool)]);
    let collector = Collector::start();
    let endpoint = collector.endpoint();
    let traced = [
        ("telemetry.otlp_endpoint", &*endpoint),
        ("telemetry.sampling_ratio", "1"),
    ];
    let traced = ingress(broker, &traced);
    let (_floor_process, floor) = start_floor(broker);
    let candidates = [
        candidate("ingress", &program),
        candidate("with spool", &with_spool),
        candidate("traced", &traced),
        floor,
    ];
    println!(
        "CPU per push, {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND:?} each, alternately"
    );
    println!("rate/s  process     CPU µs/push   p50 ms   p99 ms");
    for rate_per_s in RATES_PER_S {
        let mut measurements = candidates.each_ref().map(|_| Vec::new());
        for candidate in &candidates {
            candidate.measure(rate_per_s, ROUND / 3);
        }
        for _ in 0..ROUNDS {
            for (candidate, measurements) in candidates.iter().zip(&mut measurements) {
                measurements.push(candidate.measure(rate_per_s, ROUND));
            }
        }
        for (candidate, measurements) in candidates.iter().zip(&measurements) {
            print_row(rate_per_s, candidate.name, measurements);
        }
        let [ingress, with_spool, traced, floor] = &measurements;
        print_ratio("ingress / floor", ingress, floor);
        print_ratio("with spool / without", with_spool, ingress);
        print_ratio("traced / not", traced, ingress);
    }
}

fn print_row(rate_per_s: u32, name: &str, measurements: &[Measurement]) {
    let cpu = median(
        measurements
            .iter()
            .map(|round| round.cpu_us_per_push)
            .collect(),
    );
    let mut latencies: Vec<_> = measurements
        .iter()
        .flat_map(|round| &round.latencies)
        .copied()
        .collect();
    latencies.sort_unstable();
    let [p50, p99] = [50, 99].map(|percent| percentile(&latencies, percent).as_secs_f64() * 1e3);
    println!("{rate_per_s:6}  {name:10} {cpu:12.1} {p50:8.2} {p99:8.2}");
}

fn print_ratio(name: &str, dividend: &[Measurement], divisor: &[Measurement]) {
    let pairs = dividend.iter().zip(divisor);
    let mut ratios: Vec<f64> = pairs
        .map(|(dividend, divisor)| dividend.cpu_us_per_push / divisor.cpu_us_per_push)
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let middle = median(ratios);
    println!("        {name}: {middle:.2} (of the rounds {least:.2} to {most:.2})");
}

/// Starts fresh processes, so that their peaks are due to this load alone.
fn memory(broker: &Broker) {
    let program = ingress(broker, &[]);
    let ingress = candidate("ingress", &program);
    let idle = memory_mb(&ingress.pid, "VmRSS");
    // Warms up connections, metadata and the producer's id before the broker
    // becomes slow: this measures pushes in flight, not a cold start.
    ingress.measure(RATES_PER_S[0], ROUND / 3);
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

impl Candidate {
    fn measure(&self, rate_per_s: u32, duration: Duration) -> Measurement {
        let before = cpu_time(&self.pid);
        let report = self
            .load(rate_per_s, CONNECTIONS, duration)
            .start()
            .finish();
        let used = cpu_time(&self.pid).saturating_sub(before);
        all_stored(&report);
        let pushes = u32::try_from(report.pushes.len()).expect("a number of pushes");
        Measurement {
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

fn all_stored(report: &Report) {
    let answers = report.answers();
    assert!(
        answers.keys().eq(["200"]),
        "every push is answered 200: {answers:?}"
    );
}

fn broker() -> Broker {
    let broker = MockCluster::new(1).expect("a mock cluster");
    for spec in topics::specs(&Settings::default()) {
        broker
            .create_topic(&spec.name, spec.partitions, 1)
            .expect("a topic");
    }
    broker
}

fn ingress(broker: &Broker, settings: &[(&str, &str)]) -> Northbridge {
    let bootstrap_servers = broker.bootstrap_servers();
    let mut all = vec![("kafka.bootstrap_servers", bootstrap_servers.as_str())];
    all.extend(settings);
    // Does not wait for readiness: the mock cluster cannot describe topics, and
    // that check times out slowly. The warm-up waits for all that a push needs.
    Northbridge::start(&["ingress"], &all)
}

fn candidate(name: &'static str, program: &Northbridge) -> Candidate {
    Candidate {
        name,
        pid: program.pid().to_string(),
        address: program.address(),
    }
}

fn start_floor(broker: &Broker) -> (ChildGuard, Candidate) {
    let mut program = Command::new(std::env::current_exe().expect("this program"));
    program.args([FLOOR, &broker.bootstrap_servers()]);
    let mut process = ChildGuard::spawn(&program, Stdio::inherit());
    let mut address = String::new();
    let mut output = process.take_stdout().expect("its output");
    output.read_line(&mut address).expect("its first line");
    let candidate = Candidate {
        name: "floor",
        pid: process.pid().to_string(),
        address: address.trim().parse().expect("an address"),
    };
    (process, candidate)
}
