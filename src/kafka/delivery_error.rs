//! Why a record could not be delivered, and to which partition.

use std::fmt;
use std::time::Duration;

use rdkafka::error::KafkaError;

use crate::topics::Topic;

/// Why a record has no [`Delivery`](super::Delivery).
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The partition has been without an acknowledgement or a leader for the
    /// whole push deadline. This record was not sent.
    #[error("{partition} has been unavailable for {} s", unacknowledged_for.as_secs())]
    Unavailable {
        /// Topic and partition that the record was for.
        partition: TopicPartition,
        /// How long the partition has been unavailable.
        unacknowledged_for: Duration,
    },
    /// The broker, or librdkafka before sending it, rejected this record for a
    /// reason that no retry changes, such as its size. It is not in the log.
    #[error("{partition} rejected the record permanently")]
    Rejected {
        /// Topic and partition that the record was for.
        partition: TopicPartition,
        /// The reason for the rejection.
        source: KafkaError,
    },
    /// No attempt was acknowledged before the deadline; one may still have
    /// reached the log.
    #[error("{partition} did not acknowledge the record before its deadline")]
    Unconfirmed {
        /// Topic and partition that the record was for.
        partition: TopicPartition,
        /// Why the last attempt failed.
        source: KafkaError,
    },
    /// The cluster did not report the topic's partitions before the deadline,
    /// or has not for the whole push deadline. The record was not sent.
    #[error("the topic {} was not found on the cluster", .0.label())]
    UnknownTopic(Topic),
}

/// One partition of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicPartition(pub Topic, pub i32);

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(topic, partition) = self;
        write!(f, "partition {partition} of {}", topic.label())
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use rdkafka::error::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn an_error_names_its_partition_and_keeps_its_source() {
        let source = KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge);
        let partition = TopicPartition(Topic::DeadLetter, 3);
        let error = DeliveryError::Rejected { partition, source };
        assert_eq!(
            error.to_string(),
            "partition 3 of dead-letter rejected the record permanently"
        );
        assert!(error.source().unwrap().to_string().contains("too large"));
    }
}
