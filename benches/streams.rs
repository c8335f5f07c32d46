//! The streams on a real cluster of three brokers, compared with their floor
//! (`support/stream_floor.rs`): throughput and CPU time per event. Also the
//! restore of a million states: throughput and memory.
//!
//! Product and floor are separate processes that take turns, so that other load
//! on the machine affects both alike. Compare the figures of one run with each
//! other, and not with those of another run.
//!
//! `cargo bench --bench streams [-- command-status | upgrade-result | restore]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose setup fails can only panic"
)]

use std::process::Command;
use std::time::{Duration, Instant};

use northbridge::streams::store::Store;
use northbridge::streams::stream::CommandStatus;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use floor::{Output, Stage};
use support::bodies;
use support::kafka_cluster::{shared, unique_prefix};
use support::northbridge::{Northbridge, run};
use usage::{cpu_time, memory_mb};

#[path = "support/stream_floor.rs"]
mod floor;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

// The roles in which this program starts itself as a child process.
const FLOOR: &str = "--floor";
const READ: &str = "--read";
const STORE: &str = "--store";

const ROUNDS: usize = 3;
const COMMANDS: usize = 50_000;
/// Commands that are open at the same time; several batches.
const OPEN_COMMANDS: usize = 10_000;
const DEVICES: usize = 100_000;
const OPERATIONS: usize = 20;
const STATES: usize = 1_000_000;
/// The share of the input that warms up a run, before the measurement.
const WARM_UP_PERCENT: usize = 10;
/// The pause between two scrapes. Rare, because only the product pays for them.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(120);

/// One of the two stream processes, which product and floor run in turn.
struct Comparison {
    command: &'static str,
    /// Keys and values of the input.
    input: fn() -> Vec<(String, String)>,
    /// The name, the input topic and the output topics of each stage.
    stages: &'static [(&'static str, &'static str, &'static [&'static str])],
}

struct Figures {
    events_per_s: f64,
    cpu_us_per_event: f64,
    records_per_transaction: f64,
}

const COMPARISONS: [Comparison; 2] = [
    Comparison {
        command: "command-status",
        input: confirmations,
        stages: &[("command-status", "command-status", &["command-state"])],
    },
    Comparison {
        command: "upgrade-result",
        input: upgrade_results,
        stages: &[
            (
                "upgrade-result",
                "upgrade-result",
                &["device-software", "upgrade-delta"],
            ),
            ("upgrade-operation", "upgrade-delta", &["upgrade-operation"]),
        ],
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[1..] {
        [FLOOR, command, product, floor_prefix] => run_as_floor(command, product, floor_prefix),
        [READ, topic] => run_as_reader(topic),
        [STORE] => run_as_store(),
        // Cargo adds the flag `--bench`.
        ref chosen => run_all(chosen.first().filter(|name| !name.starts_with('-'))),
    }
}

fn run_all(chosen: Option<&&str>) {
    let is_chosen = |name: &str| chosen.is_none_or(|chosen| *chosen == name);
    println!("stream           who      events/s  CPU us/event  records/transaction");
    for comparison in COMPARISONS
        .iter()
        .filter(|comparison| is_chosen(comparison.command))
    {
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (prefix, product) = run_product(comparison);
            let floor = run_floor_process(comparison, &prefix);
            for (who, figures) in [("product", &product), ("floor", &floor)] {
                println!(
                    "{:<15}  {who:<7}  {:>8.0}  {:>12.2}  {:>19.0}",
                    comparison.command,
                    figures.events_per_s,
                    figures.cpu_us_per_event,
                    figures.records_per_transaction,
                );
            }
            ratios.push(product.cpu_us_per_event / floor.cpu_us_per_event);
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "{:<15}  median of CPU, product over floor: {:.2}",
            comparison.command,
            ratios[ROUNDS / 2]
        );
    }
    if is_chosen("restore") {
        restore();
    }
}

fn run_product(comparison: &Comparison) -> (String, Figures) {
    let prefix = unique_prefix(comparison.command);
    create_topics(&prefix);
    let input = (comparison.input)();
    let (_, first_input, _) = comparison.stages[0];
    write(
        &format!("{prefix}{first_input}"),
        &input,
        &ingress_headers(),
    );
    let process = Northbridge::start(&[comparison.command], &settings(&prefix));
    let pid = process.pid().as_raw_nonzero().to_string();
    let count = |stream: &str, metric: &str, result: &str| {
        let labels = format!("result=\"{result}\",stream=\"{stream}\"");
        process.metrics()[&format!("northbridge_stream_{metric}_total{{{labels}}}")]
    };
    let applied_by_slowest = || {
        let stages = comparison.stages.iter();
        let counts = stages.map(|(stream, ..)| count(stream, "records", "applied"));
        counts.fold(f64::INFINITY, f64::min)
    };
    let total = number(input.len());
    let warm_up = number(input.len() * WARM_UP_PERCENT / 100);
    let wait_for = |goal: f64| {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let count = applied_by_slowest();
            if count >= goal {
                return (count, Instant::now(), cpu_time(&pid));
            }
            assert!(Instant::now() < deadline, "{count} of {goal} records");
            std::thread::sleep(SCRAPE_INTERVAL);
        }
    };
    let (from, began, cpu_before) = wait_for(warm_up);
    let (_, ended, cpu_after) = wait_for(total);
    let (stream, ..) = comparison.stages[0];
    let transactions = count(stream, "transactions", "committed");
    let events = total - from;
    (
        prefix,
        Figures {
            events_per_s: events / (ended - began).as_secs_f64(),
            cpu_us_per_event: cpu_after.saturating_sub(cpu_before).as_secs_f64() * 1e6 / events,
            records_per_transaction: total / transactions,
        },
    )
}

