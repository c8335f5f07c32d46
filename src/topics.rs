//! What each topic must be: its name, who needs it, and the settings under
//! which an acknowledged record is safe in it.
//!
//! Pure: it knows nothing of a broker. [`crate::kafka::admin`] compares these
//! plans with a real cluster.

use crate::config::Settings;

/// Bytes that key, headers and framing of a record may add to a push.
///
/// The key, the type and the subject are at most 256 bytes each, the path 512,
/// the detail of a dead letter 512; the rest are fixed names and a record
/// batch's own 61 bytes. A body of exactly `http.max_body_bytes` therefore
/// passes every limit that is at least this much larger.
pub const RECORD_OVERHEAD_BYTES: u64 = 8 * 1024;

/// The topics of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Confirmed commands, as pushed.
    CommandStatus,
    /// Results of software upgrades, as pushed.
    UpgradeResult,
    /// Every other notification, as pushed.
    Notifications,
    /// What could not be understood, with the reason.
    DeadLetter,
    /// The state of each command.
    CommandState,
    /// The software of each device.
    DeviceSoftware,
    /// Changed outcomes between the two stages of `upgrade-result`.
    UpgradeDelta,
    /// The progress of each upgrade operation.
    UpgradeOperation,
}

impl Topic {
    /// Every topic.
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

    /// A dense number, for tables with a row for each topic.
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

    /// The value of the metric label `topic`: stable, whatever the topic is
    /// called on the cluster.
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

    const fn cleanup(self) -> Cleanup {
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
    /// Old segments go.
    Delete,
    /// The last record of each key stays.
    Compact,
    /// The last record of each key stays until it is old.
    CompactAndDelete,
}

impl Cleanup {
    /// The policy as Kafka spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactAndDelete => "compact,delete",
        }
    }

    /// Whether a broker's value means the same, in whatever order.
    pub fn matches(self, value: &str) -> bool {
        let mut have: Vec<&str> = value.split(',').map(str::trim).collect();
        have.sort_unstable();
        let mut want: Vec<&str> = self.as_str().split(',').collect();
        want.sort_unstable();
        have == want
    }
}

/// What one topic must be on the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Which topic this is.
    pub topic: Topic,
    /// Its name on the cluster, prefix included.
    pub name: String,
    /// Partitions it should have.
    pub partitions: i32,
    /// Replicas it should have where the cluster has that many brokers.
    pub replication_factor: i32,
    /// Replicas that must hold a record before it is acknowledged.
    pub min_insync_replicas: i32,
    /// Its cleanup policy.
    pub cleanup: Cleanup,
    /// How long records stay, in hours; `None` where the last of each key stays for good.
    pub retention_hours: Option<u64>,
    /// The largest batch it must take, in bytes.
    pub max_message_bytes: u64,
}

/// The plans of all topics under these settings, in the order of [`Topic::ALL`].
pub fn plans(settings: &Settings) -> [Plan; 8] {
    Topic::ALL.map(|topic| Plan {
        topic,
        name: name(settings, topic),
        partitions: settings.topics.partitions,
        replication_factor: settings.topics.replication_factor,
        min_insync_replicas: settings.topics.min_insync_replicas,
        cleanup: topic.cleanup(),
        retention_hours: retention_hours(settings, topic),
        max_message_bytes: max_record_bytes(settings),
    })
}

/// The largest record that the settings let in, in bytes: every limit behind
/// the ingress must allow it.
pub fn max_record_bytes(settings: &Settings) -> u64 {
    u64::try_from(settings.http.max_body_bytes).unwrap_or(u64::MAX) + RECORD_OVERHEAD_BYTES
}

/// A topic's name on the cluster.
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
    fn a_cleanup_policy_is_the_same_in_any_order() {
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
