//! What stands in the dead-letter topic: dead letters, and the marks of those
//! that were replayed.

use std::fmt;

use chrono::{DateTime, Utc};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

/// On a mark: the dead letter it is about.
const REPLAYED: &str = "northbridge-replayed";
/// On a mark: the topic that the dead letter was sent to.
const REPLAYED_TO: &str = "northbridge-replayed-to";
/// On a record that was sent: the dead letter it comes from.
const REPLAYED_FROM: &str = "northbridge-replayed-from";

/// The place of a record in the dead-letter topic, written `partition/offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// One record of the dead-letter topic.
#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// The dead letter of this place was replayed.
    Mark(Place),
    /// A dead letter.
    DeadLetter(DeadLetter<'a>),
}

/// A record that was not understood, with what is known about it.
#[derive(Debug)]
pub(super) struct DeadLetter<'a> {
    pub(super) place: Place,
    pub(super) written_at: DateTime<Utc>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: Vec<Header<'a, &'a [u8]>>,
}

impl<'a> Entry<'a> {
    /// Reads a record of the dead-letter topic.
    pub(super) fn of<M: Message>(record: &'a M) -> Self
    where
        M::Headers: 'a,
    {
        let letter = DeadLetter {
            place: Place {
                partition: record.partition(),
                offset: record.offset(),
            },
            written_at: record
                .timestamp()
                .to_millis()
                .and_then(DateTime::from_timestamp_millis)
                .unwrap_or_default(),
            key: record.key(),
            value: record.payload(),
            headers: record
                .headers()
                .map_or_else(Vec::new, |h| h.iter().collect()),
        };
        match letter.text(REPLAYED).and_then(Place::parse) {
            Some(place) => Self::Mark(place),
            None => Self::DeadLetter(letter),
        }
    }
}

impl<'a> DeadLetter<'a> {
    /// Why it is one, fit for a terminal whatever a foreign writer wrote.
    pub(super) fn reason(&self) -> String {
        let reason = self.header("northbridge-reason").unwrap_or(b"none");
        reason.escape_ascii().to_string()
    }

    /// The topic of the stream that it comes from; none from the ingress.
    pub(super) fn stream_topic(&self) -> Option<&'a str> {
        self.text("northbridge-topic")
    }

    /// A header's value.
    pub(super) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.key == name)?.value
    }

    /// A header's value that is text.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// The headers that it had before it became a dead letter.
    pub(super) fn original_headers(&self) -> OwnedHeaders {
        let own = |header: &&Header<'_, _>| !header.key.starts_with("northbridge-");
        let add = |headers: OwnedHeaders, header: &Header<'_, &[u8]>| {
            let &Header { key, value } = header;
            headers.insert(Header { key, value })
        };
        let headers = self.headers.iter().filter(own);
        headers.fold(OwnedHeaders::new(), add)
    }
}

impl Place {
    /// The headers of the mark for this place.
    pub(super) fn mark(self, topic: &str) -> OwnedHeaders {
        let place = self.to_string();
        [(REPLAYED, place.as_str()), (REPLAYED_TO, topic)]
            .into_iter()
            .fold(OwnedHeaders::new(), with_header)
    }

    /// Says on a record that it comes from this place.
    pub(super) fn sign(self, headers: OwnedHeaders) -> OwnedHeaders {
        with_header(headers, (REPLAYED_FROM, &self.to_string()))
    }

    fn parse(text: &str) -> Option<Self> {
        let (partition, offset) = text.split_once('/')?;
        Some(Self {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

fn with_header(headers: OwnedHeaders, (key, value): (&str, &str)) -> OwnedHeaders {
    headers.insert(Header {
        key,
        value: Some(value),
    })
}
