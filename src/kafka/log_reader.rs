//! Reads partitions of a topic between known offsets, outside any consumer group.
//!
//! `LogReader::read` returns only after every record of the ranges has been
//! read, and an end of partition that a broker reports does not prove that. It
//! may come too early, for two reasons:
//!
//! - An open transaction hides its records, and all that follow, from a
//!   `read_committed` consumer. A commit may already be part of the group's
//!   offsets while its marker has not reached this partition.
//! - After an election, the new leader shows less than its log holds until its
//!   followers have fetched from it. It answers fetches meanwhile, but rejects
//!   the question for the end offset (KIP-207).
//!
//! So a reading *confirms* the end. Having met it, it waits until the broker
//! answers that the end offset visible at this isolation level is not below the
//! end of the range; then it reads on, and the next end of partition counts.
//! `reading` holds the steps, `backwards` finds the newest record of a key, and
//! `following` never ends.
//!
//! Knows nothing of what the records mean.

mod backwards;
mod following;
mod reading;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};

use super::failure::{Denial, Operation};
use super::failures::Failures;
use super::{ReportingContext, follower_config, reader_config};
use crate::config::Settings;
pub(crate) use backwards::LatestRecord;
pub(crate) use following::Positions;
use reading::Reading;

/// The longest wait for one answer from the cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for a record, and the pause before a request is repeated.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// The next offset to read of each partition of a topic.
pub type Offsets = BTreeMap<i32, i64>;

/// The offsets to read of each partition of a topic.
pub(crate) type Ranges = BTreeMap<i32, Range<i64>>;

/// Which records are visible, as Kafka's `isolation.level` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All records up to the high watermark.
    Uncommitted,
    /// Up to the last stable offset, without those of aborted transactions.
    Committed,
}

/// How far a reading has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) read: u64,
    /// The number of offsets in the ranges: at least the number of records,
    /// since compaction and transaction markers leave gaps.
    pub(crate) total: u64,
}

/// Why a reading failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A request to the cluster failed, or librdkafka rejected an option.
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    /// Neither a record nor the end of the partition arrived.
    #[error(
        "no record of partition {partition} of {topic} arrived for {} s; its leader may be unavailable",
        waited.as_secs()
    )]
    Stalled {
        /// The topic's name on the cluster.
        topic: String,
        /// The first partition of those that are not read to the end.
        partition: i32,
        /// The time since the last record.
        waited: Duration,
    },
    /// The last stable offset did not move.
    #[error(
        "an open transaction has hidden records of partition {partition} of {topic} for {} s",
        waited.as_secs()
    )]
    OpenTransaction {
        /// The topic's name on the cluster.
        topic: String,
        /// The partition in which the transaction is open.
        partition: i32,
        /// The time since the last record.
        waited: Duration,
    },
}

/// Creates readers with the same settings.
#[derive(Clone)]
pub struct LogReaderConfig {
    committed: ClientConfig,
    uncommitted: ClientConfig,
    stall_timeout: Option<Duration>,
    failures: Failures,
}

/// Reads partitions of any topic, one range after the other.
pub struct LogReader {
    committed: BaseConsumer<ReportingContext>,
    uncommitted: BaseConsumer<ReportingContext>,
    stall_timeout: Option<Duration>,
    failures: Failures,
}

impl LogReaderConfig {
    /// Configures readers that return the error of the first failed request and
    /// wait without a limit for anything else. The caller can cancel such a
    /// reading, and starts over with a new reader after an error.
    pub fn new(settings: &Settings, failures: &Failures) -> Self {
        Self {
            committed: reader_config(settings, "read_committed"),
            uncommitted: reader_config(settings, "read_uncommitted"),
            stall_timeout: None,
            failures: failures.clone(),
        }
    }

    /// Configures readers that repeat failed requests and fail once no record has
    /// arrived for this long. A leader election is over within half a minute.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = Some(timeout);
        self
    }

    /// Configures readers that [follow](LogReader::follow) topics.
    #[must_use]
    pub(crate) fn following(mut self, settings: &Settings) -> Self {
        self.committed = follower_config(settings);
        self
    }

    /// Creates a reader with clients of its own, which connect in the background.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the configuration.
    pub fn create(&self) -> Result<LogReader, KafkaError> {
        let context = || ReportingContext(self.failures.clone());
        Ok(LogReader {
            committed: self.committed.create_with_context(context())?,
            uncommitted: self.uncommitted.create_with_context(context())?,
            stall_timeout: self.stall_timeout,
            failures: self.failures.clone(),
        })
    }
}

impl LogReader {
    /// Returns the offsets that each partition of a topic currently holds, up to
    /// the end that is visible at this isolation level.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Kafka`] if the topic does not exist or the cluster
    /// does not answer.
    pub(crate) fn bounds(&self, topic: &str, isolation: Isolation) -> Result<Ranges, ReadError> {
        let partitions = self.partitions(topic, isolation)?;
        self.bounds_of(topic, &partitions, isolation)
    }

    fn partitions(&self, topic: &str, isolation: Isolation) -> Result<Vec<i32>, ReadError> {
        let client = self.client(isolation);
        let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
        let found = metadata.topics().first();
        let partitions = found.map_or(&[][..], |topic| topic.partitions());
        if partitions.is_empty() {
            let error = found.and_then(MetadataTopic::error);
            let missing = RDKafkaErrorCode::UnknownTopicOrPartition;
            let error = KafkaError::MetadataFetch(error.map_or(missing, RDKafkaErrorCode::from));
            self.is_denied(&error, Operation::Describe, topic);
            return Err(error.into());
        }
        Ok(partitions.iter().map(MetadataPartition::id).collect())
    }

