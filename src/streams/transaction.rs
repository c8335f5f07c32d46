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

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::Utc;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use super::command_state::Status;
use super::push::Poison;
use super::store::Store;
use super::stream::{Effect, Forward, Input, Open, Stream};
use crate::kafka::group::{Member, Moved};
use crate::kafka::restore::Restore;
use crate::kafka::transactions::{TransactionError, Transactions, Write};
use crate::metrics::StreamMetrics;
use crate::process::Exit;
use crate::process::health::Condition;

/// How long a poll waits while nothing is gathered; so soon a stop is noticed.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// How often gauges are brought up to date.
const GAUGES: Duration = Duration::from_secs(5);
/// How often expired states are looked for.
const SWEEP: Duration = Duration::from_secs(30);
/// The most expired states that one transaction removes.
const SWEEP_LIMIT: usize = 1_000;
/// How often a long restore says how far it is.
const RESTORE_PROGRESS: Duration = Duration::from_secs(5);
/// The pause after an aborted transaction.
const ABORT_PAUSE: Duration = Duration::from_millis(200);
/// What key, headers and framing may add to a state, in bytes.
const OVERHEAD_BYTES: u64 = crate::topics::RECORD_OVERHEAD_BYTES;

/// What one worker works with.
pub struct Worker<S: Stream> {
    /// Its membership in the group.
    pub member: Member,
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
    pub stores: BTreeMap<i32, Store>,
    /// Marks which stream this is.
    pub stream: std::marker::PhantomData<S>,
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

impl<S: Stream> Worker<S> {
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
        loop {
            fail_point(1);
            self.gather(&mut batch, stop)?;
            if Instant::now() >= next_sweep {
                batch.expired = self.expired();
                next_sweep = Instant::now() + SWEEP;
            }
            fail_point(2);
            if !batch.is_empty() {
                match self.transact(&batch) {
                    Ok(overlay) => {
                        fail_point(7);
                        self.merge(&batch, overlay);
                        batch = Batch::default();
                    }
                    Err(TransactionError::Abort(error)) => self.abort(&error)?,
                    Err(fatal @ TransactionError::Fatal(_)) => return Err(lost(&fatal)),
                }
            }
            if Instant::now() >= next_gauges {
                self.show();
                next_gauges = Instant::now() + GAUGES;
            }
            if stop.load(Ordering::Relaxed) && batch.is_empty() {
                return Ok(());
            }
        }
    }

    /// Step 1. A stop ends it with what there is.
    fn gather(&mut self, batch: &mut Batch, stop: &AtomicBool) -> Result<(), Ended> {
        let mut until: Option<Instant> = None;
        loop {
            let left = until.map_or(IDLE_POLL, |until| {
                until.saturating_duration_since(Instant::now())
            });
            match self.member.poll(left) {
                Ok(Some(message)) => batch.take(&message),
                Ok(None) => {}
                Err(error) => return Err(Ended::Lost(error.to_string())),
            }
            self.rebalance(batch, stop)?;
            if !batch.records.is_empty() {
                until.get_or_insert_with(|| Instant::now() + self.plan.max_batch_wait);
            }
            let due = until.is_none_or(|until| Instant::now() >= until);
            let full = batch.records.len() >= self.plan.max_batch_records;
            if due || full || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }

    /// Applies what rebalances did inside the polls.
    fn rebalance(&mut self, batch: &mut Batch, stop: &AtomicBool) -> Result<(), Ended> {
        for moved in self.member.moved() {
            match moved {
                Moved::Went(partitions) => {
                    tracing::info!(stream = S::NAME, ?partitions, "partitions went to others");
                    for partition in &partitions {
                        self.stores.remove(partition);
                        self.metrics.forget(*partition);
                    }
                    batch
                        .records
                        .retain(|record| !partitions.contains(&record.partition()));
                    batch
                        .expired
                        .retain(|(partition, _)| !partitions.contains(partition));
                }
                Moved::Came(partitions) => {
                    tracing::info!(
                        stream = S::NAME,
                        ?partitions,
                        "partitions came; restoring their states"
                    );
                    self.restore(&partitions, stop)?;
                }
            }
        }
        Ok(())
    }

    /// Fills the stores of new partitions from the state topic, then lets
    /// their records come. Tried again until it succeeds; a stop ends it.
    fn restore(&mut self, partitions: &[i32], stop: &AtomicBool) -> Result<(), Ended> {
        let began = Instant::now();
        self.restored
            .set(false, "restoring the states of new partitions");
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            match self.try_restore(partitions, stop) {
                Ok(true) => break,
                Ok(false) => return Ok(()),
                Err(error) => {
                    tracing::debug!(stream = S::NAME, %error, "a restore is tried again");
                    self.restored
                        .explain(&format!("the restore is tried again: {error}"));
                    std::thread::sleep(ABORT_PAUSE);
                    self.keep_membership()?;
                }
            }
        }
        self.member
            .resume(partitions)
            .map_err(|error| Ended::Lost(error.to_string()))?;
        let entries: usize = self.stores.values().map(Store::len).sum();
        tracing::info!(
            stream = S::NAME,
            ?partitions,
            entries,
            seconds = began.elapsed().as_secs_f64(),
            "states restored"
        );
        self.metrics.restored(began.elapsed());
        self.restored
            .set(true, "the states of all its partitions are restored");
        self.show();
        Ok(())
    }

