//! The input of one transaction: the records that it consumes, the states that
//! it removes because they expired, and those that it rewrites in the current
//! format.

use std::collections::BTreeMap;
use std::ops::Range;

use rdkafka::message::{BorrowedMessage, Message};

use crate::headers;
use crate::kafka;
use crate::streams::states::position::Position;
use crate::streams::states::time::ReceivedAt;
use crate::streams::store::Key;
use crate::streams::stream::InputRecord;

/// The records and states that one transaction processes.
///
/// The records stay in librdkafka's memory: most of the price of a copy would
/// be its allocations.
#[derive(Default)]
pub(super) struct Batch<'c> {
    pub(super) records: Vec<BorrowedMessage<'c>>,
    /// The bytes of their keys and values.
    pub(super) bytes: usize,
    /// The offset after the last record of each partition, or after those that
    /// are gone.
    pub(super) next_offsets: BTreeMap<i32, i64>,
    /// The offsets that Kafka deleted before their records were processed.
    pub(super) lost: Vec<(i32, Range<i64>)>,
    /// Partition and key of each expired state.
    pub(super) expired: Vec<(i32, Key)>,
    /// Partition and key of each state to rewrite.
    pub(super) outdated: Vec<(i32, Key)>,
}

/// Offsets of a partition whose records Kafka has deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) partition: i32,
    /// From the next offset to that of the first record left.
    pub(super) missing: Range<i64>,
    /// Whether the stream should have processed them.
    pub(super) is_loss: bool,
}

impl<'c> Batch<'c> {
    pub(super) fn add(&mut self, record: BorrowedMessage<'c>) {
        self.next_offsets
            .insert(record.partition(), record.offset() + 1);
        self.bytes += bytes_of(&record);
        self.records.push(record);
    }

    /// Continues a partition after a gap.
    pub(super) fn skip(&mut self, gap: Gap) {
        self.next_offsets.insert(gap.partition, gap.missing.end);
        if gap.is_loss {
            self.lost.push((gap.partition, gap.missing));
        }
    }

    /// Drops everything of revoked partitions: their next owner reads it again
    /// from the committed offsets.
    pub(super) fn revoke(&mut self, partitions: &[i32]) {
        self.records
            .retain(|record| !partitions.contains(&record.partition()));
        self.bytes = self.records.iter().map(bytes_of).sum();
        self.lost
            .retain(|(partition, _)| !partitions.contains(partition));
        self.next_offsets
            .retain(|partition, _| !partitions.contains(partition));
        for states in [&mut self.expired, &mut self.outdated] {
            states.retain(|(partition, _)| !partitions.contains(partition));
        }
    }

    /// Removes the records after the first `len`. Returns the offset of the first
    /// one removed of each partition.
    pub(super) fn truncate(&mut self, len: usize) -> BTreeMap<i32, i64> {
        let mut removed = BTreeMap::new();
        for record in self.records.drain(len.min(self.records.len())..) {
            removed.entry(record.partition()).or_insert(record.offset());
            self.bytes -= bytes_of(&record);
        }
        self.next_offsets.extend(&removed);
        removed
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next_offsets.is_empty() && self.expired.is_empty() && self.outdated.is_empty()
    }

    /// Empties the batch, and keeps its allocations for the next one.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.bytes = 0;
        self.lost.clear();
        self.next_offsets.clear();
        self.expired.clear();
        self.outdated.clear();
    }

    /// The partitions with states that change without a record.
    pub(super) fn partitions_of_states(&self) -> impl Iterator<Item = i32> {
        let states = self.expired.iter().chain(&self.outdated);
        states.map(|(partition, _)| *partition)
    }
}

impl InputRecord for BorrowedMessage<'_> {
    fn value(&self) -> &[u8] {
        self.payload().unwrap_or_default()
    }

    fn received_at(&self) -> ReceivedAt {
        received_at(self)
    }

    fn position(&self) -> Position {
        Position {
            offset: self.offset(),
            timestamp_ms: self.timestamp().to_millis().unwrap_or(0),
        }
    }
}

fn bytes_of(record: &BorrowedMessage<'_>) -> usize {
    record.key_len() + record.payload_len()
}

pub(super) fn received_at(record: &BorrowedMessage<'_>) -> ReceivedAt {
    let ce_time = kafka::headers::first(record.headers(), headers::CE_TIME);
    ReceivedAt::of_record(ce_time, record.timestamp().to_millis())
}
