//! The topics of the contract: the name of each on the cluster, and the settings
//! under which an acknowledged record is safe in it.
//!
//! Pure: knows no broker. `crate::kafka::topic_check` compares these specs with
//! what a cluster reports.

use crate::config::Settings;

/// The most bytes that the key, the headers and the framing of a record add to
/// the body of a push.
///
/// The key and the subject are at most 512 bytes each, the type and the content
/// type 256, the path 512, the detail of a dead letter 512; the rest are fixed
/// names and a record batch's own 61 bytes. A body of exactly `http.max_body_bytes` therefore
/// passes every limit that is at least this much larger.
pub const RECORD_OVERHEAD_BYTES: u64 = 8 * 1024;

/// How far, at least, Kafka must let the timestamp of a record differ from the
/// broker's clock, in milliseconds.
///
/// Every record is sent with the time of its host: the client may hold it for two
/// minutes, and clocks differ. An hour is Kafka's own limit for the future
/// (KIP-937).
pub const TIMESTAMP_TOLERANCE_MS: i64 = 3_600_000;

/// The settings that keep restores of a state topic short, with the largest value
/// of each. A restore reads what compaction has not removed: the active segment
/// of each partition, and what waits for the cleaner.
pub const STATE_SETTINGS: [(&str, &str); 5] = [
    // States fit in memory, so that this makes a few hundred segments.
    ("segment.bytes", "16777216"),
    ("segment.ms", "86400000"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("max.compaction.lag.ms", "86400000"),
    // Consumers that stop for up to a day still see each tombstone.
    ("delete.retention.ms", "86400000"),
];

/// A topic of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Command confirmations, as pushed.
    CommandStatus,
    /// Software upgrade results, as pushed.
    UpgradeResult,
    /// Every other notification, as pushed.
    Notifications,
    /// What the ingress could not read and the streams could not apply.
    DeadLetter,
    /// The latest state of each command.
    CommandState,
    /// The latest software of each device.
    DeviceSoftware,
    /// Changes of device outcomes, from the first stage of `upgrade-result` to
    /// its second.
    UpgradeDelta,
    /// The latest progress of each upgrade operation.
    UpgradeOperation,
}

impl Topic {
    /// Every topic, in the order of [`Topic::index`].
    pub const ALL: [Self; 8] = [
        Self::CommandStatus,
        Self::UpgradeResult,
        Self::Notifications,
        Self::DeadLetter,
        Self::CommandState,
        Self::DeviceSoftware,
        Self::UpgradeDelta,
        Self::UpgradeOperation,
    ];

    /// The topics that the ingress writes, in the order of [`Topic::index`].
    pub const INGRESS: [Self; 4] = [
        Self::CommandStatus,
        Self::UpgradeResult,
        Self::Notifications,
        Self::DeadLetter,
    ];

    /// Returns the position in [`Topic::ALL`], to index tables by topic.
    pub const fn index(self) -> usize {
        match self {
            Self::CommandStatus => 0,
            Self::UpgradeResult => 1,
            Self::Notifications => 2,
            Self::DeadLetter => 3,
            Self::CommandState => 4,
            Self::DeviceSoftware => 5,
            Self::UpgradeDelta => 6,
            Self::UpgradeOperation => 7,
        }
    }

    /// Returns the value of the metric label `topic`, which does not depend on
    /// the topic's name on the cluster.
    pub const fn label(self) -> &'static str {
        match self {
            Self::CommandStatus => "command-status",
            Self::UpgradeResult => "upgrade-result",
            Self::Notifications => "notifications",
            Self::DeadLetter => "dead-letter",
            Self::CommandState => "command-state",
            Self::DeviceSoftware => "device-software",
            Self::UpgradeDelta => "upgrade-delta",
            Self::UpgradeOperation => "upgrade-operation",
        }
    }

    /// Returns the topic whose records change the states in this one, or `None`
    /// if this is not a state topic. A state is written to the partition number
    /// of its records.
    pub const fn input(self) -> Option<Self> {
        match self {
            Self::CommandState => Some(Self::CommandStatus),
            Self::DeviceSoftware => Some(Self::UpgradeResult),
            Self::UpgradeOperation => Some(Self::UpgradeDelta),
            Self::CommandStatus
            | Self::UpgradeResult
            | Self::Notifications
            | Self::DeadLetter
            | Self::UpgradeDelta => None,
        }
    }

    /// Returns whether only streams write it: states, and the deltas that are
    /// made from states.
    pub const fn is_written_by_streams(self) -> bool {
        matches!(self, Self::UpgradeDelta) || self.input().is_some()
    }

    pub(crate) const fn cleanup(self) -> Cleanup {
        match self {
            Self::CommandStatus
            | Self::UpgradeResult
            | Self::Notifications
            | Self::DeadLetter
            | Self::UpgradeDelta => Cleanup::Delete,
            Self::CommandState => Cleanup::CompactAndDelete,
            Self::DeviceSoftware | Self::UpgradeOperation => Cleanup::Compact,
        }
    }
}

/// Kafka's `cleanup.policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Deletes old segments.
    Delete,
    /// Keeps the latest record of each key.
    Compact,
    /// Keeps the latest record of each key until it is old.
    CompactAndDelete,
}

impl Cleanup {
    /// Returns the value of `cleanup.policy`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactAndDelete => "compact,delete",
        }
    }

    /// Returns whether a broker's value means the same. Kafka keeps the order in
    /// which the policies were written.
    pub fn matches(self, value: &str) -> bool {
        let mut actual: Vec<&str> = value.split(',').map(str::trim).collect();
        actual.sort_unstable();
        let mut expected: Vec<&str> = self.as_str().split(',').collect();
        expected.sort_unstable();
        actual == expected
    }
}

