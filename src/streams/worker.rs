//! The loop of a stream: records in, states out, one transaction at a time.
//!
//! ```text
//! 1 poll a batch, until BatchSize, max_batch_bytes, or no record is available
//!   after max_batch_wait_ms; a rebalance can happen only here
//! 2 no records, no gap, no expired states and none to rewrite → 1
//! 3 begin a transaction
//! 4 apply each record, and write what that changes: states to the partition
//!   number of their records, forwards, tombstones of expired states, dead
//!   letters
//! 5 send the consumer's offsets to the transaction
//! 6 commit
//! 7 merge the overlay into the stores → 1
//! ```
//!
//! State, output and offsets change together or not at all: the overlay of a
//! batch reaches the stores only after the commit. The batch of an aborted
//! transaction is retried, without the records of partitions that have been
//! revoked meanwhile. The fault tests kill the process at each of these steps.

mod batch;
mod batch_size;
mod dead_letter;
mod gauges;
mod offsets;
mod overlay;
mod rebalance;
mod spans;
mod transaction;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};

use super::metrics::StreamMetrics;
use super::stop::Stop;
use super::store::{Key, Stores};
use super::stream::Stream;
use crate::kafka::consumer::{GroupConsumer, ends_membership};
use crate::kafka::log_reader::LogReaderConfig;
use crate::kafka::transactions::{TransactionError, Transactions};
use crate::process::fail_point::fail_point;
use crate::process::logging::EVENTS;
use crate::process::readiness::Condition;
use crate::streams::states::format::NewerFormat;
use batch::{Batch, received_at};
pub(super) use batch_size::BatchSize;
use overlay::Overlay;
pub(super) use spans::BatchSpans;

/// The longest wait for the first record of a batch, and so for a stop to be
/// noticed.
const IDLE_POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// The pause after an aborted transaction or a failed restore.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
const GAUGE_INTERVAL: Duration = Duration::from_secs(5);
/// How often a worker without partitions checks whether any member has some.
const REJOIN_INTERVAL: Duration = Duration::from_secs(10);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);
/// The most expired states that one transaction removes.
const EXPIRY_LIMIT: usize = 5_000;

/// How often a worker looks for the state partitions that it misses.
const SET_ASIDE_INTERVAL: Duration = Duration::from_secs(5);

/// The loop of one stage, with its clients and the states in memory.
pub(super) struct Worker<'c, S: Stream> {
    consumer: &'c GroupConsumer,
    transactions: Transactions,
    state_reader: LogReaderConfig,
    config: &'c WorkerConfig,
    metrics: &'c mut StreamMetrics,
    /// Assigned partitions whose states have no partition yet. They are paused.
    set_aside: BTreeSet<i32>,
    /// Met while the states of all assigned partitions are in `stores`, and no
    /// right is missing.
    restored: Condition,
    /// Whether a right is missing without which the batch cannot be committed.
    is_denied: bool,
    batch_size: &'c mut BatchSize,
    stores: Stores<S>,
}

/// The topics, limits and spans of one worker.
#[derive(Debug, Clone)]
pub(super) struct WorkerConfig {
    pub(super) input_topic: String,
    pub(super) state_topic: String,
    /// The topic of the stream's forwards, if it has any.
    pub(super) forward_topic: Option<String>,
    pub(super) dead_letter_topic: String,
    pub(super) max_batch_bytes: usize,
    /// The longest wait for further records after the first one.
    pub(super) max_batch_wait: Duration,
    /// States not written for this long are removed; `None` keeps them.
    pub(super) retention: Option<Duration>,
    /// The number of states above which a warning is logged.
    pub(super) max_entries: usize,
    /// The age from which an open command is overdue.
    pub(super) overdue_after: Duration,
    /// The largest record that the topics of states and forwards accept.
    pub(super) max_state_record_bytes: u64,
    /// The largest record that the dead-letter topic accepts.
    pub(super) max_dead_letter_bytes: u64,
    /// `None` if nothing is traced.
    pub(super) spans: Option<BatchSpans>,
}

/// When the loop next does what is not part of every batch.
struct Schedule {
    gauges: Instant,
    expiry: Instant,
    rejoin: Instant,
    set_aside: Instant,
}

