//! The producer behind every 200: `KeyedRecord → Delivery`.
//!
//! ```text
//! deliver ── lane of (topic, partition) ── turn at its broker ── librdkafka ── broker
//!              ▲                                                   │
//!              │                                                   ▼
//!              └── retry ◄── failed ────────────────────── delivery report ──► Delivery
//! ```
//!
//! Only librdkafka's report of an acknowledgement with acks=all makes a
//! [`Delivery`]. A failed record is retried until its caller's deadline. A
//! partition without an acknowledgement for the whole push deadline fails new
//! records at once, until the [`monitor`](super::monitor) sees it available again or
//! an outstanding record is acknowledged.
//!
//! librdkafka's producer can be replaced: its records go to the new one, in
//! their order, each to the partition that its key has by then.

mod observation;
mod replace;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Statistics};

use super::delivery_error::{DeliveryError, TopicPartition};
use super::failure::{Denial, Operation};
use super::failures::Failures;
use super::lane::{Lane, Next, Settled};
use super::metrics::{KafkaClientMetrics, ProducerMetrics};
use super::polled::PolledProducer;
use super::statistics::ClientStatistics;
use super::topic_lanes::TopicLanes;
use super::turns::{Brokers, Turns};
use super::{headers, producer_config};
use crate::config::Settings;
use crate::record::KeyedRecord;
use crate::topics::{Topic, TopicSpec, specs};

/// The pause before a failed record is retried.
const RETRY_BACKOFF: Duration = Duration::from_millis(50);

/// Delivers records to the topics of [`Topic::INGRESS`]. Clones share one
/// librdkafka producer.
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

/// Boxed, as librdkafka holds it.
type JobLane = Lane<Box<Job>>;

/// One record on its way through a lane and librdkafka, and who waits for it.
struct Job {
    lane: Arc<JobLane>,
    record: KeyedRecord,
    /// Made before the record waits, because librdkafka sends what it has as soon as it has
    /// the first record of a batch: between two of them there must be little to do. `None`
    /// once librdkafka has had them.
    headers: Option<OwnedHeaders>,
    submitted: Instant,
    /// When nobody waits for the record any more.
    deadline: Instant,
    on_settled: OnSettled,
}

/// What is called with what became of a record.
pub(crate) type OnSettled = Box<dyn FnOnce(Settlement) + Send + Sync>;

/// What became of a record.
#[derive(Debug)]
pub enum Settlement {
    /// Kafka acknowledged it.
    Delivered(Delivery),
    /// It was not acknowledged.
    Failed(DeliveryError),
    /// It was taken back before librdkafka had it.
    TakenBack(Box<KeyedRecord>),
}

/// Where a record would go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destination {
    /// How many partitions its topic has; 0 if that is not known yet.
    pub(crate) partitions: i32,
    pub(crate) partition: i32,
    /// How long the partition has been without a leader, or without an
    /// acknowledgement that is due.
    pub(crate) unacknowledged_for: Duration,
    /// How long it was, if it is said to be available again and has not acknowledged
    /// anything since.
    pub(crate) unproven: Duration,
}

/// librdkafka's producer.
type Handle = PolledProducer<Context>;

struct Inner {
    config: ClientConfig,
    specs: Vec<TopicSpec>,
    /// `None` only until the first handle is created, which refers to `Inner`.
    handle: ArcSwapOption<Handle>,
    lanes: [TopicLanes<Box<Job>>; Topic::INGRESS.len()],
    brokers: Brokers<JobLane>,
    answer_deadline: Duration,
    metrics: ProducerMetrics,
    client_metrics: KafkaClientMetrics,
    failures: Failures,
    /// Ends the pauses of lanes.
    runtime: tokio::runtime::Handle,
}

impl Delivery {
    pub(crate) fn topic(&self) -> Topic {
        self.topic
    }

    pub(crate) fn partition(&self) -> i32 {
        self.partition
    }

    pub(crate) fn offset(&self) -> i64 {
        self.offset
    }
}

