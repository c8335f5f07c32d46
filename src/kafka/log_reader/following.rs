//! Follows topics: passes each record on when it arrives, and never ends by
//! itself.
//!
//! librdkafka goes on by itself when brokers come back or leaders change. What it
//! does not do for a consumer without a group is read partitions that are added,
//! so the number of partitions is asked for again every few seconds.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::{Isolation, LogReader, Offsets, POLL_TIMEOUT, REQUEST_TIMEOUT, ReadError};
use crate::kafka::failure::Operation;

/// How often added partitions are looked for.
const PARTITIONS_INTERVAL: Duration = Duration::from_secs(5);
/// How long a broker may take to deny the records of a topic.
const DENIAL_TIMEOUT: Duration = Duration::from_secs(2);

const DENIED: RDKafkaErrorCode = RDKafkaErrorCode::TopicAuthorizationFailed;

/// Where to begin in each partition of each topic.
pub(crate) type Positions = BTreeMap<String, Offsets>;

impl LogReader {
    /// Returns, for each partition of a topic, an offset before which every record
    /// was written before `since`.
    ///
    /// # Errors
    ///
    /// Returns a [`ReadError`].
    pub(crate) fn offsets_since(
        &self,
        topic: &str,
        since: DateTime<Utc>,
    ) -> Result<Offsets, ReadError> {
        let bounds = self.bounds(topic, Isolation::Committed)?;
        let partitions = || bounds.keys().copied();
        let mut from = self.look_up(topic, partitions(), since.timestamp_millis())?;
        let unanswered: Vec<i32> = partitions().filter(|it| !from.contains_key(it)).collect();
        // Nothing was written since, or the broker cannot look up times, as the one
        // of `dev`: then it does not know of the oldest record either.
        let oldest = self.look_up(topic, unanswered.iter().copied(), 0)?;
        for partition in unanswered {
            let range = &bounds[&partition];
            let is_known = oldest.contains_key(&partition);
            from.insert(partition, if is_known { range.end } else { range.start });
        }
        Ok(from)
    }

    /// Returns the first offset at or after this time of each of the partitions
    /// that has one.
    fn look_up(
        &self,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
        time_ms: i64,
    ) -> Result<Offsets, ReadError> {
        let mut times = TopicPartitionList::new();
        for partition in partitions {
            times.add_partition_offset(topic, partition, Offset::Offset(time_ms))?;
        }
        if times.count() == 0 {
            return Ok(Offsets::new());
        }
        let client = self.client(Isolation::Committed);
        let answer = client.offsets_for_times(times, REQUEST_TIMEOUT)?;
        let mut found = Offsets::new();
        for element in answer.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert(element.partition(), offset);
            }
        }
        Ok(found)
    }

    /// Passes each committed record from these positions on to `each`, as it
    /// arrives: in order within a partition. Ends with the first error of `each`.
    ///
    /// # Errors
    ///
    /// Returns the error of `each`, or a [`ReadError`] if the cluster denies a
    /// topic. An outage is no error: it is waited for.
    pub(crate) fn follow<E: From<ReadError>>(
        &self,
        mut positions: Positions,
        mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<(), E>,
    ) -> Result<Infallible, E> {
        let consumer = self.client(Isolation::Committed);
        self.assign(&positions)?;
        let mut compared = Instant::now();
        loop {
            match consumer.poll(POLL_TIMEOUT) {
                Some(Ok(record)) => {
                    each(&record)?;
                    if let Some(offsets) = positions.get_mut(record.topic()) {
                        offsets.insert(record.partition(), record.offset() + 1);
                    }
                }
                Some(Err(error)) if error.rdkafka_error_code() == Some(DENIED) => {
                    self.find_denied(&positions)?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) | None => {}
                Some(Err(error)) => tracing::debug!(%error, "poll failed; librdkafka retries"),
            }
            if compared.elapsed() >= PARTITIONS_INTERVAL {
                self.add_partitions(&mut positions)?;
                compared = Instant::now();
            }
        }
    }

    /// Begins with new partitions at their first record. If the cluster does not
    /// answer, the next comparison finds them.
    fn add_partitions(&self, positions: &mut Positions) -> Result<(), ReadError> {
        let mut has_more = false;
        for (topic, offsets) in positions.iter_mut() {
            let partitions = match self.partitions(topic, Isolation::Committed) {
                Ok(partitions) => partitions,
                Err(error) => {
                    tracing::debug!(%error, topic, "cannot look for added partitions; retrying");
                    break;
                }
            };
            for partition in partitions {
                has_more |= !offsets.contains_key(&partition);
                offsets.entry(partition).or_insert(0);
            }
        }
        if has_more {
            self.assign(positions)?;
        }
        Ok(())
    }

    /// Returns an error, and reports it, for the first topic whose records the
    /// cluster denies. librdkafka's error does not name the topic, so they are read
    /// one after the other.
    fn find_denied(&self, positions: &Positions) -> Result<(), ReadError> {
        for (topic, offsets) in positions {
            self.assign(&Positions::from([(topic.clone(), offsets.clone())]))?;
            let began = Instant::now();
            while began.elapsed() < DENIAL_TIMEOUT {
                if let Some(Err(error)) = self.client(Isolation::Committed).poll(POLL_TIMEOUT)
                    && self.is_denied(&error, Operation::Read, topic)
                {
                    return Err(error.into());
                }
            }
        }
        self.assign(positions)
    }

    fn assign(&self, positions: &Positions) -> Result<(), ReadError> {
        let mut list = TopicPartitionList::new();
        for (topic, offsets) in positions {
            for (partition, offset) in offsets {
                list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
            }
        }
        Ok(self.client(Isolation::Committed).assign(&list)?)
    }
}
