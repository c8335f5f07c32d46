//! What a rebalance does to a worker: a revoked partition leaves with its
//! states; an assigned one delivers no record before its states are restored.
//!
//! A partition that was added to the input alone has nowhere to keep its states.
//! It is set aside, paused, until it has been added to the state topic as well.
//!
//! It knows nothing of transactions: none is open while it runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};

use super::batch::{Batch, Gap};
use super::{RETRY_PAUSE, StreamError, Worker};
use crate::headers;
use crate::kafka;
use crate::kafka::consumer::{GroupConsumer, Rebalance};
use crate::kafka::log_reader::{Isolation, Progress, ReadError};
use crate::streams::stop::Stop;
use crate::streams::store::{Store, Stores};
use crate::streams::stream::Stream;

/// The shortest time between two log lines about a running restore.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why an attempt to restore states ended early.
pub(super) enum RestoreError {
    Retriable(ReadError),
    Fatal(StreamError),
    /// The process stops.
    Stopped,
}

impl From<ReadError> for RestoreError {
    fn from(error: ReadError) -> Self {
        Self::Retriable(error)
    }
}

impl From<KafkaError> for RestoreError {
    fn from(error: KafkaError) -> Self {
        Self::Retriable(error.into())
    }
}

impl<'c, S: Stream> Worker<'c, S> {
    /// Applies the rebalances of the polls since the last call, and restores
    /// the states of assigned partitions.
    ///
    /// A restore may take longer than `max.poll.interval.ms`, so it polls, and
    /// these polls may bring further rebalances. All partitions are therefore
    /// paused until the last of them is applied.
    pub(super) fn apply_rebalances(
        &mut self,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(), StreamError> {
        let mut pending = BTreeSet::new();
        if !self.take_rebalances(batch, &mut pending, &mut Stores::new()) {
            return Ok(());
        }
        self.restore(pending, batch, stop)
    }

    /// Restores the partitions that were set aside, as soon as the state topic
    /// has all of them.
    pub(super) fn restore_set_aside(
        &mut self,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(), StreamError> {
        match self.without_state_partition(&self.set_aside) {
            Ok(without) if without.is_empty() => {
                let pending = std::mem::take(&mut self.set_aside);
                self.restore(pending, batch, stop)
            }
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::debug!(stream = S::NAME, %error, "cannot look for added partitions; retrying");
                Ok(())
            }
        }
    }

    fn restore(
        &mut self,
        mut pending: BTreeSet<i32>,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(), StreamError> {
        let began = Instant::now();
        if !pending.is_empty() {
            self.restored
                .set(false, "restoring the states of assigned partitions");
        }
        let mut last_warning = began;
        while !self.restore_and_resume(&mut pending, batch, stop, &mut last_warning)? {
            if stop.is_set() {
                // Which partitions of the batch are still assigned is unknown.
                // Their owners read its records again from the committed offsets.
                batch.clear();
                return Ok(());
            }
        }
        self.report_restored(began.elapsed());
        Ok(())
    }

    /// Applies the rebalances since the last call. Returns whether there were
    /// any.
    ///
    /// A revoked partition leaves the worker, `pending` and `restored`. An
    /// assigned one becomes pending, even one that was only revoked and
    /// assigned again: another instance may have owned it in between.
    fn take_rebalances(
        &mut self,
        batch: &mut Batch<'c>,
        pending: &mut BTreeSet<i32>,
        restored: &mut Stores<S>,
    ) -> bool {
        let rebalances = self.consumer.take_rebalances();
        for rebalance in &rebalances {
            match rebalance {
                Rebalance::Revoked(partitions) => {
                    tracing::info!(stream = S::NAME, ?partitions, "partitions revoked");
                    for partition in partitions {
                        pending.remove(partition);
                        restored.remove(partition);
                        self.set_aside.remove(partition);
                        self.stores.remove(partition);
                        self.metrics.remove_lag(*partition);
                    }
                    batch.revoke(partitions);
                }
                Rebalance::Assigned(partitions) if partitions.is_empty() => {}
                Rebalance::Assigned(partitions) => {
                    tracing::info!(
                        stream = S::NAME,
                        ?partitions,
                        "partitions assigned; restoring state"
                    );
                    pending.extend(partitions);
                }
            }
        }
        !rebalances.is_empty()
    }

    /// Makes one attempt to restore the pending partitions and to resume all.
    /// Returns whether it did; if not, the caller makes another attempt.
    fn restore_and_resume(
        &mut self,
        pending: &mut BTreeSet<i32>,
        batch: &mut Batch<'c>,
        stop: &Stop,
        last_warning: &mut Instant,
    ) -> Result<bool, StreamError> {
        let (mut restored, gaps) = match self.read_states(pending, batch, stop) {
            Ok(read) => read,
            Err(RestoreError::Stopped) => return Ok(false),
            Err(RestoreError::Fatal(error)) => return Err(error),
            Err(RestoreError::Retriable(error)) => {
                self.await_retry(&error, batch, last_warning)?;
                (Stores::new(), Vec::new())
            }
        };
        // The polls of this attempt may have brought rebalances. Apply them
        // before keeping anything: another instance may already be changing the
        // states of a partition that was revoked.
        let rebalanced = self.take_rebalances(batch, pending, &mut restored);
        // A partition that is still in `restored` has been assigned for the whole
        // attempt, so its states are complete. The rest stays pending: it was
        // assigned during the attempt, or the attempt failed.
        pending.retain(|partition| !restored.contains_key(partition));
        for (partition, store) in &mut restored {
            let outdated = store.take_outdated().into_iter();
            batch.outdated.extend(outdated.map(|key| (*partition, key)));
        }
        let is_kept = |gap: &Gap| restored.contains_key(&gap.partition);
        gaps.into_iter()
            .filter(is_kept)
            .for_each(|gap| batch.skip(gap));
        self.stores.append(&mut restored);
        // Any rebalance, even one without a change for this member, may mean
        // that it was expelled and has rejoined. Then others may have consumed
        // the partitions it kept; only another attempt compares their offsets,
        // so resume nothing before that.
        if rebalanced || !pending.is_empty() {
            return Ok(false);
        }
        self.consumer
            .resume(&self.partitions())
            .map_err(StreamError::Consumer)?;
        Ok(true)
    }

    /// Pauses before a restore is retried. Logs the error only after a few
    /// seconds, because that of a leader election is over by then.
    fn await_retry(
        &self,
        error: &ReadError,
        batch: &mut Batch<'c>,
        last_warning: &mut Instant,
    ) -> Result<(), StreamError> {
        if last_warning.elapsed() >= LOG_INTERVAL {
            *last_warning = Instant::now();
            tracing::warn!(stream = S::NAME, %error, "restore failed; retrying");
        }
        self.restored
            .set(false, &format!("restore failed; retrying: {error}"));
        std::thread::sleep(RETRY_PAUSE);
        poll_paused(self.consumer, batch)
    }

    /// Returns the pending partitions with their states. Makes the consumer
    /// continue at the committed offsets, which these states include, or after
    /// the gap that begins there.
    fn read_states(
        &mut self,
        pending: &mut BTreeSet<i32>,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(Stores<S>, Vec<Gap>), RestoreError> {
        self.set_aside_without_state_partition(pending)?;
        // Offsets before states: every transaction that these offsets include
        // has then written its states below the end that the restore reads to.
        let (mut restored, gaps) = self.stores_at_committed_offsets(pending)?;
        let offsets = restored.iter();
        let mut offsets: BTreeMap<i32, i64> = offsets
            .map(|(partition, store)| (*partition, store.next_offset()))
            .collect();
        offsets.extend(gaps.iter().map(|gap| (gap.partition, gap.missing.end)));
        self.consumer.seek(&offsets)?;
        if !restored.is_empty() {
            self.read_state_topic(&mut restored, batch, stop)?;
        }
        for (partition, store) in &restored {
            if let Some(newer) = store.newer_format() {
                return Err(RestoreError::Fatal(StreamError::NewerFormat {
                    topic: self.config.state_topic.clone(),
                    partition: *partition,
                    newer,
                }));
            }
        }
        Ok((restored, gaps))
    }

    /// Moves the pending partitions that the state topic does not have to
    /// `set_aside`.
    fn set_aside_without_state_partition(
        &mut self,
        pending: &mut BTreeSet<i32>,
    ) -> Result<(), RestoreError> {
        if pending.is_empty() {
            return Ok(());
        }
        let without = self.without_state_partition(pending)?;
        if without.is_empty() {
            return Ok(());
        }
        pending.retain(|partition| !without.contains(partition));
        self.set_aside.extend(without);
        let reason = self.why_set_aside();
        tracing::warn!(stream = S::NAME, reason, "partitions set aside");
        Ok(())
    }

    fn without_state_partition(
        &self,
        partitions: &BTreeSet<i32>,
    ) -> Result<BTreeSet<i32>, KafkaError> {
        let states = self.consumer.partition_count(&self.config.state_topic)?;
        if states == 0 {
            let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
            return Err(KafkaError::MetadataFetch(missing));
        }
        let is_without =
            |partition: &&i32| usize::try_from(**partition).is_ok_and(|number| number >= states);
        Ok(partitions.iter().filter(is_without).copied().collect())
    }

    fn why_set_aside(&self) -> String {
        let partitions: Vec<_> = self.set_aside.iter().collect();
        let (input, state) = (&self.config.input_topic, &self.config.state_topic);
        format!(
            "partitions {partitions:?} of {input} wait until {state} has them too: add partitions to {state}"
        )
    }

    /// Reads the states of these partitions, with a new reader. One that
    /// outlived an outage may act on what a starting broker reported, and queues
    /// librdkafka's errors while nothing polls it.
    fn read_state_topic(
        &mut self,
        restored: &mut Stores<S>,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(), RestoreError> {
        let cutoff_ms = self.retention_cutoff_ms();
        let partitions: Vec<i32> = restored.keys().copied().collect();
        let (reader, topic) = (self.state_reader.create()?, &self.config.state_topic);
        // The high watermark includes open transactions: the reading waits until
        // these have ended.
        let ranges = reader.bounds_of(topic, &partitions, Isolation::Uncommitted)?;
        let mut last_log = Instant::now();
        reader.read(
            topic,
            ranges,
            Isolation::Committed,
            |record| {
                restore_record(restored, record, cutoff_ms);
                Ok(())
            },
            |Progress { read, total }| {
                self.metrics.count_restored(read);
                if last_log.elapsed() >= LOG_INTERVAL {
                    last_log = Instant::now();
                    tracing::info!(stream = S::NAME, read, total, "restoring states");
                }
                poll_paused(self.consumer, batch).map_err(RestoreError::Fatal)?;
                if stop.is_set() {
                    return Err(RestoreError::Stopped);
                }
                Ok(())
            },
        )
    }

    /// Leaves the group, so that instances that can read the states take over,
    /// and waits for the end of the process. Nothing has been written since the
    /// states were assigned; a restart would only meet them again.
    pub(super) fn step_aside(&mut self, error: &StreamError, stop: &Stop) {
        self.restored.set(false, &error.to_string());
        tracing::error!(
            stream = S::NAME,
            %error,
            "state topic has a newer format; stream leaves its group and writes nothing"
        );
        self.consumer.leave();
        let mut batch = Batch::default();
        while !stop.is_set() {
            // Each poll serves the revocation, without which librdkafka does not
            // leave. The membership has ended if it fails, which is the aim.
            if self.consumer.poll(RETRY_PAUSE).is_err() {
                std::thread::sleep(RETRY_PAUSE);
            }
            self.take_rebalances(&mut batch, &mut BTreeSet::new(), &mut Stores::new());
        }
    }

    fn report_restored(&mut self, took: Duration) {
        let entries: usize = self.stores.values().map(Store::len).sum();
        let (partitions, seconds) = (self.partitions(), took.as_secs_f64());
        tracing::info!(
            stream = S::NAME,
            ?partitions,
            entries,
            seconds,
            "states restored"
        );
        self.metrics.set_restore_duration(took);
        self.update_gauges(&BTreeMap::new());
        self.update_readiness();
    }

    /// Sets the condition of a worker that has restored what it can.
    pub(super) fn update_readiness(&self) {
        let why = if self.stores.is_empty() {
            "no partitions are assigned to this instance"
        } else {
            "the states of all assigned partitions are restored"
        };
        if self.set_aside.is_empty() {
            self.restored.set(true, why);
        } else {
            self.restored.set(false, &self.why_set_aside());
        }
    }

    pub(super) fn partitions(&self) -> Vec<i32> {
        self.stores.keys().copied().collect()
    }
}

fn restore_record<S: Stream>(stores: &mut Stores<S>, record: &BorrowedMessage<'_>, cutoff_ms: i64) {
    let store = stores.get_mut(&record.partition());
    let (Some(store), Some(key)) = (store, record.key()) else {
        return;
    };
    let written_at_ms = record.timestamp().to_millis().unwrap_or(0);
    // An expired state still removes what an older record restored.
    let value = record.payload().filter(|_| written_at_ms >= cutoff_ms);
    let header = value.and_then(|_| kafka::headers::first(record.headers(), headers::STATE));
    store.restore(key, value, header, written_at_ms);
}

/// Polls so that the group keeps this member. All partitions are paused, so no
/// record is expected; one that arrives nevertheless belongs to the batch.
fn poll_paused<'c>(consumer: &'c GroupConsumer, batch: &mut Batch<'c>) -> Result<(), StreamError> {
    let record = consumer
        .poll(Duration::ZERO)
        .map_err(StreamError::Consumer)?;
    if let Some(record) = record {
        batch.add(record);
    }
    Ok(())
}
