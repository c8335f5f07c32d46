//! What a stream is: which topics it connects, what a record means to it, and
//! how a record changes a state.
//!
//! Pure: it knows neither Kafka nor a clock. The loop in `worker` reads the
//! records, and writes what they change.

use std::borrow::Cow;

use super::draft::Draft;
use super::states::command::{self, CommandState, Status};
use super::states::device::{self, DeviceSoftware};
use super::states::format::StoredState;
use super::states::operation::{self, Delta, OperationState, UpgradeResult};
use super::states::poison::Poison;
use super::states::position::Position;
use super::states::time::{ReceivedAt, Timestamp};
use crate::topics::Topic;

/// One stream: records of an input topic, merged into the states of a state
/// topic.
pub trait Stream: Send + 'static {
    /// A decoded record, which borrows from the record's bytes.
    type Event<'a>;
    /// What a stream remembers about one key: the record in the state topic.
    type State: StoredState;

    /// The name in metrics, log lines, the group id and the transactional id,
    /// and of the readiness condition about restored states.
    const NAME: &'static str;
    /// The name of the readiness condition about the stream's topics.
    const TOPICS_CONDITION: &'static str;
    /// The topic that the stream consumes.
    const INPUT: Topic;
    /// The topic of the states. A state is always written to the partition
    /// number of its records, so that one assignment covers both.
    const STATE: Topic;
    /// The topic of [`Applied::forward`], if the stream has one.
    const FORWARD: Option<Topic>;

    /// Decodes a record.
    ///
    /// # Errors
    ///
    /// Returns [`Poison`] if the record can never be applied.
    fn decode(record: &impl InputRecord) -> Result<Self::Event<'_>, Poison>;

    /// The key of the state that an event belongs to.
    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str>;

    /// Merges an event into its state. Which laws the merge obeys is written at
    /// the `apply` of each state.
    fn apply(state: &mut Draft<'_, Self::State>, event: &Self::Event<'_>) -> Applied;

    /// What the gauges of open commands count of a state; `None` if it is not
    /// an open command.
    fn open_command(state: &Self::State) -> Option<OpenCommand> {
        let _ = state;
        None
    }
}

/// A record of the input topic. Each part is read only if a stream asks for it.
pub trait InputRecord {
    /// The value; empty for a tombstone.
    fn value(&self) -> &[u8];

    /// When the push was received. It is in the record's headers, and reading
    /// these costs librdkafka about as much as fetching the record.
    fn received_at(&self) -> ReceivedAt;

    /// Where the record is in its partition.
    fn position(&self) -> Position;
}

/// What one event did apart from changing its state.
#[derive(Debug, Default)]
pub struct Applied {
    /// A record for [`Stream::FORWARD`].
    pub forward: Option<Forward>,
    /// What the metrics count once the transaction is committed. A command
    /// confirmation has the most: it can complete each of three transitions.
    pub effects: [Option<Effect>; 3],
}

/// A record for the topic [`Stream::FORWARD`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The key, which chooses the partition.
    pub key: String,
    /// The value: JSON.
    pub value: Vec<u8>,
}

/// One thing that the metrics count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// A confirmation whose status is none of the three.
    UnknownStatus,
    /// Both times of a command's transition are known now.
    Transition {
        /// The earlier status.
        from: Status,
        /// The later status.
        to: Status,
        /// Seconds between the two, by the platform's clock.
        seconds: f64,
    },
    /// An upgrade attempt that was not seen before.
    Upgrade(UpgradeResult),
}

/// A command that has not been executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenCommand {
    /// The furthest status that was confirmed.
    pub status: Status,
    /// The earliest time in its pushes; `None` if none of them had a readable
    /// one.
    pub since: Option<Timestamp>,
}

/// The stream of `northbridge command-status`.
#[derive(Debug, Clone, Copy)]
pub struct CommandStatus;

/// The first stage of `northbridge upgrade-result`.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeResults;

/// The second stage of `northbridge upgrade-result`.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeOperations;

impl Stream for CommandStatus {
    type Event<'a> = command::Event<'a>;
    type State = CommandState;

    const NAME: &'static str = "command-status";
    const TOPICS_CONDITION: &'static str = "command-status-topics";
    const INPUT: Topic = Topic::CommandStatus;
    const STATE: Topic = Topic::CommandState;
    const FORWARD: Option<Topic> = None;

    fn decode(record: &impl InputRecord) -> Result<Self::Event<'_>, Poison> {
        command::Event::decode(record.value())
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.request_id.clone()
    }

    fn apply(state: &mut Draft<'_, CommandState>, event: &Self::Event<'_>) -> Applied {
        match command::apply(state.get(), event) {
            command::Change::UnknownStatus => Applied {
                effects: [Some(Effect::UnknownStatus), None, None],
                forward: None,
            },
            command::Change::Unchanged => Applied::default(),
            command::Change::Changed {
                state: next,
                transitions,
                ..
            } => {
                state.replace(next);
                let effect = |transition: command::Transition| Effect::Transition {
                    from: transition.from,
                    to: transition.to,
                    seconds: transition.seconds(),
                };
                Applied {
                    effects: transitions.map(|transition| transition.map(effect)),
                    forward: None,
                }
            }
        }
    }

    fn open_command(state: &CommandState) -> Option<OpenCommand> {
        let status = state.status();
        status.is_open().then(|| OpenCommand {
            status,
            since: state.open_since(),
        })
    }
}

impl Stream for UpgradeResults {
    type Event<'a> = device::Event<'a>;
    type State = DeviceSoftware;

    const NAME: &'static str = "upgrade-result";
    const TOPICS_CONDITION: &'static str = "upgrade-result-topics";
    const INPUT: Topic = Topic::UpgradeResult;
    const STATE: Topic = Topic::DeviceSoftware;
    const FORWARD: Option<Topic> = Some(Topic::UpgradeDelta);

    fn decode(record: &impl InputRecord) -> Result<Self::Event<'_>, Poison> {
        device::Event::decode(record.value(), record.received_at())
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.device_id.clone()
    }

    fn apply(state: &mut Draft<'_, DeviceSoftware>, event: &Self::Event<'_>) -> Applied {
        let change = device::apply(state.get(), event);
        let applied = Applied {
            forward: change.delta.map(|delta| Forward {
                // A delta holds only texts, numbers and times, which always serialize.
                value: serde_json::to_vec(&delta).unwrap_or_default(),
                key: delta.operation_id.0.into_owned(),
            }),
            effects: [change.new_result.map(Effect::Upgrade), None, None],
        };
        if let Some(next) = change.state {
            state.replace(next);
        }
        applied
    }
}

impl Stream for UpgradeOperations {
    type Event<'a> = operation::Event<'a>;
    type State = OperationState;

    const NAME: &'static str = "upgrade-operation";
    const TOPICS_CONDITION: &'static str = "upgrade-operation-topics";
    const INPUT: Topic = Topic::UpgradeDelta;
    const STATE: Topic = Topic::UpgradeOperation;
    const FORWARD: Option<Topic> = None;

    fn decode(record: &impl InputRecord) -> Result<Self::Event<'_>, Poison> {
        Ok(operation::Event {
            delta: Delta::decode(record.value())?,
            position: record.position(),
        })
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.delta.operation_id.0.clone()
    }

    fn apply(state: &mut Draft<'_, OperationState>, event: &Self::Event<'_>) -> Applied {
        operation::apply(state, event);
        Applied::default()
    }
}
