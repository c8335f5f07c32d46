//! The committed offsets of a consumer group, read without joining it.

use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset;

use super::failure::{Denial, Operation, Resource};
use super::failures::Failures;
use super::log_reader::Offsets;
use super::{ReportingContext, reader_config};
use crate::config::Settings;

/// The longest wait for one answer from the cluster.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for an error that librdkafka has already reported.
const POLL_TIMEOUT: Duration = Duration::from_millis(10);

pub(crate) struct GroupOffsets {
    consumer: BaseConsumer<ReportingContext>,
    group: String,
    failures: Failures,
}

impl GroupOffsets {
    /// Creates a client for a group, which need not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if librdkafka rejects the configuration.
    pub(crate) fn new(
        settings: &Settings,
        group: &str,
        failures: &Failures,
    ) -> Result<Self, KafkaError> {
        // A consumer that never subscribes does not join its group.
        let consumer = reader_config(settings, "read_committed")
            .set("group.id", group)
            .create_with_context(ReportingContext(failures.clone()))?;
        Ok(Self {
            consumer,
            group: group.to_owned(),
            failures: failures.clone(),
        })
    }

    /// Returns the committed offset of each of these partitions that has one.
    ///
    /// # Errors
    ///
    /// Returns an error if the cluster does not answer or denies the group, or if
    /// a transaction on the offsets is still open: a `read_committed` consumer is answered only
    /// with stable offsets (KIP-447).
    pub(crate) fn committed(
        &self,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> Result<Offsets, KafkaError> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(topic, partition);
        }
        let answer = self.consumer.committed_offsets(list, REQUEST_TIMEOUT);
        let list = answer.inspect_err(|_| self.report_denial())?;
        self.failures.allowed(|| self.describe());
        let mut committed = Offsets::new();
        for element in list.elements() {
            element.error()?;
            if let Offset::Offset(next) = element.offset() {
                committed.insert(element.partition(), next);
            }
        }
        Ok(committed)
    }

    /// Reports whether the cluster denies the group. librdkafka looks for its
    /// coordinator until the timeout, and tells only a poll that it may not.
    fn report_denial(&self) {
        while let Some(polled) = self.consumer.poll(POLL_TIMEOUT) {
            if let Err(error) = polled {
                self.failures.observe_denial(&error, self.describe());
            }
        }
    }

    fn describe(&self) -> Denial {
        Denial::new(Operation::Describe, Resource::Group(self.group.clone()))
    }
}
