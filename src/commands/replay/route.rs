//! Decides which topic a dead letter is sent to, and as which record.
//!
//! A dead letter is parsed again under the current rules: those of the ingress,
//! or of the stream that rejected it. Pure: the caller says which topics exist.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::DateTime;
use rdkafka::message::OwnedHeaders;

use super::dead_letter::DeadLetter;
use crate::config::Settings;
use crate::headers;
use crate::kafka;
use crate::notification::{self, Rules, Unreadable, Validation};
use crate::record::{Arrival, KeyedRecord};
use crate::streams::states::poison::Poison;
use crate::streams::states::position::Position;
use crate::streams::states::time::ReceivedAt;
use crate::streams::stream::{
    CommandStatus, InputRecord, Stream, UpgradeOperations, UpgradeResults,
};
use crate::topics::{self, Topic};

/// The topics that a dead letter can be sent to.
pub(super) const TARGETS: [Topic; 4] = [
    Topic::CommandStatus,
    Topic::UpgradeResult,
    Topic::Notifications,
    Topic::UpgradeDelta,
];

/// The input of each stream, and the check that the stream makes of a value.
const STREAMS: [(Topic, Check); 3] = [
    (CommandStatus::INPUT, poison_of::<CommandStatus>),
    (UpgradeResults::INPUT, poison_of::<UpgradeResults>),
    (UpgradeOperations::INPUT, poison_of::<UpgradeOperations>),
];

/// Returns why a stream would reject a value, or `None` if it would not.
type Check = fn(&[u8]) -> Option<Poison>;

#[derive(Debug)]
pub(super) struct Router {
    rules: Rules,
    /// Sends dead letters also if they would be rejected again.
    as_is: bool,
    max_body_bytes: usize,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    topic: Topic,
    name: String,
    exists: bool,
}

/// The record to send for a dead letter.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: OwnedHeaders,
}

