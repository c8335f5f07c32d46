//! The loop of a stream: records in, states out, in one transaction each time.
//!
//! ```text
//! 1 gather a batch: poll until max_batch_records or max_batch_wait_ms;
//!   a rebalance happens only here
//! 2 nothing gathered and nothing expired → 1
//! 3 begin a transaction
//! 4 each record: decode, apply; write the changed states to the SAME partition
//!   number of the state topic, forwards to theirs, poison to the dead letters
//! 5 send the offsets to the transaction
//! 6 commit
//! 7 merge the overlay into the stores; 1
//! ```
//!
//! State, output and offsets change together or not at all: the overlay of a
//! batch reaches the stores only after its commit. An aborted batch stays
//! gathered and is tried again, without the records of partitions that a
//! rebalance has taken away meanwhile. The fault tests kill the process at each
//! of the numbered steps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};

use super::command_state::Status;
use super::push::Poison;
use super::store::Store;
use super::stream::{Effect, Forward, Stream};
use super::time::Receipt;
use crate::kafka::group::Member;
use crate::kafka::restore::Restore;
use crate::kafka::transactions::{TransactionError, Transactions, Write};
use crate::metrics::StreamMetrics;
use crate::process::Exit;
use crate::process::fail_point::fail_point;
use crate::process::health::Condition;

mod dead_letter;
mod moves;
mod overlay;

use overlay::Overlay;

/// How long a poll waits while nothing is gathered; so soon a stop is noticed.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// How often gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(5);
/// How often a worker without partitions asks whether anybody has them.
const CLAIM: Duration = Duration::from_secs(10);
/// How often expired states are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// The most expired states that one transaction removes.
const SWEEP_LIMIT: usize = 5_000;
/// How often a long restore says how far it is.
const RESTORE_PROGRESS: Duration = Duration::from_secs(5);
/// The pause after an aborted transaction or a failed restore.
const ABORT_PAUSE: Duration = Duration::from_millis(200);

/// What one worker works with.
pub struct Worker<'m, S: Stream> {
    /// Its membership in the group; the records of a batch are borrowed from it.
    pub member: &'m Member,
    /// Its transactions.
    pub transactions: Transactions,
    /// Its reader of the state topic.
    pub restore: Restore,
    /// Names and limits.
    pub plan: WorkPlan,
    /// What it counts.
    pub metrics: Arc<StreamMetrics>,
    /// Met while the states of all its partitions are restored.
    pub restored: Condition,
    /// Told of each state that was committed; `dev` shows them.
    pub changed: Option<Changed>,
    /// The states, by partition.
    pub stores: BTreeMap<i32, Store<S>>,
}

/// Names and limits of one worker.
#[derive(Debug, Clone)]
pub struct WorkPlan {
    /// The state topic's name.
    pub state_topic: String,
    /// The name of the topic for forwards.
    pub forward_topic: Option<String>,
    /// The dead-letter topic's name.
    pub dead_letter_topic: String,
    /// The input topic's name.
    pub input_topic: String,
    /// The most records of one transaction.
    pub max_batch_records: usize,
    /// How long a transaction waits for more records.
    pub max_batch_wait: Duration,
    /// States that were not written for so long are removed.
    pub retention: Option<Duration>,
    /// Above so many states a warning says so.
    pub max_entries: usize,
    /// After so long an open command is overdue.
    pub overdue_after: Duration,
    /// The largest record the topics take, in bytes.
    pub max_record_bytes: u64,
}

/// Told of each state that was committed: the stream, the key, the value.
pub type Changed = fn(&'static str, &[u8], &[u8]);

/// Why a worker ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Its group or its transactions belong to another instance now, or are
    /// in an unknown state.
    #[error("{0}")]
    Lost(String),
}

impl<'m, S: Stream> Worker<'m, S> {
    /// Works until `stop`, or until it must end.
    pub fn run(mut self, stop: &AtomicBool) -> Exit {
        match self.work(stop) {
            Ok(()) => Exit::Done,
            Err(ended) => {
                tracing::error!(stream = S::NAME, %ended, "the stream ends; a restart continues where it stopped");
                Exit::Unsettled
            }
        }
    }

