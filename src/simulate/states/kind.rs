//! The three states: where each stands, what it follows from, and by which law.

use serde_json::Value;

use super::super::model::{self, Push};
use crate::kafka::scan::Scanned;
use crate::topics::Topic;

/// One of the three states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Of a command.
    Command,
    /// Of a device.
    Device,
    /// Of an upgrade operation.
    Operation,
}

impl State {
    /// Where it stands.
    pub fn topic(self) -> Topic {
        match self {
            Self::Command => Topic::CommandState,
            Self::Device => Topic::DeviceSoftware,
            Self::Operation => Topic::UpgradeOperation,
        }
    }

    /// Where the pushes stand that it follows from.
    pub(super) fn follows_from(self) -> Topic {
        match self {
            Self::Command => Topic::CommandStatus,
            Self::Device | Self::Operation => Topic::UpgradeResult,
        }
    }

    /// The key of the state that a push is about.
    pub(super) fn key(self, push: &Push) -> Option<String> {
        match self {
            Self::Command => model::command_id(push),
            Self::Device => model::device_id(push),
            Self::Operation => model::operation_id(push),
        }
    }

    /// The state of this key after all pushes about it; none where they change
    /// nothing.
    pub(super) fn after(self, key: &str, pushes: &[Push]) -> Option<Value> {
        let mut states = match self {
            Self::Command => model::command_states(pushes),
            Self::Device => model::device_software(pushes),
            Self::Operation => model::upgrade_operations(pushes),
        };
        states.remove(key)
    }
}

/// A record of a raw topic as the model reads it.
pub(super) fn push(record: Scanned<'_>) -> Push {
    let ce_time = record.header("ce_time");
    Push::from_record(
        record.value().unwrap_or_default(),
        ce_time.and_then(|text| std::str::from_utf8(text).ok()),
        record.timestamp_ms(),
    )
}
