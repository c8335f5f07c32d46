//! The records of the dead-letter topic: dead letters, and the markers of those
//! that were replayed.

use std::fmt;

use chrono::{DateTime, Utc};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};

use crate::headers::{REASON, REPLAYED, REPLAYED_FROM, REPLAYED_TO, TOPIC};
use crate::kafka::headers;

/// The place of a record in the dead-letter topic, written `partition/offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Location {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

#[derive(Debug)]
pub(super) enum Entry<'a> {
    /// Marks the dead letter at this location as replayed.
    Marker(Location),
    DeadLetter(DeadLetter<'a>),
}

#[derive(Debug)]
pub(super) struct DeadLetter<'a> {
    pub(super) location: Location,
    /// The record's timestamp in the dead-letter topic, by which `--since` and
    /// `--until` select.
    pub(super) written_at: DateTime<Utc>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: Vec<Header<'a, &'a [u8]>>,
}

impl<'a> Entry<'a> {
    pub(super) fn of<M: Message>(record: &'a M) -> Self
    where
        M::Headers: 'a,
    {
        let letter = DeadLetter {
            location: Location {
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
                .map_or_else(Vec::new, |headers| headers.iter().collect()),
        };
        match letter.text_header(REPLAYED).and_then(Location::parse) {
            Some(location) => Self::Marker(location),
            None => Self::DeadLetter(letter),
        }
    }
}

impl<'a> DeadLetter<'a> {
    /// Returns why the record is a dead letter, `none` if it does not say.
    /// Escapes what is not printable ASCII, because anybody may write to the
    /// topic and a terminal shows the text.
    pub(super) fn reason(&self) -> String {
        let reason = self.header(REASON).unwrap_or(b"none");
        reason.escape_ascii().to_string()
    }

    /// Returns the topic from which a stream read the record, or `None` if the
    /// ingress wrote the dead letter.
    pub(super) fn stream_topic(&self) -> Option<&'a str> {
        self.text_header(TOPIC)
    }

    pub(super) fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|header| header.key == name)?.value
    }

    /// Returns the value of a header if it is UTF-8.
    pub(super) fn text_header(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.header(name)?).ok()
    }

    /// Copies the headers that the record had before it became a dead letter.
    pub(super) fn original_headers(&self) -> OwnedHeaders {
        headers::originals(self.headers.iter().cloned())
    }
}

impl Location {
    /// Returns the headers of the marker for this dead letter, which was sent
    /// to `topic`.
    pub(super) fn marker_headers(self, topic: &str) -> OwnedHeaders {
        let location = self.to_string();
        headers::append(
            OwnedHeaders::new(),
            &[(REPLAYED, &location), (REPLAYED_TO, topic)],
        )
    }

    /// Appends the header that names this dead letter as a record's origin.
    pub(super) fn append_origin(self, headers: OwnedHeaders) -> OwnedHeaders {
        headers::append(headers, &[(REPLAYED_FROM, &self.to_string())])
    }

    fn parse(text: &str) -> Option<Self> {
        let (partition, offset) = text.split_once('/')?;
        Some(Self {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}