/// The requirements that a topic must meet on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic that has these requirements.
    pub topic: Topic,
    /// The name on the cluster, including `topics.prefix`.
    pub name: String,
    /// The number of partitions.
    pub partitions: i32,
    /// The number of replicas, if the cluster has that many brokers.
    pub replication_factor: i32,
    /// The replicas that must have a record before it is acknowledged.
    pub min_insync_replicas: i32,
    /// The required `cleanup.policy`.
    pub cleanup: Cleanup,
    /// How long Kafka keeps records; `None` for a topic that is only compacted.
    pub retention_hours: Option<u64>,
    /// The smallest `max.message.bytes` that the largest record needs.
    pub max_message_bytes: u64,
}

impl TopicSpec {
    /// Returns `retention.ms`; `None` for a topic that is only compacted.
    pub fn retention_ms(&self) -> Option<i64> {
        let ms = self.retention_hours?.checked_mul(3_600_000);
        Some(ms.and_then(|ms| ms.try_into().ok()).unwrap_or(i64::MAX))
    }

    /// Returns the settings without which the topic is not created, but for
    /// `min.insync.replicas`, which depends on the cluster.
    pub fn required_settings(&self) -> Vec<(&'static str, String)> {
        let retention = self
            .retention_ms()
            .map(|ms| ("retention.ms", ms.to_string()));
        let mut settings = vec![
            ("cleanup.policy", self.cleanup.as_str().to_owned()),
            ("max.message.bytes", self.max_message_bytes.to_string()),
        ];
        settings.extend(retention);
        settings
    }

    /// Returns the other settings that the topic is created with, if the cluster
    /// lets its clients choose them: some managed clusters do not.
    pub fn optional_settings(&self) -> Vec<(&'static str, String)> {
        let state = self.topic.input().map(|_| STATE_SETTINGS);
        let safe = [
            ("unclean.leader.election.enable", "false"),
            ("message.timestamp.type", "CreateTime"),
        ];
        let all = safe.into_iter().chain(state.into_iter().flatten());
        all.map(|(name, value)| (name, value.to_owned())).collect()
    }
}

/// Returns the specs of all topics under these settings, in the order of
/// [`Topic::ALL`].
pub fn specs(settings: &Settings) -> [TopicSpec; 8] {
    Topic::ALL.map(|topic| TopicSpec {
        topic,
        name: name(settings, topic),
        partitions: settings.topics.partitions,
        replication_factor: settings.topics.replication_factor,
        min_insync_replicas: settings.topics.min_insync_replicas,
        cleanup: topic.cleanup(),
        retention_hours: retention_hours(settings, topic),
        max_message_bytes: if topic.is_written_by_streams() {
            max_state_record_bytes(settings)
        } else {
            max_record_bytes(settings)
        },
    })
}

/// Returns the size of the largest record that the ingress can produce, in bytes.
/// Every limit downstream must allow it.
pub fn max_record_bytes(settings: &Settings) -> u64 {
    u64::try_from(settings.http.max_body_bytes).unwrap_or(u64::MAX) + RECORD_OVERHEAD_BYTES
}

/// Returns the size of the largest record of any topic, in bytes: that of a state.
/// A device's state holds many pushes, and a command's can be as large as one.
pub fn max_state_record_bytes(settings: &Settings) -> u64 {
    let state = u64::try_from(settings.streams.max_state_bytes).unwrap_or(u64::MAX);
    max_record_bytes(settings).max(state + RECORD_OVERHEAD_BYTES)
}

/// Returns the name of a topic on the cluster, including `topics.prefix`.
pub fn name(settings: &Settings, topic: Topic) -> String {
    let topics = &settings.topics;
    topics.full_name(match topic {
        Topic::CommandStatus => &topics.command_status.name,
        Topic::UpgradeResult => &topics.upgrade_result.name,
        Topic::Notifications => &topics.notifications.name,
        Topic::DeadLetter => &topics.dead_letter.name,
        Topic::CommandState => &topics.command_state.name,
        Topic::DeviceSoftware => &topics.device_software.name,
        Topic::UpgradeDelta => &topics.upgrade_delta.name,
        Topic::UpgradeOperation => &topics.upgrade_operation.name,
    })
}

fn retention_hours(settings: &Settings, topic: Topic) -> Option<u64> {
    let topics = &settings.topics;
    match topic {
        Topic::CommandStatus => Some(topics.command_status.retention_hours),
        Topic::UpgradeResult => Some(topics.upgrade_result.retention_hours),
        Topic::Notifications => Some(topics.notifications.retention_hours),
        Topic::DeadLetter => Some(topics.dead_letter.retention_hours),
        Topic::CommandState => Some(topics.command_state.retention_hours),
        Topic::UpgradeDelta => Some(topics.upgrade_delta.retention_hours),
        Topic::DeviceSoftware | Topic::UpgradeOperation => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleanup_policies_match_in_any_order() {
        assert!(Cleanup::CompactAndDelete.matches("delete, compact"));
        assert!(Cleanup::CompactAndDelete.matches("compact,delete"));
        assert!(!Cleanup::CompactAndDelete.matches("compact"));
        assert!(!Cleanup::Compact.matches("compact,delete"));
    }

    #[test]
    fn the_index_is_the_position_in_the_list() {
        for (position, topic) in Topic::ALL.into_iter().enumerate() {
            assert_eq!(topic.index(), position);
        }
        for (position, topic) in Topic::INGRESS.into_iter().enumerate() {
            assert_eq!(topic.index(), position);
        }
    }
}