impl Producer {
    /// Creates a producer, which connects in the background as soon as Kafka
    /// is reachable. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns librdkafka's error if it rejects the settings.
    pub fn new(
        settings: &Settings,
        metrics: ProducerMetrics,
        client_metrics: KafkaClientMetrics,
        failures: Failures,
    ) -> Result<Self, KafkaError> {
        let inner = Arc::new(Inner {
            config: producer_config(settings),
            specs: specs(settings)
                .into_iter()
                .take(Topic::INGRESS.len())
                .collect(),
            handle: ArcSwapOption::empty(),
            lanes: std::array::from_fn(|_| TopicLanes::new()),
            brokers: Brokers::new(),
            answer_deadline: settings.http.answer_deadline_ms.duration(),
            metrics,
            client_metrics,
            failures,
            runtime: tokio::runtime::Handle::current(),
        });
        inner
            .handle
            .store(Some(Arc::new(inner.create_handle(None)?)));
        Ok(Self(inner))
    }

    /// Delivers a record, and retries it until `deadline`. `on_settled` gets what became of
    /// it once librdkafka holds the record no more, which may be long after `deadline`:
    /// whoever answers earlier is told again.
    ///
    /// It is called at once, by the thread that takes delivery reports, or by a task,
    /// and must not block. Only after [`DeliveryError::Unconfirmed`] may a record that
    /// failed still be in the log.
    pub fn deliver(&self, record: KeyedRecord, deadline: Instant, on_settled: OnSettled) {
        self.0.deliver(record, deadline, on_settled);
    }

    /// Returns where a record would go now. One without a key may go elsewhere.
    pub(crate) fn destination(&self, record: &KeyedRecord) -> Destination {
        let (inner, now) = (&self.0, Instant::now());
        let lanes = &inner.lanes[record.topic().index()];
        let lane = lanes.choose(record.key(), inner.answer_deadline);
        Destination {
            partitions: self.partitions(record.topic()),
            partition: lane.partition(),
            unacknowledged_for: lane.unacknowledged_for(now),
            unproven: lane.unproven(),
        }
    }

    /// Takes back the records of a partition that wait for an acknowledgement of others
    /// and that librdkafka does not have, in their order.
    pub(crate) fn take_back(&self, topic: Topic, partition: i32) {
        let lanes = &self.0.lanes[topic.index()];
        let lane = lanes.of_partition(partition);
        let lane = lane.unwrap_or_else(|| Arc::clone(lanes.unplaced()));
        for job in lane.take_waiting() {
            (job.on_settled)(Settlement::TakenBack(Box::new(job.record)));
        }
    }

    /// Returns how many partitions a topic has; 0 if that is not known yet.
    pub(crate) fn partitions(&self, topic: Topic) -> i32 {
        let count = self.0.lanes[topic.index()].partition_count();
        i32::try_from(count).unwrap_or(i32::MAX)
    }

    /// Returns whether the metadata shows the partition as available, and records for it
    /// are not refused.
    pub(crate) fn is_available(&self, topic: Topic, partition: i32) -> bool {
        let lane = self.0.lanes[topic.index()].of_partition(partition);
        lane.is_some_and(|lane| lane.is_available(self.0.answer_deadline, Instant::now()))
    }

    /// Returns what fails at the moment.
    pub(super) fn failures(&self) -> &Failures {
        &self.0.failures
    }

    /// Waits until librdkafka has settled everything it holds, for at most
    /// `timeout`; blocks the thread. Returns whether it has.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let handle = self.0.handle.load_full();
        handle.is_none_or(|handle| handle.flush(timeout).is_ok())
    }
}

impl Inner {
    /// Creates a handle that connects to the configured servers, and to `others`.
    fn create_handle(self: &Arc<Self>, others: Option<&str>) -> Result<Handle, KafkaError> {
        let mut config = self.config.clone();
        let configured = self.config.get("bootstrap.servers");
        if let (Some(configured), Some(others)) = (configured, others) {
            config.set("bootstrap.servers", format!("{configured},{others}"));
        }
        config.create_with_context(Context {
            inner: Arc::downgrade(self),
            failures: self.failures.clone(),
            statistics: ClientStatistics::new(self.client_metrics.clone()),
        })
    }

    fn handle(&self) -> Result<Arc<Handle>, KafkaError> {
        self.handle.load_full().ok_or(KafkaError::Canceled)
    }

