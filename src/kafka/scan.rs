//! Reads topics between two moments: from where they ended to where they end.
//!
//! Knows nothing of what the records mean.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::Offset;
use rdkafka::types::RDKafkaErrorCode;

use super::{Quiet, reader_config};
use crate::config::Settings;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);
/// How long to wait for records at a time.
const POLL: Duration = Duration::from_millis(100);
/// Without a record for so long, a partition is taken to be out of reach.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next offset of each partition of a topic.
pub type Positions = BTreeMap<i32, i64>;

/// Which records of transactions are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All that were written.
    Uncommitted,
    /// Those of no transaction or of a committed one.
    Committed,
}

/// A reader that is no member of a group.
pub struct Scan {
    consumer: BaseConsumer<Quiet>,
}

/// A record as it is stored.
#[derive(Debug, Clone, Copy)]
pub struct Scanned<'a> {
    message: &'a BorrowedMessage<'a>,
}

impl Scan {
    /// A reader, which connects by itself.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings, isolation: Isolation) -> Result<Self, KafkaError> {
        let isolation = match isolation {
            Isolation::Uncommitted => "read_uncommitted",
            Isolation::Committed => "read_committed",
        };
        let consumer = reader_config(settings, isolation)
            // So long a broker lets the reader of an end wait for what comes.
            .set("fetch.wait.max.ms", "20")
            .create_with_context(Quiet)?;
        Ok(Self { consumer })
    }

    /// Where the partitions of a topic end now.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or has no such topic.
    pub fn ends(&self, topic: &str) -> Result<Positions, KafkaError> {
        let metadata = self.consumer.fetch_metadata(Some(topic), ASK)?;
        let partitions = metadata
            .topics()
            .first()
            .map_or(&[][..], |topic| topic.partitions());
        if partitions.is_empty() {
            let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
            return Err(KafkaError::MetadataFetch(missing));
        }
        partitions
            .iter()
            .map(|partition| Ok((partition.id(), self.bounds(topic, partition.id())?.1)))
            .collect()
    }

    /// Gives `each` the records of a topic from `at` to its end now, and moves
    /// `at` behind them. A partition that came since is read from its beginning.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or a partition cannot be read.
    pub fn read(
        &self,
        topic: &str,
        at: &mut Positions,
        each: impl FnMut(&Scanned<'_>),
    ) -> Result<(), KafkaError> {
        let mut open = self.ends(topic)?;
        open.retain(|partition, end| at.get(partition).is_none_or(|at| at < end));
        self.read_open(topic, open, at, each)
    }

    /// Gives `each` the records of one partition from this offset to its end now.
    ///
    /// # Errors
    ///
    /// As [`Scan::read`].
    pub fn read_partition(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        each: impl FnMut(&Scanned<'_>),
    ) -> Result<(), KafkaError> {
        let (beginning, end) = self.bounds(topic, partition)?;
        let from = from.max(beginning);
        if from >= end {
            return Ok(());
        }
        let open = Positions::from([(partition, end)]);
        self.read_open(topic, open, &mut Positions::from([(partition, from)]), each)
    }

    /// Where a partition begins and ends now, for this reader's isolation. A
    /// new leader cannot tell before its followers have asked it (KIP-207), so
    /// a refusal is asked again.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer for longer than that takes.
    pub fn bounds(&self, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.consumer.fetch_watermarks(topic, partition, ASK) {
                Ok(bounds) => return Ok(bounds),
                Err(error) if Instant::now() > give_up => return Err(error),
                Err(error) => tracing::debug!(%error, topic, partition, "asking again"),
            }
            std::thread::sleep(POLL);
        }
    }

    fn read_open(
        &self,
        topic: &str,
        mut open: Positions,
        at: &mut Positions,
        mut each: impl FnMut(&Scanned<'_>),
    ) -> Result<(), KafkaError> {
        if open.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for partition in open.keys() {
            let from = at
                .get(partition)
                .map_or(Offset::Beginning, |at| Offset::Offset(*at));
            list.add_partition_offset(topic, *partition, from)?;
        }
        self.consumer.assign(&list)?;
        let read = self.read_assigned(&mut open, at, &mut each);
        self.consumer.unassign()?;
        read
    }

    fn read_assigned(
        &self,
        open: &mut Positions,
        at: &mut Positions,
        each: &mut impl FnMut(&Scanned<'_>),
    ) -> Result<(), KafkaError> {
        let mut give_up = Instant::now() + PATIENCE;
        while !open.is_empty() {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let (partition, next) = (message.partition(), message.offset() + 1);
                    each(&Scanned { message: &message });
                    at.insert(partition, next);
                    if open.get(&partition).is_some_and(|end| next >= *end) {
                        open.remove(&partition);
                    }
                    give_up = Instant::now() + PATIENCE;
                }
                // The rest are markers of transactions, or not to be seen yet.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
                Some(Err(error)) => tracing::debug!(%error, "a poll failed"),
                None => {}
            }
            if Instant::now() > give_up {
                let out_of_reach = RDKafkaErrorCode::OperationTimedOut;
                return Err(KafkaError::MessageConsumption(out_of_reach));
            }
        }
        Ok(())
    }
}

impl Scanned<'_> {
    /// The partition that it is in.
    pub fn partition(&self) -> i32 {
        self.message.partition()
    }

    /// Its offset there.
    pub fn offset(&self) -> i64 {
        self.message.offset()
    }

    /// The key, if it has one.
    pub fn key(&self) -> Option<&[u8]> {
        self.message.key()
    }

    /// The value; none is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.message.payload()
    }

    /// The record's own time, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.message.timestamp().to_millis().unwrap_or(0)
    }

    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let headers = self.message.headers()?;
        let mut named = headers.iter().filter(|header| header.key == name);
        named.next()?.value
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").finish_non_exhaustive()
    }
}
