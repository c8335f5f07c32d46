//! Finds the newest record of a key without reading its partition from the
//! beginning.
//!
//! A consumer reads forwards only. So the partition is cut into chunks, which
//! are read from the last one to the first: a key that has changed lately is
//! found in the first chunk that is read. Each chunk is larger than the one
//! before, so that a key that is not there costs one reading of the partition,
//! and a dozen requests more.

use std::collections::BTreeMap;

use rdkafka::message::{BorrowedMessage, Message};

use super::{Isolation, LogReader, Ranges, ReadError, ends};

/// The offsets of the first chunk, few enough for one response of a broker.
const FIRST_CHUNK: i64 = 2_048;
/// By how much each chunk is larger than the one before.
const GROWTH: i64 = 4;

/// The newest record of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LatestRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// `None` for a tombstone.
    pub(crate) value: Option<Vec<u8>>,
}

impl LogReader {
    /// Returns the newest committed record with this key in these partitions of a
    /// topic: in one partition the last one, in several the one with the latest
    /// timestamp.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`].
    pub(crate) fn latest(
        &self,
        topic: &str,
        partitions: &[i32],
        key: &[u8],
    ) -> Result<Option<LatestRecord>, ReadError> {
        let bounds = self.bounds_of(topic, partitions, Isolation::Committed)?;
        let found = self.latest_in(topic, bounds.clone(), key)?;
        if found.is_some() {
            return Ok(found);
        }
        // The record may have been replaced, and compacted away, since the bounds
        // were fetched.
        let mut written_since = self.bounds_of(topic, partitions, Isolation::Committed)?;
        for (partition, end) in ends(&bounds) {
            written_since
                .entry(partition)
                .and_modify(|range| range.start = range.start.max(end));
        }
        self.latest_in(topic, written_since, key)
    }

    fn latest_in(
        &self,
        topic: &str,
        mut left: Ranges,
        key: &[u8],
    ) -> Result<Option<LatestRecord>, ReadError> {
        let mut found = BTreeMap::new();
        let mut length = FIRST_CHUNK;
        left.retain(|_, range| !range.is_empty());
        while !left.is_empty() {
            let mut chunks = Ranges::new();
            for (partition, range) in &mut left {
                let start = range.end.saturating_sub(length).max(range.start);
                chunks.insert(*partition, start..range.end);
                range.end = start;
            }
            self.read_all(topic, chunks, Isolation::Committed, |record| {
                if record.key() == Some(key) {
                    let written_at = record.timestamp().to_millis();
                    found.insert(record.partition(), (written_at, LatestRecord::of(record)));
                }
            })?;
            left.retain(|partition, range| !range.is_empty() && !found.contains_key(partition));
            length = length.saturating_mul(GROWTH);
        }
        let newest = found
            .into_values()
            .max_by_key(|(written_at, _)| *written_at);
        Ok(newest.map(|(_, record)| record))
    }
}

impl LatestRecord {
    fn of(record: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: record.partition(),
            offset: record.offset(),
            value: record.payload().map(<[u8]>::to_vec),
        }
    }
}