/// Why a dead letter has no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReplayable {
    /// The ingress would make a dead letter of it again.
    #[error("still unreadable: {0}")]
    Unreadable(&'static str),
    /// Its stream would reject it again.
    #[error("still poison: {0}")]
    Poison(&'static str),
    /// It names a topic that no stream consumes under these settings.
    #[error("no stream reads the topic it came from")]
    NoStream,
    #[error("{0} does not exist")]
    NoTopic(String),
    /// The limit has been lowered since, and with it those of the topics.
    #[error("larger than http.max_body_bytes")]
    TooLarge,
}

impl Router {
    /// A router for a cluster that has the topics in `existing`.
    pub(super) fn new(settings: &Settings, as_is: bool, existing: &HashSet<Topic>) -> Self {
        Self {
            rules: Rules {
                command_key: settings.topics.command_status.key,
                validation: settings.http.validation,
            },
            as_is,
            max_body_bytes: settings.http.max_body_bytes,
            targets: TARGETS
                .map(|topic| Target {
                    topic,
                    name: topics::name(settings, topic),
                    exists: existing.contains(&topic),
                })
                .into(),
        }
    }

    /// Returns the record to send for a dead letter.
    pub(super) fn route(&self, letter: &DeadLetter<'_>) -> Result<Outgoing, NotReplayable> {
        if letter.value.map_or(0, <[u8]>::len) > self.max_body_bytes {
            return Err(NotReplayable::TooLarge);
        }
        let mut outgoing = match letter.stream_topic() {
            Some(topic) => self.return_to_stream(letter, topic)?,
            None => self.route_push(letter)?,
        };
        outgoing.headers = letter.location.append_origin(outgoing.headers);
        Ok(outgoing)
    }

    /// Restores the record that the stream rejected, with its key and headers.
    fn return_to_stream(
        &self,
        letter: &DeadLetter<'_>,
        name: &str,
    ) -> Result<Outgoing, NotReplayable> {
        let (target, check) = self.stream(name).ok_or(NotReplayable::NoStream)?;
        if let Some(poison) = check(letter.value.unwrap_or_default())
            && !self.as_is
        {
            return Err(NotReplayable::Poison(poison.reason()));
        }
        Ok(Outgoing {
            topic: target.name()?,
            key: letter.key.map(Bytes::copy_from_slice),
            value: letter.value.map(Bytes::copy_from_slice),
            headers: letter.original_headers(),
        })
    }

    fn stream(&self, name: &str) -> Option<(&Target, Check)> {
        let target = self.targets.iter().find(|target| target.name == name)?;
        let (_, check) = STREAMS.iter().find(|(topic, _)| *topic == target.topic)?;
        Some((target, *check))
    }

    /// Makes the record that the ingress would store under the current rules,
    /// with the original arrival.
    fn route_push(&self, letter: &DeadLetter<'_>) -> Result<Outgoing, NotReplayable> {
        let body = Bytes::copy_from_slice(letter.value.unwrap_or_default());
        let arrival = arrival(letter);
        let record = match notification::read(&body, self.rules) {
            Ok(notification) => KeyedRecord::from_notification(&body, &notification, arrival),
            Err(unreadable) if self.as_is => {
                let content_type = letter.header(headers::CONTENT_TYPE);
                self.as_is(&body, &unreadable, arrival, content_type)
            }
            Err(unreadable) => return Err(NotReplayable::Unreadable(unreadable.reason())),
        };
        let topic = if record.dead_letter_reason().is_some() {
            // Still unreadable, and sent as it is: the catch-all topic takes it.
            Topic::Notifications
        } else {
            record.topic()
        };
        let target = self.targets.iter().find(|target| target.topic == topic);
        Ok(Outgoing {
            topic: target.ok_or(NotReplayable::NoStream)?.name()?,
            key: record.key_bytes(),
            value: Some(record.value_bytes()),
            headers: kafka::headers::of_record(&record),
        })
    }

    /// Makes a record of a body that the rules reject: if only strict validation
    /// rejects it, the record of its type.
    fn as_is(
        &self,
        body: &Bytes,
        unreadable: &Unreadable<'_>,
        arrival: Arrival,
        content_type: Option<&[u8]>,
    ) -> KeyedRecord {
        let tolerant = Rules {
            validation: Validation::Tolerant,
            ..self.rules
        };
        match notification::read(body, tolerant) {
            Ok(notification) => KeyedRecord::from_notification(body, &notification, arrival),
            Err(_) => KeyedRecord::from_unreadable(body, unreadable, arrival, content_type),
        }
    }
}

impl Target {
    fn name(&self) -> Result<String, NotReplayable> {
        let name = self.name.clone();
        if self.exists {
            Ok(name)
        } else {
            Err(NotReplayable::NoTopic(name))
        }
    }
}

fn poison_of<S: Stream>(value: &[u8]) -> Option<Poison> {
    S::decode(&Value(value)).err()
}

/// A record as a stream judges it. No stream rejects one for when it was
/// received, or for where it is.
struct Value<'a>(&'a [u8]);

impl InputRecord for Value<'_> {
    fn value(&self) -> &[u8] {
        self.0
    }

    fn received_at(&self) -> ReceivedAt {
        ReceivedAt::of_record(None, None)
    }

    fn position(&self) -> Position {
        Position {
            offset: 0,
            timestamp_ms: 0,
        }
    }
}

fn arrival(letter: &DeadLetter<'_>) -> Arrival {
    let owned = |name| letter.header(name).map(Bytes::copy_from_slice);
    let received_at = letter
        .text_header(headers::CE_TIME)
        .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
        .map_or(letter.written_at, |time| time.to_utc());
    Arrival {
        // The ingress always writes one, and CloudEvents require it.
        source: owned(headers::CE_SOURCE).unwrap_or(Bytes::from_static(b"unknown")),
        received_at,
        traceparent: owned(headers::TRACEPARENT),
    }
}
