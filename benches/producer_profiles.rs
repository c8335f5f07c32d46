//! Producer profiles on a real Apache Kafka of three brokers: the latency of an
//! acknowledgement and the client's CPU time per record, depending on how much
//! the producer may have outstanding.
//!
//! Each run is a process of its own, and the profiles alternate, so that other
//! load on the machine affects all of them. `NORTHBRIDGE_TEST_KAFKA` selects
//! another cluster. The last runs use librdkafka's mock brokers with longer
//! round trips, like those to a cluster at another site; `-- mock` leaves out the others,
//! and `-- real` these.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::process::Command;
use std::time::Duration;

use northbridge::config::Settings;
use northbridge::kafka::admin::{Degraded, TopicAdmin};
use northbridge::kafka::failures::Failures;
use northbridge::topics::{Topic, specs};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use profile::{Figures, Profile};
use support::{eventually, kafka_cluster};
use usage::median;

#[path = "support/profile.rs"]
mod profile;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

/// The flag that makes this program run one producer.
const PRODUCE: &str = "--produce";
const PARTITIONS: [i32; 4] = [6, 12, 60, 240];
const RATES_PER_S: [u32; 3] = [10, 800, 5_000];
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(5);
/// Brokers and partitions.
const MOCKS: [(i32, i32); 4] = [(1, 12), (1, 60), (6, 60), (6, 240)];
const MOCK_RATE_PER_S: u32 = 800;
const MOCK_ROUND_TRIPS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, run @ ..] = arguments.as_slice()
        && flag == PRODUCE
    {
        return produce(run);
    }
    let is_given = |part: &str| arguments.iter().any(|argument| argument == part);
    if !is_given("mock") {
        real_cluster();
    }
    if !is_given("real") {
        for (brokers, partitions) in MOCKS {
            mock(brokers, partitions);
        }
    }
}

fn real_cluster() {
    let cluster = kafka_cluster::shared();
    print_head("Apache Kafka, three brokers");
    for partitions in PARTITIONS {
        let prefix = kafka_cluster::unique_prefix("profiles");
        let settings = settings(cluster.bootstrap(), &prefix, partitions);
        create_topics(&settings);
        for rate_per_s in RATES_PER_S {
            compare(&settings, rate_per_s);
        }
    }
}

fn mock(brokers: i32, partitions: i32) {
    let cluster: MockCluster<'_, DefaultProducerContext> =
        MockCluster::new(brokers).expect("a mock cluster");
    let settings = settings(&cluster.bootstrap_servers(), "mock.", partitions);
    for spec in specs(&settings) {
        let created = cluster.create_topic(&spec.name, spec.partitions, 1);
        created.expect("a topic");
    }
    for round_trip in MOCK_ROUND_TRIPS {
        for broker in 1..=brokers {
            let slowed = cluster.broker_round_trip_time(broker, round_trip);
            slowed.expect("the mock's round trip");
        }
        print_head(&format!(
            "librdkafka's mock cluster of {brokers}, round trip {round_trip:?}"
        ));
        compare(&settings, MOCK_RATE_PER_S);
    }
}

fn compare(settings: &Settings, rate_per_s: u32) {
    let mut runs = Profile::ALL.map(|_| Vec::new());
    for _ in 0..ROUNDS {
        for (profile, runs) in Profile::ALL.into_iter().zip(&mut runs) {
            runs.push(run(profile, settings, rate_per_s));
        }
    }
    for (profile, runs) in Profile::ALL.into_iter().zip(&runs) {
        print_row(settings.topics.partitions, rate_per_s, profile, runs);
    }
}

fn print_head(cluster: &str) {
    println!("\n{cluster}; median of {ROUNDS} rounds of {ROUND:?}, alternating");
    println!("partitions  rate/s  profile          p50 ms   p99 ms   max ms  CPU µs/record");
}

fn print_row(partitions: i32, rate_per_s: u32, profile: Profile, runs: &[Figures]) {
    let median_of = |of: fn(&Figures) -> f64| median(runs.iter().map(of).collect());
    let millis = |of: fn(&Figures) -> Duration| {
        median(runs.iter().map(|run| of(run).as_secs_f64() * 1e3).collect())
    };
    println!(
        "{partitions:10}  {rate_per_s:6}  {profile:14} {:8.1} {:8.1} {:8.1} {:14.1}",
        millis(|run| run.p50),
        millis(|run| run.p99),
        millis(|run| run.max),
        median_of(|run| run.cpu_us_per_record),
    );
}

/// Runs a profile in a process of its own, whose CPU time is the client's alone.
fn run(profile: Profile, settings: &Settings, rate_per_s: u32) -> Figures {
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    child.arg(PRODUCE).arg(profile.to_string());
    child.args([&settings.kafka.bootstrap_servers, &settings.topics.prefix]);
    child.arg(settings.topics.partitions.to_string());
    child.arg(rate_per_s.to_string());
    let output = child.stderr(std::process::Stdio::inherit()).output();
    let output = output.expect("this program runs");
    assert!(output.status.success(), "the producer failed");
    let line = String::from_utf8(output.stdout).expect("text");
    let numbers = line.split_whitespace().map(str::parse::<f64>);
    let numbers: Result<Vec<f64>, _> = numbers.collect();
    let [p50, p99, max, cpu_us_per_record] = numbers.expect("numbers")[..] else {
        panic!("four numbers: {line}");
    };
    let [p50, p99, max] = [p50, p99, max].map(Duration::from_secs_f64);
    Figures {
        p50,
        p99,
        max,
        cpu_us_per_record,
    }
}

/// The child's side of [`run`].
fn produce(run: &[String]) {
    let [profile, bootstrap_servers, prefix, partitions, rate_per_s] = run else {
        panic!("profile, bootstrap servers, prefix, partitions, rate");
    };
    let profile = Profile::ALL
        .into_iter()
        .find(|known| known.to_string() == *profile);
    let profile = profile.expect("a known profile");
    let partitions = partitions.parse().expect("a number");
    let settings = settings(bootstrap_servers, prefix, partitions);
    let rate_per_s = rate_per_s.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let figures = runtime.block_on(profile::run(profile, &settings, rate_per_s, ROUND));
    let [p50, p99, max] =
        [figures.p50, figures.p99, figures.max].map(|latency| latency.as_secs_f64());
    println!("{p50} {p99} {max} {}", figures.cpu_us_per_record);
    // The monitoring thread may be blocked in a request; do not wait for it.
    runtime.shutdown_background();
}

fn settings(bootstrap_servers: &str, prefix: &str, partitions: i32) -> Settings {
    let mut settings = Settings::default();
    bootstrap_servers.clone_into(&mut settings.kafka.bootstrap_servers);
    prefix.clone_into(&mut settings.topics.prefix);
    settings.topics.partitions = partitions;
    settings
}

fn create_topics(settings: &Settings) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let admin = TopicAdmin::new(settings, &Failures::of_command(settings))
        .expect("an administration client");
    let specs = specs(settings);
    eventually("all brokers know the topics", || {
        let created =
            runtime.block_on(admin.create(&specs[..Topic::INGRESS.len()], Degraded::Refuse));
        created.ok()?.first_problem().is_none().then_some(())
    });
}
