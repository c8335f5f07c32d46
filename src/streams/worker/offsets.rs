//! Where the input of a partition continues: at its committed offset, or at the
//! first record there is if that one is gone.
//!
//! Records are gone if retention passed the committed offset, or if somebody
//! deleted them. The end of the gap is committed like the offset of a record, and
//! the loss is reported after that: once.

use std::collections::BTreeSet;
use std::ops::Range;

use rdkafka::error::KafkaError;

use super::batch::{Batch, Gap};
use super::rebalance::RestoreError;
use super::{StreamError, Worker};
use crate::streams::store::{Store, Stores};
use crate::streams::stream::Stream;

impl<S: Stream> Worker<'_, S> {
    /// Returns an empty store at the committed offset of each pending
    /// partition, and the gaps after these offsets. Pauses the partitions that stay, and checks their offsets.
    ///
    /// A member that was expelled and has rejoined may keep its partitions
    /// without a revocation, although others owned them in between. Only their
    /// committed offsets show it, and then the states in memory are stale.
    pub(super) fn stores_at_committed_offsets(
        &self,
        pending: &BTreeSet<i32>,
    ) -> Result<(Stores<S>, Vec<Gap>), RestoreError> {
        let kept = self.partitions();
        let all: Vec<i32> = kept.iter().chain(pending).copied().collect();
        if all.is_empty() {
            return Ok((Stores::new(), Vec::new()));
        }
        self.consumer.pause(&kept)?;
        let (mut stores, mut gaps) = (Stores::new(), Vec::new());
        for (partition, committed) in self.consumer.stable_committed_offsets(&all)? {
            let offset = committed.unwrap_or(0);
            match self.stores.get(&partition) {
                Some(store) if offset < store.next_offset() => {
                    let error = StreamError::Rewound { partition };
                    return Err(RestoreError::Fatal(error));
                }
                Some(store) if offset > store.next_offset() => {
                    let error = StreamError::ConsumedElsewhere { partition };
                    return Err(RestoreError::Fatal(error));
                }
                Some(_) => {}
                None => {
                    gaps.extend(self.gap_at(partition, committed)?);
                    stores.insert(partition, Store::starting_at(offset));
                }
            }
        }
        Ok((stores, gaps))
    }

    /// Returns the gap between the committed offset and the start of the log.
    /// Without a committed offset it is no loss: nothing was ever processed, or
    /// it is unknown what.
    fn gap_at(&self, partition: i32, committed: Option<i64>) -> Result<Option<Gap>, KafkaError> {
        let gap = Gap {
            partition,
            missing: committed.unwrap_or(0)..self.consumer.log_start(partition)?,
            is_loss: committed.is_some(),
        };
        Ok(Some(gap).filter(|gap| !gap.missing.is_empty()))
    }

    /// Notes what is lost of `missing`, the offsets between the next one and that
    /// of the first record after librdkafka found the next one gone.
    ///
    /// Offsets that are not below the start of the log are no loss: transaction
    /// markers, records of aborted transactions, and what compaction removed.
    pub(super) fn note_lost(&self, batch: &mut Batch<'_>, partition: i32, missing: Range<i64>) {
        let log_start = self.consumer.log_start(partition).unwrap_or_else(|error| {
            tracing::debug!(stream = S::NAME, %error, "cannot fetch the start of the log; taking that of the first record");
            missing.end
        });
        let gap = Gap {
            partition,
            missing: missing.start..missing.end.min(log_start),
            is_loss: true,
        };
        if !gap.missing.is_empty() {
            batch.skip(gap);
        }
    }

    /// Reports what the committed batch has left behind.
    pub(super) fn count_lost(&self, batch: &Batch<'_>) {
        for (partition, Range { start, end }) in &batch.lost {
            let count = end - start;
            tracing::warn!(
                stream = S::NAME,
                partition,
                from = start,
                to = end - 1,
                count,
                "records were deleted before they were processed; continuing at the first one left"
            );
            self.metrics.count_lost(count);
        }
    }
}
