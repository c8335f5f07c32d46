//! The producer that holds the promise: `KeyedRecord → Delivery`.
//!
//! ```text
//! deliver ── lane of (topic, partition) ── librdkafka ── broker
//!    ▲              │ waits while a batch          │
//!    │              ▼ is outstanding               ▼
//!    └── again until `give_up_at` ◄── failed ── delivery report ──► Delivery
//! ```
//!
//! A [`Delivery`] comes from librdkafka's report of an acknowledgement with
//! acks=all and from nowhere else. A failed record is tried again until its
//! caller's deadline, also on the fresh producer that replaces one with a
//! fatal error. A partition that has owed an acknowledgement for longer than
//! the answer's deadline refuses at once; the [`monitor`](super::monitor) and
//! what is outstanding find out that it is back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Statistics};
use tokio::sync::{Notify, oneshot};

use super::lane::{Lane, Settled};
use super::statistics::ClientStatistics;
use super::{murmur2, producer_config};
use crate::config::Settings;
use crate::metrics::{KafkaClientMetrics, ProducerMetrics};
use crate::record::KeyedRecord;
use crate::topics::{Plan, Topic, plans};

/// How long a failed record waits before it is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The name of this client in metrics.
const CLIENT: &str = "ingress";

/// Delivers records to the topics of [`Topic::INGRESS`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Producer(Arc<Inner>);

/// The proof that a record is durable: Kafka acknowledged it with acks=all.
///
/// Its fields are private, and only librdkafka's delivery report makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    topic: Topic,
    partition: i32,
    offset: i64,
}

/// Why there is no [`Delivery`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliveryError {
    /// The record's partition has owed an acknowledgement for longer than the
    /// answer's deadline; the record was not sent.
    #[error("Kafka has not acknowledged anything on this partition for {} s", silence.as_secs())]
    KnownDown {
        /// For how long.
        silence: Duration,
    },
    /// Kafka refuses this record for good.
    #[error("Kafka refused the record: {0}")]
    Refused(RDKafkaErrorCode),
    /// The record could not be delivered before its caller gave up; an earlier
    /// try may have reached the log.
    #[error("Kafka did not acknowledge the record in time: {0}")]
    Failed(KafkaError),
    /// The topic was not found on the cluster before the caller gave up; the
    /// record was not sent.
    #[error("the topic was not found on the cluster in time")]
    NoTopic,
}

/// What one record waits with, from its lane into librdkafka and back.
struct Job {
    lane: Arc<Lane<Job>>,
    record: KeyedRecord,
    submitted: Instant,
    done: oneshot::Sender<Result<Delivery, (KafkaError, KeyedRecord)>>,
}

type Native = ThreadedProducer<Context>;

struct Inner {
    config: ClientConfig,
    plans: Vec<Plan>,
    native: ArcSwapOption<Native>,
    lanes: [ArcSwap<TopicLanes>; Topic::INGRESS.len()],
    lanes_changed: Notify,
    fatal: AtomicBool,
    answer_deadline: Duration,
    metrics: ProducerMetrics,
    client_metrics: KafkaClientMetrics,
}

/// The lanes of one topic; none while the cluster has not told how many.
struct TopicLanes {
    lanes: Vec<Arc<Lane<Job>>>,
    unknown_since: Instant,
}

impl Delivery {
    /// The topic whose log holds the record.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// The partition that holds it.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Where it stands in the partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

impl Producer {
    /// A producer under these settings. It connects by itself, whenever there
    /// is something to connect to.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(
        settings: &Settings,
        metrics: ProducerMetrics,
        client_metrics: KafkaClientMetrics,
    ) -> Result<Self, KafkaError> {
        let inner = Arc::new(Inner {
            config: producer_config(settings),
            plans: plans(settings)
                .into_iter()
                .take(Topic::INGRESS.len())
                .collect(),
            native: ArcSwapOption::empty(),
            lanes: std::array::from_fn(|_| {
                ArcSwap::from_pointee(TopicLanes {
                    lanes: Vec::new(),
                    unknown_since: Instant::now(),
                })
            }),
            lanes_changed: Notify::new(),
            fatal: AtomicBool::new(false),
            answer_deadline: settings.http.answer_deadline_ms.duration(),
            metrics,
            client_metrics,
        });
        inner.native.store(Some(Arc::new(inner.connect()?)));
        Ok(Self(inner))
    }