    fn work(&mut self, stop: &AtomicBool) -> Result<(), Ended> {
        let running = || !stop.load(Ordering::Relaxed);
        if !self
            .transactions
            .take_over(running)
            .map_err(|error| lost(&error))?
        {
            return Ok(());
        }
        let mut batch = Batch::default();
        let (mut next_gauges, mut next_sweep) = (Instant::now(), Instant::now() + SWEEP);
        let mut next_claim = Instant::now() + CLAIM;
        loop {
            fail_point(1);
            self.gather(&mut batch, stop)?;
            if Instant::now() >= next_sweep {
                batch.expired = self.expired();
                // Where one transaction cannot take all, the next goes on.
                let more = batch.expired.len() == SWEEP_LIMIT;
                next_sweep = Instant::now() + if more { Duration::ZERO } else { SWEEP };
            }
            fail_point(2);
            if batch.is_empty() {
                self.transactions.idle();
            } else {
                match self.transact(&batch) {
                    Ok(overlay) => {
                        fail_point(7);
                        self.merge(&batch, overlay);
                        batch.clear();
                    }
                    Err(TransactionError::Abort(error)) => self.abort(&error)?,
                    Err(fatal @ TransactionError::Fatal(_)) => return Err(lost(&fatal)),
                }
            }
            if Instant::now() >= next_gauges {
                self.show(&self.positions(&batch));
                next_gauges = Instant::now() + GAUGES;
            }
            if stop.load(Ordering::Relaxed) && batch.is_empty() {
                return Ok(());
            }
            if self.stores.is_empty() && Instant::now() >= next_claim {
                self.claim();
                next_claim = Instant::now() + CLAIM;
            }
        }
    }

