//! Compares the recovery of the cluster after an outage, as a plain producer and
//! the cluster's metadata show it, with that of the product, as a sender sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message};

use crate::support::eventually;
use crate::support::load::{Answer, Kind, Load, Push, Report, RunningLoad};
use crate::testbed::{PARTITIONS, Testbed};

/// Pushes per second to the product: several for each partition of the reference
/// topic.
const RATE: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// How much later than a partition's recovery its next push arrives: the cluster is
/// asked for each partition every [`PAUSE`], the product for one of six 40 times a
/// second.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(150);
/// Timeout of a metadata request for all topics.
const METADATA_TIMEOUT: Duration = Duration::from_millis(500);

/// Observes the recovery of the cluster and of the product.
#[derive(Debug)]
pub(crate) struct RecoveryWatch {
    reference: ReferenceProducer,
    in_sync: Option<JoinHandle<Instant>>,
    load: RunningLoad,
    load_began: Instant,
    outage_began: Option<Instant>,
}

/// When the cluster and the product had recovered, at first and completely.
///
/// A push counts by its arrival: what arrives while the cluster recovers may wait for
/// its partition, and only its answer decides whether the platform lost anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// The first acknowledgement.
    pub(crate) cluster_first: Instant,
    /// Every partition was available.
    pub(crate) cluster_complete: Instant,
    /// The arrival of the first push in the outage that was answered 200.
    pub(crate) product_first: Instant,
    /// The arrival of the last push that was answered otherwise.
    pub(crate) product_complete: Instant,
    /// The first answer 200 to a push that arrived in the outage or later.
    pub(crate) first_answer: Instant,
}

impl RecoveryWatch {
    /// Starts observing; the cluster may still be healthy.
    pub(crate) fn begin(testbed: &Testbed) -> Self {
        let load = Load {
            rate_per_s: RATE,
            connections: RATE * 16,
            // These are stored in the reference topic.
            kinds: &[Kind::Other],
            ..Load::to(testbed.balancer.address())
        };
        let load_began = Instant::now();
        Self {
            reference: ReferenceProducer::start(
                &testbed.cluster.bootstrap(),
                testbed.reference_topic(),
            ),
            in_sync: None,
            load: load.start(),
            load_began,
            outage_began: None,
        }
    }

    /// Marks the outage as complete: acknowledgements count as recovery from now on.
    pub(crate) fn outage_begins(&mut self) {
        self.reference.acknowledged().clear();
        self.outage_began = Some(Instant::now());
    }

    /// Must be called right before the brokers are restarted.
    pub(crate) fn outage_ends(&mut self, testbed: &Testbed) {
        let bootstrap = testbed.cluster.bootstrap();
        self.in_sync = Some(thread::spawn(move || wait_until_in_sync(&bootstrap)));
    }

    /// Waits until the cluster has recovered and further pushes have been answered.
    pub(crate) fn end(self) -> (Recovery, Report) {
        let acknowledged = self.reference.wait_for_all_partitions();
        let in_sync = self.in_sync.map(|thread| thread.join().expect("metadata"));
        self.load.wait_for_answers(5 * RATE);
        let report = self.load.stop();
        let first = acknowledged.iter().map(|(at, _)| *at).min();
        let complete = acknowledged.iter().map(|(at, _)| *at).chain(in_sync).max();
        let outage_began = self.outage_began.expect("there was an outage");
        let arrived = |push: &Push| self.load_began + push.intended;
        let (stored, others): (Vec<&Push>, Vec<&Push>) = report
            .pushes
            .iter()
            .filter(|push| arrived(push) >= outage_began)
            .partition(|push| push.answer == Answer::Status(200));
        let product_first = stored.iter().map(|push| arrived(push)).min();
        let answered = stored.iter().map(|push| arrived(push) + push.latency);
        let recovery = Recovery {
            cluster_first: first.expect("the cluster recovered"),
            cluster_complete: complete.expect("the cluster recovered"),
            product_first: product_first.expect("the product recovered"),
            product_complete: others
                .iter()
                .map(|push| arrived(push))
                .max()
                .unwrap_or(outage_began),
            first_answer: answered.min().expect("the product recovered"),
        };
        (recovery, report)
    }
}

impl Recovery {
    /// From the cluster's first acknowledgement to the arrival of the first push that
    /// was answered 200.
    pub(crate) fn first_delay(&self) -> Duration {
        self.product_first
            .saturating_duration_since(self.cluster_first)
    }

    /// From the moment at which every partition was available to the arrival of the
    /// last push that was answered otherwise.
    pub(crate) fn complete_delay(&self) -> Duration {
        self.product_complete
            .saturating_duration_since(self.cluster_complete)
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = |at: Instant, from: Instant| {
            if at >= from {
                (at - from).as_secs_f64()
            } else {
                -(from - at).as_secs_f64()
            }
        };
        write!(
            f,
            "the first push that is stored arrives {:.3} s after the cluster's first \
             acknowledgement, the first 200 is {:.3} s after it; the last \
             that is not arrives {:.3} s after every partition was available",
            signed(self.product_first, self.cluster_first),
            signed(self.first_answer, self.cluster_first),
            signed(self.product_complete, self.cluster_complete),
        )
    }
}

/// A plain producer that keeps writing to every partition.
#[derive(Debug)]
struct ReferenceProducer {
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The first acknowledgement of each partition, in their order.
type Acknowledged = Arc<Mutex<Vec<(Instant, i32)>>>;

impl ReferenceProducer {
    fn start(bootstrap: &str, topic: String) -> Self {
        let acknowledged = Acknowledged::default();
        let producer: BaseProducer<DeliveryRecorder> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "1500")
            .set("socket.timeout.ms", "1000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "200")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .create_with_context(DeliveryRecorder(Arc::clone(&acknowledged)))
            .expect("a plain producer");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || produce_until_stopped(&producer, &topic, &stop))
        };
        Self {
            acknowledged,
            stop,
            thread: Some(thread),
        }
    }

    fn acknowledged(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, i32)>> {
        let locked = self.acknowledged.lock();
        locked.unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_all_partitions(&self) -> Vec<(Instant, i32)> {
        eventually("every partition acknowledges", || {
            let acknowledged = self.acknowledged().clone();
            let partitions = i32::try_from(acknowledged.len()).ok()?;
            (partitions == PARTITIONS).then_some(acknowledged)
        })
    }
}

impl Drop for ReferenceProducer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits until every partition of all topics accepts records with `acks=all`: it
/// has a leader and two in-sync replicas. Returns the time.
fn wait_until_in_sync(bootstrap: &str) -> Instant {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .expect("a client");
    eventually("every partition can take records", || {
        let metadata = client.fetch_metadata(None, METADATA_TIMEOUT).ok()?;
        let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let available =
            partitions.all(|partition| partition.leader() >= 0 && partition.isr().len() >= 2);
        available.then(Instant::now)
    })
}

fn produce_until_stopped(
    producer: &BaseProducer<DeliveryRecorder>,
    topic: &str,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            // The queue is full during an outage; the next round retries.
            let record = BaseRecord::<(), str>::to(topic).partition(partition);
            let _ = producer.send(record.payload("reference"));
        }
        producer.poll(PAUSE);
    }
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
}

struct DeliveryRecorder(Acknowledged);

impl ClientContext for DeliveryRecorder {}

impl ProducerContext for DeliveryRecorder {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let Ok(record) = result else { return };
        let mut acknowledged = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known: BTreeSet<i32> = acknowledged.iter().map(|(_, known)| *known).collect();
        if !known.contains(&record.partition()) {
            acknowledged.push((Instant::now(), record.partition()));
        }
    }
}