    fn try_restore(&mut self, partitions: &[i32], stop: &AtomicBool) -> Result<bool, KafkaError> {
        // First the offsets: whatever they include is then before the ends
        // that the restore reads to.
        self.member.await_settled(partitions)?;
        let mut stores: BTreeMap<i32, Store> = partitions
            .iter()
            .map(|partition| (*partition, Store::default()))
            .collect();
        let cutoff_ms = self.cutoff_ms();
        let (member, metrics) = (&self.member, &self.metrics);
        let mut said = Instant::now();
        let complete = self.restore.read(
            partitions,
            |record| {
                if let Some(store) = stores.get_mut(&record.partition) {
                    let value = record.value.filter(|_| record.written_at_ms >= cutoff_ms);
                    store.restore::<S>(record.key, value, record.written_at_ms);
                }
            },
            |read, total| {
                metrics.restoring(read);
                if said.elapsed() >= RESTORE_PROGRESS {
                    said = Instant::now();
                    tracing::info!(stream = S::NAME, read, total, "restoring states");
                }
                // Everything is paused: this only keeps the membership alive.
                let _paused = member.poll(Duration::ZERO);
                !stop.load(Ordering::Relaxed)
            },
        )?;
        if complete {
            self.stores.append(&mut stores);
        }
        Ok(complete)
    }

    fn keep_membership(&self) -> Result<(), Ended> {
        match self.member.poll(Duration::ZERO) {
            Ok(_) => Ok(()),
            Err(error) => Err(Ended::Lost(error.to_string())),
        }
    }

    /// Steps 3 to 6.
    fn transact(&self, batch: &Batch) -> Result<Overlay<S>, TransactionError> {
        fail_point(3);
        self.transactions.begin()?;
        let overlay = self.apply(batch);
        fail_point(4);
        self.write(batch, &overlay)?;
        fail_point(5);
        let next = batch.next_offsets();
        if !next.is_empty() {
            let offsets = self.member.offsets(next).map_err(TransactionError::Abort)?;
            // Only a consumer that is closed has none.
            let group = self
                .member
                .metadata()
                .ok_or(TransactionError::Fatal(KafkaError::Canceled))?;
            self.transactions.send_offsets(&offsets, &group)?;
        }
        fail_point(6);
        self.transactions.commit()?;
        Ok(overlay)
    }

    fn apply(&self, batch: &Batch) -> Overlay<S> {
        let mut overlay = Overlay {
            partitions: BTreeMap::new(),
            poison: Vec::new(),
        };
        for (place, record) in batch.records.iter().enumerate() {
            let input = input(record);
            let event = match S::decode(&input) {
                Ok(event) => event,
                Err(poison) => {
                    overlay.poison.push((place, Unapplied::Poison(poison)));
                    continue;
                }
            };
            let store = self.stores.get(&record.partition());
            let states = overlay.partitions.entry(record.partition()).or_default();
            let key = S::key(&event);
            let pending = match states.get_mut(key.as_bytes()) {
                Some(pending) => pending,
                None => states.entry(key.as_bytes().into()).or_insert_with(|| {
                    Pending::over(store.and_then(|store| store.get(key.as_bytes())))
                }),
            };
            pending.records.push(place);
            if pending.unreadable {
                continue;
            }
            let applied = S::apply(pending.state.as_ref(), &event);
            if let Some(state) = applied.state {
                pending.state = Some(state);
                pending.changed = true;
            }
            pending.forwards.extend(applied.forward);
            pending.effects.extend(applied.effects);
        }
        overlay.encode(self.plan.max_record_bytes.saturating_sub(OVERHEAD_BYTES));
        overlay
    }

