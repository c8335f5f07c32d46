//! What a stream is: which topics it connects, what a record means to it, and
//! what one does to a state.
//!
//! Pure: the loop that carries records and states belongs to `transaction`.

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::command_state::{self, CommandState, Status};
use super::device_software::{self, DeviceSoftware};
use super::push::Poison;
use super::time::{Receipt, Timestamp};
use super::upgrade_operation::{self, Delta, OperationState, UpgradeResult};
use crate::topics::Topic;

/// One stream: records of one topic, merged into states of another.
pub trait Stream: Send + 'static {
    /// What a record says, in the record's own bytes.
    type Event<'a>;
    /// What is kept of all that was said about one key.
    type State: Serialize + DeserializeOwned + Send;

    /// Its name in metrics, groups and logs.
    const NAME: &'static str;
    /// The name of the readiness condition about its topics.
    const TOPICS_CONDITION: &'static str;
    /// Where records come from.
    const INPUT: Topic;
    /// Where states go: each to the partition number of its records.
    const STATE: Topic;
    /// Where else it writes.
    const FORWARDS: Option<Topic>;

    /// Reads a record's value, empty for a tombstone. When it was received is
    /// asked only by streams that keep it: looking into a record's headers
    /// costs librdkafka about as much as fetching the record.
    ///
    /// # Errors
    ///
    /// [`Poison`] where it can never be applied.
    fn decode(value: &[u8], receipt: impl FnOnce() -> Receipt) -> Result<Self::Event<'_>, Poison>;

    /// The key of the state that an event is about.
    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str>;

    /// Merges an event into its state.
    fn apply(state: Option<&Self::State>, event: &Self::Event<'_>) -> Applied<Self::State>;

    /// What the gauges must know of a state; `None` for streams without such
    /// gauges.
    fn open(state: &Self::State) -> Option<Open> {
        let _ = state;
        None
    }
}

/// What one event did.
#[derive(Debug)]
pub struct Applied<State> {
    /// The state to write; none where it is as it was.
    pub state: Option<Box<State>>,
    /// A record for another topic.
    pub forward: Option<Forward>,
    /// What is to be counted; no event has more to count than a confirmation,
    /// each of whose steps may be news.
    pub effects: [Option<Effect>; 3],
}

/// A record for another topic than that of the states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Its key, which chooses its partition.
    pub key: String,
    /// Its value.
    pub value: Vec<u8>,
}

/// What the metrics count, once the transaction is committed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// A confirmation outside the three statuses.
    UnknownStatus,
    /// A command's step of which both times are known.
    Transition {
        /// The status before.
        from: Status,
        /// The status after.
        to: Status,
        /// How long it took.
        seconds: f64,
    },
    /// An attempt not seen before.
    Upgrade(UpgradeResult),
}

/// A command that is not executed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// How far it is.
    pub status: Status,
    /// Since when it is open, where any of its pushes told.
    pub since: Option<Timestamp>,
}

/// `northbridge command-status`.
#[derive(Debug, Clone, Copy)]
pub struct CommandStatus;

/// The first stage of `northbridge upgrade-result`.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeResults;

/// The second stage of `northbridge upgrade-result`.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeOperations;

impl Stream for CommandStatus {
    type Event<'a> = command_state::Event<'a>;
    type State = CommandState;

    const NAME: &'static str = "command-status";
    const TOPICS_CONDITION: &'static str = "command-status-topics";
    const INPUT: Topic = Topic::CommandStatus;
    const STATE: Topic = Topic::CommandState;
    const FORWARDS: Option<Topic> = None;

    fn decode(value: &[u8], _: impl FnOnce() -> Receipt) -> Result<Self::Event<'_>, Poison> {
        command_state::Event::decode(value)
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.request_id.clone()
    }

    fn apply(state: Option<&CommandState>, event: &Self::Event<'_>) -> Applied<CommandState> {
        match command_state::apply(state, event) {
            command_state::Change::UnknownStatus => Applied {
                effects: [Some(Effect::UnknownStatus), None, None],
                ..Applied::nothing()
            },
            command_state::Change::Unchanged => Applied::nothing(),
            command_state::Change::Changed {
                state, transitions, ..
            } => Applied {
                state: Some(state),
                forward: None,
                effects: transitions.map(|step| {
                    step.map(|step| Effect::Transition {
                        from: step.from,
                        to: step.to,
                        seconds: step.seconds(),
                    })
                }),
            },
        }
    }

    fn open(state: &CommandState) -> Option<Open> {
        let status = state.status();
        status.is_open().then(|| Open {
            status,
            since: state.open_since(),
        })
    }
}

impl Stream for UpgradeResults {
    type Event<'a> = device_software::Event<'a>;
    type State = DeviceSoftware;

    const NAME: &'static str = "upgrade-result";
    const TOPICS_CONDITION: &'static str = "upgrade-result-topics";
    const INPUT: Topic = Topic::UpgradeResult;
    const STATE: Topic = Topic::DeviceSoftware;
    const FORWARDS: Option<Topic> = Some(Topic::UpgradeDelta);

    fn decode(value: &[u8], receipt: impl FnOnce() -> Receipt) -> Result<Self::Event<'_>, Poison> {
        device_software::Event::decode(value, receipt())
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.device_id.clone()
    }

    fn apply(state: Option<&DeviceSoftware>, event: &Self::Event<'_>) -> Applied<DeviceSoftware> {
        let change = device_software::apply(state, event);
        Applied {
            state: change.state,
            forward: change.delta.map(|delta| Forward {
                // A delta is texts, numbers and times: it always makes JSON.
                value: serde_json::to_vec(&delta).unwrap_or_default(),
                key: delta.operation_id.0.into_owned(),
            }),
            effects: [change.new_result.map(Effect::Upgrade), None, None],
        }
    }
}

impl Stream for UpgradeOperations {
    type Event<'a> = Delta<'a>;
    type State = OperationState;

    const NAME: &'static str = "upgrade-operation";
    const TOPICS_CONDITION: &'static str = "upgrade-operation-topics";
    const INPUT: Topic = Topic::UpgradeDelta;
    const STATE: Topic = Topic::UpgradeOperation;
    const FORWARDS: Option<Topic> = None;

    fn decode(value: &[u8], _: impl FnOnce() -> Receipt) -> Result<Delta<'_>, Poison> {
        Delta::decode(value)
    }

    fn key<'e>(event: &Self::Event<'e>) -> Cow<'e, str> {
        event.operation_id.0.clone()
    }

    fn apply(state: Option<&OperationState>, event: &Delta<'_>) -> Applied<OperationState> {
        match upgrade_operation::apply(state, event) {
            upgrade_operation::Change::Unchanged => Applied::nothing(),
            upgrade_operation::Change::Changed(state) => Applied {
                state: Some(state),
                ..Applied::nothing()
            },
        }
    }
}

impl<State> Applied<State> {
    fn nothing() -> Self {
        Self {
            state: None,
            forward: None,
            effects: [None; 3],
        }
    }
}
