//! Consumer groups, changed as an operator does with `kafka-consumer-groups`.

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::records::block_on;
use super::{TIMEOUT, eventually};

/// The partitions of each topic, as `northbridge topics create` makes it.
const PARTITIONS: i32 = 6;

/// Deletes a group, with its offsets, as soon as it has no members.
pub fn delete_group(bootstrap: &str, group: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    eventually(&format!("{group} is empty and deleted"), || {
        let deleted = block_on(admin.delete_groups(&[group], &AdminOptions::new()));
        deleted.ok()?.pop()?.ok()
    });
}

/// Commits what `change` makes of the committed offset of each partition, as soon
/// as the group has no members. A partition without an offset has 0.
pub fn change_offsets(bootstrap: &str, group: &str, topic: &str, change: impl Fn(i64) -> i64) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group)
        .create()
        .unwrap();
    let changed = || -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, PARTITIONS - 1);
        let mut offsets = consumer.committed_offsets(list, TIMEOUT)?;
        for partition in 0..PARTITIONS {
            let element = offsets.find_partition(topic, partition);
            let committed = element.and_then(|element| element.offset().to_raw());
            let offset = change(committed.unwrap_or(0).max(0));
            offsets.set_partition_offset(topic, partition, Offset::Offset(offset))?;
        }
        Ok(offsets)
    };
    // Brokers reject a commit while the group has members.
    eventually(&format!("the offsets of {group} are changed"), || {
        let offsets = changed().ok()?;
        consumer.commit(&offsets, CommitMode::Sync).ok()
    });
}
