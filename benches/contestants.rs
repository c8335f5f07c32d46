//! The ingress beside the bridge that anybody would write, on three real brokers: a hyper
//! server that answers on the delivery report of a bare rdkafka producer, with librdkafka's
//! defaults, and with one request in flight to each broker.
//!
//! Each is a process of its own, and they get the same load in turns. Compare the figures
//! of one run only with each other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::time::Duration;

use candidate::{Candidate, Measurement};
use floor::Floor;
use support::kafka_cluster::{Cluster, ClusterOptions};
use support::northbridge::{Northbridge, create_topics};
use usage::{cpu_time, median, percentile};

#[path = "support/candidate.rs"]
mod candidate;
#[path = "support/floor.rs"]
mod floor;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

const CONTESTANTS: [Floor; 2] = [Floor::Defaults, Floor::OneInFlight];
const PARTITIONS: [&str; 2] = ["12", "60"];
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
const LOADS: [Shape; 5] = [
    Shape::Rate(500),
    Shape::Rate(2_000),
    Shape::Rate(5_000),
    Shape::Connections(64),
    Shape::Connections(256),
];
/// Enough that no push waits for a connection.
const CONNECTIONS: u32 = 512;

/// A load.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// So many pushes a second, answered or not.
    Rate(u32),
    /// So many connections, each of which pushes as soon as it is answered.
    Connections(u32),
}

fn main() {
    Floor::run_if_started_as_one();
    rlimit::increase_nofile_limit(u64::MAX).expect("a limit of open files");
    for partitions in PARTITIONS {
        compare(partitions);
    }
}

fn compare(partitions: &str) {
    let cluster = Cluster::start(&ClusterOptions::default());
    let bootstrap = cluster.bootstrap();
    let settings = [
        ("kafka.bootstrap_servers", bootstrap.as_str()),
        ("topics.partitions", partitions),
    ];
    create_topics(&settings);
    let ingress = Northbridge::start(&["ingress"], &settings);
    ingress.wait_until_ready();
    let floors = CONTESTANTS.map(|floor| floor.start(&bootstrap));
    let (_processes, floors): (Vec<_>, Vec<_>) = floors.into_iter().unzip();
    let mut candidates = vec![Candidate::of("northbridge", &ingress)];
    candidates.extend(floors);
    println!("\n{partitions} partitions; median of {ROUNDS} rounds of {ROUND:?}, in turns");
    println!(
        "{:16} {:15} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "load", "who", "pushes/s", "p50 ms", "p99 ms", "own µs", "brokers µs"
    );
    for shape in LOADS {
        let mut rounds: Vec<_> = candidates.iter().map(|_| Vec::new()).collect();
        for round in 0..=ROUNDS {
            for (candidate, rounds) in candidates.iter().zip(&mut rounds) {
                let before = brokers_cpu(&cluster);
                let measurement = shape.put_on(candidate);
                let brokers = brokers_cpu(&cluster).saturating_sub(before);
                // The first one warms up.
                if round > 0 {
                    rounds.push(Figures::of(&measurement, shape, brokers));
                }
            }
        }
        for (candidate, rounds) in candidates.iter().zip(&rounds) {
            print_row(shape, &candidate.name, rounds);
        }
    }
}

impl Shape {
    fn put_on(self, candidate: &Candidate) -> Measurement {
        match self {
            Self::Rate(rate_per_s) => {
                candidate.measure(candidate.load(rate_per_s, CONNECTIONS), ROUND)
            }
            Self::Connections(connections) => candidate.saturate(connections, ROUND),
        }
    }
}

/// Of one round.
struct Figures {
    pushes_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
    own_us: f64,
    brokers_us: f64,
}

impl Figures {
    fn of(measurement: &Measurement, shape: Shape, brokers: Duration) -> Self {
        let mut latencies = match shape {
            Shape::Rate(_) => measurement.latencies.clone(),
            Shape::Connections(_) => measurement.round_trips.clone(),
        };
        latencies.sort_unstable();
        let ms = |percent| percentile(&latencies, percent).as_secs_f64() * 1e3;
        let pushes = f64::from(u32::try_from(measurement.pushes).expect("a number of pushes"));
        Self {
            pushes_per_s: pushes / ROUND.as_secs_f64(),
            p50_ms: ms(50),
            p99_ms: ms(99),
            own_us: measurement.cpu_us_per_push,
            brokers_us: brokers.as_secs_f64() * 1e6 / pushes,
        }
    }
}

fn brokers_cpu(cluster: &Cluster) -> Duration {
    let brokers = cluster.brokers().iter();
    brokers
        .map(|broker| cpu_time(&broker.pid().expect("it runs").as_raw_nonzero().to_string()))
        .sum()
}

fn print_row(shape: Shape, name: &str, rounds: &[Figures]) {
    let middle = |of: fn(&Figures) -> f64| median(rounds.iter().map(of).collect());
    let load = match shape {
        Shape::Rate(rate_per_s) => format!("{rate_per_s}/s"),
        Shape::Connections(connections) => format!("{connections} connections"),
    };
    println!(
        "{load:16} {name:15} {:8.0} {:8.1} {:8.1} {:9.1} {:9.1}",
        middle(|figures| figures.pushes_per_s),
        middle(|figures| figures.p50_ms),
        middle(|figures| figures.p99_ms),
        middle(|figures| figures.own_us),
        middle(|figures| figures.brokers_us),
    );
}
