//! Who is back first after an outage: the cluster, as a plain producer and its
//! own metadata see it, or the product, as a sender sees it.

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

use crate::scene::{PARTITIONS, Scene};
use crate::support::eventually;
use crate::support::load::{Answer, Kind, Load, Report, Running};

/// Pushes a second of the sender that looks for the product's return: each
/// partition of the witness's topic has several.
const RATE: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// How long a question about all partitions may take.
const ASK: Duration = Duration::from_millis(500);

/// Both watch from here on.
#[derive(Debug)]
pub(crate) struct Watch {
    witness: Witness,
    in_sync: Option<JoinHandle<Instant>>,
    load: Running,
    load_began: Instant,
}

/// When the cluster and the product were back: for one partition, and wholly.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recovery {
    /// The first acknowledgement.
    pub(crate) cluster_first: Instant,
    /// The moment at which every partition could take records.
    pub(crate) cluster_whole: Instant,
    /// The first answer 200 after the first other one.
    pub(crate) product_first: Instant,
    /// The last answer other than 200.
    pub(crate) product_whole: Instant,
}

impl Watch {
    /// Begins to watch; the cluster may still be well.
    pub(crate) fn begin(scene: &Scene) -> Self {
        let load = Load {
            rate_per_s: RATE,
            connections: RATE * 16,
            // Those go to the topic that the witness writes to.
            kinds: &[Kind::Other],
            ..Load::to(scene.balancer.address())
        };
        let load_began = Instant::now();
        Self {
            witness: Witness::start(&scene.cluster.bootstrap(), scene.witness_topic()),
            in_sync: None,
            load: load.start(),
            load_began,
        }
    }

    /// The outage is complete: what is acknowledged from now on is recovery.
    pub(crate) fn outage_begins(&self) {
        self.witness.acknowledged().clear();
    }

    /// The brokers are about to be started again.
    pub(crate) fn outage_ends(&mut self, scene: &Scene) {
        let bootstrap = scene.cluster.bootstrap();
        self.in_sync = Some(thread::spawn(move || await_in_sync(&bootstrap)));
    }

    /// Waits for the cluster's return, and what is pushed then to be answered.
    pub(crate) fn end(self) -> (Recovery, Report) {
        let acknowledged = self.witness.await_all();
        let in_sync = self.in_sync.map(|thread| thread.join().expect("metadata"));
        self.load.wait_for_answers(5 * RATE);
        let report = self.load.stop();
        let first = acknowledged.iter().map(|(at, _)| *at).min();
        let whole = acknowledged.iter().map(|(at, _)| *at).chain(in_sync).max();
        let answered = report.pushes.iter().map(|push| {
            let at = self.load_began + push.intended + push.latency;
            (at, push.answer == Answer::Status(200))
        });
        let answered: Vec<_> = answered.collect();
        let bad = answered.iter().filter(|(_, is_ok)| !is_ok);
        let first_bad = bad.clone().map(|(at, _)| *at).min();
        let first_ok = answered
            .iter()
            .filter(|(at, is_ok)| *is_ok && first_bad.is_none_or(|bad| *at > bad))
            .map(|(at, _)| *at)
            .min();
        let recovery = Recovery {
            cluster_first: first.expect("the cluster came back"),
            cluster_whole: whole.expect("the cluster came back"),
            product_first: first_ok.expect("the product came back"),
            product_whole: bad.map(|(at, _)| *at).max().unwrap_or(self.load_began),
        };
        (recovery, report)
    }
}

impl Recovery {
    /// How much later the first answer 200 was than the cluster's first
    /// acknowledgement.
    pub(crate) fn first_late(&self) -> Duration {
        self.product_first
            .saturating_duration_since(self.cluster_first)
    }

    /// How much later the last answer other than 200 was than the moment at
    /// which every partition could take records.
    pub(crate) fn whole_late(&self) -> Duration {
        self.product_whole
            .saturating_duration_since(self.cluster_whole)
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
            "first 200 {:.3} s after the cluster's first acknowledgement; \
             last other answer {:.3} s after every partition could take records",
            signed(self.product_first, self.cluster_first),
            signed(self.product_whole, self.cluster_whole),
        )
    }
}

/// A plain producer that writes to every partition, again and again.
#[derive(Debug)]
struct Witness {
    acknowledged: Acknowledged,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The first acknowledgement of each partition, in their order.
type Acknowledged = Arc<Mutex<Vec<(Instant, i32)>>>;

impl Witness {
    fn start(bootstrap: &str, topic: String) -> Self {
        let acknowledged = Acknowledged::default();
        let producer: BaseProducer<Heard> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "1500")
            .set("socket.timeout.ms", "1000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "200")
            .set("topic.metadata.refresh.fast.interval.ms", "100")
            .create_with_context(Heard(Arc::clone(&acknowledged)))
            .expect("a plain producer");
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || write_on(&producer, &topic, &stop))
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

    fn await_all(&self) -> Vec<(Instant, i32)> {
        eventually("every partition acknowledges", || {
            let acknowledged = self.acknowledged().clone();
            let partitions = i32::try_from(acknowledged.len()).ok()?;
            (partitions == PARTITIONS).then_some(acknowledged)
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// When every partition of all topics can take records with acks=all: it has a
/// leader, and two replicas in sync.
fn await_in_sync(bootstrap: &str) -> Instant {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", "200")
        .create()
        .expect("a client");
    eventually("every partition can take records", || {
        let metadata = client.fetch_metadata(None, ASK).ok()?;
        let mut partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let whole =
            partitions.all(|partition| partition.leader() >= 0 && partition.isr().len() >= 2);
        whole.then(Instant::now)
    })
}

fn write_on(producer: &BaseProducer<Heard>, topic: &str, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for partition in 0..PARTITIONS {
            // A full queue is an outage too; the next round tries again.
            let record = BaseRecord::<(), str>::to(topic).partition(partition);
            let _ = producer.send(record.payload("a record of the witness"));
        }
        producer.poll(PAUSE);
    }
    producer.purge(rdkafka::producer::PurgeConfig::default().queue().inflight());
}

struct Heard(Acknowledged);

impl ClientContext for Heard {}

impl ProducerContext for Heard {
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