/// Why a stream has to start again. It resumes from the committed offsets.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the consumer failed: {0}")]
    Consumer(#[source] KafkaError),
    #[error(transparent)]
    Transaction(#[from] TransactionError),
    #[error("a record of partition {partition} arrived before its states were restored")]
    NotRestored { partition: i32 },
    #[error("another instance consumed partition {partition} while it was assigned to this one")]
    ConsumedElsewhere { partition: i32 },
    #[error(
        "a state in partition {partition} of {topic} was written by a newer northbridge: {newer}; upgrade this instance, or see \"State formats\" in operations.md for how to roll back"
    )]
    NewerFormat {
        topic: String,
        partition: i32,
        newer: NewerFormat,
    },
    /// Kafka deletes the offsets of a topic with the topic.
    #[error(
        "the committed offset of partition {partition} went back: the topic was made again, or somebody reset the group"
    )]
    Rewound { partition: i32 },
}

impl StreamError {
    /// Returns whether another instance may have the same name.
    pub(super) fn is_fenced(&self) -> bool {
        match self {
            Self::Consumer(error) => ends_membership(error),
            Self::Transaction(TransactionError::Fenced(_)) => true,
            Self::Transaction(_)
            | Self::NotRestored { .. }
            | Self::ConsumedElsewhere { .. }
            | Self::NewerFormat { .. }
            | Self::Rewound { .. } => false,
        }
    }
}

impl<'c, S: Stream> Worker<'c, S> {
    /// A worker with no partitions. The records of a batch are borrowed from
    /// `consumer`.
    pub(super) fn new(
        consumer: &'c GroupConsumer,
        transactions: Transactions,
        state_reader: LogReaderConfig,
        config: &'c WorkerConfig,
        metrics: &'c mut StreamMetrics,
        batch_size: &'c mut BatchSize,
        restored: Condition,
    ) -> Self {
        Self {
            consumer,
            transactions,
            state_reader,
            config,
            metrics,
            set_aside: BTreeSet::new(),
            restored,
            is_denied: false,
            batch_size,
            stores: Stores::new(),
        }
    }

    /// Runs until `stop` is set.
    ///
    /// # Errors
    ///
    /// Returns an error if the stream has to start again, with other clients and
    /// the states in its topic.
    pub(super) fn run(mut self, stop: &Stop) -> Result<(), StreamError> {
        match self.run_loop(stop) {
            Err(error @ StreamError::NewerFormat { .. }) => {
                self.step_aside(&error, stop);
                Ok(())
            }
            ended => ended,
        }
    }

    fn run_loop(&mut self, stop: &Stop) -> Result<(), StreamError> {
        let is_stopping = || stop.is_set();
        if !self.prepare_transaction(stop)? {
            return Ok(());
        }
        let mut batch = Batch::default();
        let mut next = Schedule::starting_at(Instant::now());
        loop {
            fail_point(1);
            self.poll_batch(&mut batch, stop)?;
            // Those of an aborted batch are removed first.
            if Instant::now() >= next.expiry && batch.expired.is_empty() {
                batch.expired = self.take_expired();
                // At the limit some may be left, which the next batch removes.
                let more = batch.expired.len() == EXPIRY_LIMIT;
                let pause = if more {
                    Duration::ZERO
                } else {
                    EXPIRY_INTERVAL
                };
                next.expiry = Instant::now() + pause;
            }
            fail_point(2);
            if batch.is_empty() {
                self.transactions.serve_events();
            } else {
                self.run_transaction(&mut batch, stop)?;
            }
            if Instant::now() >= next.gauges {
                self.update_gauges(&self.processed_positions(&batch));
                next.gauges = Instant::now() + GAUGE_INTERVAL;
            }
            if is_stopping() && batch.is_empty() {
                return Ok(());
            }
            if self.stores.is_empty() && Instant::now() >= next.rejoin {
                self.rejoin_if_unassigned();
                next.rejoin = Instant::now() + REJOIN_INTERVAL;
            }
            if !self.set_aside.is_empty() && Instant::now() >= next.set_aside {
                self.restore_set_aside(&mut batch, stop)?;
                next.set_aside = Instant::now() + SET_ASIDE_INTERVAL;
            }
        }
    }

    /// Step 1. A stop ends it with the records polled so far.
    fn poll_batch(&mut self, batch: &mut Batch<'c>, stop: &Stop) -> Result<(), StreamError> {
        let mut timeout = IDLE_POLL_TIMEOUT;
        let mut deadline: Option<Instant> = None;
        loop {
            let record = self.consumer.poll(timeout).map_err(StreamError::Consumer)?;
            let is_idle = record.is_none();
            if let Some(record) = record {
                self.add_record(batch, record)?;
            }
            if self.consumer.has_rebalanced() {
                self.apply_rebalances(batch, stop)?;
            }
            if !batch.records.is_empty() {
                let now = Instant::now();
                let deadline = deadline.get_or_insert_with(|| now + self.config.max_batch_wait);
                timeout = deadline.saturating_duration_since(now);
            }
            // A record that is available costs no wait: the further behind a
            // stream is, the larger its batches.
            let is_due = is_idle && (batch.records.is_empty() || timeout.is_zero());
            let is_full = batch.records.len() >= self.batch_size.records()
                || batch.bytes >= self.config.max_batch_bytes;
            // After a lost assignment brokers would reject the offsets: poll on
            // until the revocation is known.
            let is_ready = (is_due || is_full) && !self.consumer.is_assignment_lost();
            if stop.is_set() || is_ready {
                return Ok(());
            }
        }
    }

