//! Turns a push into the record to store: topic, key, value and `CloudEvents`
//! headers.
//!
//! Pure: knows nothing of HTTP or of a broker. The value is always the
//! sender's bytes. Key, type and subject are slices of those bytes unless JSON
//! escapes had to be decoded.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::headers;
use crate::notification::{Category, Notification, NotifyType, Unreadable};
use crate::topics::Topic;

/// The longest content type of a sender that is kept.
pub(crate) const MAX_CONTENT_TYPE_BYTES: usize = 256;

/// A record to store in one of the ingress's topics.
///
/// Both constructors read topic, key and headers from the push itself, so that
/// no record can contradict its value.
#[derive(Debug, Clone)]
pub struct KeyedRecord {
    topic: Topic,
    notify_type: NotifyType,
    key: Option<Bytes>,
    value: Bytes,
    headers: RecordHeaders,
}

/// The headers of a record.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every record has the large one"
)]
enum RecordHeaders {
    /// Those of a push that has just arrived.
    New {
        event: CloudEvent,
        dead_letter: Option<DeadLetter>,
    },
    /// Names and values as they were made by an earlier process.
    Kept(Vec<(String, Bytes)>),
}

/// How a push reached northbridge: what the headers say beyond its body.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The path as configured, without a token: the event's `ce_source`.
    pub source: Bytes,
    /// When the whole body had arrived: the event's `ce_time`.
    pub received_at: DateTime<Utc>,
    /// The request's `traceparent`, if it was well-formed; of a push that is traced, that
    /// of the span that sends the record.
    pub traceparent: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct CloudEvent {
    id: [u8; 32],
    event_type: Bytes,
    subject: Option<Bytes>,
    arrival: Arrival,
}

#[derive(Debug, Clone)]
struct DeadLetter {
    content_type: Bytes,
    reason: &'static str,
    detail: String,
}

impl KeyedRecord {
    /// Makes the record of a push that could be read.
    pub fn from_notification(
        body: &Bytes,
        notification: &Notification<'_>,
        arrival: Arrival,
    ) -> Self {
        let topic = match notification.category() {
            Category::CommandStatus => Topic::CommandStatus,
            Category::UpgradeResult => Topic::UpgradeResult,
            Category::Notifications => Topic::Notifications,
        };
        Self {
            topic,
            notify_type: notification.subject().notify_type(),
            key: notification.subject().key().map(|key| share(body, key)),
            value: body.clone(),
            headers: RecordHeaders::New {
                event: CloudEvent {
                    id: content_id(body),
                    event_type: share(body, notification.subject().type_name()),
                    subject: notification.subject().device_id().map(|id| share(body, id)),
                    arrival,
                },
                dead_letter: None,
            },
        }
    }

    /// Makes the dead letter of a push that could not be read: the bytes as
    /// received, keyed if an id could be read. `content_type` is the sender's own.
    pub(crate) fn from_unreadable(
        body: &Bytes,
        unreadable: &Unreadable<'_>,
        arrival: Arrival,
        content_type: Option<&[u8]>,
    ) -> Self {
        Self {
            topic: Topic::DeadLetter,
            notify_type: unreadable.subject().notify_type(),
            key: unreadable.subject().key().map(|key| share(body, key)),
            value: body.clone(),
            headers: RecordHeaders::New {
                event: CloudEvent {
                    id: content_id(body),
                    event_type: share(body, unreadable.subject().type_name()),
                    subject: unreadable.subject().device_id().map(|id| share(body, id)),
                    arrival,
                },
                dead_letter: Some(DeadLetter {
                    content_type: presentable_type(content_type),
                    reason: unreadable.reason(),
                    detail: unreadable.to_string(),
                }),
            },
        }
    }

    /// A record that an earlier process made, with the headers that it gave it.
    pub(crate) fn kept(
        topic: Topic,
        key: Option<Bytes>,
        value: Bytes,
        headers: Vec<(String, Bytes)>,
    ) -> Self {
        Self {
            topic,
            notify_type: NotifyType::Other,
            key,
            value,
            headers: RecordHeaders::Kept(headers),
        }
    }

    pub(crate) fn topic(&self) -> Topic {
        self.topic
    }

    pub(crate) fn notify_type(&self) -> NotifyType {
        self.notify_type
    }

