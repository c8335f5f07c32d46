//! The offsets of the partitions of a member: committed, consumed, and in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionListElem;
use rdkafka::{Offset, TopicPartitionList};

use super::{GroupConsumer, METADATA_TIMEOUT, lock};

/// The longest wait for one answer from the cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl GroupConsumer {
    /// Returns the offset at which the log of a partition starts.
    ///
    /// # Errors
    ///
    /// Returns an error if the partition's leader does not answer.
    pub(crate) fn log_start(&self, partition: i32) -> Result<i64, KafkaError> {
        let (start, _) =
            self.consumer
                .fetch_watermarks(&self.topic, partition, METADATA_TIMEOUT)?;
        Ok(start)
    }

    /// Returns the group's committed offset of each partition, if it has one,
    /// once no open transaction can change it.
    ///
    /// A predecessor may have sent a commit whose outcome is still pending.
    /// Brokers therefore answer a `read_committed` consumer only when the
    /// offsets are stable (KIP-447), and librdkafka asks until they are.
    ///
    /// # Errors
    ///
    /// Returns an error if the offsets are not stable within five seconds, or if
    /// the cluster does not answer.
    pub(crate) fn stable_committed_offsets(
        &self,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, Option<i64>>, KafkaError> {
        let list = self
            .consumer
            .committed_offsets(self.partition_list(partitions), REQUEST_TIMEOUT)?;
        let committed = |element: &TopicPartitionListElem<'_>| {
            element.error()?;
            // A partition without a committed offset has a negative one here.
            let offset = element.offset().to_raw().filter(|offset| *offset >= 0);
            Ok((element.partition(), offset))
        };
        list.elements().iter().map(committed).collect()
    }

    /// Sets the offset of the next record of each partition.
    ///
    /// # Errors
    ///
    /// Returns an error if a partition is not assigned to this member, or if
    /// librdkafka has not started to fetch it.
    pub(crate) fn seek(&self, offsets: &BTreeMap<i32, i64>) -> Result<(), KafkaError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let list = self.offset_list(offsets.iter().map(|(partition, next)| (*partition, *next)))?;
        let sought = self.consumer.seek_partitions(list, REQUEST_TIMEOUT)?;
        sought
            .elements()
            .iter()
            .try_for_each(TopicPartitionListElem::error)
    }

    /// Returns the offset after the last one consumed, by partition. Unlike the
    /// offset of a record, it moves past transaction markers.
    pub(crate) fn positions(&self) -> BTreeMap<i32, i64> {
        let positions = self.consumer.position().ok();
        let elements = positions.iter().flat_map(TopicPartitionList::elements);
        elements
            .filter_map(|element| match element.offset() {
                Offset::Offset(next) => Some((element.partition(), next)),
                Offset::Beginning
                | Offset::End
                | Offset::Stored
                | Offset::Invalid
                | Offset::OffsetTail(_) => None,
            })
            .collect()
    }

    /// Builds the list that a transaction commits from the next offset of each
    /// partition.
    ///
    /// # Errors
    ///
    /// Returns an error if an offset is negative.
    pub(crate) fn offset_list(
        &self,
        next: impl IntoIterator<Item = (i32, i64)>,
    ) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))?;
        }
        Ok(list)
    }

    /// Returns the last stable offset of a partition as of librdkafka's latest
    /// statistics, which arrive every few seconds.
    pub(crate) fn end_offset(&self, partition: i32) -> Option<i64> {
        lock(&self.consumer.context().end_offsets)
            .get(&partition)
            .copied()
    }
}