    /// Returns the same as [`LogReader::bounds`] for some of the partitions.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Kafka`] if the cluster does not answer.
    pub(crate) fn bounds_of(
        &self,
        topic: &str,
        partitions: &[i32],
        isolation: Isolation,
    ) -> Result<Ranges, ReadError> {
        let bounds = |partition: &i32| {
            let range = self.bounds_of_partition(topic, *partition, isolation)?;
            Ok((*partition, range))
        };
        partitions.iter().map(bounds).collect()
    }

    /// Returns the current end offset of each partition of a topic.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Kafka`] if the topic does not exist or the cluster
    /// does not answer.
    pub fn end_offsets(&self, topic: &str, isolation: Isolation) -> Result<Offsets, ReadError> {
        Ok(ends(&self.bounds(topic, isolation)?))
    }

    /// Passes every visible record of the ranges to `each`, in order within a
    /// partition, and calls `progress` every 10 000 records and whenever it has
    /// to wait. The first error that either returns ends the reading.
    ///
    /// # Errors
    ///
    /// Returns the error of `each` or `progress`, or a [`ReadError`].
    pub(crate) fn read<E: From<ReadError>>(
        &self,
        topic: &str,
        ranges: Ranges,
        isolation: Isolation,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
        mut progress: impl FnMut(Progress) -> Result<(), E>,
    ) -> Result<(), E> {
        Reading::new(self, topic, ranges, isolation, &mut each, &mut progress).run()
    }

    /// Passes the records of a topic from `next` to its current end to `each`,
    /// and sets `next` to that end. A partition that is not in `next` has been
    /// added since, and is read from its first record.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`]; then `next` is unchanged.
    pub fn read_since(
        &self,
        topic: &str,
        next: &mut Offsets,
        isolation: Isolation,
        each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), ReadError> {
        let mut ranges = self.bounds(topic, isolation)?;
        let ends = ends(&ranges);
        for (partition, range) in &mut ranges {
            range.start = range.start.max(next.get(partition).copied().unwrap_or(0));
        }
        self.read_all(topic, ranges, isolation, each)?;
        *next = ends;
        Ok(())
    }

    /// Passes the committed records of one partition from an offset to its
    /// current last stable offset to `each`.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`].
    pub(crate) fn read_committed(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), ReadError> {
        let isolation = Isolation::Committed;
        let bounds = self.bounds_of_partition(topic, partition, isolation)?;
        let range = from.max(bounds.start)..bounds.end;
        self.read_all(topic, Ranges::from([(partition, range)]), isolation, each)
    }

    /// Returns the same as [`LogReader::bounds`] for one partition. Repeats a
    /// failed request until the stall timeout.
    ///
    /// # Errors
    ///
    /// Returns [`ReadError::Kafka`] if the cluster does not answer.
    pub(crate) fn bounds_of_partition(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<Range<i64>, ReadError> {
        let deadline = Instant::now() + self.stall_timeout.unwrap_or(Duration::ZERO);
        loop {
            match self.fetch_bounds(topic, partition, isolation) {
                Ok(bounds) => return Ok(bounds),
                Err(error)
                    if self.is_denied(&error, Operation::Describe, topic)
                        || Instant::now() >= deadline =>
                {
                    return Err(error.into());
                }
                Err(error) => {
                    tracing::debug!(%error, topic, partition, "fetching the offsets failed; retrying");
                }
            }
            std::thread::sleep(POLL_TIMEOUT);
        }
    }

    fn read_all(
        &self,
        topic: &str,
        ranges: Ranges,
        isolation: Isolation,
        mut each: impl FnMut(&BorrowedMessage<'_>),
    ) -> Result<(), ReadError> {
        let each = |record: &BorrowedMessage<'_>| {
            each(record);
            Ok(())
        };
        self.read(topic, ranges, isolation, each, |_| Ok(()))
    }

    fn fetch_bounds(
        &self,
        topic: &str,
        partition: i32,
        isolation: Isolation,
    ) -> Result<Range<i64>, KafkaError> {
        // A read_committed client is answered with the last stable offset, a
        // read_uncommitted one with the high watermark (KIP-98).
        let (first, end) =
            self.client(isolation)
                .fetch_watermarks(topic, partition, REQUEST_TIMEOUT)?;
        Ok(first..end)
    }

    /// Returns whether the error is that the cluster denied an operation on the
    /// topic, and reports that.
    fn is_denied(&self, error: &KafkaError, operation: Operation, topic: &str) -> bool {
        let attempt = Denial::on_topic(operation, topic);
        self.failures.observe_denial(error, attempt)
    }

    fn client(&self, isolation: Isolation) -> &BaseConsumer<ReportingContext> {
        match isolation {
            Isolation::Uncommitted => &self.uncommitted,
            Isolation::Committed => &self.committed,
        }
    }
}

fn ends(ranges: &Ranges) -> Offsets {
    let end = |(partition, range): (&i32, &Range<i64>)| (*partition, range.end);
    ranges.iter().map(end).collect()
}

impl std::fmt::Debug for LogReaderConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client configurations may hold secrets.
        f.debug_struct("LogReaderConfig")
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("stall_timeout", &self.stall_timeout)
            .finish_non_exhaustive()
    }
}
