//! How soon a state is visible: the time from the acknowledgement of a confirmation to its
//! state at a `read_committed` consumer, on a real cluster of three brokers, and what it
//! costs; and how fast a stream catches up. `command-status` in turns with the same job in
//! Kafka Streams (`benches/kafka_streams`).
//!
//! Arguments are settings of the stream:
//! `cargo bench --bench freshness -- streams.max_batch_wait_ms=10`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark whose surroundings fail can only panic"
)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use kafka_streams::KafkaStreams;
use support::bodies::message_confirm;
use support::kafka_cluster::{shared, unique_prefix};
use support::northbridge::{Northbridge, create_topics};
use usage::{cpu_time, memory_mb, percentile};

#[path = "support/kafka_streams.rs"]
mod kafka_streams;
#[path = "../tests/support/mod.rs"]
mod support;
#[path = "support/usage.rs"]
mod usage;

const RATES_PER_S: [u32; 2] = [10, 1_000];
const PARTITIONS: i32 = 6;
const WARM_UP: Duration = Duration::from_secs(5);
const DURATION: Duration = Duration::from_secs(30);
/// What is to be caught up with.
const BACKLOG: u32 = 400_000;
const ROUNDS: usize = 2;
const TIMEOUT: Duration = Duration::from_secs(60);

/// When each confirmation was acknowledged, by its number.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<HashMap<u32, Instant>>>);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = Box<u32>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u32>) {
        result
            .as_ref()
            .map_err(|(error, _)| error)
            .expect("an acknowledgement");
        self.0.lock().unwrap().insert(*number, Instant::now());
    }
}

/// Who maintains the states.
#[derive(Debug, Clone, Copy)]
enum Contestant {
    Northbridge,
    KafkaStreams,
}

/// A contestant at work on the topics with a prefix of its own.
struct Running {
    prefix: String,
    process: Process,
}

enum Process {
    Northbridge(Northbridge),
    KafkaStreams(KafkaStreams),
}

impl Contestant {
    const ALL: [Self; 2] = [Self::Northbridge, Self::KafkaStreams];

    fn start(self, prefix: String, settings: &[(&str, &str)]) -> Running {
        let process = match self {
            Self::Northbridge => {
                let mut all = common_settings(&prefix);
                all.extend(settings);
                let stream = Northbridge::start(&["command-status"], &all);
                stream.wait_until_ready();
                Process::Northbridge(stream)
            }
            Self::KafkaStreams => {
                Process::KafkaStreams(KafkaStreams::start(shared().bootstrap(), &prefix))
            }
        };
        Running { prefix, process }
    }
}

impl Running {
    fn pid(&self) -> String {
        match &self.process {
            Process::Northbridge(stream) => stream.pid().to_string(),
            Process::KafkaStreams(stream) => stream.pid(),
        }
    }

