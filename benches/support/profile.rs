//! One producer under one profile: an open loop of pushes at a constant rate in
//! this process, their latency and their CPU time.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use northbridge::config::Settings;
use northbridge::kafka::admin::TopicAdmin;
use northbridge::kafka::failures::Failures;
use northbridge::kafka::headers::of_record;
use northbridge::kafka::metrics::{KafkaClientFamilies, ProducerMetrics, TopicFindings};
use northbridge::kafka::monitor::Monitor;
use northbridge::kafka::{Producer, Settlement};
use northbridge::metrics::Metrics;
use northbridge::notification::{Rules, read};
use northbridge::process::last_errors::LastErrors;
use northbridge::process::readiness::Readiness;
use northbridge::record::{Arrival, KeyedRecord};
use northbridge::topics::specs;
use rdkafka::ClientConfig;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::support::bodies;
use crate::usage::{cpu_time, percentile};

/// How long records are sent before the measurement, so that connections are
/// open and every partition's leader knows the producer's id.
const WARM_UP: Duration = Duration::from_secs(3);
/// Longer than any record waits here; a record without acknowledgement by then
/// fails the run.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How much may be outstanding; always with acks=all and idempotence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// librdkafka's default: five requests in flight to each broker.
    FiveInFlight,
    /// One request in flight to each broker.
    OneInFlight,
    /// One batch outstanding on each partition, as northbridge 0.2.0 had.
    OneBatch,
    /// northbridge: one batch outstanding on each partition that has its turn.
    Turns,
}

impl Profile {
    /// In the order of the comparison.
    pub(crate) const ALL: [Self; 4] = [
        Self::FiveInFlight,
        Self::OneInFlight,
        Self::OneBatch,
        Self::Turns,
    ];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FiveInFlight => "five-in-flight",
            Self::OneInFlight => "one-in-flight",
            Self::OneBatch => "one-batch",
            Self::Turns => "turns",
        })
    }
}

/// The result of one run. Latencies count from the intended send time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) max: Duration,
    /// The client process's CPU time.
    pub(crate) cpu_us_per_record: f64,
}

/// A producer: librdkafka's own, with lanes before it or without, or northbridge's.
enum Sender {
    Bare(Bare),
    OneBatch {
        bare: Bare,
        lanes: Vec<Mutex<Lane>>,
    },
    Product {
        producer: Producer,
        _monitor: Monitor,
    },
}

struct Bare {
    producer: FutureProducer,
    topic: String,
}

/// What is outstanding on a partition, and what waits for that.
#[derive(Default)]
struct Lane {
    outstanding: usize,
    waiting: Vec<(KeyedRecord, oneshot::Sender<DeliveryFuture>)>,
}

/// Runs a profile on existing topics.
pub(crate) async fn run(
    profile: Profile,
    settings: &Settings,
    rate_per_s: u32,
    measured: Duration,
) -> Figures {
    let sender = Arc::new(Sender::new(profile, settings));
    load(&sender, rate_per_s, WARM_UP).await;
    let before = cpu_time("self");
    let mut latencies = load(&sender, rate_per_s, measured).await;
    let used = cpu_time("self").saturating_sub(before);
    latencies.sort_unstable();
    let records = u32::try_from(latencies.len()).expect("a number of records");
    Figures {
        p50: percentile(&latencies, 50),
        p99: percentile(&latencies, 99),
        max: percentile(&latencies, 100),
        cpu_us_per_record: used.as_secs_f64() * 1e6 / f64::from(records),
    }
}

async fn load(sender: &Arc<Sender>, rate_per_s: u32, duration: Duration) -> Vec<Duration> {
    let mut deliveries = JoinSet::new();
    let start = Instant::now();
    for number in 0_u32.. {
        let intended = Duration::from_secs(1) * number / rate_per_s;
        if intended >= duration {
            break;
        }
        tokio::time::sleep_until((start + intended).into()).await;
        let sender = Arc::clone(sender);
        deliveries.spawn(async move {
            sender.deliver(record(number)).await;
            start.elapsed().saturating_sub(intended)
        });
    }
    deliveries.join_all().await
}

/// A push's record, as the ingress delivers it.
fn record(number: u32) -> KeyedRecord {
    let id = format!("request-{number}-{:08x}", fastrand::u32(..));
    let body = Bytes::from(bodies::message_confirm(&id, "device-1", "delivered"));
    let arrival = Arrival {
        source: Bytes::from_static(b"/notifications"),
        received_at: Utc::now(),
        traceparent: None,
    };
    let notification = read(&body, Rules::default()).expect("a notification");
    KeyedRecord::from_notification(&body, &notification, arrival)
}

