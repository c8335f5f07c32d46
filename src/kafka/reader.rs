//! Reads the committed records of one topic between known offsets, one
//! partition after the other, each from front to back.
//!
//! For those who must see every record that was there: an end is the high
//! watermark of the moment, and it is trusted only once the last stable offset
//! has passed it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Quiet, reader_config};
use crate::config::Settings;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);
/// How long to wait for records at a time.
const POLL: Duration = Duration::from_millis(100);
/// After so long without a record or an end, the cluster counts as away; a
/// leader's election is over well before.
const SILENCE: Duration = Duration::from_secs(60);

/// Reads one topic.
pub struct Reader {
    committed: BaseConsumer<Quiet>,
    uncommitted: BaseConsumer<Quiet>,
    topic: String,
}

/// The offsets of each partition: from the first that is kept to the end.
pub type Bounds = BTreeMap<i32, Range<i64>>;

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cluster did not answer.
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    /// The cluster answered before, and then sent nothing more; or somebody's
    /// open transaction hides what stands behind it.
    #[error(
        "for {} s nothing came from partition {partition} of {topic}: it is away, or a transaction on it stays open",
        SILENCE.as_secs()
    )]
    Silent {
        /// Whose partition.
        topic: String,
        /// Which one.
        partition: i32,
    },
    /// `go_on` said so.
    #[error("stopped")]
    Stopped,
}

impl Reader {
    /// A reader of a topic, which connects by itself.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings, topic: &str) -> Result<Self, KafkaError> {
        let reader =
            |isolation: &str| reader_config(settings, isolation).create_with_context(Quiet);
        Ok(Self {
            committed: reader("read_committed")?,
            uncommitted: reader("read_uncommitted")?,
            topic: topic.to_owned(),
        })
    }

    /// What each partition holds now, open transactions included.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer.
    pub fn bounds(&self) -> Result<Bounds, ReadError> {
        let metadata = self.uncommitted.fetch_metadata(Some(&self.topic), ASK)?;
        let topics = metadata.topics().iter();
        let partitions = topics.flat_map(rdkafka::metadata::MetadataTopic::partitions);
        let bounds = |partition: i32| {
            let (low, high) = self
                .uncommitted
                .fetch_watermarks(&self.topic, partition, ASK)?;
            Ok((partition, low..high))
        };
        partitions.map(|partition| bounds(partition.id())).collect()
    }

    /// Starts to read a part of a partition. One at a time.
    ///
    /// # Errors
    ///
    /// Where an offset is none.
    pub fn section(&self, partition: i32, range: Range<i64>) -> Result<Section<'_>, ReadError> {
        let section = Section {
            reader: self,
            partition,
            next: range.start,
            end: range.end,
            confirming: false,
        };
        section.assign()?;
        Ok(section)
    }

    fn stable_end(&self, partition: i32) -> Result<i64, KafkaError> {
        // For a read_committed client this is the last stable offset (KIP-98).
        let (_, end) = self
            .committed
            .fetch_watermarks(&self.topic, partition, ASK)?;
        Ok(end)
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// A part of one partition that is being read.
#[derive(Debug)]
pub struct Section<'a> {
    reader: &'a Reader,
    partition: i32,
    next: i64,
    end: i64,
    confirming: bool,
}

impl<'a> Section<'a> {
    /// The next committed record; none at the end. Waits for transactions that
    /// began before the end and are still open.
    ///
    /// # Errors
    ///
    /// Where nothing comes for a minute, or `go_on` says no.
    pub fn next(
        &mut self,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<BorrowedMessage<'a>>, ReadError> {
        let give_up_at = Instant::now() + SILENCE;
        while self.next < self.end {
            if !go_on() {
                return Err(ReadError::Stopped);
            }
            match self.reader.committed.poll(POLL) {
                Some(Ok(message)) => {
                    self.confirming = false;
                    self.next = message.offset() + 1;
                    if message.offset() < self.end {
                        return Ok(Some(message));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.at_end()?,
                Some(Err(error)) => tracing::debug!(%error, "a poll failed"),
                None => {}
            }
            if Instant::now() >= give_up_at {
                return Err(ReadError::Silent {
                    topic: self.reader.topic.clone(),
                    partition: self.partition,
                });
            }
        }
        Ok(None)
    }

    /// Records may still come before the end that was asked for. An open
    /// transaction hides what stands behind it; and behind an election, a leader
    /// shows less than there is until its followers have
    /// asked it, though it does not answer questions for the end so long
    /// (KIP-207). So an end counts when it is met again after such an answer.
    fn at_end(&mut self) -> Result<(), KafkaError> {
        if self.confirming {
            self.next = self.end;
            return Ok(());
        }
        match self.reader.stable_end(self.partition) {
            Ok(end) => self.confirming = end >= self.end,
            Err(error) => tracing::debug!(%error, "the end could not be asked for"),
        }
        if !self.confirming {
            std::thread::sleep(POLL);
        }
        self.assign()
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let next = Offset::Offset(self.next);
        list.add_partition_offset(&self.reader.topic, self.partition, next)?;
        self.reader.committed.assign(&list)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        // It can only fail where the client is closed.
        let _ = self.reader.committed.unassign();
    }
}
