//! Where a push goes: `Notification → KeyedRecord`, that is topic, key, value
//! and CloudEvents headers.
//!
//! Pure: it knows nothing of HTTP and nothing of a broker. The value is always
//! the sender's bytes; key, type and subject are slices of them wherever they
//! stand there literally.

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};

use crate::notification::{Notification, NotifyType, Stream, Unreadable};
use crate::topics::Topic;

/// A record that is ready for Kafka, valid by construction.
#[derive(Debug, Clone)]
pub struct KeyedRecord {
    topic: Topic,
    notify_type: NotifyType,
    key: Option<Bytes>,
    value: Bytes,
    event: CloudEvent,
    dead_letter: Option<DeadLetter>,
}

/// What the listener knows about how a push came in.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The configured path that took it, never the token in it: the event's `ce_source`.
    pub source: Bytes,
    /// When its head was complete.
    pub received_at: DateTime<Utc>,
    /// Its `traceparent`, where it had a well-formed one.
    pub traceparent: Option<Bytes>,
}

#[derive(Debug, Clone)]
struct CloudEvent {
    id: [u8; 32],
    event_type: Bytes,
    subject: Option<Bytes>,
    receipt: Receipt,
}

#[derive(Debug, Clone)]
struct DeadLetter {
    reason: &'static str,
    detail: String,
}

impl KeyedRecord {
    /// The record of a push that was understood.
    pub fn of_notification(
        body: &Bytes,
        notification: &Notification<'_>,
        receipt: Receipt,
    ) -> Self {
        let topic = match notification.stream() {
            Stream::CommandStatus => Topic::CommandStatus,
            Stream::UpgradeResult => Topic::UpgradeResult,
            Stream::Notifications => Topic::Notifications,
        };
        Self {
            topic,
            notify_type: notification.subject().notify_type(),
            key: notification.subject().key().map(|key| part(body, key)),
            value: body.clone(),
            event: CloudEvent {
                id: content_id(body),
                event_type: part(body, notification.subject().type_name()),
                subject: notification.subject().device_id().map(|id| part(body, id)),
                receipt,
            },
            dead_letter: None,
        }
    }

    /// The dead letter of a push that could not be understood: the bytes as
    /// they came, under the key as far as it is known.
    pub fn of_unreadable(body: &Bytes, unreadable: &Unreadable<'_>, receipt: Receipt) -> Self {
        Self {
            topic: Topic::DeadLetter,
            notify_type: unreadable.subject().notify_type(),
            key: unreadable.subject().key().map(|key| part(body, key)),
            value: body.clone(),
            event: CloudEvent {
                id: content_id(body),
                event_type: part(body, unreadable.subject().type_name()),
                subject: unreadable.subject().device_id().map(|id| part(body, id)),
                receipt,
            },
            dead_letter: Some(DeadLetter {
                reason: unreadable.reason(),
                detail: unreadable.to_string(),
            }),
        }
    }

    /// The topic it belongs to.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// The type of the push, as far as known.
    pub fn notify_type(&self) -> NotifyType {
        self.notify_type
    }

    /// The key; records without one go to any partition.
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_deref()
    }

    /// The key, shared.
    pub(crate) fn key_bytes(&self) -> Option<Bytes> {
        self.key.clone()
    }

    /// The push, byte for byte.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// The push, shared.
    pub(crate) fn value_bytes(&self) -> Bytes {
        self.value.clone()
    }

    /// Why it is a dead letter, where it is one: from a closed list.
    pub fn dead_letter_reason(&self) -> Option<&'static str> {
        self.dead_letter.as_ref().map(|letter| letter.reason)
    }

    /// Gives `each` every header: CloudEvents 1.0 in Kafka's binary binding,
    /// then those of a dead letter.
    pub fn headers(&self, mut each: impl FnMut(&'static str, &[u8])) {
        let event = &self.event;
        let received_at = event
            .receipt
            .received_at
            .to_rfc3339_opts(SecondsFormat::Millis, true);
        each("ce_specversion", b"1.0");
        each("ce_id", &event.id);
        each("ce_source", &event.receipt.source);
        each("ce_type", &event.event_type);
        if let Some(subject) = &event.subject {
            each("ce_subject", subject);
        }
        each("ce_time", received_at.as_bytes());
        each("content-type", b"application/json");
        if let Some(traceparent) = &event.receipt.traceparent {
            each("traceparent", traceparent);
        }
        if let Some(letter) = &self.dead_letter {
            each("northbridge-reason", letter.reason.as_bytes());
            each("northbridge-detail", letter.detail.as_bytes());
        }
    }
}

/// A 128-bit hash of the body in hex: equal exactly for a repeated push.
///
/// BLAKE3, so that nobody can craft a push that consumers would drop as the
/// repeat of another.
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

/// A text found in the body, without a copy where it stands there literally.
fn part(body: &Bytes, text: &str) -> Bytes {
    if within(body, text.as_bytes()) {
        body.slice_ref(text.as_bytes())
    } else {
        Bytes::copy_from_slice(text.as_bytes())
    }
}

fn within(body: &[u8], part: &[u8]) -> bool {
    let body = body.as_ptr_range();
    let part = part.as_ptr_range();
    body.start <= part.start && part.end <= body.end
}
