//! The records that cannot be applied: why, and the dead letter of each.

use rdkafka::message::{BorrowedMessage, Headers, Message, OwnedHeaders};

use super::WorkerConfig;
use crate::headers;
use crate::kafka;
use crate::kafka::transactions::Write;
use crate::streams::states::poison::Poison;
use crate::streams::store::UnreadableState;

/// An upper bound of the bytes that frame a record, or one of its headers.
const FRAMING_BYTES: usize = 128;

/// Why a record cannot be applied, however often it is retried.
#[derive(Debug, Clone, Copy)]
pub(super) enum DeadLetterReason {
    /// The record itself is invalid.
    Poison(Poison),
    /// The state, or the record for the forward topic, would exceed the maximum
    /// record size.
    StateTooLarge,
    /// The state topic has a value under the record's key that is not a state.
    StateUnreadable,
}

impl From<UnreadableState> for DeadLetterReason {
    fn from(UnreadableState: UnreadableState) -> Self {
        Self::StateUnreadable
    }
}

impl DeadLetterReason {
    /// The value of the header `northbridge-reason`, from a closed list.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Poison(poison) => poison.reason(),
            Self::StateTooLarge => "state-too-large",
            Self::StateUnreadable => "state-unreadable",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::Poison(poison) => poison.to_string(),
            Self::StateTooLarge => {
                "the state would exceed the maximum record size of its topic".to_owned()
            }
            Self::StateUnreadable => UnreadableState.to_string(),
        }
    }

    /// The dead letter of an input record: its key, value and headers
    /// unchanged, with the reason and its origin as further headers.
    ///
    /// A record so large that the further headers do not fit becomes a dead
    /// letter of headers alone: a write that the broker rejects would stop the
    /// stream for as long as the record exists. The input topic still has its
    /// value.
    pub(super) fn write<'a>(
        self,
        record: &'a BorrowedMessage<'_>,
        config: &'a WorkerConfig,
    ) -> Write<'a> {
        let originals =
            kafka::headers::originals(record.headers().into_iter().flat_map(Headers::iter));
        let whole = Write {
            topic: &config.dead_letter_topic,
            partition: None,
            key: record.key(),
            value: record.payload(),
            headers: Some(self.append_headers(originals, record, config)),
        };
        let bytes = u64::try_from(bytes_of(&whole)).unwrap_or(u64::MAX);
        if bytes <= config.max_dead_letter_bytes {
            return whole;
        }
        Write {
            key: None,
            value: None,
            headers: Some(self.append_headers(OwnedHeaders::new(), record, config)),
            ..whole
        }
    }

    fn append_headers(
        self,
        originals: OwnedHeaders,
        record: &BorrowedMessage<'_>,
        config: &WorkerConfig,
    ) -> OwnedHeaders {
        let further = [
            (headers::REASON, self.label()),
            (headers::DETAIL, &self.detail()),
            (headers::TOPIC, &config.input_topic),
            (headers::PARTITION, &record.partition().to_string()),
            (headers::OFFSET, &record.offset().to_string()),
        ];
        kafka::headers::append(originals, &further)
    }
}

fn bytes_of(write: &Write<'_>) -> usize {
    let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
    let headers = write.headers.iter().flat_map(Headers::iter);
    let headers = headers.map(|header| header.key.len() + length(header.value) + FRAMING_BYTES);
    length(write.key) + length(write.value) + headers.sum::<usize>() + FRAMING_BYTES
}
