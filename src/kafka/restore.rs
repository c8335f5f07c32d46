//! Reads partitions of a compacted topic from start to end.
//!
//! The end is the high watermark of the moment, and what is met as an end may
//! be before it. A predecessor's last transaction may be committed in the
//! group's offsets while its marker has not reached this partition yet: its
//! records are hidden so long. And behind an election, a leader shows less than
//! there is until its followers have asked it, though it does not answer
//! questions for the end so long (KIP-207). So an end counts when it is met
//! again after the answer that the last stable offset has passed the watermark.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::{Quiet, reader_config};
use crate::config::Settings;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(5);
/// How long to wait for records at a time.
const POLL: Duration = Duration::from_millis(100);
/// After so many records, whoever waits is asked whether to go on.
const STRETCH: usize = 10_000;

/// Reads committed states, with clients of its own for each reading.
///
/// A client that nobody polls gathers librdkafka's errors for as long as the
/// brokers are away, and one that was there when they came back may believe for
/// a while what a broker that was starting told it.
pub struct Restore {
    committed: ClientConfig,
    uncommitted: ClientConfig,
    topic: String,
}

/// The clients of one reading.
struct Reading<'a> {
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
    topic: &'a str,
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
    /// Of this topic. Connects to nothing yet.
    pub fn new(settings: &Settings, topic: &str) -> Self {
        let reader = |isolation: &str| {
            let mut config = reader_config(settings, isolation);
            // An end is told by an answer without records, for which a broker
            // waits so long.
            config.set("fetch.wait.max.ms", "10");
            config
        };
        Self {
            committed: reader("read_committed"),
            uncommitted: reader("read_uncommitted"),
            topic: topic.to_owned(),
        }
    }

    /// Gives `each` every committed record of the partitions. Whether it came
    /// to their ends: `go_on` is asked now and then, and told how many records
    /// were read and how many there are.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, a partition cannot be read, or
    /// librdkafka does not accept an option.
    pub fn read(
        &self,
        partitions: &[i32],
        mut each: impl FnMut(&Restored<'_>),
        mut go_on: impl FnMut(u64, u64) -> bool,
    ) -> Result<bool, KafkaError> {
        if partitions.is_empty() {
            return Ok(true);
        }
        let reading = Reading {
            committed: self.committed.create_with_context(Quiet)?,
            uncommitted: self.uncommitted.create_with_context(Quiet)?,
            topic: &self.topic,
        };
        reading.read(partitions, &mut each, &mut go_on)
    }
}

impl Reading<'_> {
    fn read(
        &self,
        partitions: &[i32],
        each: &mut impl FnMut(&Restored<'_>),
        go_on: &mut impl FnMut(u64, u64) -> bool,
    ) -> Result<bool, KafkaError> {
        let ends = self.ends(partitions)?;
        let total = ends
            .values()
            .map(|(low, high)| u64::try_from(high - low).unwrap_or(0))
            .sum();
        let mut next: BTreeMap<i32, i64> = ends
            .iter()
            .map(|(partition, (low, _))| (*partition, *low))
            .collect();
        let mut read = 0;
        let mut go_on = |read| go_on(read, total);
        let complete = self.read_from(&mut next, &mut read, each, &mut go_on)?
            && self.await_stable(&ends, read, &mut go_on)?
            && self.read_from(&mut next, &mut read, each, &mut go_on)?;
        Ok(complete)
    }

    /// Waits until nothing before the ends is hidden; whether that is so.
    fn await_stable(
        &self,
        ends: &BTreeMap<i32, (i64, i64)>,
        read: u64,
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<bool, KafkaError> {
        for (partition, (_, high)) in ends {
            let stable_end = || self.committed.fetch_watermarks(self.topic, *partition, ASK);
            while stable_end()?.1 < *high {
                if !go_on(read) {
                    return Ok(false);
                }
                std::thread::sleep(POLL);
            }
        }
        Ok(true)
    }

    /// Reads from the `next` offsets until each partition has met an end;
    /// whether all have.
    fn read_from(
        &self,
        next: &mut BTreeMap<i32, i64>,
        read: &mut u64,
        each: &mut impl FnMut(&Restored<'_>),
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> Result<bool, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next.iter() {
            list.add_partition_offset(self.topic, *partition, Offset::Offset(*offset))?;
        }
        self.committed.assign(&list)?;
        let complete = self.read_assigned(next, read, each, go_on);
        self.committed.unassign()?;
        Ok(complete)
    }

    fn read_assigned(
        &self,
        next: &mut BTreeMap<i32, i64>,
        read: &mut u64,
        each: &mut impl FnMut(&Restored<'_>),
        go_on: &mut impl FnMut(u64) -> bool,
    ) -> bool {
        let mut ended = BTreeSet::new();
        while ended.len() < next.len() {
            for _ in 0..STRETCH {
                match self.committed.poll(POLL) {
                    Some(Ok(message)) => {
                        *read += 1;
                        next.insert(message.partition(), message.offset() + 1);
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
            if !go_on(*read) {
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
                .fetch_watermarks(self.topic, *partition, ASK)?;
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
        // The configuration may hold secrets.
        f.debug_struct("Restore")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}