    fn add_record(
        &mut self,
        batch: &mut Batch<'c>,
        record: BorrowedMessage<'c>,
    ) -> Result<(), StreamError> {
        let partition = record.partition();
        let Some(store) = self.stores.get(&partition) else {
            return Err(StreamError::NotRestored { partition });
        };
        if self.consumer.take_reset(partition) {
            let next = batch.next_offsets.get(&partition);
            let expected = next.copied().unwrap_or(store.next_offset());
            self.note_lost(batch, partition, expected..record.offset());
        }
        batch.add(record);
        Ok(())
    }

    /// Takes partition and key of states that were not written within the
    /// retention. Each is taken once, so the batch must keep it.
    fn take_expired(&mut self) -> Vec<(i32, Key)> {
        let cutoff_ms = self.retention_cutoff_ms();
        let mut expired = Vec::new();
        for (partition, store) in &mut self.stores {
            let keys = store.take_expired(cutoff_ms, EXPIRY_LIMIT - expired.len());
            expired.extend(keys.into_iter().map(|key| (*partition, key)));
        }
        expired
    }

    /// Step 7.
    fn apply_committed(&mut self, batch: &Batch<'c>, overlay: Overlay<'_, S>) {
        let now_ms = Utc::now().timestamp_millis();
        for (partition, key) in &batch.expired {
            if let Some(store) = self.stores.get_mut(partition) {
                store.remove(key);
            }
        }
        for (_, reason) in &overlay.dead_letters {
            let reason = reason.label();
            tracing::debug!(stream = S::NAME, reason, "record became a dead letter");
        }
        let dead_lettered = overlay.dead_letters.len();
        self.metrics
            .count_committed(batch.records.len() - dead_lettered, dead_lettered);
        overlay.into_changes(|change, value| {
            for effect in change.effects {
                self.metrics.count(effect);
            }
            let store = self.stores.get_mut(&change.partition);
            if let (Some(state), Some(store)) = (change.state, store) {
                // Evaluates its fields only if an observer listens.
                tracing::debug!(
                    target: EVENTS,
                    stream = S::NAME,
                    key = &*change.key,
                    value = &*String::from_utf8_lossy(value),
                    "state changed"
                );
                store.put(change.key.as_bytes(), state, value.len(), now_ms);
            }
        });
        self.advance_offsets(batch);
        self.count_lost(batch);
        if let Some(record) = batch.records.last() {
            let age_ms = u64::try_from(now_ms - received_at(record).millis()).unwrap_or(0);
            self.metrics.set_event_age(Duration::from_millis(age_ms));
        }
    }

    fn advance_offsets(&mut self, batch: &Batch<'_>) {
        for (&partition, &next_offset) in &batch.next_offsets {
            if let Some(store) = self.stores.get_mut(&partition) {
                store.advance_to(next_offset);
            }
            if let Some(end_offset) = self.consumer.end_offset(partition) {
                self.metrics.set_lag(partition, next_offset, end_offset);
            }
        }
    }

    fn rejoin_if_unassigned(&self) {
        match self.consumer.rejoin_if_unassigned() {
            Ok(true) => {
                let why = "no member of the group has a partition; rejoining";
                tracing::warn!(stream = S::NAME, "{why}");
                self.restored.set(false, why);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(stream = S::NAME, %error, "cannot describe the group; retrying");
            }
        }
    }

    /// The time before which a state must have been written last to be expired,
    /// in milliseconds since 1970. Without a retention no state is.
    fn retention_cutoff_ms(&self) -> i64 {
        self.config.retention.map_or(i64::MIN, |retention| {
            let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            Utc::now().timestamp_millis().saturating_sub(retention_ms)
        })
    }
}

impl Schedule {
    fn starting_at(start: Instant) -> Self {
        Self {
            gauges: start,
            expiry: start + EXPIRY_INTERVAL,
            rejoin: start + REJOIN_INTERVAL,
            set_aside: start + SET_ASIDE_INTERVAL,
        }
    }
}
