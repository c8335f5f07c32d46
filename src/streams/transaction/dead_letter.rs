//! The records that cannot be applied: why, and what is written of them.

use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};

use crate::kafka::transactions::Write;
use crate::streams::push::Poison;
use crate::streams::store::Unreadable;

/// More than the framing of a record, or of a header, takes, in bytes.
const FRAMING_BYTES: usize = 128;

/// Why a record is a dead letter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unapplied {
    Poison(Poison),
    StateTooLarge,
    StateUnreadable,
}

impl From<Unreadable> for Unapplied {
    fn from(Unreadable: Unreadable) -> Self {
        Self::StateUnreadable
    }
}

impl Unapplied {
    /// The word for the header `northbridge-reason`.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Poison(poison) => poison.reason(),
            Self::StateTooLarge => "state-too-large",
            Self::StateUnreadable => "state-unreadable",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::Poison(poison) => poison.to_string(),
            Self::StateTooLarge => "the state would be larger than its topic takes".to_owned(),
            Self::StateUnreadable => Unreadable.to_string(),
        }
    }

    /// The dead letter of a record from `topic`: the record as it is, with the
    /// reason and where it stands.
    ///
    /// One that leaves no room for those is named by them alone, or it would
    /// stop the stream for good; its topic still has it.
    pub(super) fn dead_letter<'a>(
        self,
        record: &'a BorrowedMessage<'_>,
        input_topic: &str,
        topic: &'a str,
        max_record_bytes: u64,
    ) -> Write<'a> {
        let whole = Write {
            topic,
            partition: None,
            key: record.key(),
            value: record.payload(),
            headers: Some(self.headers(copied_headers(record), record, input_topic)),
        };
        if u64::try_from(bytes(&whole)).is_ok_and(|bytes| bytes <= max_record_bytes) {
            return whole;
        }
        Write {
            key: None,
            value: None,
            headers: Some(self.headers(OwnedHeaders::new(), record, input_topic)),
            ..whole
        }
    }

    fn headers(
        self,
        copied: OwnedHeaders,
        record: &BorrowedMessage<'_>,
        topic: &str,
    ) -> OwnedHeaders {
        let own = [
            ("northbridge-reason", self.reason().to_owned()),
            ("northbridge-detail", self.detail()),
            ("northbridge-topic", topic.to_owned()),
            ("northbridge-partition", record.partition().to_string()),
            ("northbridge-offset", record.offset().to_string()),
        ];
        own.iter().fold(copied, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}

fn copied_headers(record: &BorrowedMessage<'_>) -> OwnedHeaders {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    headers
        .filter(|header| !header.key.starts_with("northbridge-"))
        .fold(OwnedHeaders::new(), OwnedHeaders::insert)
}

fn bytes(write: &Write<'_>) -> usize {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers = write.headers.iter().flat_map(Headers::iter);
    let headers = headers.map(|header| header.key.len() + length(header.value) + FRAMING_BYTES);
    length(write.key) + length(write.value) + headers.sum::<usize>() + FRAMING_BYTES
}