    /// Delivers a record, trying again until `give_up_at`. What was handed to
    /// librdkafka by then is still waited for: the answer comes when the
    /// record is settled, which may be much later.
    ///
    /// # Errors
    ///
    /// See [`DeliveryError`]; only [`DeliveryError::Failed`] leaves open
    /// whether the record is in the log.
    pub async fn deliver(
        &self,
        mut record: KeyedRecord,
        give_up_at: Instant,
    ) -> Result<Delivery, DeliveryError> {
        let inner = &self.0;
        loop {
            let lane = inner.lane(&record, give_up_at).await?;
            let silence = lane.silence(Instant::now());
            if silence >= inner.answer_deadline {
                return Err(DeliveryError::KnownDown { silence });
            }
            let topic = record.topic();
            let (error, returned) = match inner.submit(lane, record).await {
                Ok(delivery) => return Ok(delivery),
                Err(failed) => failed,
            };
            inner.metrics.failed(topic);
            tracing::debug!(topic = topic.label(), %error, "a record was not delivered");
            if let Some(code) = refusal(&error) {
                return Err(DeliveryError::Refused(code));
            }
            if Instant::now() + RETRY_PAUSE >= give_up_at {
                return Err(DeliveryError::Failed(error));
            }
            record = returned;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Waits until librdkafka holds nothing more, for at most `within`; blocks
    /// the thread. Whether everything was settled.
    pub fn flush(&self, within: Duration) -> bool {
        match self.0.native.load_full() {
            Some(native) => native.flush(within).is_ok(),
            None => true,
        }
    }

    /// What the cluster says of a topic; blocks for at most `within`.
    pub(super) fn topic(&self, name: &str, within: Duration) -> Result<Metadata, KafkaError> {
        self.client()?.client().fetch_metadata(Some(name), within)
    }

    /// Asks a partition's leader for its last offset; blocks for at most `within`.
    pub(super) fn ask_leader(
        &self,
        name: &str,
        partition: i32,
        within: Duration,
    ) -> Result<(), KafkaError> {
        self.client()?
            .client()
            .fetch_watermarks(name, partition, within)
            .map(drop)
    }

    fn client(&self) -> Result<Arc<Native>, KafkaError> {
        self.0.native.load_full().ok_or(KafkaError::Canceled)
    }

    /// The plans of the topics it writes.
    pub(super) fn plans(&self) -> &[Plan] {
        &self.0.plans
    }

    /// The cluster told how many partitions a topic has, and which of them can
    /// take records.
    pub(super) fn seen(&self, topic: Topic, takes_records: &[bool]) {
        let inner = &self.0;
        let known = inner.lanes[topic.index()].load();
        if takes_records.len() > known.lanes.len() {
            let mut lanes = known.lanes.clone();
            for partition in (0..).take(takes_records.len()).skip(lanes.len()) {
                lanes.push(Arc::new(Lane::new(partition)));
            }
            inner.lanes[topic.index()].store(Arc::new(TopicLanes {
                lanes,
                unknown_since: known.unknown_since,
            }));
            inner.lanes_changed.notify_waiters();
        }
        for (lane, takes_records) in inner.lanes[topic.index()]
            .load()
            .lanes
            .iter()
            .zip(takes_records)
        {
            if *takes_records {
                lane.seen_well();
            } else {
                lane.seen_unwell(Instant::now());
            }
        }
    }

    /// The cluster could not be asked about a topic, or does not have it.
    pub(super) fn not_seen(&self, topic: Topic) {
        for lane in &self.0.lanes[topic.index()].load().lanes {
            lane.seen_unwell(Instant::now());
        }
    }

    /// How long the partition that is worst off has owed an acknowledgement.
    pub(super) fn longest_silence(&self) -> Duration {
        let now = Instant::now();
        let silences = self
            .0
            .lanes
            .iter()
            .map(|topic| topic.load().longest_silence(now));
        let longest = silences.max().unwrap_or_default();
        self.0.metrics.outage_seconds.set(longest.as_secs_f64());
        longest
    }

    /// How long the partition that is best off has.
    pub(super) fn shortest_silence(&self) -> Duration {
        let now = Instant::now();
        let silences = self
            .0
            .lanes
            .iter()
            .map(|topic| topic.load().shortest_silence(now));
        silences.min().unwrap_or_default()
    }

    /// How many partitions of a topic are known.
    pub(super) fn partition_count(&self, topic: Topic) -> usize {
        self.0.lanes[topic.index()].load().lanes.len()
    }

    /// Whether the producer has met a fatal error since it was last replaced.
    pub(super) fn is_fatal(&self) -> bool {
        self.0.fatal.load(Ordering::Acquire)
    }

    /// Puts a fresh producer in the place of one with a fatal error. The old
    /// one reports all it held as failed, and its records are tried again.
    pub(super) fn replace(&self) -> Result<(), KafkaError> {
        let fresh = self.0.connect()?;
        self.0.fatal.store(false, Ordering::Release);
        let old = self.0.native.swap(Some(Arc::new(fresh)));
        self.0.metrics.restarts.inc();
        if let Some(old) = old {
            std::thread::spawn(move || retire(old));
        }
        Ok(())
    }
}

/// Lets an old producer report what it held, then ends it. Its last reference
/// must not go in its own callback, whose thread the drop would wait for.
fn retire(mut old: Arc<Native>) {
    let settled = old.flush(super::DELIVERY_TIMEOUT);
    tracing::info!(
        settled = settled.is_ok(),
        "the producer with the fatal error has ended"
    );
    loop {
        match Arc::try_unwrap(old) {
            Ok(native) => return drop(native),
            Err(shared) => old = shared,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Inner {
    fn connect(self: &Arc<Self>) -> Result<Native, KafkaError> {
        self.config.create_with_context(Context {
            inner: Arc::downgrade(self),
            statistics: ClientStatistics::new(CLIENT, self.client_metrics.clone()),
        })
    }

    /// The lane of a record's partition, as soon as the topic's partitions are known.
    async fn lane(
        &self,
        record: &KeyedRecord,
        give_up_at: Instant,
    ) -> Result<Arc<Lane<Job>>, DeliveryError> {
        let topic = &self.lanes[record.topic().index()];
        loop {
            let changed = self.lanes_changed.notified();
            let known = topic.load();
            if let Some(lane) = known.choose(record.key(), self.answer_deadline) {
                return Ok(lane);
            }
            let silence = known.unknown_since.elapsed();
            if silence >= self.answer_deadline {
                return Err(DeliveryError::KnownDown { silence });
            }
            drop(known);
            if tokio::time::timeout_at(give_up_at.into(), changed)
                .await
                .is_err()
            {
                return Err(DeliveryError::NoTopic);
            }
        }
    }

    async fn submit(
        &self,
        lane: Arc<Lane<Job>>,
        record: KeyedRecord,
    ) -> Result<Delivery, (KafkaError, KeyedRecord)> {
        let (done, settled) = oneshot::channel();
        let submitted = Instant::now();
        let job = Job {
            lane: Arc::clone(&lane),
            record,
            submitted,
            done,
        };
        if let Some(job) = lane.submit(job, submitted) {
            self.send(job);
        }
        match settled.await {
            Ok(result) => result,
            // A job is dropped unsettled only with the whole producer.
            Err(_closed) => std::future::pending().await,
        }
    }

    fn send(&self, job: Job) {
        let Some(native) = self.native.load_full() else {
            return self.settle(job, Err(KafkaError::Canceled));
        };
        let key = job.record.key_bytes();
        let value = job.record.value_bytes();
        let headers = headers(&job.record);
        let partition = job.lane.partition();
        let name = self.plans[job.record.topic().index()].name.as_str();
        let mut record = BaseRecord::<[u8], [u8], Box<Job>>::with_opaque_to(name, Box::new(job))
            .partition(partition)
            .payload(&value)
            .headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        if let Err((error, record)) = native.send(record) {
            self.note_fatal(&error);
            self.settle(*record.delivery_opaque, Err(error));
        }
    }

    fn settle(&self, job: Job, result: Result<Delivery, KafkaError>) {
        let now = Instant::now();
        let settled = match &result {
            Ok(_) => Settled::Answered,
            Err(error) if refusal(error).is_some() => Settled::Answered,
            Err(_) => Settled::Silent,
        };
        let lane = Arc::clone(&job.lane);
        match result {
            Ok(delivery) => {
                self.metrics.delivered(delivery.topic, now - job.submitted);
                // Nobody listens only if the process is being torn down.
                let _ = job.done.send(Ok(delivery));
            }
            Err(error) => {
                let _ = job.done.send(Err((error, job.record)));
            }
        }
        for next in lane.settle(settled, now) {
            self.send(next);
        }
    }

    fn note_fatal(&self, error: &KafkaError) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Ordering::Release);
        }
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Inner")
            .field("plans", &self.plans)
            .finish_non_exhaustive()
    }
}

impl TopicLanes {
    /// The lane of a key, as Java's clients choose it; without a key any lane,
    /// preferably one that is well. None while there are none.
    fn choose(&self, key: Option<&[u8]>, answer_deadline: Duration) -> Option<Arc<Lane<Job>>> {
        if self.lanes.is_empty() {
            return None;
        }
        let count = self.lanes.len();
        let lane = if let Some(key) = key {
            &self.lanes[murmur2::partition(key, count)]
        } else {
            let first = fastrand::usize(..count);
            let now = Instant::now();
            (0..count)
                .map(|step| &self.lanes[(first + step) % count])
                .find(|lane| lane.silence(now) < answer_deadline)
                .unwrap_or(&self.lanes[first])
        };
        Some(Arc::clone(lane))
    }

    fn longest_silence(&self, now: Instant) -> Duration {
        let silences = self.lanes.iter().map(|lane| lane.silence(now));
        silences.max().unwrap_or_else(|| self.unknown(now))
    }

    fn shortest_silence(&self, now: Instant) -> Duration {
        let silences = self.lanes.iter().map(|lane| lane.silence(now));
        silences.min().unwrap_or_else(|| self.unknown(now))
    }

    fn unknown(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.unknown_since)
    }
}

/// The codes by which Kafka refuses one record for what it is. Everything else
/// is a state of the cluster, and passes: also a missing authorization, which
/// librdkafka reports for a while after any one was missing.
fn refusal(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error.rdkafka_error_code() {
        Some(
            code @ (RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::PolicyViolation),
        ) => Some(code),
        _ => None,
    }
}

fn headers(record: &KeyedRecord) -> OwnedHeaders {
    let mut headers = Some(OwnedHeaders::new_with_capacity(10));
    record.headers(|key, value| {
        headers = headers.take().map(|headers| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    });
    headers.unwrap_or_default()
}

/// What librdkafka calls back, on the producer's own polling thread.
struct Context {
    inner: Weak<Inner>,
    statistics: ClientStatistics,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.statistics.record(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka reports an error");
        if let Some(inner) = self.inner.upgrade() {
            inner.note_fatal(&error);
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Job>;

    fn delivery(&self, result: &DeliveryResult<'_>, job: Box<Job>) {
        let Some(inner) = self.inner.upgrade() else {
            return;
        };
        let result = match result {
            Ok(message) => Ok(Delivery {
                topic: job.record.topic(),
                partition: message.partition(),
                offset: message.offset(),
            }),
            Err((error, _)) => Err(error.clone()),
        };
        inner.settle(*job, result);
    }
}
