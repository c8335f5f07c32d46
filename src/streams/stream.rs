//! What a stream is: which topics it connects, what a record means to it, and
//! what one does to a state.
//!
//! Pure: the loop that carries records and states belongs to `transaction`.

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
    /// What a record says.
    type Event;
    /// What is kept of all that was said about one key.
    type State: Serialize + DeserializeOwned;

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

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`Poison`] where it can never be applied.
    fn decode(input: &Input<'_>) -> Result<Self::Event, Poison>;

    /// The key of the state that an event is about.
    fn key(event: &Self::Event) -> &str;

    /// Merges an event into its state.
    fn apply(state: Option<&Self::State>, event: &Self::Event) -> Applied<Self::State>;

    /// What the gauges must know of a state while it is not decoded; `None` for
    /// streams without such gauges.
    fn open(state: &Self::State) -> Option<Open> {
        let _ = state;
        None
    }

    /// The same of an encoded state. Only streams with such gauges look into it.
    fn open_encoded(value: &[u8]) -> Option<Open> {
        let _ = value;
        None
    }
}

/// A record as a stream sees it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// Its value; empty for a tombstone.
    pub value: &'a [u8],
    /// Its `ce_time` header.
    pub ce_time: Option<&'a [u8]>,
    /// Its own timestamp, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
}

/// What one event did.
#[derive(Debug)]
pub struct Applied<State> {
    /// The state to write; none where it is as it was.
    pub state: Option<State>,
    /// A record for another topic.
    pub forward: Option<Forward>,
    /// What is to be counted.
    pub effects: Vec<Effect>,
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

impl Input<'_> {
    /// When it was received.
    pub fn receipt(&self) -> Receipt {
        Receipt::of_record(self.ce_time, self.timestamp_ms)
    }
}

impl Stream for CommandStatus {
    type Event = command_state::Event;
    type State = CommandState;

    const NAME: &'static str = "command-status";
    const TOPICS_CONDITION: &'static str = "command-status-topics";
    const INPUT: Topic = Topic::CommandStatus;
    const STATE: Topic = Topic::CommandState;
    const FORWARDS: Option<Topic> = None;

    fn decode(input: &Input<'_>) -> Result<Self::Event, Poison> {
        command_state::Event::decode(input.value)
    }

    fn key(event: &Self::Event) -> &str {
        &event.request_id
    }

    fn apply(state: Option<&CommandState>, event: &Self::Event) -> Applied<CommandState> {
        match command_state::apply(state, event) {
            command_state::Change::UnknownStatus => Applied {
                effects: vec![Effect::UnknownStatus],
                ..Applied::nothing()
            },
            command_state::Change::Unchanged => Applied::nothing(),
            command_state::Change::Changed {
                state, transitions, ..
            } => Applied {
                state: Some(*state),
                forward: None,
                effects: transitions
                    .into_iter()
                    .map(|step| Effect::Transition {
                        from: step.from,
                        to: step.to,
                        seconds: step.seconds(),
                    })
                    .collect(),
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

    fn open_encoded(value: &[u8]) -> Option<Open> {
        Self::open(&serde_json::from_slice(value).ok()?)
    }
}

impl Stream for UpgradeResults {
    type Event = device_software::Event;
    type State = DeviceSoftware;

    const NAME: &'static str = "upgrade-result";
    const TOPICS_CONDITION: &'static str = "upgrade-result-topics";
    const INPUT: Topic = Topic::UpgradeResult;
    const STATE: Topic = Topic::DeviceSoftware;
    const FORWARDS: Option<Topic> = Some(Topic::UpgradeDelta);

    fn decode(input: &Input<'_>) -> Result<Self::Event, Poison> {
        device_software::Event::decode(input.value, input.receipt())
    }

    fn key(event: &Self::Event) -> &str {
        &event.device_id
    }

    fn apply(state: Option<&DeviceSoftware>, event: &Self::Event) -> Applied<DeviceSoftware> {
        let change = device_software::apply(state, event);
        Applied {
            state: change.state.map(|state| *state),
            forward: change.delta.map(|delta| Forward {
                // A delta is texts, numbers and times: it always makes JSON.
                value: serde_json::to_vec(&delta).unwrap_or_default(),
                key: delta.operation_id,
            }),
            effects: change.new_result.map(Effect::Upgrade).into_iter().collect(),
        }
    }
}

impl Stream for UpgradeOperations {
    type Event = Delta;
    type State = OperationState;

    const NAME: &'static str = "upgrade-operation";
    const TOPICS_CONDITION: &'static str = "upgrade-operation-topics";
    const INPUT: Topic = Topic::UpgradeDelta;
    const STATE: Topic = Topic::UpgradeOperation;
    const FORWARDS: Option<Topic> = None;

    fn decode(input: &Input<'_>) -> Result<Delta, Poison> {
        Delta::decode(input.value)
    }

    fn key(event: &Delta) -> &str {
        &event.operation_id
    }

    fn apply(state: Option<&OperationState>, event: &Delta) -> Applied<OperationState> {
        match upgrade_operation::apply(state, event) {
            upgrade_operation::Change::Unchanged => Applied::nothing(),
            upgrade_operation::Change::Changed(state) => Applied {
                state: Some(*state),
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
            effects: Vec::new(),
        }
    }
}