    /// Transactions that were committed, if it counts them.
    fn committed(&self) -> Option<f64> {
        let labels = [r#"result="committed""#, r#"stream="command-status""#];
        match &self.process {
            Process::Northbridge(stream) => {
                Some(stream.metric("northbridge_stream_transactions_total", &labels))
            }
            Process::KafkaStreams(_) => None,
        }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

fn common_settings(prefix: &str) -> Vec<(&str, &str)> {
    vec![
        ("kafka.bootstrap_servers", shared().bootstrap()),
        ("topics.prefix", prefix),
    ]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let settings = arguments.iter().filter_map(|text| text.split_once('='));
    let settings: Vec<(&str, &str)> = settings.collect();
    println!(
        "who          events/s  visible p50 ms   p90 ms   p99 ms  longest ms  transactions/s  CPU us/event"
    );
    for _ in 0..ROUNDS {
        for contestant in Contestant::ALL {
            let running = contestant.start(topics(), &settings);
            for rate_per_s in RATES_PER_S {
                measure(contestant, &running, rate_per_s);
            }
        }
    }
    println!("\nwho          caught up with  events/s  CPU us/event  memory MB");
    for _ in 0..ROUNDS {
        for contestant in Contestant::ALL {
            catch_up(contestant, &settings);
        }
    }
}

/// Creates topics, and returns their prefix.
fn topics() -> String {
    let prefix = unique_prefix("freshness");
    create_topics(&common_settings(&prefix));
    prefix
}

fn measure(contestant: Contestant, running: &Running, rate_per_s: u32) {
    let warm_up = rate_per_s * u32::try_from(WARM_UP.as_secs()).unwrap();
    let count = warm_up + rate_per_s * u32::try_from(DURATION.as_secs()).unwrap();
    let acknowledged = Acknowledged::default();
    let states = Consumption::begin(&running.topic("command-state"));
    let topic = running.topic("command-status");
    let producing = {
        let acknowledged = acknowledged.clone();
        thread::spawn(move || produce(&topic, rate_per_s, count, acknowledged))
    };
    let mut latencies = Vec::new();
    let pid = running.pid();
    let mut before = None;
    let last = states.read(rate_per_s, count, |number| {
        if number >= warm_up {
            before.get_or_insert_with(|| (running.committed(), cpu_time(&pid), Instant::now()));
            // A state may be seen before the acknowledgement of its confirmation is.
            let at = acknowledged.0.lock().unwrap().get(&number).copied();
            latencies.push(at.map_or(Duration::ZERO, |at| at.elapsed()));
        }
    });
    producing.join().expect("no panic");
    let (transactions, cpu, began) = before.expect("states");
    let took = (last - began).as_secs_f64();
    latencies.sort_unstable();
    let shown =
        [50, 90, 99, 100].map(|percent| percentile(&latencies, percent).as_secs_f64() * 1e3);
    let [p50, p90, p99, longest] = shown;
    let committed = running.committed().zip(transactions);
    let per_s = committed.map(|(after, before)| format!("{:.1}", (after - before) / took));
    println!(
        "{:12} {rate_per_s:8} {p50:15.0} {p90:8.0} {p99:8.0} {longest:11.0} {:>15} {:13.1}",
        format!("{contestant:?}"),
        per_s.as_deref().unwrap_or("-"),
        cpu_time(&pid).saturating_sub(cpu).as_secs_f64() * 1e6 / (took * f64::from(rate_per_s)),
    );
}

/// From the first state that is visible to the last one: starting is not part of it, but
/// of the CPU time.
fn catch_up(contestant: Contestant, settings: &[(&str, &str)]) {
    let prefix = topics();
    let rate_per_s = u32::MAX;
    let input = format!("{prefix}command-status");
    produce(&input, rate_per_s, BACKLOG, Acknowledged::default());
    let states = Consumption::begin(&format!("{prefix}command-state"));
    let reading = thread::spawn(move || {
        let mut began = None;
        let last = states.read(rate_per_s, BACKLOG, |_| {
            began.get_or_insert_with(Instant::now);
        });
        last - began.expect("states")
    });
    let running = contestant.start(prefix, settings);
    let took = reading.join().expect("no panic").as_secs_f64();
    let pid = running.pid();
    println!(
        "{:12} {BACKLOG:15} {:9.0} {:13.1} {:10.0}",
        format!("{contestant:?}"),
        f64::from(BACKLOG) / took,
        cpu_time(&pid).as_secs_f64() * 1e6 / f64::from(BACKLOG),
        memory_mb(&pid, "VmHWM"),
    );
}

/// Produces at a constant rate, whatever the cluster does.
fn produce(topic: &str, rate_per_s: u32, count: u32, acknowledged: Acknowledged) {
    let producer: BaseProducer<Acknowledged> = ClientConfig::new()
        .set("bootstrap.servers", shared().bootstrap())
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(acknowledged)
        .expect("a producer");
    let began = Instant::now();
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number / rate_per_s;
        producer.poll(due.saturating_duration_since(Instant::now()));
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let key = key(rate_per_s, number);
        let body = message_confirm(&key, "d-1", "sent");
        let record = BaseRecord::with_opaque_to(topic, Box::new(number));
        let record = record.key(&key).payload(&body);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("room");
    }
    producer.flush(TIMEOUT).expect("all records written");
}

fn key(rate_per_s: u32, number: u32) -> String {
    format!("at-{rate_per_s}-{number}")
}

/// A reader of the states from their present end on.
struct Consumption(BaseConsumer);

impl Consumption {
    fn begin(topic: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", shared().bootstrap())
            .set("group.id", "freshness")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .expect("a consumer");
        let mut assigned = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let end = consumer
                .fetch_watermarks(topic, partition, TIMEOUT)
                .expect("an end")
                .1;
            assigned
                .add_partition_offset(topic, partition, Offset::Offset(end))
                .expect("an offset");
        }
        consumer.assign(&assigned).expect("partitions");
        Self(consumer)
    }

    /// Calls `seen` with the number of each confirmation whose state is visible. Returns
    /// when the last one was.
    fn read(&self, rate_per_s: u32, count: u32, mut seen: impl FnMut(u32)) -> Instant {
        let prefix = key(rate_per_s, 0);
        let prefix = prefix.trim_end_matches('0');
        let mut left = count;
        loop {
            let record = self.0.poll(TIMEOUT).expect("a state").expect("no error");
            let key = std::str::from_utf8(record.key().expect("a key")).expect("text");
            let Some(number) = key.strip_prefix(prefix) else {
                continue;
            };
            seen(number.parse().expect("a number"));
            left -= 1;
            if left == 0 {
                return Instant::now();
            }
        }
    }
}
