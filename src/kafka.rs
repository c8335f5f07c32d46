//! The only module that talks to Kafka.
//!
//! Knows records and topics; nothing of HTTP. `client.rs` has the settings of
//! every client, what is fixed of them, and why.

pub mod admin;
mod certificate;
mod check;
mod client;
mod cluster_size;
pub(crate) mod committed;
pub(crate) mod consumer;
mod delivery_error;
pub(crate) mod embedded;
pub(crate) mod failure;
pub mod failures;
pub mod headers;
mod lane;
pub mod log_reader;
pub mod metrics;
pub mod monitor;
mod murmur2;
mod polled;
mod producer;
mod replacement;
mod statistics;
pub(crate) mod topic_check;
mod topic_lanes;
pub(crate) mod transactions;
mod turns;

pub use check::{CheckError, check};
pub use client::CANNOT_CREATE_CLIENT;
use client::{
    ReportingContext, admin_config, advertised_servers, follower_config, group_consumer_config,
    log, producer_config, reader_config, transactional_config,
};
pub use delivery_error::{DeliveryError, TopicPartition};
pub(crate) use producer::Destination;
pub use producer::{Delivery, Producer, Settlement};

/// Returns the partition of `key` in a topic with `partitions` partitions, at least
/// one.
pub(crate) fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    let partitions = usize::try_from(partitions).unwrap_or(1).max(1);
    i32::try_from(murmur2::partition(key, partitions)).unwrap_or(0)
}