    fn deliver(self: &Arc<Self>, record: KeyedRecord, deadline: Instant, on_settled: OnSettled) {
        let (topic, now) = (record.topic(), Instant::now());
        let lanes = &self.lanes[topic.index()];
        let lane = lanes.choose(record.key(), self.answer_deadline);
        let is_unplaced = Arc::ptr_eq(&lane, lanes.unplaced());
        if lane.is_down(self.answer_deadline, now) {
            let error = if is_unplaced {
                DeliveryError::UnknownTopic(topic)
            } else {
                DeliveryError::Unavailable {
                    partition: TopicPartition(topic, lane.partition()),
                    unacknowledged_for: lane.unacknowledged_for(now),
                }
            };
            return on_settled(Settlement::Failed(error));
        }
        if is_unplaced {
            self.expire_unplaced(topic, deadline);
        }
        self.enqueue(Box::new(Job {
            lane,
            headers: Some(headers::of_record(&record)),
            record,
            submitted: now,
            deadline,
            on_settled,
        }));
    }

    /// Fails what still waits for its topic's partitions at `deadline`, and for longer.
    fn expire_unplaced(self: &Arc<Self>, topic: Topic, deadline: Instant) {
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(deadline.into()).await;
            let lane = inner.lanes[topic.index()].unplaced();
            for job in lane.take_expired(|job| job.deadline <= deadline) {
                let error = DeliveryError::UnknownTopic(topic);
                (job.on_settled)(Settlement::Failed(error));
            }
        });
    }

    /// Gives a job to its lane, or if that is retired, to the one in its place.
    fn enqueue(self: &Arc<Self>, mut job: Box<Job>) {
        let lanes = &self.lanes[job.record.topic().index()];
        loop {
            let lane = Arc::clone(&job.lane);
            let submitted = job.submitted;
            match lane.submit(job, submitted) {
                Ok(true) => return self.request_turn(lane),
                Ok(false) => return,
                Err(returned) => job = returned,
            }
            job.lane = lanes.choose(job.record.key(), self.answer_deadline);
        }
    }

    fn request_turn(self: &Arc<Self>, lane: Arc<JobLane>) {
        let (turns, now) = (lane.turns(), Instant::now());
        turns.request(lane, now);
        self.give(&turns, now);
    }

    /// Sends the batches of all lanes for which there is a turn.
    fn give(self: &Arc<Self>, turns: &Turns<JobLane>, now: Instant) {
        while let Some(lane) = turns.next(now) {
            let batch = lane.take_batch();
            if batch.is_empty() {
                turns.over(&lane, None);
            }
            for job in batch {
                self.send(job);
            }
        }
    }

    fn send(self: &Arc<Self>, mut job: Box<Job>) {
        let handle = match self.handle() {
            Ok(handle) => handle,
            Err(error) => return self.settle(job, Err(error)),
        };
        let key = job.record.key_bytes();
        let value = job.record.value_bytes();
        let headers = job.headers.take();
        let headers = headers.unwrap_or_else(|| headers::of_record(&job.record));
        let partition = job.lane.partition();
        let name = self.specs[job.record.topic().index()].name.as_str();
        let mut record = BaseRecord::<[u8], [u8], Box<Job>>::with_opaque_to(name, job)
            .partition(partition)
            .payload(&value)
            .headers(headers);
        if let Some(key) = &key {
            record = record.key(key);
        }
        // librdkafka copies key and value into its queue; a rejected record
        // is returned with its job.
        if let Err((error, record)) = handle.send(record) {
            self.settle(record.delivery_opaque, Err(error));
        }
    }

    fn settle(self: &Arc<Self>, job: Box<Job>, result: Result<Delivery, KafkaError>) {
        let now = Instant::now();
        let lane = Arc::clone(&job.lane);
        let settled = self.observe(&job, &result, now);
        let is_retried = match settled {
            Settled::Failed | Settled::RejectedTogether => self.can_retry(&job, now),
            Settled::Acknowledged(_) | Settled::Rejected => false,
        };
        let taken_back = if is_retried {
            lane.take_back(job, settled, now)
        } else {
            Err(job)
        };
        let next = taken_back.unwrap_or_else(|job| {
            self.finish(job, settled, result);
            lane.settle(settled, now)
        });
        self.go_on(lane, next, settled, now);
    }

    /// Tells the result of a job that its lane does not keep; one that may still
    /// succeed is delivered once more, by the lanes of that moment.
    fn finish(
        self: &Arc<Self>,
        job: Box<Job>,
        settled: Settled,
        result: Result<Delivery, KafkaError>,
    ) {
        let topic = job.record.topic();
        let source = match result {
            Ok(delivery) => {
                self.failures.allowed(|| self.write_to(topic));
                return (job.on_settled)(Settlement::Delivered(delivery));
            }
            Err(source) => source,
        };
        let partition = TopicPartition(topic, job.lane.partition());
        if settled == Settled::Rejected {
            let error = DeliveryError::Rejected { partition, source };
            return (job.on_settled)(Settlement::Failed(error));
        }
        if is_too_late_to_retry(job.deadline) {
            let error = DeliveryError::Unconfirmed { partition, source };
            return (job.on_settled)(Settlement::Failed(error));
        }
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY_BACKOFF).await;
            inner.deliver(job.record, job.deadline, job.on_settled);
        });
    }

    /// Returns whether a job that failed goes back to its lane. A lane that is held
    /// keeps every job.
    fn can_retry(&self, job: &Job, now: Instant) -> bool {
        let is_up = || !job.lane.is_down(self.answer_deadline, now);
        job.lane.is_held() || !is_too_late_to_retry(job.deadline) && is_up()
    }

    /// Does what follows the settlement of a record.
    fn go_on(self: &Arc<Self>, lane: Arc<JobLane>, next: Next, settled: Settled, now: Instant) {
        if next == Next::Nothing {
            return;
        }
        let turns = lane.turns();
        let answered = matches!(settled, Settled::Acknowledged(_)).then_some(now);
        turns.over(&lane, answered);
        match next {
            Next::Again => turns.request(lane, now),
            Next::Resume => self.resume_later(lane),
            Next::Nothing | Next::End => {}
        }
        self.give(&turns, now);
    }

    /// Resumes a lane after the backoff.
    fn resume_later(self: &Arc<Self>, lane: Arc<JobLane>) {
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY_BACKOFF).await;
            if lane.resume(Instant::now(), |job| job.submitted) {
                inner.request_turn(lane);
            }
        });
    }

    fn observe(&self, job: &Job, result: &Result<Delivery, KafkaError>, now: Instant) -> Settled {
        let error = match result {
            Ok(delivery) => {
                self.metrics.delivered(delivery.topic, now - job.submitted);
                return Settled::Acknowledged(delivery.offset);
            }
            Err(error) => error,
        };
        let topic = job.record.topic();
        let partition = TopicPartition(topic, job.lane.partition());
        tracing::debug!(%partition, %error, "delivery failed");
        self.metrics.failed(topic);
        self.failures.observe_denial(error, self.write_to(topic));
        if is_permanent(error) {
            job.lane.rejected()
        } else {
            Settled::Failed
        }
    }

    fn write_to(&self, topic: Topic) -> Denial {
        Denial::on_topic(Operation::Write, &self.specs[topic.index()].name)
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Inner")
            .field("specs", &self.specs)
            .finish_non_exhaustive()
    }
}

fn is_too_late_to_retry(deadline: Instant) -> bool {
    Instant::now() + RETRY_BACKOFF >= deadline
}

/// Returns whether the error is about this record, or about the batch that it was in, so
/// that no retry can succeed. Every other error is a passing state of the cluster; that includes
/// a failed authorization, which librdkafka keeps reporting for a while after
/// the access was granted.
fn is_permanent(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessageSize
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidTimestamp
                | RDKafkaErrorCode::PolicyViolation
        )
    )
}

/// librdkafka's callbacks, which run on the handle's polling thread.
///
/// The reference is weak because the handle owns its context: a strong one
/// would keep `Inner` and the handle alive forever.
struct Context {
    inner: Weak<Inner>,
    failures: Failures,
    statistics: ClientStatistics,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(&self.failures, level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.failures.observe_statistics(&statistics);
        self.statistics.record(&statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.failures.observe_error(&error, reason, None);
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
        inner.settle(job, result);
    }
}