    /// The key. The producer may choose any partition for a record without one.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    pub(crate) fn key_bytes(&self) -> Option<Bytes> {
        self.key.clone()
    }

    /// The push's body, byte for byte after decompression.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    pub(crate) fn value_bytes(&self) -> Bytes {
        self.value.clone()
    }

    /// One of [`Cause::REASONS`](crate::notification::Cause::REASONS) if the
    /// record is a dead letter.
    pub(crate) fn dead_letter_reason(&self) -> Option<&'static str> {
        match &self.headers {
            RecordHeaders::New { dead_letter, .. } => {
                dead_letter.as_ref().map(|letter| letter.reason)
            }
            RecordHeaders::Kept(_) => None,
        }
    }

    /// Makes whoever reads the record continue another span than the request's. A record
    /// that an earlier process made keeps what it has.
    pub(crate) fn set_traceparent(&mut self, traceparent: Bytes) {
        match &mut self.headers {
            RecordHeaders::New { event, .. } => event.arrival.traceparent = Some(traceparent),
            RecordHeaders::Kept(_) => {}
        }
    }

    /// When the push was received; the epoch if that is not known.
    pub(crate) fn received_at(&self) -> DateTime<Utc> {
        match &self.headers {
            RecordHeaders::New { event, .. } => event.arrival.received_at,
            RecordHeaders::Kept(_) => DateTime::UNIX_EPOCH,
        }
    }

    /// Adds the name and value of every header to `headers`, in the order in
    /// which they are written.
    pub(crate) fn fold_headers<H>(
        &self,
        headers: H,
        mut add: impl FnMut(H, &str, &[u8]) -> H,
    ) -> H {
        let (event, dead_letter) = match &self.headers {
            RecordHeaders::New { event, dead_letter } => (event, dead_letter),
            RecordHeaders::Kept(kept) => {
                return kept
                    .iter()
                    .fold(headers, |headers, (name, value)| add(headers, name, value));
            }
        };
        let CloudEvent {
            id,
            event_type,
            subject,
            arrival,
        } = event;
        let received_at = arrival.received_at;
        let time = received_at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let mut headers = add(headers, headers::CE_SPECVERSION, b"1.0");
        headers = add(headers, headers::CE_ID, id);
        headers = add(headers, headers::CE_SOURCE, &arrival.source);
        headers = add(headers, headers::CE_TYPE, event_type);
        if let Some(subject) = subject {
            headers = add(headers, headers::CE_SUBJECT, subject);
        }
        headers = add(headers, headers::CE_TIME, time.as_bytes());
        let content_type = dead_letter
            .as_ref()
            .map_or(&b"application/json"[..], |letter| &letter.content_type);
        headers = add(headers, headers::CONTENT_TYPE, content_type);
        if let Some(traceparent) = &arrival.traceparent {
            headers = add(headers, headers::TRACEPARENT, traceparent);
        }
        if let Some(letter) = dead_letter {
            headers = add(headers, headers::REASON, letter.reason.as_bytes());
            headers = add(headers, headers::DETAIL, letter.detail.as_bytes());
        }
        headers
    }
}

/// The sender's content type, if any consumer can show it.
fn presentable_type(content_type: Option<&[u8]>) -> Bytes {
    let is_visible = |byte: &u8| matches!(byte, b' '..=b'~');
    content_type
        .filter(|text| (1..=MAX_CONTENT_TYPE_BYTES).contains(&text.len()))
        .filter(|text| text.iter().all(is_visible))
        .map_or(
            Bytes::from_static(b"application/octet-stream"),
            Bytes::copy_from_slice,
        )
}

/// Hashes the body to 128 bits in hex: equal exactly for a repeated push.
///
/// BLAKE3, so that nobody can craft a push with the hash of another one, which
/// consumers would drop as a repeat.
fn content_id(body: &[u8]) -> [u8; 32] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let hash = blake3::hash(body);
    let mut id = [0; 32];
    for (pair, byte) in id.chunks_exact_mut(2).zip(hash.as_bytes()) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 0x0f)];
    }
    id
}

/// Shares the body's memory if `text` lies in it; else copies, because the
/// reader had to decode JSON escapes, or the text is a constant.
fn share(body: &Bytes, text: &str) -> Bytes {
    if contains(body, text.as_bytes()) {
        body.slice_ref(text.as_bytes())
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    let body = body.as_ptr_range();
    let text = text.as_ptr_range();
    body.start <= text.start && text.end <= body.end
}
