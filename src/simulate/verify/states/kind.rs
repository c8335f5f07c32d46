//! The three kinds of state: the topics of each, its key and its model.

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use serde_json::Value;

use crate::headers;
use crate::kafka::headers::first;
use crate::model::{self, Push};
use crate::topics::Topic;

/// A kind of state, one for each state topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StateKind {
    Command,
    Device,
    Operation,
}

impl StateKind {
    pub(super) fn state_topic(self) -> Topic {
        match self {
            Self::Command => Topic::CommandState,
            Self::Device => Topic::DeviceSoftware,
            Self::Operation => Topic::UpgradeOperation,
        }
    }

    /// The topic with the pushes that the state follows from.
    pub(super) fn raw_topic(self) -> Topic {
        match self {
            Self::Command => Topic::CommandStatus,
            Self::Device | Self::Operation => Topic::UpgradeResult,
        }
    }

    /// The key of the state that a push contributes to.
    pub(super) fn key(self, push: &Push) -> Option<String> {
        match self {
            Self::Command => model::command_id(push),
            Self::Device => model::device_id(push),
            Self::Operation => model::operation_id(push),
        }
    }

    /// The state of a key, given all pushes that contribute to it; `None` if
    /// they result in no state.
    pub(super) fn expected(self, key: &str, pushes: &[Push]) -> Option<Value> {
        let mut states = match self {
            Self::Command => model::command_states(pushes),
            Self::Device => model::device_software(pushes),
            Self::Operation => model::upgrade_operations(pushes),
        };
        states.remove(key)
    }
}

/// Reads a record of a raw topic for the model.
pub(super) fn push(record: &BorrowedMessage<'_>) -> Push {
    let ce_time = first(record.headers(), headers::CE_TIME);
    Push::from_record(
        record.payload().unwrap_or_default(),
        ce_time.and_then(|text| std::str::from_utf8(text).ok()),
        record.timestamp().to_millis().unwrap_or(0),
    )
}

/// Reads a record of a state topic; `None` if it is a tombstone. A value that is
/// not JSON is represented as a JSON string.
///
/// A record without a header is from before the header, and has in its value
/// what the model does not know.
pub(super) fn value(record: &BorrowedMessage<'_>) -> Option<Value> {
    let value = record.payload()?;
    let Ok(mut state) = serde_json::from_slice(value) else {
        return Some(Value::String(String::from_utf8_lossy(value).into_owned()));
    };
    if let Value::Object(fields) = &mut state
        && first(record.headers(), headers::STATE).is_none()
    {
        for former in ["bodyAt", "older", "latest"] {
            fields.remove(former);
        }
    }
    Some(state)
}
