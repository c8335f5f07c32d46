//! How far a consumer group has come, asked by somebody who is no member.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::scan::Positions;
use super::{Quiet, reader_config};
use crate::config::Settings;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(5);

/// One group, seen from outside.
pub struct Group {
    consumer: BaseConsumer<Quiet>,
}

impl Group {
    /// The group of this name, which need not exist.
    ///
    /// # Errors
    ///
    /// Where librdkafka does not accept an option.
    pub fn new(settings: &Settings, name: &str) -> Result<Self, KafkaError> {
        // A consumer that never subscribes never joins.
        let consumer = reader_config(settings, "read_committed")
            .set("group.id", name)
            .create_with_context(Quiet)?;
        Ok(Self { consumer })
    }

    /// The committed offset of these partitions; one without is left out.
    ///
    /// # Errors
    ///
    /// Where the cluster does not answer, or a transaction on the offsets is
    /// open: a `read_committed` consumer asks for stable ones (KIP-447).
    pub fn committed(
        &self,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<Positions, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition);
        }
        let list = self.consumer.committed_offsets(list, ASK)?;
        let mut committed = Positions::new();
        for element in list.elements() {
            element.error()?;
            if let Offset::Offset(next) = element.offset() {
                committed.insert(element.partition(), next);
            }
        }
        Ok(committed)
    }
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}
