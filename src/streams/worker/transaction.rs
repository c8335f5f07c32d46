//! The transaction of a batch, and what its errors lead to: the batch is retried,
//! or the stream starts again.
//!
//! Neither a right that the cluster denies nor a transaction that fails again and
//! again ends a stream. It stays, not ready, until the cause is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::batch::Batch;
use super::overlay::Overlay;
use super::{RETRY_PAUSE, StreamError, Worker};
use crate::kafka::transactions::TransactionError;
use crate::process::fail_point::fail_point;
use crate::streams::stop::Stop;
use crate::streams::stream::Stream;

/// The pause before what the cluster has denied is tried again.
const DENIED_PAUSE: Duration = Duration::from_secs(5);

impl<'c, S: Stream> Worker<'c, S> {
    /// Prepares for the next transaction. Retries if the cluster denies the
    /// transactional id. Returns whether it succeeded before `stop` was set.
    pub(super) fn prepare_transaction(&mut self, stop: &Stop) -> Result<bool, StreamError> {
        loop {
            let prepared = self.transactions.prepare(|| !stop.is_set());
            if !matches!(prepared, Err(TransactionError::Denied(_))) {
                return Ok(prepared?);
            }
            stop.wait(DENIED_PAUSE);
        }
    }

    /// Steps 3 to 7. A batch whose transaction fails stays as it is, unless the
    /// stream stops: then another start reads its records again.
    pub(super) fn run_transaction(
        &mut self,
        batch: &mut Batch<'c>,
        stop: &Stop,
    ) -> Result<(), StreamError> {
        if !self.prepare_transaction(stop)? {
            batch.clear();
            return Ok(());
        }
        let config = self.config;
        let span = config.spans.as_ref().and_then(|spans| spans.start(batch));
        let committed = self.commit_batch(batch);
        if let Some(span) = span {
            span.end(committed.as_ref().err());
        }
        match committed {
            Ok(overlay) => {
                self.complete(batch, overlay);
                batch.clear();
                Ok(())
            }
            Err(error @ TransactionError::Fenced(_)) => {
                // It may have taken too long.
                self.batch_size.count_failed(batch.records.len());
                Err(error.into())
            }
            Err(
                TransactionError::Failed(error)
                | TransactionError::Unknown(error)
                | TransactionError::Denied(error),
            ) => self.recover(batch, &error, stop),
        }
    }

    fn complete(&mut self, batch: &Batch<'c>, overlay: Overlay<'_, S>) {
        fail_point(7);
        self.apply_committed(batch, overlay);
        let was_unready = self.batch_size.is_at_standstill() || self.is_denied;
        self.batch_size.count_committed();
        if was_unready {
            self.is_denied = false;
            self.update_readiness();
        }
    }

    /// Steps 3 to 6.
    fn commit_batch<'b>(&self, batch: &'b Batch<'c>) -> Result<Overlay<'b, S>, TransactionError> {
        fail_point(3);
        self.transactions.begin()?;
        let overlay = Overlay::of(batch, &self.stores, self.config.max_state_record_bytes);
        fail_point(4);
        for write in overlay.writes(batch, self.config) {
            self.transactions.write(write)?;
        }
        fail_point(5);
        let offsets = self
            .consumer
            .offset_list(self.next_offsets(batch))
            .map_err(TransactionError::Failed)?;
        let group = self
            .consumer
            .group_metadata()
            .ok_or(TransactionError::Failed(KafkaError::Global(
                RDKafkaErrorCode::UnknownMemberId,
            )))?;
        self.transactions.send_offsets(&offsets, &group)?;
        fail_point(6);
        self.transactions.commit(|| true)?;
        Ok(overlay)
    }

    /// The next offset of each partition that the transaction writes to.
    ///
    /// A partition of which only states are written has one too, the committed one:
    /// it is by their offsets that brokers reject a member that has lost its
    /// partitions, and for their offsets that a successor waits while the
    /// transaction is open.
    fn next_offsets(&self, batch: &Batch<'_>) -> BTreeMap<i32, i64> {
        let mut next: BTreeMap<i32, i64> = batch
            .partitions_of_states()
            .filter_map(|partition| Some((partition, self.stores.get(&partition)?.next_offset())))
            .collect();
        next.extend(&batch.next_offsets);
        next
    }

    /// Ends a failed transaction, and finds out whether it was committed.
    fn recover(
        &mut self,
        batch: &mut Batch<'c>,
        error: &KafkaError,
        stop: &Stop,
    ) -> Result<(), StreamError> {
        self.report_failure(error, batch);
        stop.wait(if self.is_denied {
            DENIED_PAUSE
        } else {
            RETRY_PAUSE
        });
        if !self.prepare_transaction(stop)? {
            batch.clear();
        } else if self.is_committed(batch, stop) {
            tracing::warn!(
                stream = S::NAME,
                "the failed transaction was committed; going on"
            );
            let overlay = Overlay::of(batch, &self.stores, self.config.max_state_record_bytes);
            self.complete(batch, overlay);
            batch.clear();
        } else {
            self.shrink(batch)?;
        }
        Ok(())
    }

    /// Takes the records that are too many out of the batch. The consumer delivers
    /// them again.
    fn shrink(&self, batch: &mut Batch<'c>) -> Result<(), StreamError> {
        let removed = batch.truncate(self.batch_size.records());
        self.consumer.seek(&removed).map_err(StreamError::Consumer)
    }

    /// Counts and logs a failed transaction. Ends readiness if there were several
    /// in a row, or if a right is missing.
    fn report_failure(&mut self, error: &KafkaError, batch: &Batch<'_>) {
        self.metrics.count_aborted();
        let denial = self.transactions.denial().map(|denial| denial.to_string());
        // The same right is still missing, and was logged.
        if !self.is_denied || denial.is_none() {
            let reason = denial.as_deref();
            tracing::warn!(stream = S::NAME, %error, reason, "transaction aborted; retrying the batch");
        }
        if let Some(reason) = denial {
            self.is_denied = true;
            self.restored.set(false, &reason);
            return;
        }
        self.batch_size.count_failed(batch.records.len());
        if self.batch_size.is_at_standstill() {
            let reason = format!("transactions fail again and again: {error}");
            self.restored.set(false, &reason);
        }
    }

    /// Returns whether the last transaction was committed, which the committed
    /// offsets show once no transaction is open any more. Empties the batch if
    /// `stop` is set first.
    ///
    /// If another instance has consumed the partitions meanwhile, it was not: the
    /// next poll brings the rebalance. A batch without records has no offset that
    /// shows it. It removes or
    /// rewrites states, which can be done twice.
    fn is_committed(&self, batch: &mut Batch<'c>, stop: &Stop) -> bool {
        let partitions: Vec<i32> = batch.next_offsets.keys().copied().collect();
        if partitions.is_empty() {
            return false;
        }
        while !stop.is_set() {
            match self.consumer.stable_committed_offsets(&partitions) {
                Ok(committed) => {
                    let mut next = batch.next_offsets.iter();
                    return next
                        .all(|(partition, next)| committed.get(partition) == Some(&Some(*next)));
                }
                Err(error) => {
                    tracing::debug!(stream = S::NAME, %error, "cannot fetch committed offsets; retrying");
                    stop.wait(RETRY_PAUSE);
                }
            }
        }
        batch.clear();
        false
    }
}
