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
    type State: Clone + Serialize + DeserializeOwned + Send;

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
    fn apply(state: &mut Draft<'_, Self::State>, event: &Self::Event<'_>) -> Applied;

    /// What the gauges must know of a state; `None` for streams without such
    /// gauges.
    fn open(state: &Self::State) -> Option<Open> {
        let _ = state;
        None
    }
}

/// A state while a batch is applied: as it is known until the first change,
/// then the batch's own.
#[derive(Debug)]
pub struct Draft<'s, State> {
    known: Option<&'s State>,
    changed: Option<Box<State>>,
}

/// What one event did, but to its state.
#[derive(Debug, Default)]
pub struct Applied {
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

    fn apply(state: &mut Draft<'_, CommandState>, event: &Self::Event<'_>) -> Applied {
        match command_state::apply(state.get(), event) {
            command_state::Change::UnknownStatus => Applied {
                effects: [Some(Effect::UnknownStatus), None, None],
                forward: None,
            },
            command_state::Change::Unchanged => Applied::default(),
            command_state::Change::Changed {
                state: next,
                transitions,
                ..
            } => {
                state.replace(next);
                let effect = |step: command_state::Transition| Effect::Transition {
                    from: step.from,
                    to: step.to,
                    seconds: step.seconds(),
                };
                Applied {
                    effects: transitions.map(|step| step.map(effect)),
                    forward: None,
                }
            }
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

    fn apply(state: &mut Draft<'_, DeviceSoftware>, event: &Self::Event<'_>) -> Applied {
        let change = device_software::apply(state.get(), event);
        let applied = Applied {
            forward: change.delta.map(|delta| Forward {
                // A delta is texts, numbers and times: it always makes JSON.
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

    fn apply(state: &mut Draft<'_, OperationState>, event: &Delta<'_>) -> Applied {
        upgrade_operation::apply(state, event);
        Applied::default()
    }
}

impl<'s, State> Draft<'s, State> {
    /// A state that the batch has changed already, or that is as it is known.
    pub fn of(known: Option<&'s State>, changed: Option<Box<State>>) -> Self {
        Self { known, changed }
    }

    /// The state as it stands.
    pub fn get(&self) -> Option<&State> {
        self.changed.as_deref().or(self.known)
    }

    /// Puts another in its place.
    pub fn replace(&mut self, state: Box<State>) {
        self.changed = Some(state);
    }

    /// The state to be changed in place: the known one is copied, once; where
    /// there is none, it begins as `first`.
    pub fn edit(&mut self, first: impl FnOnce() -> State) -> &mut State
    where
        State: Clone,
    {
        let known = self.known;
        self.changed
            .get_or_insert_with(|| Box::new(known.map_or_else(first, State::clone)))
    }

    /// The state to write; none where it is as it was.
    pub fn changed(self) -> Option<Box<State>> {
        self.changed
    }
}