    /// Sees to it that partitions which nobody has are given out.
    fn claim(&self) {
        match self.member.claim() {
            Ok(true) => {
                let why = "nobody in the group has partitions; joining it anew";
                tracing::warn!(stream = S::NAME, "{why}");
                self.restored.set(false, why);
            }
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(stream = S::NAME, %error, "partitions could not be claimed");
            }
        }
    }

    /// Step 1. A stop ends it with what there is.
    fn gather(&mut self, batch: &mut Batch<'m>, stop: &AtomicBool) -> Result<(), Ended> {
        let mut left = IDLE_POLL;
        let mut until: Option<Instant> = None;
        loop {
            match self.member.poll(left) {
                Ok(Some(message)) if !self.stores.contains_key(&message.partition()) => {
                    let partition = message.partition();
                    let text = format!("a record of partition {partition} came before its states");
                    return Err(Ended::Lost(text));
                }
                Ok(Some(message)) => batch.take(message),
                Ok(None) => {}
                Err(error) => return Err(Ended::Lost(error.to_string())),
            }
            if self.member.has_moved() {
                self.rebalance(batch, stop)?;
            }
            if !batch.records.is_empty() {
                let now = Instant::now();
                let until = until.get_or_insert_with(|| now + self.plan.max_batch_wait);
                left = until.saturating_duration_since(now);
            }
            let due = batch.records.is_empty() || left.is_zero();
            let full = batch.records.len() >= self.plan.max_batch_records;
            // What belongs to partitions that are lost would only be refused.
            if stop.load(Ordering::Relaxed) || (due || full) && !self.member.is_lost() {
                return Ok(());
            }
        }
    }

    /// Steps 3 to 6.
    fn transact<'b>(&self, batch: &'b Batch<'m>) -> Result<Overlay<'b, S>, TransactionError> {
        fail_point(3);
        self.transactions.begin()?;
        let overlay = Overlay::of(batch, &self.stores, self.plan.max_record_bytes);
        fail_point(4);
        self.write(batch, &overlay)?;
        fail_point(5);
        let next = self.next_offsets(batch);
        let offsets = self.member.offsets(next).map_err(TransactionError::Abort)?;
        let group = self
            .member
            .metadata()
            .ok_or(TransactionError::Abort(KafkaError::Canceled))?;
        self.transactions.send_offsets(&offsets, &group)?;
        fail_point(6);
        self.transactions.commit()?;
        Ok(overlay)
    }

    /// The offset of each partition that a transaction writes to. Partitions of
    /// which states expire have theirs as well, though it is as before: by its
    /// offsets brokers refuse a transaction of a member that has lost its
    /// partitions, and for them a successor waits until it has ended.
    fn next_offsets(&self, batch: &Batch<'_>) -> BTreeMap<i32, i64> {
        let expired = batch.expired.iter();
        let mut next: BTreeMap<i32, i64> = expired
            .filter_map(|(partition, _)| {
                Some((*partition, self.stores.get(partition)?.next_offset()))
            })
            .collect();
        next.extend(&batch.next_offsets);
        next
    }

    fn write(&self, batch: &Batch<'m>, overlay: &Overlay<'_, S>) -> Result<(), TransactionError> {
        for change in &overlay.changes {
            if let Some(value) = overlay.value(change) {
                self.write_state(change.partition, change.key.as_bytes(), Some(value))?;
            }
            for forward in &change.forwards {
                self.write_forward(forward)?;
            }
        }
        for (partition, key) in &batch.expired {
            if !overlay.writes(*partition, key) {
                self.write_state(*partition, key, None)?;
            }
        }
        for (place, unapplied) in &overlay.unapplied {
            if let Some(record) = batch.records.get(*place) {
                self.transactions.write(unapplied.dead_letter(
                    record,
                    &self.plan.input_topic,
                    &self.plan.dead_letter_topic,
                    self.plan.max_record_bytes,
                ))?;
            }
        }
        Ok(())
    }

    fn write_state(
        &self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), TransactionError> {
        self.transactions.write(Write {
            topic: &self.plan.state_topic,
            partition: Some(partition),
            key: Some(key),
            value,
            headers: None,
        })
    }

    fn write_forward(&self, forward: &Forward) -> Result<(), TransactionError> {
        let Some(topic) = &self.plan.forward_topic else {
            return Ok(());
        };
        self.transactions.write(Write {
            topic,
            partition: None,
            key: Some(forward.key.as_bytes()),
            value: Some(&forward.value),
            headers: None,
        })
    }

    /// Step 7.
    fn merge(&mut self, batch: &Batch<'m>, overlay: Overlay<'_, S>) {
        let now_ms = Utc::now().timestamp_millis();
        for (partition, key) in &batch.expired {
            if let Some(store) = self.stores.get_mut(partition) {
                store.remove(key);
            }
        }
        let refused = overlay.unapplied.len();
        for (_, unapplied) in &overlay.unapplied {
            tracing::debug!(
                stream = S::NAME,
                reason = unapplied.reason(),
                "a record is a dead letter"
            );
        }
        overlay.into_changes(|change, value| {
            for effect in change.effects {
                self.count(effect);
            }
            let (Some(state), Some(store)) = (change.state, self.stores.get_mut(&change.partition))
            else {
                return;
            };
            let key = change.key.as_bytes();
            store.put(key, state, value.len(), now_ms);
            if let Some(changed) = self.changed {
                changed(S::NAME, key, value);
            }
        });
        self.metrics
            .committed(batch.records.len() - refused, refused);
        if let Some(record) = batch.records.last() {
            let age_ms = now_ms - receipt(record).millis();
            self.metrics
                .event_age(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
        }
        for (partition, next) in &batch.next_offsets {
            if let Some(store) = self.stores.get_mut(partition) {
                store.advance(*next);
            }
            self.metrics
                .progress(*partition, *next, self.member.end_of(*partition));
        }
    }

    fn abort(&self, error: &KafkaError) -> Result<(), Ended> {
        tracing::warn!(stream = S::NAME, %error, "a transaction was aborted; its records are tried again");
        self.metrics.aborted();
        std::thread::sleep(ABORT_PAUSE);
        self.transactions.abort().map_err(|error| lost(&error))
    }

    /// Keys that were not written within the retention.
    fn expired(&self) -> Vec<(i32, Box<[u8]>)> {
        let cutoff_ms = self.cutoff_ms();
        let of = |(partition, store): (&i32, &Store<S>)| {
            let keys = store.written_before(cutoff_ms, SWEEP_LIMIT);
            let partition = *partition;
            keys.into_iter().map(move |key| (partition, key))
        };
        self.stores.iter().flat_map(of).take(SWEEP_LIMIT).collect()
    }

    fn cutoff_ms(&self) -> i64 {
        self.plan.retention.map_or(i64::MIN, |retention| {
            let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
            Utc::now().timestamp_millis().saturating_sub(retention_ms)
        })
    }

    /// How far the records came, past the markers of transactions; nothing
    /// while some of them are not committed.
    fn positions(&self, batch: &Batch<'_>) -> BTreeMap<i32, i64> {
        if batch.is_empty() {
            self.member.positions()
        } else {
            BTreeMap::new()
        }
    }

    /// Brings the gauges up to date.
    fn show(&self, positions: &BTreeMap<i32, i64>) {
        let entries: usize = self.stores.values().map(Store::len).sum();
        let bytes: usize = self.stores.values().map(Store::bytes).sum();
        let now_ms = Utc::now().timestamp_millis();
        let mut open = OpenCommands::default();
        for store in self.stores.values() {
            store.open(now_ms, |status, age| {
                open.add(status, age >= self.plan.overdue_after);
            });
        }
        for (partition, store) in &self.stores {
            let position = positions.get(partition).copied().unwrap_or(0);
            let next = position.max(store.next_offset());
            self.metrics
                .progress(*partition, next, self.member.end_of(*partition));
        }
        self.metrics.state(entries, bytes, self.plan.max_entries);
        self.metrics.open(open.sent, open.delivered, open.overdue);
    }

    fn count(&self, effect: Effect) {
        match effect {
            Effect::UnknownStatus => self.metrics.unknown_status(),
            Effect::Transition { from, to, seconds } => {
                self.metrics.transition(from.label(), to.label(), seconds);
            }
            Effect::Upgrade(result) => self.metrics.upgrade(result.label()),
        }
    }
}

