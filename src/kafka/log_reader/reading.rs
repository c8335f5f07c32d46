//! The steps of one reading.
//!
//! ```text
//! 1 read each range until its last record or the end of its partition
//! 2 the ranges whose last record has not arrived: wait until the broker
//!   answers that everything before their ends is visible
//! 3 read those on from where they stopped, as in 1; now the end counts
//! ```

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::super::ReportingContext;
use super::super::failure::Operation;
use super::{Isolation, LogReader, POLL_TIMEOUT, Progress, Ranges, ReadError};

/// The number of records between two calls of `on_progress`.
const PROGRESS_RECORDS: usize = 10_000;

/// The two callbacks are `dyn` because a call through a pointer costs nothing
/// beside a poll of librdkafka.
pub(super) struct Reading<'r, E> {
    reader: &'r LogReader,
    topic: &'r str,
    isolation: Isolation,
    /// What is left to read. A range is removed with its last record.
    left: Ranges,
    progress: Progress,
    stall: Stall,
    each: &'r mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    on_progress: &'r mut dyn FnMut(Progress) -> Result<(), E>,
}

impl<'r, E: From<ReadError>> Reading<'r, E> {
    pub(super) fn new(
        reader: &'r LogReader,
        topic: &'r str,
        mut ranges: Ranges,
        isolation: Isolation,
        each: &'r mut dyn FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
        on_progress: &'r mut dyn FnMut(Progress) -> Result<(), E>,
    ) -> Self {
        ranges.retain(|_, range| range.start < range.end);
        let offsets: i64 = ranges.values().map(|range| range.end - range.start).sum();
        Self {
            reader,
            topic,
            isolation,
            left: ranges,
            progress: Progress {
                read: 0,
                total: u64::try_from(offsets).unwrap_or(0),
            },
            stall: Stall::new(reader.stall_timeout),
            each,
            on_progress,
        }
    }

    pub(super) fn run(mut self) -> Result<(), E> {
        self.read_to_ends()?;
        self.await_visible_ends()?;
        self.read_to_ends()
    }

    /// Steps 1 and 3. An assignment drops what librdkafka fetched for the one
    /// before, so no end of partition met in step 3 is older than step 2.
    fn read_to_ends(&mut self) -> Result<(), E> {
        if self.left.is_empty() {
            return Ok(());
        }
        self.assign().map_err(ReadError::from)?;
        let read = self.poll_to_ends();
        // Only a closed client refuses it.
        let _ = self.consumer().unassign();
        read
    }

    fn assign(&self) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, range) in &self.left {
            list.add_partition_offset(self.topic, *partition, Offset::Offset(range.start))?;
        }
        self.consumer().assign(&list)
    }

    fn poll_to_ends(&mut self) -> Result<(), E> {
        let mut at_end = BTreeSet::new();
        while self.left.keys().any(|left| !at_end.contains(left)) {
            self.poll_records(&mut at_end)?;
            (self.on_progress)(self.progress)?;
        }
        Ok(())
    }

    /// Polls until it is time for `on_progress`: after many records, at an end,
    /// and whenever no record is ready.
    fn poll_records(&mut self, at_end: &mut BTreeSet<i32>) -> Result<(), E> {
        let consumer = self.consumer();
        for _ in 0..PROGRESS_RECORDS {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(record)) => {
                    if self.handle(&record)? {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    at_end.insert(partition);
                    return Ok(());
                }
                Some(Err(error)) if self.reader.is_denied(&error, Operation::Read, self.topic) => {
                    return Err(ReadError::from(error).into());
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, "poll failed; librdkafka retries");
                    return self.check_stall(at_end);
                }
                None => return self.check_stall(at_end),
            }
        }
        Ok(())
    }

    /// Passes a record on. Returns whether its range has been read to the end.
    fn handle(&mut self, record: &BorrowedMessage<'_>) -> Result<bool, E> {
        self.stall.reset();
        // Records beyond the end of a range arrive until every range is read.
        let Some(range) = self.left.get_mut(&record.partition()) else {
            return Ok(false);
        };
        let (next, end) = (record.offset() + 1, range.end);
        range.start = next;
        let is_complete = next >= end;
        if is_complete {
            self.left.remove(&record.partition());
        }
        if next <= end {
            self.progress.read += 1;
            (self.each)(record)?;
        }
        Ok(is_complete)
    }

    fn check_stall(&mut self, at_end: &BTreeSet<i32>) -> Result<(), E> {
        let Some(waited) = self.stall.exceeded() else {
            return Ok(());
        };
        let stalled = self.left.keys().find(|left| !at_end.contains(left));
        Err(E::from(ReadError::Stalled {
            topic: self.topic.to_owned(),
            partition: stalled.copied().unwrap_or_default(),
            waited,
        }))
    }

    /// Step 2.
    fn await_visible_ends(&mut self) -> Result<(), E> {
        for (partition, end) in super::ends(&self.left) {
            while !self.is_visible(partition, end)? {
                (self.on_progress)(self.progress)?;
                std::thread::sleep(POLL_TIMEOUT);
            }
        }
        self.stall.reset();
        Ok(())
    }

    /// Returns whether the broker answers that all records before `end` are
    /// visible. It does so if the last of them are markers of transactions, or
    /// belong to aborted ones.
    fn is_visible(&mut self, partition: i32, end: i64) -> Result<bool, ReadError> {
        let bounds = self
            .reader
            .fetch_bounds(self.topic, partition, self.isolation);
        match bounds {
            Ok(bounds) if bounds.end >= end => return Ok(true),
            Ok(_) => {
                if let Some(waited) = self.stall.exceeded() {
                    return Err(ReadError::OpenTransaction {
                        topic: self.topic.to_owned(),
                        partition,
                        waited,
                    });
                }
            }
            Err(error) if self.reader.stall_timeout.is_none() => return Err(error.into()),
            Err(error) => {
                if self.stall.exceeded().is_some() {
                    return Err(error.into());
                }
                tracing::debug!(%error, "fetching the end offset failed; retrying");
            }
        }
        Ok(false)
    }

    fn consumer(&self) -> &'r BaseConsumer<ReportingContext> {
        self.reader.client(self.isolation)
    }
}

/// Measures how long no record has arrived. It reads the clock only while
/// none is ready, not for every record.
struct Stall {
    timeout: Option<Duration>,
    since: Option<Instant>,
}

impl Stall {
    fn new(timeout: Option<Duration>) -> Self {
        Self {
            timeout,
            since: None,
        }
    }

    fn reset(&mut self) {
        self.since = None;
    }

    /// Returns the time since the last record if it exceeds the timeout.
    fn exceeded(&mut self) -> Option<Duration> {
        let waited = self.since.get_or_insert_with(Instant::now).elapsed();
        self.timeout.filter(|timeout| waited >= *timeout)?;
        Some(waited)
    }
}