impl Sender {
    fn new(profile: Profile, settings: &Settings) -> Self {
        match profile {
            Profile::FiveInFlight => Self::Bare(Bare::new(settings, 5)),
            Profile::OneInFlight => Self::Bare(Bare::new(settings, 1)),
            Profile::OneBatch => Self::OneBatch {
                bare: Bare::new(settings, 5),
                lanes: (0..settings.topics.partitions)
                    .map(|_| Mutex::default())
                    .collect(),
            },
            Profile::Turns => Self::product(settings),
        }
    }

    fn product(settings: &Settings) -> Self {
        let metrics = Metrics::new();
        let client = KafkaClientFamilies::register(&metrics).client("bench");
        let failures = Failures::new(settings, &client, LastErrors::default());
        let admin = TopicAdmin::new(settings, &failures).expect("an administration client");
        let producer_metrics = ProducerMetrics::register(&metrics);
        let producer = Producer::new(settings, producer_metrics, client, failures);
        let producer = producer.expect("a producer");
        let readiness = Readiness::new(&metrics);
        let deadline = settings.http.answer_deadline_ms.duration();
        let monitor = Monitor::start(
            producer.clone(),
            admin,
            TopicFindings::register(&metrics),
            &readiness,
            None,
            deadline,
        );
        Self::Product {
            producer,
            _monitor: monitor.expect("a thread"),
        }
    }

    async fn deliver(&self, record: KeyedRecord) {
        match self {
            Self::Bare(bare) => acknowledged(bare.send(&record, None)).await,
            Self::OneBatch { bare, lanes } => {
                let partition = fastrand::usize(..lanes.len());
                let sent = Lane::send(&lanes[partition], bare, record, partition).await;
                acknowledged(sent).await;
                Lane::settle(&lanes[partition], bare, partition);
            }
            Self::Product { producer, .. } => {
                let (settled, result) = oneshot::channel();
                let on_settled = Box::new(move |result| drop(settled.send(result)));
                producer.deliver(record, Instant::now() + TIMEOUT, on_settled);
                let settlement = result.await.expect("a settlement");
                assert!(
                    matches!(settlement, Settlement::Delivered(_)),
                    "{settlement:?}"
                );
            }
        }
    }
}

impl Bare {
    /// With those of northbridge's settings that matter on a healthy cluster.
    fn new(settings: &Settings, requests_in_flight: u32) -> Self {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &settings.kafka.bootstrap_servers)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("max.in.flight", requests_in_flight.to_string())
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("socket.nagle.disable", "true")
            .set("queue.buffering.max.messages", "1000000")
            .create();
        let [command_status, ..] = specs(settings);
        Self {
            producer: producer.expect("a producer"),
            topic: command_status.name,
        }
    }

    fn send(&self, record: &KeyedRecord, partition: Option<usize>) -> DeliveryFuture {
        let mut bare = FutureRecord::to(&self.topic)
            .key(record.key().expect("a key"))
            .payload(record.value())
            .headers(of_record(record));
        bare.partition = partition.map(|partition| i32::try_from(partition).expect("a partition"));
        let sent = self.producer.send_result(bare);
        sent.map_err(|(error, _)| error).expect("room in the queue")
    }
}

async fn acknowledged(sent: DeliveryFuture) {
    sent.await.expect("a report").expect("a delivery");
}

impl Lane {
    async fn send(
        lane: &Mutex<Self>,
        bare: &Bare,
        record: KeyedRecord,
        partition: usize,
    ) -> DeliveryFuture {
        let sent = {
            let mut lane = lane.lock().unwrap();
            if lane.outstanding == 0 {
                lane.outstanding = 1;
                return bare.send(&record, Some(partition));
            }
            let (sender, sent) = oneshot::channel();
            lane.waiting.push((record, sender));
            sent
        };
        sent.await.expect("its turn")
    }

    fn settle(lane: &Mutex<Self>, bare: &Bare, partition: usize) {
        let mut lane = lane.lock().unwrap();
        lane.outstanding -= 1;
        if lane.outstanding == 0 {
            lane.outstanding = lane.waiting.len();
            for (record, sender) in lane.waiting.drain(..) {
                let sent = bare.send(&record, Some(partition));
                assert!(sender.send(sent).is_ok(), "nobody gives up");
            }
        }
    }
}
