//! Reads partitions of a compacted topic from start to end.
//!
//! The end is the high watermark of the moment. A predecessor's last
//! transaction may be committed in the group's offsets while its marker has
//! not reached this partition yet; the reader therefore waits until the last
//! stable offset has passed that watermark before it trusts an end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::{Quiet, reader_config};
use crate::config::Settings;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(5);
/// How long to wait for records at a time.
const POLL: Duration = Duration::from_millis(100);
/// After so many records, whoever waits is asked whether to go on.
const STRETCH: usize = 10_000;

/// Reads committed states.
pub struct Restore {
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
    topic: String,
}

/// A record of the state topic.
#[derive(Debug)]
pub struct Restored<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: &'a [u8],
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// When it was written, in milliseconds since 1970.
    pub written_at_ms: i64,
}

impl Restore {
    /// Readers of a topic, which connect by themselves.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings, topic: &str) -> Result<Self, KafkaError> {
        let reader = |isolation: &str| {
            reader_config(settings, isolation)
                // An end is told by an answer without records, for which a
                // broker waits so long.
                .set("fetch.wait.max.ms", "10")
                .create_with_context(Quiet)
        };
        Ok(Self {
            committed: reader("read_committed")?,
            uncommitted: reader("read_uncommitted")?,
            topic: topic.to_owned(),
        })
    }

    /// Gives `each` every committed record of the partitions. Whether it came
    /// to their ends: `go_on` is asked now and then, and told how many records
    /// were read and how many there are.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or a partition cannot be read.
    pub fn read(
        &self,
        partitions: &[i32],
        mut each: impl FnMut(&Restored<'_>),
        mut go_on: impl FnMut(u64, u64) -> bool,
    ) -> Result<bool, KafkaError> {
        let ends = self.ends(partitions)?;
        let total = ends
            .values()
            .map(|(low, high)| u64::try_from(high - low).unwrap_or(0))
            .sum();
        for (partition, (_, high)) in &ends {
            while self
                .committed
                .fetch_watermarks(&self.topic, *partition, ASK)?
                .1
                < *high
            {
                if !go_on(0, total) {
                    return Ok(false);
                }
                std::thread::sleep(POLL);
            }
        }
        let mut list = TopicPartitionList::new();
        for partition in ends.keys() {
            list.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
        }
        self.committed.assign(&list)?;
        let complete = self.read_assigned(ends.len(), total, &mut each, &mut go_on);
        self.committed.unassign()?;
        Ok(complete)
    }

    fn read_assigned(
        &self,
        partitions: usize,
        total: u64,
        each: &mut impl FnMut(&Restored<'_>),
        go_on: &mut impl FnMut(u64, u64) -> bool,
    ) -> bool {
        let (mut ended, mut read) = (BTreeSet::new(), 0);
        while ended.len() < partitions {
            for _ in 0..STRETCH {
                match self.committed.poll(POLL) {
                    Some(Ok(message)) => {
                        read += 1;
                        if let Some(key) = message.key() {
                            each(&Restored {
                                partition: message.partition(),
                                key,
                                value: message.payload(),
                                written_at_ms: message.timestamp().to_millis().unwrap_or(0),
                            });
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        ended.insert(partition);
                        break;
                    }
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a poll failed");
                        break;
                    }
                    None => break,
                }
            }
            if !go_on(read, total) {
                return false;
            }
        }
        true
    }

    /// First and next offset of each partition that is not empty.
    fn ends(&self, partitions: &[i32]) -> Result<BTreeMap<i32, (i64, i64)>, KafkaError> {
        let end = |partition: &i32| {
            let ends = self
                .uncommitted
                .fetch_watermarks(&self.topic, *partition, ASK)?;
            Ok((*partition, ends))
        };
        let ends: Result<BTreeMap<_, _>, KafkaError> = partitions.iter().map(end).collect();
        Ok(ends?
            .into_iter()
            .filter(|(_, (low, high))| low < high)
            .collect())
    }
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restore")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