fn run_floor_process(comparison: &Comparison, product: &str) -> Figures {
    let prefix = unique_prefix("floor");
    create_topics(&prefix);
    let output = this_program()
        .args([FLOOR, comparison.command, product, &prefix])
        .output()
        .expect("this program");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("figures");
    let figures: Vec<f64> = text
        .split_whitespace()
        .map(|figure| figure.parse().expect("a figure"))
        .collect();
    Figures {
        events_per_s: figures[0],
        cpu_us_per_event: figures[1],
        records_per_transaction: figures[2],
    }
}

/// Reads what the product wrote, then writes the same again. The first stage
/// consumes the product's input, the second the output of the first.
fn run_as_floor(command: &str, product: &str, floor_prefix: &str) {
    let bootstrap = &bootstrap();
    let comparison = COMPARISONS
        .iter()
        .find(|comparison| comparison.command == command)
        .expect("a command");
    let stages: Vec<Stage> = comparison
        .stages
        .iter()
        .enumerate()
        .map(|(place, (_, input, outputs))| Stage {
            input: format!("{}{input}", if place == 0 { product } else { floor_prefix }),
            records: floor::read(bootstrap, &format!("{product}{input}"), drop),
            outputs: outputs
                .iter()
                .map(|topic| {
                    let mut records = Vec::new();
                    floor::read(bootstrap, &format!("{product}{topic}"), |record| {
                        records.push(record);
                    });
                    Output {
                        topic: format!("{floor_prefix}{topic}"),
                        records,
                    }
                })
                .collect(),
        })
        .collect();
    let total = stages[0].records;
    let mut warmed_up = None;
    let transactions = std::thread::scope(|threads| {
        let (first, rest) = stages.split_first().expect("a stage");
        for stage in rest {
            threads.spawn(|| floor::run(bootstrap, stage, |_| ()));
        }
        floor::run(bootstrap, first, |done| {
            if warmed_up.is_none() && done * 100 >= total * WARM_UP_PERCENT {
                warmed_up = Some((done, Instant::now(), cpu_time("self")));
            }
        })
    });
    let (from, began, cpu_before) = warmed_up.expect("a transaction after the warm-up");
    let events = number(total - from);
    println!(
        "{} {} {}",
        events / began.elapsed().as_secs_f64(),
        cpu_time("self").saturating_sub(cpu_before).as_secs_f64() * 1e6 / events,
        number(total) / number(transactions),
    );
}

fn restore() {
    let prefix = unique_prefix("restore");
    create_topics(&prefix);
    let topic = format!("{prefix}command-state");
    let states: Vec<(String, String)> = (0..STATES).map(state).collect();
    write(&topic, &states, &OwnedHeaders::new());
    drop(states);
    let empty = unique_prefix("empty");
    create_topics(&empty);
    let idle = Northbridge::start(&["command-status"], &settings(&empty));
    idle.wait_until_ready();
    let idle_bytes = resident_bytes(&idle.pid().as_raw_nonzero().to_string());
    drop(idle);

    println!("restore of {STATES} states:");
    for _ in 0..ROUNDS {
        let read = this_program().args([READ, &topic]).output();
        let read = read.expect("this program").stdout;
        let bare = String::from_utf8(read).expect("figures");
        let process = Northbridge::start(&["command-status"], &settings(&prefix));
        let line = process.wait_for_message("states restored");
        let pid = process.pid().as_raw_nonzero().to_string();
        let cpu = cpu_time(&pid);
        process.wait_until_ready();
        let metrics = process.metrics();
        let of = |name: &str| metrics[&format!("{name}{{stream=\"command-status\"}}")];
        assert_eq!(line["entries"], STATES);
        let bytes = of("northbridge_stream_state_bytes");
        let resident = resident_bytes(&pid) - idle_bytes;
        println!(
            "  product {:.0} keys/s, {:.2} us of CPU a key; a bare reader {}; {:.0} bytes of key and value an entry, {:.0} resident above them in the process",
            number(STATES) / line["seconds"].as_f64().expect("seconds"),
            cpu.as_secs_f64() * 1e6 / number(STATES),
            bare.trim(),
            bytes / number(STATES),
            (resident - bytes) / number(STATES),
        );
    }
    let store = this_program().arg(STORE).output().expect("this program");
    print!("{}", String::from_utf8_lossy(&store.stdout));
}