impl<S: Stream> std::fmt::Debug for Worker<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

/// How many commands are open.
#[derive(Debug, Clone, Copy, Default)]
struct OpenCommands {
    sent: i64,
    delivered: i64,
    overdue: i64,
}

impl OpenCommands {
    fn add(&mut self, status: Status, overdue: bool) {
        match status {
            Status::Sent => self.sent += 1,
            Status::Delivered => self.delivered += 1,
            Status::Executed => {}
        }
        self.overdue += i64::from(overdue);
    }
}

/// The records of one transaction, where librdkafka has them: most of what a
/// copy would cost is the copy's allocations.
#[derive(Default)]
struct Batch<'m> {
    records: Vec<BorrowedMessage<'m>>,
    /// The offset after the last record of each partition.
    next_offsets: BTreeMap<i32, i64>,
    expired: Vec<(i32, Box<[u8]>)>,
}

impl<'m> Batch<'m> {
    fn take(&mut self, message: BorrowedMessage<'m>) {
        self.next_offsets
            .insert(message.partition(), message.offset() + 1);
        self.records.push(message);
    }

    /// Without the partitions that went: whoever has them now reads their
    /// records again.
    fn forget(&mut self, went: &[i32]) {
        self.records
            .retain(|record| !went.contains(&record.partition()));
        self.next_offsets
            .retain(|partition, _| !went.contains(partition));
        self.expired
            .retain(|(partition, _)| !went.contains(partition));
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.expired.is_empty()
    }

    fn clear(&mut self) {
        self.records.clear();
        self.next_offsets.clear();
        self.expired.clear();
    }
}

fn decode<'b, S: Stream>(record: &'b BorrowedMessage<'_>) -> Result<S::Event<'b>, Poison> {
    S::decode(record.payload().unwrap_or_default(), || receipt(record))
}

fn receipt(record: &BorrowedMessage<'_>) -> Receipt {
    let headers = record.headers();
    let mut headers = headers.iter().flat_map(|headers| headers.iter());
    let ce_time = headers.find(|header| header.key == "ce_time");
    Receipt::of_record(
        ce_time.and_then(|header| header.value),
        record.timestamp().to_millis(),
    )
}

fn lost(error: &TransactionError) -> Ended {
    Ended::Lost(error.to_string())
}
