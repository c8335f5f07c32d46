//! The gauges of a worker: what it has now, not what it has done.

use std::collections::BTreeMap;

use chrono::Utc;

use super::Worker;
use super::batch::Batch;
use crate::streams::store::{OpenCommands, Store};
use crate::streams::stream::Stream;

impl<S: Stream> Worker<'_, S> {
    /// The offset up to which each partition is processed, including the
    /// transaction markers after its last record, without which a partition
    /// that is caught up would show a lag. Empty while the batch has records:
    /// the consumer's positions include these, and they are not committed.
    pub(super) fn processed_positions(&self, batch: &Batch<'_>) -> BTreeMap<i32, i64> {
        if batch.is_empty() {
            self.consumer.positions()
        } else {
            BTreeMap::new()
        }
    }

    /// Sets the gauges of the states, the open commands and the lag. A partition
    /// without a position has the one of its last committed record.
    pub(super) fn update_gauges(&mut self, positions: &BTreeMap<i32, i64>) {
        let entries: usize = self.stores.values().map(Store::len).sum();
        let bytes: usize = self.stores.values().map(Store::bytes).sum();
        let overdue_ms = i64::try_from(self.config.overdue_after.as_millis()).unwrap_or(i64::MAX);
        let horizon_ms = Utc::now().timestamp_millis().saturating_sub(overdue_ms);
        let mut open = OpenCommands::default();
        for (partition, store) in &mut self.stores {
            open += store.open_commands(horizon_ms);
            let position = positions.get(partition).copied().unwrap_or(0);
            let next_offset = position.max(store.next_offset());
            if let Some(end_offset) = self.consumer.end_offset(*partition) {
                self.metrics.set_lag(*partition, next_offset, end_offset);
            }
        }
        self.metrics
            .set_state_size(entries, bytes, self.config.max_entries);
        self.metrics.set_open_commands(open);
    }
}
