//! What the metadata of a cluster shows: which partitions would accept a record.

use rdkafka::metadata::{MetadataPartition, MetadataTopic};

/// What the metadata shows of the cluster, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterState {
    /// Every partition is available.
    Healthy,
    /// Every topic exists, but some partitions are unavailable.
    Degraded,
    /// Some topics do not exist.
    TopicsMissing,
    /// No broker responded.
    Unreachable,
}

impl ClusterState {
    /// `topics` has, for each topic, the leader of each partition that is available.
    pub(super) fn of(topics: &[Vec<Option<i32>>]) -> Self {
        if topics.iter().any(Vec::is_empty) {
            Self::TopicsMissing
        } else if topics.iter().flatten().all(Option::is_some) {
            Self::Healthy
        } else {
            Self::Degraded
        }
    }
}

/// Returns the leader of each partition that is available; empty if the topic does not
/// exist.
pub(super) fn available_leaders(
    topic: &MetadataTopic,
    min_insync_replicas: i32,
) -> Vec<Option<i32>> {
    if topic.error().is_some() {
        return Vec::new();
    }
    // A partition may be missing from the list, and the list is not sorted.
    let mut leaders = vec![None; topic.partitions().len()];
    for partition in topic.partitions() {
        let index = usize::try_from(partition.id()).unwrap_or(usize::MAX);
        if let Some(leader) = leaders.get_mut(index) {
            *leader = is_available(partition, min_insync_replicas).then_some(partition.leader());
        }
    }
    leaders
}

/// Returns whether a record with acks=all would be accepted.
fn is_available(partition: &MetadataPartition, min_insync_replicas: i32) -> bool {
    let in_sync = i32::try_from(partition.isr().len()).unwrap_or(i32::MAX);
    partition.error().is_none() && partition.leader() >= 0 && in_sync >= min_insync_replicas
}