    fn write(&self, batch: &Batch, overlay: &Overlay<S>) -> Result<(), TransactionError> {
        for (partition, states) in &overlay.partitions {
            for (key, pending) in states {
                if let Some(value) = &pending.encoded {
                    self.write_state(*partition, key, Some(value))?;
                }
                for forward in &pending.forwards {
                    self.write_forward(forward)?;
                }
            }
        }
        for (partition, key) in &batch.expired {
            let rewritten = overlay
                .partitions
                .get(partition)
                .and_then(|states| states.get(key));
            if rewritten.is_none() {
                self.write_state(*partition, key, None)?;
            }
        }
        for (place, unapplied) in &overlay.poison {
            if let Some(record) = batch.records.get(*place) {
                self.write_dead_letter(record, *unapplied)?;
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

    /// The record as it is, with the reason and where it stands.
    fn write_dead_letter(
        &self,
        record: &OwnedMessage,
        unapplied: Unapplied,
    ) -> Result<(), TransactionError> {
        let mut headers = OwnedHeaders::new();
        for header in record.headers().into_iter().flat_map(Headers::iter) {
            if !header.key.starts_with("northbridge-") {
                headers = headers.insert(header);
            }
        }
        let (partition, offset) = (record.partition().to_string(), record.offset().to_string());
        let detail = unapplied.detail();
        for (key, value) in [
            ("northbridge-reason", unapplied.reason()),
            ("northbridge-detail", &detail),
            ("northbridge-topic", &self.plan.input_topic),
            ("northbridge-partition", &partition),
            ("northbridge-offset", &offset),
        ] {
            headers = headers.insert(Header {
                key,
                value: Some(value),
            });
        }
        self.transactions.write(Write {
            topic: &self.plan.dead_letter_topic,
            partition: None,
            key: record.key(),
            value: record.payload(),
            headers: Some(headers),
        })
    }

    /// Step 7.
    fn merge(&mut self, batch: &Batch, overlay: Overlay<S>) {
        let now_ms = Utc::now().timestamp_millis();
        for (partition, key) in &batch.expired {
            if let Some(store) = self.stores.get_mut(partition) {
                store.remove(key);
            }
        }
        let mut poisoned = overlay.poison.len();
        for (_, unapplied) in &overlay.poison {
            tracing::debug!(
                stream = S::NAME,
                reason = unapplied.reason(),
                "a record is a dead letter"
            );
        }
        for (partition, states) in overlay.partitions {
            for (key, pending) in states {
                for effect in &pending.effects {
                    self.count(*effect);
                }
                let (Some(value), Some(store)) =
                    (&pending.encoded, self.stores.get_mut(&partition))
                else {
                    continue;
                };
                store.put(&key, value, now_ms, pending.open);
                if let Some(changed) = self.changed {
                    changed(S::NAME, &key, value);
                }
            }
        }
        poisoned = poisoned.min(batch.records.len());
        self.metrics
            .committed(batch.records.len() - poisoned, poisoned);
        if let Some(record) = batch.records.last() {
            let age_ms = now_ms - input(record).receipt().millis();
            self.metrics
                .event_age(Duration::from_millis(u64::try_from(age_ms).unwrap_or(0)));
        }
        for (partition, next) in batch.next_offsets() {
            self.metrics
                .progress(partition, next, self.member.end_of(partition));
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
        let of = |(partition, store): (&i32, &Store)| {
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

    /// Brings the gauges up to date.
    fn show(&self) {
        let entries: usize = self.stores.values().map(Store::len).sum();
        let bytes: usize = self.stores.values().map(Store::bytes).sum();
        let now_ms = Utc::now().timestamp_millis();
        let mut open = OpenCommands::default();
        for store in self.stores.values() {
            store.open(now_ms, |status, age| {
                open.add(status, age >= self.plan.overdue_after);
            });
        }
        for partition in self.stores.keys() {
            if let Some(end) = self.member.end_of(*partition) {
                self.metrics.end(*partition, end);
            }
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

impl<S: Stream> std::fmt::Debug for Worker<S> {
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

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy)]
enum Unapplied {
    Poison(Poison),
    StateTooLarge,
    StateUnreadable,
}

impl Unapplied {
    fn reason(self) -> &'static str {
        match self {
            Self::Poison(poison) => poison.reason(),
            Self::StateTooLarge => "state-too-large",
            Self::StateUnreadable => "state-unreadable",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::Poison(poison) => poison.to_string(),
            Self::StateTooLarge => "the state would be larger than its topic takes".to_owned(),
            Self::StateUnreadable => "the state topic holds something that is no state".to_owned(),
        }
    }
}

/// The records of one transaction.
#[derive(Default)]
struct Batch {
    records: Vec<OwnedMessage>,
    expired: Vec<(i32, Box<[u8]>)>,
}

impl Batch {
    fn take(&mut self, message: &BorrowedMessage<'_>) {
        self.records.push(message.detach());
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.expired.is_empty()
    }

    /// The offset after the last record of each partition.
    fn next_offsets(&self) -> BTreeMap<i32, i64> {
        self.records
            .iter()
            .map(|record| (record.partition(), record.offset() + 1))
            .collect()
    }
}

/// What a batch would change.
struct Overlay<S: Stream> {
    partitions: BTreeMap<i32, HashMap<Box<[u8]>, Pending<S>>>,
    poison: Vec<(usize, Unapplied)>,
}

/// What a batch would change of one state.
struct Pending<S: Stream> {
    state: Option<S::State>,
    changed: bool,
    unreadable: bool,
    encoded: Option<Vec<u8>>,
    open: Option<Open>,
    forwards: Vec<Forward>,
    effects: Vec<Effect>,
    records: Vec<usize>,
}

impl<S: Stream> Pending<S> {
    fn over(value: Option<&[u8]>) -> Self {
        let decoded = value.map(serde_json::from_slice::<S::State>).transpose();
        let unreadable = decoded.is_err();
        Self {
            state: decoded.ok().flatten(),
            changed: false,
            unreadable,
            encoded: None,
            open: None,
            forwards: Vec::new(),
            effects: Vec::new(),
            records: Vec::new(),
        }
    }
}

impl<S: Stream> Overlay<S> {
    /// Encodes each changed state once. Where one would be larger than its
    /// topic takes, nothing of the batch is applied to it: its records are
    /// dead letters, and the stream goes on.
    fn encode(&mut self, limit: u64) {
        for states in self.partitions.values_mut() {
            for pending in states.values_mut() {
                let refused = if pending.unreadable {
                    Some(Unapplied::StateUnreadable)
                } else {
                    pending.encode(limit)
                };
                if let Some(unapplied) = refused {
                    pending.changed = false;
                    pending.forwards.clear();
                    pending.effects.clear();
                    let places = pending.records.iter();
                    self.poison.extend(places.map(|place| (*place, unapplied)));
                }
            }
        }
    }
}

impl<S: Stream> Pending<S> {
    fn encode(&mut self, limit: u64) -> Option<Unapplied> {
        let state = self.state.as_ref().filter(|_| self.changed)?;
        // States are texts, numbers and times: they always make JSON.
        let value = serde_json::to_vec(state).unwrap_or_default();
        if u64::try_from(value.len()).unwrap_or(u64::MAX) > limit {
            return Some(Unapplied::StateTooLarge);
        }
        self.open = S::open(state);
        self.encoded = Some(value);
        None
    }
}

fn input(record: &OwnedMessage) -> Input<'_> {
    let header = |name: &str| {
        let headers = record.headers()?;
        headers.iter().find(|header| header.key == name)?.value
    };
    Input {
        value: record.payload().unwrap_or_default(),
        ce_time: header("ce_time"),
        timestamp_ms: record.timestamp().to_millis(),
    }
}

fn lost(error: &TransactionError) -> Ended {
    Ended::Lost(error.to_string())
}

/// In test builds only: kills the process, as SIGKILL does, the `count`-th time
/// it passes the step that `NORTHBRIDGE_FAIL_POINT=step:count` names.
#[cfg(debug_assertions)]
fn fail_point(step: u32) {
    use std::sync::LazyLock;
    use std::sync::atomic::AtomicU64;

    static FAIL_AT: LazyLock<Option<(u32, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("NORTHBRIDGE_FAIL_POINT").ok()?;
        let (step, count) = text.split_once(':')?;
        Some((step.parse().ok()?, AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((fail_step, left)) = &*FAIL_AT
        && *fail_step == step
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let id = std::process::id().to_string();
        let _ = std::process::Command::new("kill")
            .args(["-KILL", &id])
            .status();
        std::process::abort();
    }
}

#[cfg(not(debug_assertions))]
#[inline]
fn fail_point(_: u32) {}
