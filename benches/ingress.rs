//! Compares the ingress, without and with a spool, and with every push traced, with its
//! floors, on librdkafka's mock cluster: CPU per push, latency over many connections, and
//! memory with 1,000 pushes in flight.
//!
//! Each is a process of its own. They get the same load alternately, so that
//! whatever else the machine does affects all. The floors are in
//! `support/floor.rs`. Compare the figures of one run only with each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::time::Duration;

use northbridge::config::Settings;
use northbridge::topics;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use candidate::{Candidate, Measurement, all_stored};
use floor::Floor;
use support::collector::Collector;
use support::load::{Load, Until};
use support::northbridge::Northbridge;
use usage::{median, memory_mb, percentile};

#[path = "support/candidate.rs"]
mod candidate;
#[path = "support/floor.rs"]
mod floor;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

/// The rate at which the platform flushes a backlog, and one well above it.
const RATES_PER_S: [u32; 2] = [800, 2_000];
const CONNECTIONS: u32 = 64;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(6);
/// A rate over many connections: each is used once until all are open, and again then.
const SPREAD_RATE_PER_S: u32 = 100;
const SPREAD_CONNECTIONS: u32 = 10_000;
const SPREAD_MEASURED: u32 = 2_000;
/// Slow enough that at the higher rate every connection has a push in flight.
const SLOW_ROUND_TRIP: Duration = Duration::from_millis(600);
const SLOW_CONNECTIONS: u32 = 1_050;

type Broker = MockCluster<'static, DefaultProducerContext>;

fn main() {
    Floor::run_if_started_as_one();
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    let broker = broker();
    cpu(&broker);
    connections(&broker);
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
    let floors = [Floor::Immediate, Floor::Waiting];
    let [immediate, waiting] = floors.map(|floor| floor.start(&broker.bootstrap_servers()));
    let candidates = [
        Candidate::of("ingress", &program),
        Candidate::of("with spool", &with_spool),
        Candidate::of("traced", &traced),
        immediate.1,
        waiting.1,
    ];
    println!(
        "CPU per push, {CONNECTIONS} connections, {ROUNDS} rounds of {ROUND:?} each, alternately"
    );
    println!("rate/s  process          CPU µs/push   p50 ms   p99 ms");
    for rate_per_s in RATES_PER_S {
        let mut measurements = candidates.each_ref().map(|_| Vec::new());
        for candidate in &candidates {
            candidate.measure(candidate.load(rate_per_s, CONNECTIONS), ROUND / 3);
        }
        for _ in 0..ROUNDS {
            for (candidate, measurements) in candidates.iter().zip(&mut measurements) {
                let load = candidate.load(rate_per_s, CONNECTIONS);
                measurements.push(candidate.measure(load, ROUND));
            }
        }
        for (candidate, measurements) in candidates.iter().zip(&measurements) {
            print_row(rate_per_s, &candidate.name, measurements);
        }
        let [ingress, with_spool, traced, immediate, waiting] = &measurements;
        print_ratio("ingress / immediate floor", ingress, immediate);
        print_ratio("ingress / waiting floor", ingress, waiting);
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
    let latencies = measurements.iter().flat_map(|round| &round.latencies);
    let [p50, p99] = p50_and_p99_ms(latencies.copied());
    println!("{rate_per_s:6}  {name:15} {cpu:12.1} {p50:8.2} {p99:8.2}");
}

fn p50_and_p99_ms(latencies: impl Iterator<Item = Duration>) -> [f64; 2] {
    let mut latencies: Vec<_> = latencies.collect();
    latencies.sort_unstable();
    [50, 99].map(|percent| percentile(&latencies, percent).as_secs_f64() * 1e3)
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

/// The latency of the pushes on connections that are open, while so many are.
fn connections(broker: &Broker) {
    println!("\n{SPREAD_RATE_PER_S} pushes a second over all connections, in turn");
    println!("connections   p50 ms   p99 ms");
    for connections in [CONNECTIONS, SPREAD_CONNECTIONS] {
        // Longer than a connection waits for its next push.
        let program = ingress(broker, &[("http.keep_alive_timeout_ms", "300000")]);
        let candidate = Candidate::of("ingress", &program);
        let load = Load {
            until: Until::Pushes(connections + SPREAD_MEASURED),
            ..candidate.load(SPREAD_RATE_PER_S, connections)
        };
        let report = load.start().finish();
        all_stored(&report);
        let open = report
            .pushes
            .iter()
            .filter(|push| push.number >= connections);
        let [p50, p99] = p50_and_p99_ms(open.map(|push| push.latency));
        println!("{connections:11} {p50:8.2} {p99:8.2}");
    }
}

/// Starts fresh processes, so that their peaks are due to this load alone.
fn memory(broker: &Broker) {
    let program = ingress(broker, &[]);
    let ingress = Candidate::of("ingress", &program);
    let idle = memory_mb(&ingress.pid, "VmRSS");
    // Warms up connections, metadata and the producer's id before the broker
    // becomes slow: this measures pushes in flight, not a cold start.
    ingress.measure(ingress.load(RATES_PER_S[0], CONNECTIONS), ROUND / 3);
    broker
        .broker_round_trip_time(1, SLOW_ROUND_TRIP)
        .expect("the mock's round trip");
    let load = Load {
        until: Until::Elapsed(ROUND),
        ..ingress.load(RATES_PER_S[1], SLOW_CONNECTIONS)
    };
    let running = load.start();
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
