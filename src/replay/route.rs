//! Where a dead letter belongs: `DeadLetter → Fate`.
//!
//! It is read again by the present rules: those of the ingress, or of the
//! stream that it comes from. Pure: what topics there are is told to it.

use std::collections::HashSet;

use bytes::Bytes;
use chrono::DateTime;
use rdkafka::message::{Header, OwnedHeaders};

use super::dead_letter::DeadLetter;
use crate::config::Settings;
use crate::notification::{self, Rules, Unreadable, Validation};
use crate::record::{KeyedRecord, Receipt};
use crate::streams::push::Poison;
use crate::streams::stream::{CommandStatus, Stream, UpgradeOperations, UpgradeResults};
use crate::streams::time;
use crate::topics::{self, Topic};

/// Topics that a dead letter can go back to.
pub(super) const TARGETS: [Topic; 4] = [
    Topic::CommandStatus,
    Topic::UpgradeResult,
    Topic::Notifications,
    Topic::UpgradeDelta,
];

/// The inputs of the streams, and what each stream says to a record.
const STREAMS: [(Topic, Reads); 3] = [
    (CommandStatus::INPUT, poison_of::<CommandStatus>),
    (UpgradeResults::INPUT, poison_of::<UpgradeResults>),
    (UpgradeOperations::INPUT, poison_of::<UpgradeOperations>),
];

type Reads = fn(&[u8]) -> Option<Poison>;

/// Knows the present rules.
#[derive(Debug)]
pub(super) struct Router {
    rules: Rules,
    as_is: bool,
    max_body_bytes: usize,
    targets: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    topic: Topic,
    name: String,
    is_there: bool,
}

/// What is to become of a dead letter.
#[derive(Debug)]
pub(super) enum Fate {
    /// It goes to where it belongs.
    Goes(Outgoing),
    /// It stays where it is.
    Stays(Why),
}

/// A record as it is to be sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) topic: String,
    pub(super) key: Option<Bytes>,
    pub(super) value: Option<Bytes>,
    pub(super) headers: OwnedHeaders,
}

/// Why a dead letter stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    /// The ingress would not place it today either.
    #[error("still unreadable: {0}")]
    Unreadable(&'static str),
    /// Its stream would not take it today either.
    #[error("still poison: {0}")]
    Poison(&'static str),
    /// It names a topic that no stream reads under the present settings.
    #[error("no stream reads the topic it came from")]
    NoStream,
    /// Its topic is not on the cluster.
    #[error("{0} does not exist")]
    NoTopic(String),
    /// The limits behind the ingress have become lower since.
    #[error("larger than http.max_body_bytes")]
    TooLarge,
}

impl Router {
    /// A router under these settings, on a cluster with these topics.
    pub(super) fn new(settings: &Settings, as_is: bool, there: &HashSet<Topic>) -> Self {
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
                    is_there: there.contains(&topic),
                })
                .into(),
        }
    }

    /// What is to become of a dead letter.
    pub(super) fn fate(&self, letter: &DeadLetter<'_>) -> Fate {
        if letter.value.map_or(0, <[u8]>::len) > self.max_body_bytes {
            return Fate::Stays(Why::TooLarge);
        }
        let routed = match letter.stream_topic() {
            Some(topic) => self.back_to_stream(letter, topic),
            None => self.onward_from_ingress(letter),
        };
        routed.map_or_else(Fate::Stays, |mut outgoing| {
            outgoing.headers = letter.place.sign(outgoing.headers);
            Fate::Goes(outgoing)
        })
    }

    /// As it was, under its own key and headers.
    fn back_to_stream(&self, letter: &DeadLetter<'_>, name: &str) -> Result<Outgoing, Why> {
        let (target, reads) = self.stream(name).ok_or(Why::NoStream)?;
        if let Some(poison) = reads(letter.value.unwrap_or_default())
            && !self.as_is
        {
            return Err(Why::Poison(poison.reason()));
        }
        Ok(Outgoing {
            topic: target.name()?,
            key: letter.key.map(Bytes::copy_from_slice),
            value: letter.value.map(Bytes::copy_from_slice),
            headers: letter.original_headers(),
        })
    }

    fn stream(&self, name: &str) -> Option<(&Target, Reads)> {
        let target = self.targets.iter().find(|target| target.name == name)?;
        let (_, reads) = STREAMS.iter().find(|(topic, _)| *topic == target.topic)?;
        Some((target, *reads))
    }

    /// As the ingress would store it if it came in today, with the time at
    /// which it came in.
    fn onward_from_ingress(&self, letter: &DeadLetter<'_>) -> Result<Outgoing, Why> {
        let body = Bytes::copy_from_slice(letter.value.unwrap_or_default());
        let receipt = receipt(letter);
        let record = match notification::read(&body, self.rules) {
            Ok(notification) => KeyedRecord::of_notification(&body, &notification, receipt),
            Err(unreadable) if self.as_is => self.as_is(&body, &unreadable, receipt),
            Err(unreadable) => return Err(Why::Unreadable(unreadable.reason())),
        };
        let topic = if record.dead_letter_reason().is_some() {
            // It cannot be placed: the topic of all that has no other.
            Topic::Notifications
        } else {
            record.topic()
        };
        let target = self.targets.iter().find(|target| target.topic == topic);
        Ok(Outgoing {
            topic: target.ok_or(Why::NoStream)?.name()?,
            key: record.key_bytes(),
            value: Some(record.value_bytes()),
            headers: headers(&record),
        })
    }

    /// What only a strict table keeps back can be placed all the same.
    fn as_is(&self, body: &Bytes, unreadable: &Unreadable<'_>, receipt: Receipt) -> KeyedRecord {
        let tolerant = Rules {
            validation: Validation::Tolerant,
            ..self.rules
        };
        match notification::read(body, tolerant) {
            Ok(notification) => KeyedRecord::of_notification(body, &notification, receipt),
            Err(_) => KeyedRecord::of_unreadable(body, unreadable, receipt),
        }
    }
}

impl Target {
    fn name(&self) -> Result<String, Why> {
        let name = self.name.clone();
        if self.is_there {
            Ok(name)
        } else {
            Err(Why::NoTopic(name))
        }
    }
}

/// When it was received poisons no record.
fn poison_of<S: Stream>(value: &[u8]) -> Option<Poison> {
    S::decode(value, || time::Receipt::of_record(None, None)).err()
}

fn receipt(letter: &DeadLetter<'_>) -> Receipt {
    let owned = |name| letter.header(name).map(Bytes::copy_from_slice);
    let received_at = letter
        .text("ce_time")
        .and_then(|time| DateTime::parse_from_rfc3339(time).ok())
        .map_or(letter.written_at, |time| time.to_utc());
    Receipt {
        // Only a foreign writer leaves it out; CloudEvents ask for one.
        source: owned("ce_source").unwrap_or(Bytes::from_static(b"unknown")),
        received_at,
        traceparent: owned("traceparent"),
    }
}

fn headers(record: &KeyedRecord) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new();
    record.headers(|key, value| {
        let value = Some(value);
        headers = std::mem::take(&mut headers).insert(Header { key, value });
    });
    headers
}