fn run_as_reader(topic: &str) {
    let began = Instant::now();
    let count = number(floor::read(&bootstrap(), topic, drop));
    println!(
        "{:.0} keys/s, {:.2} us of CPU a key",
        count / began.elapsed().as_secs_f64(),
        cpu_time("self").as_secs_f64() * 1e6 / count,
    );
}

/// The memory of the stores alone: six, as many as a topic has partitions.
fn run_as_store() {
    let mut stores: [Store<CommandStatus>; 6] = std::array::from_fn(|_| Store::starting_at(0));
    let before = resident_bytes("self");
    for place in 0..STATES {
        let (key, value) = state(place);
        stores[place % 6].restore(
            key.as_bytes(),
            Some(value.as_bytes()),
            Some(br#"{"version":1}"#),
            0,
        );
    }
    let bytes: usize = stores.iter().map(Store::bytes).sum();
    let above = resident_bytes("self") - before - number(bytes);
    println!(
        "  the store alone: {:.0} resident bytes an entry above key and value",
        above / number(STATES)
    );
}

/// Three confirmations of each command, which are several batches apart.
fn confirmations() -> Vec<(String, String)> {
    let mut records = Vec::with_capacity(COMMANDS * 3);
    for window in (0..COMMANDS).step_by(OPEN_COMMANDS) {
        for status in ["sent", "delivered", "executed"] {
            for command in window..window + OPEN_COMMANDS {
                let id = format!("request-{command:08}");
                let device = format!("device-{:06}", command % 10_000);
                let body = bodies::message_confirm(&id, &device, status);
                records.push((id, body));
            }
        }
    }
    records
}

fn upgrade_results() -> Vec<(String, String)> {
    let result = |device: usize| {
        let id = format!("device-{device:08}");
        let operation = format!("operation-{}", device % OPERATIONS);
        let result = if device.is_multiple_of(50) {
            "FAIL"
        } else {
            "SUCCESS"
        };
        let body = bodies::upgrade_result(&id, &operation, result);
        (id, body)
    };
    (0..DEVICES).map(result).collect()
}

/// Key and value of a command's state; every tenth command is open.
fn state(place: usize) -> (String, String) {
    let id = format!("request-{place:08}");
    let executed = if place.is_multiple_of(10) {
        r#""status":"delivered""#
    } else {
        r#""status":"executed","executedAt":"2015-12-12T12:12:14Z""#
    };
    let value = format!(
        "{{\"requestId\":\"{id}\",\"deviceId\":\"device-{:06}\",\"serviceId\":\"Switch\",\
         \"to\":\"northbound-application\",{executed},\"sentAt\":\"2015-12-12T12:12:12Z\",\
         \"deliveredAt\":\"2015-12-12T12:12:13Z\",\"body\":{{}}}}",
        place % 10_000,
    );
    (id, value)
}

fn create_topics(prefix: &str) {
    let created = run(&["topics", "create"], &settings(prefix));
    assert!(created.status.success(), "{created:?}");
}

fn settings(prefix: &str) -> [(&'static str, &str); 2] {
    [
        ("kafka.bootstrap_servers", shared().bootstrap()),
        ("topics.prefix", prefix),
    ]
}

/// The headers that the ingress writes. Each record has the same values, which
/// have realistic sizes.
fn ingress_headers() -> OwnedHeaders {
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0123456789abcdef0123456789abcdef"),
        ("ce_source", "/notifications"),
        ("ce_type", "swUpgradeResultNotify"),
        ("ce_subject", "device-00000000"),
        ("ce_time", "2026-01-01T00:00:00.000Z"),
        ("content-type", "application/json"),
    ];
    headers
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            let value = Some(value);
            headers.insert(Header { key, value })
        })
}

fn write(topic: &str, records: &[(String, String)], headers: &OwnedHeaders) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", shared().bootstrap())
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .create()
        .expect("a producer");
    for (key, value) in records {
        let mut record = BaseRecord::to(topic)
            .key(key)
            .payload(value)
            .headers(headers.clone());
        while let Err((_, returned)) = producer.send(record) {
            record = returned;
            producer.poll(Duration::from_millis(10));
        }
    }
    producer.flush(TIMEOUT).expect("all records written");
}

/// A command that starts this program again, on the same cluster.
fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env("NORTHBRIDGE_BENCH_BOOTSTRAP", shared().bootstrap());
    command
}

fn bootstrap() -> String {
    std::env::var("NORTHBRIDGE_BENCH_BOOTSTRAP").expect("set by the parent process")
}

fn resident_bytes(process: &str) -> f64 {
    memory_mb(process, "VmRSS") * 1e6
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("a count"))
}
